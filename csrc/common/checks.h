// Checks at the door of every entry point, in the words of the Python layer: argument, expected, found.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

#include "common/tensor_view.h"

namespace fastpose {

inline const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::float32: return "float32";
        case DType::float64: return "float64";
        case DType::bfloat16: return "bfloat16";
        case DType::float16: return "float16";
        case DType::int64: return "int64";
        case DType::boolean: return "bool";
        default: return "another dtype";
    }
}

inline std::string spell(const int64_t* sizes, int rank) {
    std::string text = "(";
    for (int axis = 0; axis < rank; ++axis) text += (axis ? ", " : "") + std::to_string(sizes[axis]);
    return text + ")";
}

// Rank and sizes; -1 admits any size. An absent optional tensor passes.
inline void check_shape(const char* argument, const TensorView& tensor, std::initializer_list<int64_t> expected) {
    if (!tensor) return;
    bool same = tensor.rank == static_cast<int>(expected.size());
    int axis = 0;
    for (int64_t size : expected) {
        if (!same) break;
        same = size < 0 || tensor.size[axis] == size;
        ++axis;
    }
    if (!same)
        throw std::invalid_argument(std::string(argument) + ": expected " +
                                    spell(expected.begin(), static_cast<int>(expected.size())) + ", got " +
                                    spell(tensor.size, tensor.rank));
}

inline void check_dtype(const char* argument, const TensorView& tensor, DType expected) {
    if (tensor && tensor.dtype != expected)
        throw std::invalid_argument(std::string(argument) + ": expected " + name_of(expected) + ", got " +
                                    name_of(tensor.dtype));
}

inline void check_cpu(const char* argument, const TensorView& tensor) {
    if (tensor && tensor.device != Device::cpu)
        throw std::invalid_argument(std::string(argument) + ": expected a CPU tensor, got one on another device");
}

// A negative device: the call's first tensor is on none.
inline void check_cuda_device(const char* argument, const TensorView& tensor, int device) {
    if (!tensor || (tensor.device == Device::cuda && tensor.device_index == device)) return;
    const std::string expected = device < 0 ? "a CUDA tensor" : "a tensor on cuda:" + std::to_string(device);
    const std::string found = tensor.device == Device::cuda  ? "cuda:" + std::to_string(tensor.device_index)
                              : tensor.device == Device::cpu ? "the CPU"
                                                             : "another device";
    throw std::invalid_argument(std::string(argument) + ": expected " + expected + ", got one on " + found);
}

inline void check_contiguous(const char* argument, const TensorView& tensor) {
    if (tensor && !tensor.contiguous())
        throw std::invalid_argument(std::string(argument) + ": expected a contiguous tensor, got strides " +
                                    spell(tensor.stride, tensor.rank));
}

}  // namespace fastpose
