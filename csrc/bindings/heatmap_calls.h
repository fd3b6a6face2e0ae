// Sizes, types and checks of a call on heatmaps, and the way from tensors to the kernels' views.
#pragma once

#include <string>

#include "bindings/calls.h"
#include "heatmap/heatmap.h"

namespace fastpose::bindings {

// What a call on heatmaps knows of its sizes and types; each check names the argument.
template <class Target>
struct HeatmapCall {
    Target target;
    heatmap::Sizes size;
    DType arithmetic, element;
    int rank;  // of all planes of the call

    // Sizes of planes (B, K, H, W) or, for stacks, (B, S, K, H, W).
    HeatmapCall(const char* name, const TensorView& planes, DType arithmetic, int rank)
        : target(planes), arithmetic(arithmetic), element(planes.dtype), rank(rank) {
        require(name, planes);
        target.check(name, planes);
        check_element(name, planes, arithmetic);
        if (planes.rank != rank)
            throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(rank) + " dimensions, got " +
                                        spell(planes.size, planes.rank));
        const int64_t* last = planes.size + rank - 3;
        size = {planes.size[0], rank == 5 ? planes.size[1] : 1, last[0], last[1], last[2]};
        if (size.height < 1 || size.width < 1)
            throw std::invalid_argument(std::string(name) + ": expected at least one pixel, got " +
                                        spell(planes.size, planes.rank));
    }

    void check(const char* name, const TensorView& tensor, DType dtype, std::initializer_list<int64_t> sizes) const {
        check_tensor(target, name, tensor, dtype, sizes);
    }
    void check_planes(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_optional_planes(name, tensor);
    }
    void check_optional_planes(const char* name, const TensorView& tensor) const {
        if (rank == 5)
            check(name, tensor, element, {size.batch, size.stacks, size.joints, size.height, size.width});
        else
            check(name, tensor, element, {size.batch, size.joints, size.height, size.width});
    }
    void check_points(const char* name, const TensorView& tensor) const {
        check(name, tensor, arithmetic, {size.batch, size.joints, 2});
    }
    void check_per_joint(const char* name, const TensorView& tensor) const {
        check(name, tensor, arithmetic, {size.batch, size.joints});
    }
    // One number per joint that a kernel addresses without strides.
    void check_joint_numbers(const char* name, const TensorView& tensor, DType dtype) const {
        require(name, tensor);
        check(name, tensor, dtype, {size.batch, size.joints});
        check_contiguous(name, tensor);
    }
    void check_joint_numbers(const char* name, const TensorView& tensor) const {
        check_joint_numbers(name, tensor, arithmetic);
    }
    void check_number(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check(name, tensor, arithmetic, {});
    }
};

inline heatmap::Planes planes(const TensorView& view) {
    if (!view) return {};
    const int64_t* last = view.stride + view.rank - 3;
    return {view.data, view.dtype, view.stride[0], view.rank == 5 ? view.stride[1] : 0, last[0], last[1], last[2]};
}
template <class T>
heatmap::PerJoint<T> per_joint(const TensorView& view) {
    return {static_cast<T*>(view.data), view.stride[0], view.stride[1]};
}
template <class T>
heatmap::PerJoint3<T> per_joint3(const TensorView& view) {
    return {static_cast<T*>(view.data), view.stride[0], view.stride[1], view.stride[2]};
}
template <class T>
heatmap::JointGradients<T> joint_gradients(const TensorView& keypoints, const TensorView& sigma,
                                           const TensorView& depth = {}) {
    return {per_joint3<T>(keypoints), per_joint<T>(sigma), per_joint<T>(depth)};
}
template <class T>
T* numbers(const TensorView& view) {
    return static_cast<T*>(view.data);
}

}  // namespace fastpose::bindings
