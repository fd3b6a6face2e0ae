// The fused squared error and its two derivatives on the CPU, compiled once per instruction set.

#include "heatmap/joints_cpu.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

namespace {

// Adds up in order: the schedule cannot change the answer.
inline double sum_of_joints(const double* partials, const Sizes& size) {
    double total = 0;
    for (int64_t joint = 0; joint < size.batch * size.joints; ++joint) total += partials[joint];
    return total;
}

// sum (prediction - bell)^2 over a plane.
template <class T, class E>
double squared_error(const Loss<T>& p, const Bell<T>& bell, const E* prediction, T* buffer) {
    Vector<T> sum{};
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> difference = load(row + x) - load(bell.columns + x) * bell.rows[y];
            sum += difference * difference;
        }
    }
    return sum_of_lanes<T>(sum);
}

// grad_prediction = factor * (prediction - bell).
template <class T, class E>
void difference_plane(const LossBackward<T>& p, const Bell<T>& bell, T factor, const E* prediction, E* gradient,
                      const Workspace<T>& space) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, space.row(0));
        E* target = gradient + y * p.grad_prediction.row;
        T* result = row_to_write(target, p.grad_prediction.column, p.size.width, space.row(1));
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            store(result + x, (load(row + x) - load(bell.columns + x) * bell.rows[y]) * factor);
        write_row(result, target, p.grad_prediction.column, p.size.width);
    }
}

template <class T, class E>
void zero_plane(const Planes& planes, const Sizes& size, E* to) {
    for (int64_t y = 0; y < size.height; ++y)
        for (int64_t x = 0; x < size.width; ++x) to[y * planes.row + x * planes.column] = E{};
}

// Adds factor * (prediction - bell) * bell to the sums.
template <class T, class E>
void error_moments(const LossBackward<T>& p, const Bell<T>& bell, T factor, const E* prediction, T* buffer,
                   MomentSums<T>& sums) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> value = load(bell.columns + x) * bell.rows[y];
            sums.add((load(row + x) - value) * value * factor, load(bell.offsets + x));
        }
        sums.end_row(static_cast<T>(y) - bell.mark.y);
    }
}

template <class T, class E>
void loss_gradients(const LossBackward<T>& p, const Bell<T>& bell, int64_t b, int64_t k, const Workspace<T>& space) {
    MomentSums<T> sums;
    for (int64_t s = 0; s < p.size.stacks; ++s) {
        const T factor = slope_of(p) * weight_of(p.weight, b, s, k);
        const bool counts = weight_of(p.weight, b, s, k) != 0;
        const E* prediction = p.prediction.template at<const E>(b, s, k);
        if (p.grad_prediction && counts)
            difference_plane(p, bell, factor, prediction, p.grad_prediction.template at<E>(b, s, k), space);
        else if (p.grad_prediction)
            zero_plane<T>(p.grad_prediction, p.size, p.grad_prediction.template at<E>(b, s, k));
        if ((p.grads.keypoints || p.grads.sigma) && counts && bell.mark.present)
            error_moments(p, bell, -factor, prediction, space.row(0), sums);
    }
    store_gradient(p.grads, b, k, first_gradient(sums.moments(), bell.mark));
}

// Sums over the planes of a joint in the second derivative of the loss.
template <class T>
struct SecondSums {
    MomentSums<T> response, weighted;  // weighted by -2 factor weight grad_total
    double grad_grad_total = 0;
};

