// The soft argmax of heatmaps and its two derivatives on the CPU, compiled once per instruction set.

#include "heatmap/peak_cpu.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

namespace {

// Sums over a plane of p, p (x - x0) and p (y - y0), gathered in the lanes.
template <class T>
struct Expectation {
    Vector<T> total{}, x{}, y{};

    FASTPOSE_INLINE void add(Vector<T> weight, Vector<T> offset, T distance) {
        total += weight;
        x += weight * offset;
        y += weight * distance;
    }
};

// exp(beta (h - peak)), zero where h is not finite.
template <class T>
FASTPOSE_INLINE Vector<T> weights(Vector<T> value, T beta, T peak) {
    const Vector<T> weight = exponential((value - peak) * beta);
    return value - value == Vector<T>{} ? weight : Vector<T>{};
}

template <class T, class E>
void soft_plane(const SoftArgmax<T>& p, const E* plane, T peak, int64_t joint, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    Expectation<T> sums;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            sums.add(weights(load(row + x), p.beta, peak), lane_numbers<T>() + static_cast<T>(x), static_cast<T>(y));
    }
    const T total = sum_of_lanes<T>(sums.total);
    p.coordinates[2 * joint] = sum_of_lanes<T>(sums.x) / total;
    p.coordinates[2 * joint + 1] = sum_of_lanes<T>(sums.y) / total;
    p.scores[joint] = peak;
    p.totals[joint] = total;
}

// The joint's expectation and the gradient that comes to it: q = gx (x - X) + gy (y - Y).
template <class T>
struct SoftJoint {
    T x, y, peak, scale, grad_x, grad_y;  // the softmax is scale exp(beta (h - peak))
};

template <class T, class Parameters>
SoftJoint<T> soft_joint(const Parameters& p, int64_t b, int64_t k) {
    const int64_t joint = b * p.size.joints + k;
    return {p.coordinates[2 * joint], p.coordinates[2 * joint + 1],   p.scores[joint],
            1 / p.totals[joint],      p.grad_coordinates.at(b, k, 0), p.grad_coordinates.at(b, k, 1)};
}

// grad_h = beta p q.
template <class T, class E>
void soft_gradient(const SoftArgmaxBackward<T>& p, const SoftJoint<T>& joint, const E* plane, E* gradient, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    T* results = buffer_of(memory, p.size, 1, T(0));
    const T scale = p.beta * joint.scale;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        E* target = gradient + y * p.grad_heatmaps.row;
        T* result = row_to_write(target, p.grad_heatmaps.column, p.size.width, results);
        const T across = joint.grad_y * (static_cast<T>(y) - joint.y);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> offset = lane_numbers<T>() + (static_cast<T>(x) - joint.x);
            store(result + x, weights(load(row + x), p.beta, joint.peak) * (offset * joint.grad_x + across) * scale);
        }
        write_row(result, target, p.grad_heatmaps.column, p.size.width);
    }
}

// Moments of p U for the cotangent U of grad_h: grad_grad_x = beta sum p U (x - X), and their mean.
template <class T, class E>
Expectation<T> cotangent_sums(const SoftArgmaxDoubleBackward<T>& p, const SoftJoint<T>& joint, const E* plane,
                              const E* cotangent, T* buffer, T* other) {
    Expectation<T> sums;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        const T* given = read_row(cotangent + y * p.cot_heatmaps.row, p.cot_heatmaps.column, p.size.width, other);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            sums.add(weights(load(row + x), p.beta, joint.peak) * (load(given + x) * joint.scale),
                     lane_numbers<T>() + (static_cast<T>(x) - joint.x), static_cast<T>(y) - joint.y);
    }
    return sums;
}

// grad_h = beta^2 p ((U - mean U) q - covariance(U, q)), the gradient of beta covariance(U, q).
template <class T, class E>
void second_plane(const SoftArgmaxDoubleBackward<T>& p, const SoftJoint<T>& joint, int64_t index, const E* plane,
                  const E* cotangent, E* gradient, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    T* other = buffer_of(memory, p.size, 1, T(0));
    T* results = buffer_of(memory, p.size, 2, T(0));
    const Expectation<T> sums = cotangent_sums(p, joint, plane, cotangent, buffer, other);
    const T mean = sum_of_lanes<T>(sums.total), along_x = sum_of_lanes<T>(sums.x), along_y = sum_of_lanes<T>(sums.y);
    const T covariance = joint.grad_x * along_x + joint.grad_y * along_y;
    const T scale = p.beta * p.beta * joint.scale;
    p.grad_grad_coordinates[2 * index] = p.beta * along_x;
    p.grad_grad_coordinates[2 * index + 1] = p.beta * along_y;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        const T* given = read_row(cotangent + y * p.cot_heatmaps.row, p.cot_heatmaps.column, p.size.width, other);
        E* target = gradient + y * p.grad_heatmaps.row;
        T* result = row_to_write(target, p.grad_heatmaps.column, p.size.width, results);
        const T across = joint.grad_y * (static_cast<T>(y) - joint.y);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> q = (lane_numbers<T>() + (static_cast<T>(x) - joint.x)) * joint.grad_x + across;
            const Vector<T> weight = weights(load(row + x), p.beta, joint.peak) * scale;
            store(result + x, weight * ((load(given + x) - mean) * q - covariance));
        }
        write_row(result, target, p.grad_heatmaps.column, p.size.width);
    }
}

}  // namespace

template <class T>
void softargmax(const SoftArgmax<T>& p, int threads) {
    const Runs runs(p.heatmaps, p.size);
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, std::max(chunk, row_memory<T>(p.size)), threads, [&](int64_t b, int64_t k, T* memory) {
            const E* plane = p.heatmaps.template at<const E>(b, 0, k);
            const Peak<T> peak = find_peak(plane, runs, memory);
            const int64_t joint = b * p.size.joints + k;
            if (peak.run >= 0) return soft_plane(p, plane, peak.value, joint, memory);
            p.coordinates[2 * joint] = p.coordinates[2 * joint + 1] = p.scores[joint] = T(0);
            p.totals[joint] = infinity<T>;  // makes every weight zero in the derivatives
        });
    });
}
template void softargmax<float>(const SoftArgmax<float>&, int);
template void softargmax<double>(const SoftArgmax<double>&, int);

template <class T>
void softargmax_backward(const SoftArgmaxBackward<T>& p, int threads) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads, [&](int64_t b, int64_t k, T* memory) {
            soft_gradient(p, soft_joint<T>(p, b, k), p.heatmaps.template at<const E>(b, 0, k),
                          p.grad_heatmaps.template at<E>(b, 0, k), memory);
        });
    });
}
template void softargmax_backward<float>(const SoftArgmaxBackward<float>&, int);
template void softargmax_backward<double>(const SoftArgmaxBackward<double>&, int);

template <class T>
void softargmax_double_backward(const SoftArgmaxDoubleBackward<T>& p, int threads) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads, [&](int64_t b, int64_t k, T* memory) {
            second_plane(p, soft_joint<T>(p, b, k), b * p.size.joints + k, p.heatmaps.template at<const E>(b, 0, k),
                         p.cot_heatmaps.template at<const E>(b, 0, k), p.grad_heatmaps.template at<E>(b, 0, k), memory);
        });
    });
}
template void softargmax_double_backward<float>(const SoftArgmaxDoubleBackward<float>&, int);
template void softargmax_double_backward<double>(const SoftArgmaxDoubleBackward<double>&, int);

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
