// Heatmaps: rendering of joints, the fused squared error, decoding and the average of a flip test, with their first and
// second derivatives. Rendering needs W + H exponentials a plane; the error never stores its target.
#pragma once

#include "common/cpu_level.h"
#include "common/place.h"
#include "common/tensor_view.h"
#include "heatmap/heatmap_math.h"

namespace fastpose::heatmap {

struct Sizes {
    int64_t batch, stacks, joints, height, width;
};

// A (B, S, K, H, W) tensor; S = 1 and stride 0 where there are no stacks. The element type is float64 where the
// arithmetic type T is double, else float32, bfloat16 or float16.
struct Planes {
    void* data = nullptr;  // null: the tensor is absent
    DType dtype = DType::other;
    int64_t batch = 0, stack = 0, joint = 0, row = 0, column = 0;

    FASTPOSE_ANYWHERE explicit operator bool() const { return data != nullptr; }
    template <class E>
    FASTPOSE_ANYWHERE E* at(int64_t b, int64_t s, int64_t k) const {
        return static_cast<E*>(data) + b * batch + s * stack + k * joint;
    }
};

// A (B, K) tensor.
template <class T>
struct PerJoint {
    T* data = nullptr;  // null: absent
    int64_t batch = 0, joint = 0;

    FASTPOSE_ANYWHERE explicit operator bool() const { return data != nullptr; }
    FASTPOSE_ANYWHERE T& at(int64_t b, int64_t k) const { return data[b * batch + k * joint]; }
};

// A (B, K, 2) tensor of points (x, y), or (B, S, K) of weights.
template <class T>
struct PerJoint3 {
    T* data = nullptr;
    int64_t first = 0, second = 0, third = 0;

