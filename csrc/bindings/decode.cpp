// Decoding and the average of a flip test: each function unpacks tensors, checks them and calls the kernel.

#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "bindings/direct.h"
#include "bindings/heatmap_calls.h"

namespace fastpose::bindings {
namespace {

template <class T>
auto kernels(const Cpu&) {
    return heatmap::decode_kernels<T>(cpu_level());
}
#ifdef FASTPOSE_WITH_CUDA
template <class T>
auto kernels(const Cuda&) {
    return heatmap::cuda::decode_kernels<T>();
}
#endif

heatmap::Method method_named(const std::string& name) {
    using heatmap::Method;
    constexpr std::pair<const char*, Method> known[] = {{"argmax", Method::argmax},
                                                        {"quarter", Method::quarter},
                                                        {"dark", Method::dark},
                                                        {"dark_udp", Method::dark_udp}};
    for (const auto& [text, method] : known)
        if (name == text) return method;
    throw std::invalid_argument("method: expected argmax, quarter, dark or dark_udp, got " + name);
}

// Heatmaps (B, K, H, W) and what is contiguous per joint: coordinates (B, K, 2) and scores (B, K).
template <class Target>
HeatmapCall<Target> decode_call(const TensorView& heatmaps, const TensorView& coordinates, const TensorView& scores) {
    const HeatmapCall<Target> call("heatmaps", heatmaps, arithmetic_of("heatmaps", heatmaps), 4);
    require("coordinates", coordinates);
    call.check_points("coordinates", coordinates);
    check_contiguous("coordinates", coordinates);
    call.check_joint_numbers("scores", scores);
    return call;
}

template <class Target>
void heatmap_decode(const TensorView& heatmaps, const std::string& method, const std::vector<double>& taps,
                    double max_step, const TensorView& coordinates, const TensorView& scores,
                    typename Target::Where where) {
    const heatmap::Method chosen = method_named(method);
    const auto call = decode_call<Target>(heatmaps, coordinates, scores);
    if (taps.size() % 2 == 0) throw std::invalid_argument("taps: expected an odd number, got an even one");
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .decode({call.size, planes(heatmaps), chosen, taps.data(), static_cast<int64_t>(taps.size()), max_step,
                     numbers<T>(coordinates), numbers<T>(scores)},
                    call.target.place(where));
    });
}

template <class Target>
void softargmax(const TensorView& heatmaps, double beta, const TensorView& coordinates, const TensorView& scores,
                const TensorView& totals, typename Target::Where where) {
    const auto call = decode_call<Target>(heatmaps, coordinates, scores);
    call.check_joint_numbers("totals", totals);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .softargmax({call.size, planes(heatmaps), static_cast<T>(beta), numbers<T>(coordinates), numbers<T>(scores),
                         numbers<T>(totals)},
                        call.target.place(where));
    });
}

template <class Target>
void softargmax_bwd(const TensorView& heatmaps, double beta, const TensorView& coordinates, const TensorView& scores,
                    const TensorView& totals, const TensorView& grad_coordinates, const TensorView& grad_heatmaps,
                    typename Target::Where where) {
    const auto call = decode_call<Target>(heatmaps, coordinates, scores);
    call.check_joint_numbers("totals", totals);
    require("grad_coordinates", grad_coordinates);
    call.check_points("grad_coordinates", grad_coordinates);
    call.check_planes("grad_heatmaps", grad_heatmaps);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .softargmax_backward({call.size, planes(heatmaps), static_cast<T>(beta), numbers<const T>(coordinates),
                                  numbers<const T>(scores), numbers<const T>(totals),
                                  per_joint3<const T>(grad_coordinates), planes(grad_heatmaps)},
                                 call.target.place(where));
    });
}

template <class Target>
void softargmax_bwd2(const TensorView& heatmaps, double beta, const TensorView& coordinates, const TensorView& scores,
                     const TensorView& totals, const TensorView& grad_coordinates, const TensorView& cot_heatmaps,
                     const TensorView& grad_heatmaps, const TensorView& grad_grad_coordinates,
                     typename Target::Where where) {
    const auto call = decode_call<Target>(heatmaps, coordinates, scores);
    call.check_joint_numbers("totals", totals);
    require("grad_coordinates", grad_coordinates);
    call.check_points("grad_coordinates", grad_coordinates);
    call.check_planes("cot_heatmaps", cot_heatmaps);
    call.check_planes("grad_heatmaps", grad_heatmaps);
    require("grad_grad_coordinates", grad_grad_coordinates);
    call.check_points("grad_grad_coordinates", grad_grad_coordinates);
    check_contiguous("grad_grad_coordinates", grad_grad_coordinates);
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .softargmax_double_backward(
                {call.size, planes(heatmaps), static_cast<T>(beta), numbers<const T>(coordinates),
                 numbers<const T>(scores), numbers<const T>(totals), per_joint3<const T>(grad_coordinates),
                 planes(cot_heatmaps), planes(grad_heatmaps), numbers<T>(grad_grad_coordinates)},
                call.target.place(where));
    });
}

