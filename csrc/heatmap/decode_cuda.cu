// Decoding of heatmaps on a GPU: a block of threads for each plane, which is read once (by the double backward of
// soft-argmax twice, the second time from the cache). Every sum and search has one fixed order: a thread goes through
// its pixels in row-major order, then lanes are joined pairwise and warps in turn.

#include "heatmap/dark_cuda.h"
#include "heatmap/planes_cuda.h"

namespace fastpose::heatmap::cuda {
namespace {

// ----------------------------------------------------------------------------------------------------------- decoding

template <class T, class E>
__device__ __forceinline__ Step refine_quarter(const Plane<const E>& plane, int x, int y) {
    const auto at = [&](int column, int row) -> T { return widen(*plane.at(column, row)); };
    Step step;
    if (x > 1 && x < plane.width - 1 && y > 0) step.x = quarter(at(x + 1, y), at(x - 1, y));
    if (y > 1 && y < plane.height - 1 && x > 0) step.y = quarter(at(x, y + 1), at(x, y - 1));
    return step;
}

template <class T, class E, class AnyTaps>
__device__ __forceinline__ Step refine(const Decode<T>& p, const Plane<const E>& plane, const Peak<T>& peak,
                                       const AnyTaps& taps) {
    if (!peak.found() || p.method == Method::argmax) return {};
    if (p.method == Method::quarter) return refine_quarter<T>(plane, peak.x, peak.y);
    return refine_dark(p, plane, peak, taps);
}

// Four blocks on a multiprocessor leave 64 registers for each thread; asked for none, ptxas uses fewer and spills the
// rest.
template <class T, class E, class AnyTaps>
__global__ void __launch_bounds__(most_plane_threads, 4)
    decode_kernel(const __grid_constant__ Decode<T> p, const __grid_constant__ PlaneGrid grid,
                  const __grid_constant__ AnyTaps taps) {
    const int64_t b = grid.batch(), k = grid.joint(), joint = b * p.size.joints + k;
    const Plane<const E> plane = plane_of<const E>(p.heatmaps, p.size, b, k);
    const Peak<T> peak = grid.grouped ? find_peak<T, wide<E>>(plane) : find_peak<T, 1>(plane);
    const Step step = refine(p, plane, peak, taps);
    if (threadIdx.x > 0) return;
    p.coordinates[2 * joint] = static_cast<T>(peak.x + step.x);
    p.coordinates[2 * joint + 1] = static_cast<T>(peak.y + step.y);
    p.scores[joint] = peak.found() ? peak.value : T(0);
}

// ------------------------------------------------------------------------------------------------------- softargmax

// Sums over a thread's pixels of f, f (x - x0) and f (y - y0). Within a pack f and its first moment are gathered first.
template <class T>
struct Expectation {
    T total = 0, x = 0, y = 0;

    template <int N>
    __device__ __forceinline__ void add(const Pack<T, N>& f, T at_x, T at_y) {
        T sum = f.at[0], moment = 0;
#pragma unroll
        for (int i = 1; i < N; ++i) {
            sum += f.at[i];
            moment += f.at[i] * static_cast<T>(i);
        }
        total += sum;
        x += sum * at_x + moment;
        y += sum * at_y;
    }
    // Over all threads of the block, which must all call it.
    __device__ __forceinline__ Expectation over_block() const {
        const Pack<T, 3> sums = block_sum(Pack<T, 3>{{total, x, y}});
        return {sums.at[0], sums.at[1], sums.at[2]};
    }
};

template <class T, int N>
__device__ __forceinline__ Pack<T, N> soft_weights(Pack<T, N> numbers, T beta, T peak) {
#pragma unroll
    for (int i = 0; i < N; ++i) numbers.at[i] = soft_weight(numbers.at[i], beta, peak);
    return numbers;
}

// Sums of a thread relative to its own peak, which are scaled anew where a higher one comes.
template <class T>
struct OnlineSums {
    T peak = -infinity<T>;
    Expectation<T> sums;

