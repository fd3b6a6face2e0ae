// Rendering and the fused squared error: each function unpacks tensors, checks them and calls the kernel.

#include <limits>

#include "bindings/direct.h"
#include "bindings/heatmap_calls.h"

namespace fastpose::bindings {
namespace {

template <class T>
auto kernels(const Cpu&) {
    return heatmap::kernels<T>(cpu_level());
}
#ifdef FASTPOSE_WITH_CUDA
template <class T>
auto kernels(const Cuda&) {
    return heatmap::cuda::kernels<T>();
}
#endif

heatmap::Profile profile_named(const std::string& name) {
    using heatmap::Profile;
    constexpr std::pair<const char*, Profile> known[] = {
        {"gaussian", Profile::gaussian}, {"gaussian_rounded", Profile::gaussian_rounded},
        {"msra", Profile::msra},         {"udp", Profile::udp},
        {"wide", Profile::wide},         {"binary", Profile::binary},
        {"patch", Profile::patch},       {"constant", Profile::constant}};
    for (const auto& [text, profile] : known)
        if (name == text) return profile;
    throw std::invalid_argument("profile: expected a known name, got " + name);
}

// The joints of a call as its user gave them; depth is absent where heatmaps are drawn.
struct JointViews {
    const TensorView &keypoints, &sigma, &depth, &visible;
    heatmap::Profile profile;

    template <class Target>
    void check(const HeatmapCall<Target>& call) const {
        require("keypoints", keypoints);
        require("sigma", sigma);
        call.check_points("keypoints", keypoints);
        call.check_per_joint("sigma", sigma);
        call.check_per_joint("depth", depth);
        call.check("visible", visible, DType::boolean, {call.size.batch, call.size.joints});
    }
    template <class T>
    heatmap::Joints<T> joints() const {
        return {per_joint3<const T>(keypoints), per_joint<const T>(sigma), per_joint<const T>(depth),
                per_joint<const bool>(visible), profile};
    }
};

const TensorView absent;

// --------------------------------------------------------------------------------------------------------- rendering

template <class Target>
void heatmap_render(const TensorView& keypoints, const TensorView& sigma, const TensorView& depth,
                    const TensorView& visible, const std::string& profile, const TensorView& out,
                    typename Target::Where where) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall<Target> call("out", out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target).render({call.size, joints.joints<T>(), planes(out)}, call.target.place(where));
    });
}

template <class Target>
void heatmap_render_bwd(const TensorView& keypoints, const TensorView& sigma, const TensorView& depth,
                        const TensorView& visible, const std::string& profile, const TensorView& grad_out,
                        const TensorView& grad_keypoints, const TensorView& grad_sigma, const TensorView& grad_depth,
                        typename Target::Where where) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall<Target> call("grad_out", grad_out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    call.check_per_joint("grad_depth", grad_depth);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .render_backward({call.size, joints.joints<T>(), planes(grad_out),
                              joint_gradients<T>(grad_keypoints, grad_sigma, grad_depth)},
                             call.target.place(where));
    });
}

template <class Target>
void heatmap_render_bwd2(const TensorView& keypoints, const TensorView& sigma, const TensorView& depth,
                         const TensorView& visible, const std::string& profile, const TensorView& grad_out,
                         const TensorView& cot_keypoints, const TensorView& cot_sigma, const TensorView& cot_depth,
                         const TensorView& grad_keypoints, const TensorView& grad_sigma, const TensorView& grad_depth,
                         const TensorView& grad_grad_out, typename Target::Where where) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall<Target> call("grad_out", grad_out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    call.check_points("cot_keypoints", cot_keypoints);
    call.check_per_joint("cot_sigma", cot_sigma);
    call.check_per_joint("cot_depth", cot_depth);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    call.check_per_joint("grad_depth", grad_depth);
    call.check_planes("grad_grad_out", grad_grad_out);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .render_double_backward({call.size, joints.joints<T>(), planes(grad_out),
                                     joint_gradients<const T>(cot_keypoints, cot_sigma, cot_depth),
                                     joint_gradients<T>(grad_keypoints, grad_sigma, grad_depth), planes(grad_grad_out)},
                                    call.target.place(where));
    });
}

// -------------------------------------------------------------------------------------------------------------- loss

// What all orders of the loss share: prediction (B, S, K, H, W), joints and weight (B, S, K).
template <class Target>
HeatmapCall<Target> loss_call(const TensorView& prediction, const JointViews& joints, const TensorView& weight) {
    const HeatmapCall<Target> call("prediction", prediction, arithmetic_of("prediction", prediction), 5);
    joints.check(call);
    call.check("weight", weight, call.arithmetic, {call.size.batch, call.size.stacks, call.size.joints});
    return call;
}

