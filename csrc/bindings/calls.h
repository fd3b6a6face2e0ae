// What the entry points of all domains share: where the tensors of a call must be, the checks of dtypes, and the way
// from a dtype to a kernel's arithmetic type.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "bindings/tensor_caster.h"
#include "bindings/unlocked.h"
#include "common/checks.h"
#include "common/cpu_level.h"
#include "common/place.h"
#include "common/threads.h"

namespace fastpose::bindings {

// Each operation is bound once, as a template over one of these targets. They differ in where tensors must be (on the
// CPU, or on the CUDA device of the call's first one) and in the call's last argument.
struct Cpu {
    using Where = int;  // number of threads

    explicit Cpu(const TensorView&) {}
    void check(const char* argument, const TensorView& tensor) const { check_cpu(argument, tensor); }
    int place(int threads) const { return std::clamp(threads, 1, most_threads); }
};

#ifdef FASTPOSE_WITH_CUDA
struct Cuda {
    using Where = uintptr_t;  // the raw stream

#ifdef FASTPOSE_CUDA_EMULATED  // the tests' build, whose kernels run on CPU tensors
    explicit Cuda(const TensorView&) : device_(0) {}
    void check(const char* argument, const TensorView& tensor) const { check_cpu(argument, tensor); }
#else
    explicit Cuda(const TensorView& first) : device_(first.device == Device::cuda ? first.device_index : -1) {}
    void check(const char* argument, const TensorView& tensor) const { check_cuda_device(argument, tensor, device_); }
#endif
    CudaPlace place(uintptr_t stream) const { return {device_, reinterpret_cast<void*>(stream)}; }

   private:
    int device_;
};
#endif

inline void require(const char* name, const TensorView& tensor) {
    if (!tensor) throw std::invalid_argument(std::string(name) + ": expected a tensor, got None");
}

// Large tensors may be narrower than the arithmetic: 16 bits beside float32.
inline void check_element(const char* name, const TensorView& tensor, DType arithmetic) {
    const bool narrow = tensor.dtype == DType::bfloat16 || tensor.dtype == DType::float16;
    if (tensor && tensor.dtype != arithmetic && !(narrow && arithmetic == DType::float32))
        throw std::invalid_argument(std::string(name) + ": expected " + name_of(arithmetic) +
                                    (arithmetic == DType::float32 ? " or 16 bits" : "") + ", got " +
                                    name_of(tensor.dtype));
}

// The arithmetic that a tensor's element type asks for.
inline DType arithmetic_of(const char* name, const TensorView& tensor) {
    require(name, tensor);
    const DType arithmetic = tensor.dtype == DType::float64 ? DType::float64 : DType::float32;
    check_element(name, tensor, arithmetic);
    return arithmetic;
}

inline DType real_dtype(const char* name, const TensorView& tensor) {
    require(name, tensor);
    if (tensor.dtype != DType::float32 && tensor.dtype != DType::float64)
        throw std::invalid_argument(std::string(name) + ": expected float32 or float64, got " + name_of(tensor.dtype));
    return tensor.dtype;
}

template <class Target>
void check_tensor(const Target& target, const char* name, const TensorView& tensor, DType dtype,
                  std::initializer_list<int64_t> sizes) {
    if (!tensor) return;
    target.check(name, tensor);
    check_dtype(name, tensor, dtype);
    check_shape(name, tensor, sizes);
}

// Calls run.operator()<float>() or <double>() with the interpreter lock released.
template <class Run>
void for_real_type(DType dtype, const Run& run) {
    const Unlocked unlocked;
    if (dtype == DType::float32)
        run.template operator()<float>();
    else
        run.template operator()<double>();
}

// Each defines its domain's functions in a module; attention.cpp, poses.cpp, heatmap.cpp, decode.cpp, geometry.cpp.
void bind_attention(py::module_& module);
void bind_poses(py::module_& module);
template <class Target>
void bind_heatmap(py::module_& module);
template <class Target>
void bind_decode(py::module_& module);
template <class Target>
void bind_geometry(py::module_& module);

// The same files' calls in one step (direct.h), under the names of the public functions.
void bind_direct_attention(py::module_& module);
void bind_direct_heatmap(py::module_& module);
void bind_direct_decode(py::module_& module);
void bind_direct_geometry(py::module_& module);

}  // namespace fastpose::bindings