    __device__ __forceinline__ void raise(T value, T beta) {
        if (!(value > peak)) return;
        const T factor = decaying_exponential((peak - value) * beta);  // 0 for the first
        peak = value;
        sums.total *= factor;
        sums.x *= factor;
        sums.y *= factor;
    }
};

template <class T, int N, class E>
__device__ __forceinline__ OnlineSums<T> gather_sums(const Plane<const E>& plane, T beta) {
    OnlineSums<T> online;
    for_packs<at_once, N>(
        plane.width, plane.height, [&](int x, int y) { return load<N>(plane.at(x, y)); },
        [&](int x, int y, const Loaded<E, N>& given) {
            const Pack<T, N> numbers = given.template numbers<T>();
            T most = -infinity<T>;
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (numbers.at[i] > most && numbers.at[i] < infinity<T>) most = numbers.at[i];
            online.raise(most, beta);
            online.sums.add(soft_weights(numbers, beta, online.peak), static_cast<T>(x), static_cast<T>(y));
        });
    return online;
}

template <class T, class E>
__global__ void __launch_bounds__(most_plane_threads)
    softargmax_kernel(const __grid_constant__ SoftArgmax<T> p, const __grid_constant__ PlaneGrid grid) {
    const int64_t b = grid.batch(), k = grid.joint(), joint = b * p.size.joints + k;
    const Plane<const E> plane = plane_of<const E>(p.heatmaps, p.size, b, k);
    OnlineSums<T> online = grid.grouped ? gather_sums<T, wide<E>>(plane, p.beta) : gather_sums<T, 1>(plane, p.beta);
    const Peak<T> peak = block_peak(Peak<T>{online.peak, 0, 0});
    if (peak.found()) online.raise(peak.value, p.beta);
    const Expectation<T> sums = online.sums.over_block();
    if (threadIdx.x > 0) return;
    const bool found = peak.found();
    p.coordinates[2 * joint] = found ? sums.x / sums.total : T(0);
    p.coordinates[2 * joint + 1] = found ? sums.y / sums.total : T(0);
    p.scores[joint] = found ? peak.value : T(0);
    p.totals[joint] = found ? sums.total : infinity<T>;  // makes every weight zero in the derivatives
}

// The joint's expectation and the gradient that comes to it: q = gx (x - X) + gy (y - Y).
template <class T>
struct SoftJoint {
    T x, y, peak, scale, grad_x, grad_y;  // the softmax is scale exp(beta (h - peak))

    __device__ __forceinline__ T q(int column, int row) const {
        return (static_cast<T>(column) - x) * grad_x + (static_cast<T>(row) - y) * grad_y;
    }
};

template <class T, class Parameters>
__device__ __forceinline__ SoftJoint<T> soft_joint(const Parameters& p, int64_t b, int64_t k, int64_t joint) {
    return {p.coordinates[2 * joint], p.coordinates[2 * joint + 1],   p.scores[joint],
            1 / p.totals[joint],      p.grad_coordinates.at(b, k, 0), p.grad_coordinates.at(b, k, 1)};
}

// grad_h = beta p q.
template <class T, int N, class E>
__device__ __forceinline__ void soft_gradient(const Plane<const E>& plane, const Plane<E>& gradient,
                                              const SoftJoint<T>& joint, T beta) {
    const T scale = beta * joint.scale, slope = joint.grad_x * scale;
    for_packs<at_once, N>(
        plane.width, plane.height, [&](int x, int y) { return load<N>(plane.at(x, y)); },
        [&](int x, int y, const Loaded<E, N>& given) {
            Pack<T, N> results = soft_weights(given.template numbers<T>(), beta, joint.peak);
            const T first = joint.q(x, y) * scale;
#pragma unroll
            for (int i = 0; i < N; ++i) results.at[i] *= first + slope * static_cast<T>(i);
            write(gradient.at(x, y), results);
        });
}

template <class T, class E>
__global__ void __launch_bounds__(most_plane_threads)
    softargmax_backward_kernel(const __grid_constant__ SoftArgmaxBackward<T> p,
                               const __grid_constant__ PlaneGrid grid) {
    const int64_t b = grid.batch(), k = grid.joint(), index = b * p.size.joints + k;
    const SoftJoint<T> joint = soft_joint<T>(p, b, k, index);
    const Plane<const E> plane = plane_of<const E>(p.heatmaps, p.size, b, k);
    const Plane<E> gradient = plane_of<E>(p.grad_heatmaps, p.size, b, k);
    if (grid.grouped)
        soft_gradient<T, wide<E>>(plane, gradient, joint, p.beta);
    else
        soft_gradient<T, 1>(plane, gradient, joint, p.beta);
}

// What the double backward reads at a pack of pixels: heatmaps h and the cotangent U of grad_h.
template <class E, int N>
struct SoftPair {
    Loaded<E, N> value, cotangent;
};

// The double backward of one plane, its second pass over the heatmaps finds them in the cache.
template <class T, int N, class E>
struct SecondPlane {
    static constexpr int batch = at_once / 2;
    Plane<const E> heatmaps, cotangents;
    Plane<E> gradient;
    SoftJoint<T> joint;
    T beta;