template <class Target>
void heatmap_mse_loss(const TensorView& prediction, const TensorView& keypoints, const TensorView& sigma,
                      const TensorView& visible, const TensorView& weight, const std::string& profile, double factor,
                      const TensorView& partials, const TensorView& total, typename Target::Where where) {
    const JointViews joints{keypoints, sigma, absent, visible, profile_named(profile)};
    const auto call = loss_call<Target>(prediction, joints, weight);
    call.check_joint_numbers("partials", partials, DType::float64);
    call.check_number("total", total);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .loss({call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight), factor,
                   numbers<double>(partials), numbers<T>(total)},
                  call.target.place(where));
    });
}

template <class Target>
void heatmap_mse_loss_bwd(const TensorView& prediction, const TensorView& keypoints, const TensorView& sigma,
                          const TensorView& visible, const TensorView& weight, const std::string& profile,
                          double factor, const TensorView& grad_total, const TensorView& grad_prediction,
                          const TensorView& grad_keypoints, const TensorView& grad_sigma,
                          typename Target::Where where) {
    const JointViews joints{keypoints, sigma, absent, visible, profile_named(profile)};
    const auto call = loss_call<Target>(prediction, joints, weight);
    call.check_number("grad_total", grad_total);
    call.check_optional_planes("grad_prediction", grad_prediction);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .loss_backward(
                {call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight), factor,
                 numbers<const T>(grad_total), planes(grad_prediction), joint_gradients<T>(grad_keypoints, grad_sigma)},
                call.target.place(where));
    });
}

template <class Target>
void heatmap_mse_loss_bwd2(const TensorView& prediction, const TensorView& keypoints, const TensorView& sigma,
                           const TensorView& visible, const TensorView& weight, const std::string& profile,
                           double factor, const TensorView& grad_total, const TensorView& cot_prediction,
                           const TensorView& cot_keypoints, const TensorView& cot_sigma,
                           const TensorView& grad_prediction, const TensorView& grad_keypoints,
                           const TensorView& grad_sigma, const TensorView& partials, const TensorView& grad_grad_total,
                           typename Target::Where where) {
    const JointViews joints{keypoints, sigma, absent, visible, profile_named(profile)};
    const auto call = loss_call<Target>(prediction, joints, weight);
    call.check_number("grad_total", grad_total);
    call.check_joint_numbers("partials", partials, DType::float64);
    call.check_number("grad_grad_total", grad_grad_total);
    call.check_optional_planes("cot_prediction", cot_prediction);
    call.check_points("cot_keypoints", cot_keypoints);
    call.check_per_joint("cot_sigma", cot_sigma);
    call.check_planes("grad_prediction", grad_prediction);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .loss_double_backward({call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight),
                                   factor, numbers<const T>(grad_total), planes(cot_prediction),
                                   joint_gradients<const T>(cot_keypoints, cot_sigma), planes(grad_prediction),
                                   joint_gradients<T>(grad_keypoints, grad_sigma), numbers<double>(partials),
                                   numbers<T>(grad_grad_total)},
                                  call.target.place(where));
    });
}

// ------------------------------------------------------------------------------------------------- calls in one step

// The joints of a call in one step: key points (B, K, 2), sigma (B, K) and where they are drawn (B, K).
struct DirectJoints {
    TensorView keypoints, sigma, visible;

    DirectJoints(Direct& call, py::handle given_points, py::handle given_sigma, py::handle visibility)
        : keypoints(call.tensor(given_points)), visible(call.tensor(visibility)) {
        call.expect(keypoints.rank == 3 && is_real(keypoints.dtype));
        if (PyFloat_Check(given_sigma.ptr()) || PyLong_Check(given_sigma.ptr()))
            fill(call, given_sigma);
        else
            spread(call, given_sigma);
    }
    DirectJoints(const DirectJoints&) = delete;  // sigma may be number_

   private:
    // One number for all joints, which lies here.
    void fill(Direct& call, py::handle given) {
        const double number = call.number(given);
        const bool wide = keypoints.dtype == DType::float64;
        call.expect(number > 0 &&
                    number <= (wide ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max()));
        if (!call) return;
        if (wide)
            number_.wide = number;
        else
            number_.narrow = static_cast<float>(number);
        sigma.present = true;
        sigma.dtype = keypoints.dtype;
        sigma.data = &number_;
        expand();
    }
    void spread(Direct& call, py::handle given) {
        sigma = call.tensor(given);
        call.expect(sigma && sigma.rank <= 2);
        expand();
    }
    void expand() {
        while (sigma.rank < 2) sigma = with_axis(sigma, 0, keypoints.size[1 - sigma.rank]);
    }

