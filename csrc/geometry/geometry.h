// The pairwise descriptor [d, d^2] with d = x_i - x_j, its gradient and the gradient of its gradient.
//
// All tensors of a call have one element type: float64 where the arithmetic type T is double, else float32, bfloat16 or
// float16. T enters only where numbers are computed.
#pragma once

#include "common/cpu_level.h"
#include "common/place.h"
#include "common/tensor_view.h"

namespace fastpose::geometry {

struct Sizes {
    int64_t batch, points, dimensions;
};

// A (B, P, D) tensor.
struct Points {
    void* data = nullptr;
    DType dtype = DType::other;
    int64_t batch = 0, point = 0, dimension = 0;

    template <class E>
    FASTPOSE_ANYWHERE E* at(int64_t b, int64_t i, int64_t d) const {
        return static_cast<E*>(data) + b * batch + i * point + d * dimension;
    }
};

// A (B, 2D, P, P) tensor.
struct Pairs {
    void* data = nullptr;
    DType dtype = DType::other;
    int64_t batch = 0, channel = 0, row = 0, column = 0;

    template <class E>
    FASTPOSE_ANYWHERE E* at(int64_t b, int64_t c, int64_t i) const {
        return static_cast<E*>(data) + b * batch + c * channel + i * row;
    }
};

struct Forward {
    Sizes size;
    Points joints;  // (B, P, D)
    Pairs out;
};

struct Backward {
    Sizes size;
    Points joints;  // (B, P, D)
    Pairs grad_out;
    Points grad_joints;  // (B, P, D)
};

struct DoubleBackward {
    Sizes size;
    Points joints;  // (B, P, D)
    Pairs grad_out;
    Points cot_joints;   // (B, P, D)
    Points grad_joints;  // (B, P, D)
    Pairs grad_grad_out;
};

// A place is the number of threads on the CPU and a CudaPlace on a GPU; T is the arithmetic type.
template <class T, class Place>
struct Kernels {
    void (*forward)(const Forward&, Place);
    void (*backward)(const Backward&, Place);
    void (*double_backward)(const DoubleBackward&, Place);
};

// The kernels of one instruction set, defined in geometry_cpu.cpp, which is compiled once for each.
FASTPOSE_EACH_LEVEL(template <class T> Kernels<T, int> kernels();)

template <class T>
Kernels<T, int> kernels(CpuLevel level) {
    return FASTPOSE_AT_LEVEL(level, kernels<T>());
}

// Defined in geometry_cuda.cu.
namespace cuda {
template <class T>
Kernels<T, CudaPlace> kernels();
}

}  // namespace fastpose::geometry