    __device__ __forceinline__ SoftPair<E, N> load_pair(int x, int y) const {
        return {load<N>(heatmaps.at(x, y)), load<N>(cotangents.at(x, y))};
    }
    // Sums over the plane of p U, p U (x - X) and p U (y - Y).
    __device__ __forceinline__ Expectation<T> sums() const {
        Expectation<T> sums;
        for_packs<batch, N>(
            heatmaps.width, heatmaps.height, [&](int x, int y) { return load_pair(x, y); },
            [&](int x, int y, const SoftPair<E, N>& given) {
                const Pack<T, N> weights = soft_weights(given.value.template numbers<T>(), beta, joint.peak);
                const Pack<T, N> f = weights * given.cotangent.template numbers<T>();
                sums.add(f, static_cast<T>(x) - joint.x, static_cast<T>(y) - joint.y);
            });
        sums = sums.over_block();
        return {sums.total * joint.scale, sums.x * joint.scale, sums.y * joint.scale};
    }
    // grad_h = beta^2 p ((U - mean U) q - covariance(U, q)), the gradient of beta covariance(U, q).
    __device__ __forceinline__ void write_gradient(T mean, T covariance) const {
        const T scale = beta * beta * joint.scale, slope = joint.grad_x * scale, level = covariance * scale;
        for_packs<batch, N>(
            heatmaps.width, heatmaps.height, [&](int x, int y) { return load_pair(x, y); },
            [&](int x, int y, const SoftPair<E, N>& given) {
                Pack<T, N> results = soft_weights(given.value.template numbers<T>(), beta, joint.peak);
                const Pack<T, N> cotangent = given.cotangent.template numbers<T>();
                const T first = joint.q(x, y) * scale;
#pragma unroll
                for (int i = 0; i < N; ++i)
                    results.at[i] *= (cotangent.at[i] - mean) * (first + slope * static_cast<T>(i)) - level;
                write(gradient.at(x, y), results);
            });
    }
};

template <class T, int N, class E>
__device__ __forceinline__ void second_plane(const SoftArgmaxDoubleBackward<T>& p, int64_t b, int64_t k,
                                             int64_t index) {
    const SecondPlane<T, N, E> plane{plane_of<const E>(p.heatmaps, p.size, b, k),
                                     plane_of<const E>(p.cot_heatmaps, p.size, b, k),
                                     plane_of<E>(p.grad_heatmaps, p.size, b, k), soft_joint<T>(p, b, k, index), p.beta};
    const Expectation<T> sums = plane.sums();
    plane.write_gradient(sums.total, plane.joint.grad_x * sums.x + plane.joint.grad_y * sums.y);
    if (threadIdx.x > 0) return;
    p.grad_grad_coordinates[2 * index] = p.beta * sums.x;
    p.grad_grad_coordinates[2 * index + 1] = p.beta * sums.y;
}

template <class T, class E>
__global__ void __launch_bounds__(most_plane_threads)
    softargmax_double_backward_kernel(const __grid_constant__ SoftArgmaxDoubleBackward<T> p,
                                      const __grid_constant__ PlaneGrid grid) {
    const int64_t b = grid.batch(), k = grid.joint(), index = b * p.size.joints + k;
    if (grid.grouped)
        second_plane<T, wide<E>, E>(p, b, k, index);
    else
        second_plane<T, 1, E>(p, b, k, index);
}

// ----------------------------------------------------------------------------------------------------- flip average

// Joints of one launch and their partners, by value among the kernel's arguments.
struct Partners {
    static constexpr int most = 256;
    int64_t first;  // joint
    int count;
    int partner[most];
};

// What the average reads at a pack of pixels; zeros of an absent operand.
template <class E, int N>
struct Sides {
    Loaded<E, N> direct, mirrored;
};

template <class T, int N, class E>
__device__ __forceinline__ void average_plane(const FlipAverage& p, int64_t b, int64_t k, int64_t partner) {
    const Plane<const E> direct = plane_of<const E>(p.direct, p.size, b, k);
    const Plane<const E> mirrored = plane_of<const E>(p.mirrored, p.size, b, partner);
    const Plane<E> out = plane_of<E>(p.out, p.size, b, k);
    for_packs<at_once / 2, N>(
        out.width, out.height,
        [&](int x, int y) {
            Sides<E, N> sides{};
            if (p.direct) sides.direct = load<N>(direct.at(x, y));
            if (p.mirrored) sides.mirrored = load<N>(mirrored.at(out.width - N - x, y));
            return sides;
        },
        [&](int x, int y, const Sides<E, N>& sides) {
            const Pack<T, N> left = sides.direct.template numbers<T>(), right = sides.mirrored.template numbers<T>();
            Pack<T, N> average;
#pragma unroll
            for (int i = 0; i < N; ++i) average.at[i] = (left.at[i] + right.at[N - 1 - i]) * T(0.5);
            write(out.at(x, y), average);
        });
}

template <class T, class E>
__global__ void __launch_bounds__(most_plane_threads)
    flip_average_kernel(const __grid_constant__ FlipAverage p, const __grid_constant__ PlaneGrid grid,
                        const __grid_constant__ Partners joints) {
    const int k = grid.joint();
    if (grid.grouped)
        average_plane<T, wide<E>, E>(p, grid.batch(), joints.first + k, joints.partner[k]);
    else
        average_plane<T, 1, E>(p, grid.batch(), joints.first + k, joints.partner[k]);
}

// ------------------------------------------------------------------------------------------------------------ launches

template <class T>
void decode(const Decode<T>& p, CudaPlace place) {
    const bool blurs = p.method == Method::dark || p.method == Method::dark_udp;
    if (blurs) check_taps(p);
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        const bool packs = grouped<E>(p.size, p.heatmaps);
        if (!blurs || p.kernel < 2 * few_taps)
            start<E>(place, decode_kernel<T, E, Taps<few_taps>>, p.size.joints, p, packs,
                     blurs ? half_of<few_taps>(p) : Taps<few_taps>{});
        else
            start<E>(place, decode_kernel<T, E, Taps<many_taps>>, p.size.joints, p, packs, half_of<many_taps>(p));
    });
}