    union {
        float narrow;
        double wide;
    } number_{};
};

py::object drawn(Direct& call, py::handle keypoints, const DirectJoints& joints, const TensorView& depth,
                 py::handle height, py::handle width, const std::string& profile) {
    const int64_t rows = call.integer(height), columns = call.integer(width);
    if (!call) return py::none();
    const TensorView& points = joints.keypoints;
    const Fresh out = empty(keypoints, points, points.dtype, {points.size[0], points.size[1], rows, columns});
    heatmap_render<Cpu>(points, joints.sigma, depth, joints.visible, profile, out.view, direct_threads());
    return out.tensor;
}

py::object direct_heatmaps(py::handle keypoints, py::handle height, py::handle width, py::handle sigma,
                           py::handle visibility, const std::string& profile) {
    Direct call;
    const DirectJoints joints(call, keypoints, sigma, visibility);
    return drawn(call, keypoints, joints, absent, height, width, profile);
}

py::object direct_depth_maps(py::handle keypoints, py::handle depth, py::handle height, py::handle width,
                             py::handle sigma, py::handle visibility, const std::string& profile) {
    Direct call;
    const DirectJoints joints(call, keypoints, sigma, visibility);
    const TensorView depths = call.tensor(depth);
    call.expect(depths.present);
    return drawn(call, keypoints, joints, depths, height, width, profile);
}

// A weight (K,), (B, K) or (B, S, K) of planes (B, S, K, H, W), as (B, S, K).
TensorView plane_weights(Direct& call, py::handle given, const TensorView& stacks) {
    TensorView weight = call.constant(given);
    if (!weight) return weight;
    call.expect(weight.rank >= 1 && weight.rank <= 3);
    if (weight.rank == 1) weight = with_axis(weight, 0, stacks.size[0]);
    if (weight.rank == 2) weight = with_axis(weight, 1, stacks.size[1]);
    return weight;
}

py::object direct_loss(py::handle prediction, py::handle keypoints, py::handle sigma, py::handle visibility,
                       const std::string& profile, py::handle weight, bool mean) {
    Direct call;
    const TensorView planes = call.tensor(prediction);
    const DirectJoints joints(call, keypoints, sigma, visibility);
    call.expect((planes.rank == 4 || planes.rank == 5) && is_element(planes.dtype) &&
                wide(planes.dtype) == joints.keypoints.dtype);
    if (!call) return py::none();
    const TensorView stacks = planes.rank == 5 ? planes : with_axis(planes, 1, 1);
    const TensorView weights = plane_weights(call, weight, stacks);
    if (!call) return py::none();
    const Fresh total = empty(prediction, planes, wide(planes.dtype), {});
    const Scratch partials(DType::float64, stacks.size[0], stacks.size[2]);
    heatmap_mse_loss<Cpu>(stacks, joints.keypoints, joints.sigma, joints.visible, weights, profile,
                          mean ? 1.0 / std::max<int64_t>(planes.elements(), 1) : 1.0, partials.view, total.view,
                          direct_threads());
    return total.tensor;
}

}  // namespace

void bind_direct_heatmap(py::module_& module) {
    module.def("render_gaussian_heatmaps", direct(&direct_heatmaps));
    module.def("render_depth_maps", direct(&direct_depth_maps));
    module.def("heatmap_mse_loss", direct(&direct_loss));
}

template <class Target>
void bind_heatmap(py::module_& module) {
    module.def("heatmap_render", &heatmap_render<Target>);
    module.def("heatmap_render_bwd", &heatmap_render_bwd<Target>);
    module.def("heatmap_render_bwd2", &heatmap_render_bwd2<Target>);
    module.def("heatmap_mse_loss", &heatmap_mse_loss<Target>);
    module.def("heatmap_mse_loss_bwd", &heatmap_mse_loss_bwd<Target>);
    module.def("heatmap_mse_loss_bwd2", &heatmap_mse_loss_bwd2<Target>);
}
template void bind_heatmap<Cpu>(py::module_&);
#ifdef FASTPOSE_WITH_CUDA
template void bind_heatmap<Cuda>(py::module_&);
#endif

}  // namespace fastpose::bindings
