// The pairwise descriptor [d, d^2] with d = x_i - x_j, its gradient and the gradient of its gradient.
#pragma once

#include "common/cpu_level.h"
#include "common/tensor_view.h"

namespace fastpose::geometry {

struct Sizes {
    int64_t batch, points, dimensions;
};

// A (B, 2D, P, P) tensor. The element type is float64 where the arithmetic type T is double, else float32, bfloat16 or
// float16.
struct Pairs {
    void* data = nullptr;
    DType dtype = DType::other;
    int64_t batch = 0, channel = 0, row = 0, column = 0;

    template <class E>
    E* at(int64_t b, int64_t c, int64_t i) const {
        return static_cast<E*>(data) + b * batch + c * channel + i * row;
    }
};

template <class T>
struct Forward {
    Sizes size;
    Strided3<const T> joints;  // (B, P, D)
    Pairs out;
};

template <class T>
struct Backward {
    Sizes size;
    Strided3<const T> joints;  // (B, P, D)
    Pairs grad_out;
    Strided3<T> grad_joints;  // (B, P, D)
};

template <class T>
struct DoubleBackward {
    Sizes size;
    Strided3<const T> joints;  // (B, P, D)
    Pairs grad_out;
    Strided3<const T> cot_joints;  // (B, P, D)
    Strided3<T> grad_joints;       // (B, P, D)
    Pairs grad_grad_out;
};

template <class T>
struct Kernels {
    void (*forward)(const Forward<T>&, int threads);
    void (*backward)(const Backward<T>&, int threads);
    void (*double_backward)(const DoubleBackward<T>&, int threads);
};

// The kernels of one instruction set, defined in geometry_cpu.cpp, which is compiled once for each.
FASTPOSE_EACH_LEVEL(template <class T> Kernels<T> kernels();)

template <class T>
Kernels<T> kernels(CpuLevel level) {
    return FASTPOSE_AT_LEVEL(level, kernels<T>());
}

}  // namespace fastpose::geometry
