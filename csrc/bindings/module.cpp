// The Python module fastpose._C: how it was built, and one submodule for each place that kernels run at. Its functions
// are those of attention.cpp, heatmap.cpp, decode.cpp and geometry.cpp; no arithmetic here.

#include <string>

#include "bindings/calls.h"
#include "common/cuda_ready.h"
#include "limits/limits.h"

namespace fastpose::bindings {
namespace {

CpuLevel level_named(const std::string& name) {
    for (CpuLevel level : {CpuLevel::baseline, CpuLevel::avx2, CpuLevel::avx512})
        if (name == name_of(level)) return level;
    throw std::invalid_argument("simd level: expected baseline, avx2 or avx512, got " + name);
}

// False, True, or "emulated" where the kernels for CUDA run on the CPU.
py::object cuda_kernels() {
#if defined(FASTPOSE_CUDA_EMULATED)
    return py::str("emulated");
#elif defined(FASTPOSE_WITH_CUDA)
    return py::bool_(true);
#else
    return py::bool_(false);
#endif
}

// What there is machine code for, as 10 * major + minor.
py::tuple cuda_architectures() {
#ifdef FASTPOSE_CUDA_ARCHITECTURES
    py::list numbers;
    for (int number : {FASTPOSE_CUDA_ARCHITECTURES}) numbers.append(number);
    return py::tuple(numbers);
#else
    return py::tuple();
#endif
}

// Why there are no kernels for CUDA; empty where there are.
std::string cuda_reason() {
#ifdef FASTPOSE_CUDA_REASON
    return FASTPOSE_CUDA_REASON;
#else
    return "";
#endif
}

py::dict build_info() {
    py::dict info;
    info["compiler"] = FASTPOSE_COMPILER;
    info["simd"] = name_of(cpu_level());
    info["widest_simd"] = name_of(widest_cpu_level());
#ifdef _OPENMP
    info["openmp"] = true;
#else
    info["openmp"] = false;
#endif
    info["cuda"] = cuda_kernels();
    info["cuda_architectures"] = cuda_architectures();
    info["cuda_reason"] = cuda_reason();
    return info;
}

double multiply_add(int64_t steps, int threads) {
    const py::gil_scoped_release release;
    return limits::multiply_add(cpu_level(), steps, std::max(threads, 1));
}

template <class Target>
void bind_common(py::module_& module) {
    bind_heatmap<Target>(module);
    bind_decode<Target>(module);
    bind_geometry<Target>(module);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    TorchNames::get();  // now, under the import lock: later two threads might wait for each other
    module.doc() = "Kernels of fastpose; call them through fastpose.ops.";
    module.attr("cuda_kernels") = cuda_kernels();
    module.def("build_info", &build_info);
    module.def("set_simd", [](const std::string& name) { set_cpu_level(level_named(name)); });
    module.def("multiply_add", &multiply_add);
    py::module_ cpu = module.def_submodule("cpu", "On CPU tensors; the last argument is the number of threads.");
    bind_attention(cpu);
    bind_common<Cpu>(cpu);
#ifdef FASTPOSE_WITH_CUDA
    module.def("cuda_problem", &cuda_problem);
    py::module_ cuda = module.def_submodule("cuda", "On CUDA tensors; the last argument is the stream's address.");
    bind_common<Cuda>(cuda);
#endif
}

}  // namespace fastpose::bindings
