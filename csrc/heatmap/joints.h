// What a kernel asks about one joint of a call, for the CPU and for CUDA.
#pragma once

#include "heatmap/heatmap.h"

namespace fastpose::heatmap {
namespace {

template <class T>
FASTPOSE_ANYWHERE bool usable(const Joints<T>& joints, int64_t b, int64_t k) {
    const bool visible = !joints.visible || joints.visible.at(b, k);
    const T depth = joints.depth ? joints.depth.at(b, k) : T(0);
    return visible && is_finite(depth);
}

// Absent where the joint is not usable. Its numbers are read before any is looked at: on a GPU they then come together.
template <class T>
FASTPOSE_ANYWHERE Footprint<T> footprint(const Joints<T>& joints, const Shape& shape, const Sizes& size, int64_t b,
                                         int64_t k) {
    const T x = joints.keypoints.at(b, k, 0), y = joints.keypoints.at(b, k, 1), sigma = joints.sigma.at(b, k);
    const bool known = usable(joints, b, k);
    const Footprint<T> mark = footprint(shape, x, y, sigma, size.height, size.width);
    return known ? mark : Footprint<T>{};
}

template <class T>
FASTPOSE_ANYWHERE T depth_of(const Joints<T>& joints, int64_t b, int64_t k) {
    return joints.depth && usable(joints, b, k) ? joints.depth.at(b, k) : T(1);
}

template <class T>
FASTPOSE_ANYWHERE T weight_of(const PerJoint3<const T>& weight, int64_t b, int64_t s, int64_t k) {
    return weight ? weight.at(b, s, k) : T(1);
}

// Derivative of the loss with respect to half of weight (prediction - target)^2, times what comes to the loss.
template <class Call>
FASTPOSE_ANYWHERE auto slope_of(const Call& p) {
    const auto grad_total = *p.grad_total;
    return static_cast<decltype(grad_total + grad_total)>(2 * p.factor) * grad_total;
}

template <class T>
FASTPOSE_ANYWHERE void store_gradient(const JointGradients<T>& grads, int64_t b, int64_t k,
                                      const JointVector<T>& gradient) {
    if (grads.keypoints) {
        grads.keypoints.at(b, k, 0) = gradient.x;
        grads.keypoints.at(b, k, 1) = gradient.y;
    }
    if (grads.sigma) grads.sigma.at(b, k) = gradient.sigma;
}

template <class T>
FASTPOSE_ANYWHERE JointVector<T> direction(const JointGradients<const T>& cotangents, int64_t b, int64_t k) {
    JointVector<T> move;
    if (cotangents.keypoints) {
        move.x = cotangents.keypoints.at(b, k, 0);
        move.y = cotangents.keypoints.at(b, k, 1);
    }
    if (cotangents.sigma) move.sigma = cotangents.sigma.at(b, k);
    return move;
}

}  // namespace
}  // namespace fastpose::heatmap