template <class Target>
void flip_average(const TensorView& direct, const TensorView& mirrored, const std::vector<int64_t>& partner,
                  const TensorView& out, typename Target::Where where) {
    const HeatmapCall<Target> call("out", out, arithmetic_of("out", out), 4);
    call.check_optional_planes("direct", direct);
    call.check_optional_planes("mirrored", mirrored);
    const bool inside = std::all_of(partner.begin(), partner.end(),
                                    [&](int64_t joint) { return joint >= 0 && joint < call.size.joints; });
    if (static_cast<int64_t>(partner.size()) != call.size.joints || !inside)
        throw std::invalid_argument("partner: expected a joint for each of " + std::to_string(call.size.joints) +
                                    ", got " + std::to_string(partner.size()) + " numbers");
    for_real_type(call.arithmetic, [&]<class T>() {
        kernels<T>(call.target)
            .flip_average({call.size, planes(direct), planes(mirrored), planes(out), partner.data()},
                          call.target.place(where));
    });
}

// ------------------------------------------------------------------------------------------------- calls in one step

// `weights`: from a number of taps to their weights, asked where the method blurs.
py::object direct_decode(py::handle heatmaps, const std::string& method, py::handle weights, py::handle kernel,
                         double max_step, double beta) {
    Direct call;
    const TensorView view = call.tensor(heatmaps);
    call.expect(view.rank == 4 && is_element(view.dtype));
    if (!call) return py::none();
    const DType arithmetic = wide(view.dtype);
    const int64_t batch = view.size[0], joints = view.size[1];
    const Fresh coordinates = empty(heatmaps, view, arithmetic, {batch, joints, 2});
    const Fresh scores = empty(heatmaps, view, arithmetic, {batch, joints});
    if (method == "softargmax") {
        const Scratch totals(arithmetic, batch, joints);
        softargmax<Cpu>(view, beta, coordinates.view, scores.view, totals.view, direct_threads());
    } else {
        const bool blurs = method == "dark" || method == "dark_udp";
        const auto taps = blurs ? weights(kernel).cast<std::vector<double>>() : std::vector<double>{1};
        heatmap_decode<Cpu>(view, method, taps, max_step, coordinates.view, scores.view, direct_threads());
    }
    return py::make_tuple(coordinates.tensor, scores.tensor);
}

// The partner of each joint: itself, or the other one of its pair.
std::vector<int64_t> partners(Direct& call, py::handle pairs, int64_t joints) {
    std::vector<int64_t> partner(joints);
    std::iota(partner.begin(), partner.end(), 0);
    call.expect(PyTuple_Check(pairs.ptr()));
    if (!call) return partner;
    for (const py::handle pair : py::reinterpret_borrow<py::tuple>(pairs)) {
        call.expect(PyTuple_Check(pair.ptr()) && PyTuple_GET_SIZE(pair.ptr()) == 2);
        if (!call) break;
        const int64_t left = call.integer(PyTuple_GET_ITEM(pair.ptr(), 0));
        const int64_t right = call.integer(PyTuple_GET_ITEM(pair.ptr(), 1));
        const auto free = [&](int64_t joint) { return joint >= 0 && joint < joints && partner[joint] == joint; };
        call.expect(left != right && free(left) && free(right));
        if (!call) break;
        std::swap(partner[left], partner[right]);
    }
    return partner;
}

py::object direct_flip(py::handle heatmaps, py::handle flipped, py::handle pairs) {
    Direct call;
    const TensorView straight = call.tensor(heatmaps), mirrored = call.tensor(flipped);
    call.expect(straight.rank == 4 && mirrored && is_element(straight.dtype));
    if (!call) return py::none();  // before its size is trusted
    const std::vector<int64_t> partner = partners(call, pairs, straight.size[1]);
    if (!call) return py::none();
    const Fresh out = empty_like(heatmaps);
    flip_average<Cpu>(straight, mirrored, partner, out.view, direct_threads());
    return out.tensor;
}

}  // namespace

void bind_direct_decode(py::module_& module) {
    module.def("decode_heatmaps", direct(&direct_decode));
    module.def("flip_average", direct(&direct_flip));
}

template <class Target>
void bind_decode(py::module_& module) {
    module.def("heatmap_decode", &heatmap_decode<Target>);
    module.def("softargmax", &softargmax<Target>);
    module.def("softargmax_bwd", &softargmax_bwd<Target>);
    module.def("softargmax_bwd2", &softargmax_bwd2<Target>);
    module.def("flip_average", &flip_average<Target>);
}
template void bind_decode<Cpu>(py::module_&);
#ifdef FASTPOSE_WITH_CUDA
template void bind_decode<Cuda>(py::module_&);
#endif

}  // namespace fastpose::bindings