template <class T>
void softargmax(const SoftArgmax<T>& p, CudaPlace place) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        start<E>(place, softargmax_kernel<T, E>, p.size.joints, p, grouped<E>(p.size, p.heatmaps));
    });
}

template <class T>
void softargmax_backward(const SoftArgmaxBackward<T>& p, CudaPlace place) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        start<E>(place, softargmax_backward_kernel<T, E>, p.size.joints, p,
                 grouped<E>(p.size, p.heatmaps, p.grad_heatmaps));
    });
}

template <class T>
void softargmax_double_backward(const SoftArgmaxDoubleBackward<T>& p, CudaPlace place) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        start<E>(place, softargmax_double_backward_kernel<T, E>, p.size.joints, p,
                 grouped<E>(p.size, p.heatmaps, p.cot_heatmaps, p.grad_heatmaps));
    });
}

template <class T>
void flip_average(const FlipAverage& p, CudaPlace place) {
    for_element<T>(p.out.dtype, [&]<class E>() {
        const bool packs = grouped<E>(p.size, p.direct, p.mirrored, p.out);
        for (int64_t first = 0; first < p.size.joints; first += Partners::most) {
            const int64_t left = p.size.joints - first;
            Partners joints{first, static_cast<int>(left < Partners::most ? left : Partners::most), {}};
            for (int k = 0; k < joints.count; ++k) joints.partner[k] = static_cast<int>(p.partner[first + k]);
            start<E>(place, flip_average_kernel<T, E>, joints.count, p, packs, joints);
        }
    });
}

}  // namespace

template <class T>
DecodeKernels<T, CudaPlace> decode_kernels() {
    return {decode<T>, softargmax<T>, softargmax_backward<T>, softargmax_double_backward<T>, flip_average<T>};
}
template DecodeKernels<float, CudaPlace> decode_kernels<float>();
template DecodeKernels<double, CudaPlace> decode_kernels<double>();

}  // namespace fastpose::heatmap::cuda
