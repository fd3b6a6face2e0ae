// Rendering and the fused squared error: each function unpacks tensors, checks them and calls the kernel.

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

}  // namespace

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