// With U the cotangent of grad_prediction and bell' the bell's change along the joint's cotangents, the first
// derivatives' product with all cotangents is 2 factor weight grad_total sum (prediction - bell) (U - bell').
template <class T, class E>
void second_plane(const LossDoubleBackward<T>& p, const Bell<T>& bell, const Movement<T>& movement, T factor,
                  const E* prediction, const E* cotangent, E* gradient, const Workspace<T>& space, SecondSums<T>& sums,
                  Vector<T>& product) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T distance = static_cast<T>(y) - bell.mark.y;
        const T across = log_derivative(bell.mark, distance, movement.move.y, movement.move.sigma);
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, space.row(0));
        const T* given = space.row(3);  // zeros
        if (cotangent)
            given = read_row(cotangent + y * p.cot_prediction.row, p.cot_prediction.column, p.size.width, space.row(1));
        E* target = gradient + y * p.grad_prediction.row;
        T* result = row_to_write(target, p.grad_prediction.column, p.size.width, space.row(4));
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> value = load(bell.columns + x) * bell.rows[y];
            const Vector<T> slope = load(movement.along + x) + across;
            const Vector<T> difference = load(row + x) - value, rest = load(given + x) - value * slope;
            product += difference * rest;
            store(result + x, rest * factor);
            sums.response.add(value * (rest + difference * slope) * -factor, load(bell.offsets + x));
            sums.weighted.add(value * difference * -factor, load(bell.offsets + x));
        }
        sums.response.end_row(distance);
        sums.weighted.end_row(distance);
        write_row(result, target, p.grad_prediction.column, p.size.width);
    }
}

template <class T, class E>
double second_joint(const LossDoubleBackward<T>& p, const Bell<T>& bell, int64_t b, int64_t k,
                    const Workspace<T>& space) {
    const JointVector<T> move = bell.mark.present ? direction(p.cotangents, b, k) : JointVector<T>{};
    const Movement<T> change = movement(bell, p.size, move, T(0), T(1), space.row(2));
    SecondSums<T> sums;
    for (int64_t s = 0; s < p.size.stacks; ++s) {
        const T weight = weight_of(p.weight, b, s, k);
        E* gradient = p.grad_prediction.template at<E>(b, s, k);
        if (weight == 0) {
            zero_plane<T>(p.grad_prediction, p.size, gradient);
            continue;
        }
        const E* cotangent = p.cot_prediction ? p.cot_prediction.template at<const E>(b, s, k) : nullptr;
        Vector<T> product{};
        second_plane(p, bell, change, slope_of(p) * weight, p.prediction.template at<const E>(b, s, k), cotangent,
                     gradient, space, sums, product);
        sums.grad_grad_total += 2 * weight * sum_of_lanes<T>(product);
    }
    store_gradient(p.grads, b, k,
                   second_gradient(sums.response.moments(), sums.weighted.moments(), bell.mark, move, T(1)));
    return sums.grad_grad_total;
}

}  // namespace

template <class T>
void loss(const Loss<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(
            p.size, p.joints, threads, [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                double sum = 0;
                for (int64_t s = 0; s < p.size.stacks; ++s)
                    if (const T weight = weight_of(p.weight, b, s, k); weight != 0)
                        sum +=
                            weight * squared_error(p, bell, p.prediction.template at<const E>(b, s, k), space.row(0));
                p.partials[b * p.size.joints + k] = sum;
            });
    });
    *p.total = static_cast<T>(p.factor * sum_of_joints(p.partials, p.size));
}
template void loss<float>(const Loss<float>&, int);
template void loss<double>(const Loss<double>&, int);

template <class T>
void loss_backward(const LossBackward<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       loss_gradients<T, E>(p, bell, b, k, space);
                   });
    });
}
template void loss_backward<float>(const LossBackward<float>&, int);
template void loss_backward<double>(const LossBackward<double>&, int);

template <class T>
void loss_double_backward(const LossDoubleBackward<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       p.partials[b * p.size.joints + k] = second_joint<T, E>(p, bell, b, k, space);
                   });
    });
    *p.grad_grad_total = static_cast<T>(p.factor * sum_of_joints(p.partials, p.size));
}
template void loss_double_backward<float>(const LossDoubleBackward<float>&, int);
template void loss_double_backward<double>(const LossDoubleBackward<double>&, int);

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
