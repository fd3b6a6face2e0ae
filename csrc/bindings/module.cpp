// The Python module fastpose._C: how it was built, and one submodule for each place that kernels run at. Its functions
// are those of attention.cpp, heatmap.cpp, decode.cpp, geometry.cpp and poses.cpp; no arithmetic here.

#include <algorithm>
#include <string>

#include "attention/attention_amx.h"
#include "bindings/direct.h"
#include "common/cuda_ready.h"
#include "common/huge_pages.h"
#include "limits/limits.h"

namespace fastpose::bindings {
namespace {

// Counted up whenever a function comes, goes, or takes or means something else; fastpose/_native.py expects it.
constexpr int interface_number = 1;

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
    info["amx"] = attention::bf16_kernels();
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

void advise_huge_pages(const TensorView& tensor) {
    check_cpu("tensor", tensor);
    int64_t numbers = tensor.elements() == 0 ? 0 : 1;  // from the first to the last
    for (int axis = 0; numbers > 0 && axis < tensor.rank; ++axis)
        numbers += (tensor.size[axis] - 1) * tensor.stride[axis];
    prefer_huge_pages(tensor.data, static_cast<size_t>(numbers) * bytes_of(tensor.dtype));
}

double multiply_add(int64_t steps, int threads) {
    const Unlocked unlocked;
    return limits::multiply_add(cpu_level(), steps, Cpu({}).place(threads));
}

bool ordinary(const py::args& tensors) {
    return TorchState::get().undisturbed() && std::all_of(tensors.begin(), tensors.end(), [](py::handle tensor) {
               return tensor.is_none() || is_memory(tensor);
           });
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
    TorchState::get();
    module.doc() = "Kernels of fastpose; call them through fastpose.ops.";
    module.attr("interface") = interface_number;
    module.attr("cuda_kernels") = cuda_kernels();
    module.def("build_info", &build_info);
    module.def("set_simd", [](const std::string& name) { set_cpu_level(level_named(name)); });
    module.def("multiply_add", &multiply_add);
    module.def("prefer_huge_pages", &advise_huge_pages);
    py::module_ cpu = module.def_submodule("cpu", "On CPU tensors; the last argument is the number of threads.");
    bind_attention(cpu);
    bind_poses(cpu);
    bind_common<Cpu>(cpu);
    py::module_ direct = module.def_submodule("direct", "Whole public calls on CPU tensors, or None.");
    bind_direct_attention(direct);
    bind_direct_heatmap(direct);
    bind_direct_decode(direct);
    bind_direct_geometry(direct);
    module.def("ordinary", &ordinary, "Whether these are tensors of no special kind and nothing in torch looks on.");
#ifdef FASTPOSE_WITH_CUDA
    module.def("cuda_problem", &cuda_problem);
    py::module_ cuda = module.def_submodule("cuda", "On CUDA tensors; the last argument is the stream's address.");
    bind_common<Cuda>(cuda);
#endif
}

}  // namespace fastpose::bindings