    FASTPOSE_ANYWHERE explicit operator bool() const { return data != nullptr; }
    FASTPOSE_ANYWHERE T& at(int64_t a, int64_t b, int64_t c) const { return data[a * first + b * second + c * third]; }
};

template <class T>
struct Joints {
    PerJoint3<const T> keypoints;  // (B, K, 2)
    PerJoint<const T> sigma;       // (B, K)
    PerJoint<const T> depth;       // (B, K) or absent: 1
    PerJoint<const bool> visible;  // (B, K) or absent: all
    Profile profile;
};

// Gradients with respect to the joints, or cotangents of those; each may be absent.
template <class T>
struct JointGradients {
    PerJoint3<T> keypoints;  // (B, K, 2)
    PerJoint<T> sigma;       // (B, K)
    PerJoint<T> depth;       // (B, K)
};

template <class T>
struct Render {
    Sizes size;
    Joints<T> joints;
    Planes out;  // (B, 1, K, H, W)
};

template <class T>
struct RenderBackward {
    Sizes size;
    Joints<T> joints;
    Planes grad_out;  // (B, 1, K, H, W)
    JointGradients<T> grads;
};

template <class T>
struct RenderDoubleBackward {
    Sizes size;
    Joints<T> joints;
    Planes grad_out;                     // (B, 1, K, H, W)
    JointGradients<const T> cotangents;  // absent ones count as zero
    JointGradients<T> grads;
    Planes grad_grad_out;  // (B, 1, K, H, W)
};

template <class T>
struct Loss {
    Sizes size;
    Joints<T> joints;
    Planes prediction;          // (B, S, K, H, W)
    PerJoint3<const T> weight;  // (B, S, K) or absent: 1
    double factor;              // of the sum: 1 / elements for a mean
    double* partials;           // (B, K) contiguous: each joint's share of the sum
    T* total;                   // one number: factor * sum of weight (prediction - target)^2
};

template <class T>
struct LossBackward {
    Sizes size;
    Joints<T> joints;
    Planes prediction;
    PerJoint3<const T> weight;
    double factor;
    const T* grad_total;      // one number
    Planes grad_prediction;   // (B, S, K, H, W) or absent
    JointGradients<T> grads;  // keypoints and sigma, each may be absent
};

template <class T>
struct LossDoubleBackward {
    Sizes size;
    Joints<T> joints;
    Planes prediction;
    PerJoint3<const T> weight;
    double factor;
    const T* grad_total;
    Planes cot_prediction;               // (B, S, K, H, W) or absent
    JointGradients<const T> cotangents;  // absent ones count as zero
    Planes grad_prediction;              // (B, S, K, H, W)
    JointGradients<T> grads;
    double* partials;    // (B, K) contiguous: each joint's share of grad_grad_total
    T* grad_grad_total;  // one number
};

// out[b, k, y, x] = (direct[b, k, y, x] + mirrored[b, partner[k], y, W - 1 - x]) / 2; an absent operand counts as zero.
struct FlipAverage {
    Sizes size;
    Planes direct, mirrored, out;  // (B, 1, K, H, W)
    const int64_t* partner;        // (K)
};

enum class Method : uint8_t { argmax, quarter, dark, dark_udp };

template <class T>
struct Decode {
    Sizes size;
    Planes heatmaps;  // (B, 1, K, H, W)
    Method method;
    const double* taps;  // (kernel) one axis of the blur
    int64_t kernel;      // odd
    double max_step;     // pixels
    T* coordinates;      // (B, K, 2) contiguous
    T* scores;           // (B, K) contiguous
};

template <class T>
struct SoftArgmax {
    Sizes size;
    Planes heatmaps;  // (B, 1, K, H, W)
    T beta;
    T* coordinates;  // (B, K, 2) contiguous
    T* scores;       // (B, K) contiguous
    T* totals;       // (B, K) contiguous: sum exp(beta (h - score)); infinite for a plane without a finite value
};

template <class T>
struct SoftArgmaxBackward {
    Sizes size;
    Planes heatmaps;
    T beta;
    const T* coordinates;                 // (B, K, 2) contiguous
    const T* scores;                      // (B, K) contiguous
    const T* totals;                      // (B, K) contiguous
    PerJoint3<const T> grad_coordinates;  // (B, K, 2)
    Planes grad_heatmaps;                 // (B, 1, K, H, W)
};

template <class T>
struct SoftArgmaxDoubleBackward {
    Sizes size;
    Planes heatmaps;
    T beta;
    const T* coordinates;
    const T* scores;
    const T* totals;
    PerJoint3<const T> grad_coordinates;
    Planes cot_heatmaps;       // (B, 1, K, H, W)
    Planes grad_heatmaps;      // (B, 1, K, H, W)
    T* grad_grad_coordinates;  // (B, K, 2) contiguous
};

// A place is the number of threads on the CPU and a CudaPlace on a GPU.
template <class T, class Place>
struct Kernels {
    void (*render)(const Render<T>&, Place);
    void (*render_backward)(const RenderBackward<T>&, Place);
    void (*render_double_backward)(const RenderDoubleBackward<T>&, Place);
    void (*loss)(const Loss<T>&, Place);
    void (*loss_backward)(const LossBackward<T>&, Place);
    void (*loss_double_backward)(const LossDoubleBackward<T>&, Place);
};

template <class T, class Place>
struct DecodeKernels {
    void (*decode)(const Decode<T>&, Place);
    void (*softargmax)(const SoftArgmax<T>&, Place);
    void (*softargmax_backward)(const SoftArgmaxBackward<T>&, Place);
    void (*softargmax_double_backward)(const SoftArgmaxDoubleBackward<T>&, Place);
    void (*flip_average)(const FlipAverage&, Place);
};

// Defined in render_cpu.cpp, loss_cpu.cpp, decode_cpu.cpp, softargmax_cpu.cpp and flip_cpu.cpp, which are compiled once
// per instruction set.
FASTPOSE_EACH_LEVEL(template <class T> void render(const Render<T>&, int threads);
                    template <class T> void render_backward(const RenderBackward<T>&, int threads);
                    template <class T> void render_double_backward(const RenderDoubleBackward<T>&, int threads);
                    template <class T> void loss(const Loss<T>&, int threads);
                    template <class T> void loss_backward(const LossBackward<T>&, int threads);
                    template <class T> void loss_double_backward(const LossDoubleBackward<T>&, int threads);
                    template <class T> void decode(const Decode<T>&, int threads);
                    template <class T> void softargmax(const SoftArgmax<T>&, int threads);
                    template <class T> void softargmax_backward(const SoftArgmaxBackward<T>&, int threads);
                    template <class T> void softargmax_double_backward(const SoftArgmaxDoubleBackward<T>&, int threads);
                    template <class T> void flip_average(const FlipAverage&, int threads);)

template <class T>
Kernels<T, int> kernels(CpuLevel level) {
    return {FASTPOSE_AT_LEVEL(level, render<T>),
            FASTPOSE_AT_LEVEL(level, render_backward<T>),
            FASTPOSE_AT_LEVEL(level, render_double_backward<T>),
            FASTPOSE_AT_LEVEL(level, loss<T>),
            FASTPOSE_AT_LEVEL(level, loss_backward<T>),
            FASTPOSE_AT_LEVEL(level, loss_double_backward<T>)};
}
template <class T>
DecodeKernels<T, int> decode_kernels(CpuLevel level) {
    return {FASTPOSE_AT_LEVEL(level, decode<T>), FASTPOSE_AT_LEVEL(level, softargmax<T>),
            FASTPOSE_AT_LEVEL(level, softargmax_backward<T>), FASTPOSE_AT_LEVEL(level, softargmax_double_backward<T>),
            FASTPOSE_AT_LEVEL(level, flip_average<T>)};
}

// Defined in heatmap_cuda.cu and decode_cuda.cu.
namespace cuda {
// Longest blur on a GPU: its taps travel among a kernel's arguments, of which drivers before R530 take 4096 bytes.
constexpr int most_taps = 981;

template <class T>
Kernels<T, CudaPlace> kernels();
template <class T>
DecodeKernels<T, CudaPlace> decode_kernels();
}  // namespace cuda

}  // namespace fastpose::heatmap
