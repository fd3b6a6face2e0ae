// The Python module fastpose._C: one function per operation and order of derivative. Each unpacks tensors into views,
// checks them, releases the interpreter lock and calls the kernel. No arithmetic here. Tensors are read through their
// Python attributes, so that the module is built without torch and serves every version of it.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "attention/attention.h"
#include "common/checks.h"
#include "common/cpu_level.h"
#include "geometry/geometry.h"
#include "heatmap/heatmap.h"
#include "limits/limits.h"

namespace py = pybind11;
using fastpose::DType;
using fastpose::TensorView;

// ------------------------------------------------------------------------------------------------ tensors into views

namespace {

// What a tensor's facts are read by and compared with; lives as long as the process.
struct TorchNames {
    PyObject *float32, *float64, *bfloat16, *float16, *int64, *boolean, *tensor;
    PyObject *data_ptr, *dtype, *shape, *stride, *is_cpu, *get_device;

    static const TorchNames& get() {
        static const TorchNames names = [] {
            const py::module_ torch = py::module_::import("torch");
            const auto of_torch = [&](const char* name) { return py::object(torch.attr(name)).release().ptr(); };
            const auto text = [](const char* name) { return PyUnicode_InternFromString(name); };
            return TorchNames{of_torch("float32"), of_torch("float64"), of_torch("bfloat16"), of_torch("float16"),
                              of_torch("int64"),   of_torch("bool"),    of_torch("Tensor"),   text("data_ptr"),
                              text("dtype"),       text("shape"),       text("stride"),       text("is_cpu"),
                              text("get_device")};
        }();
        return names;
    }

    DType dtype_of(const PyObject* object) const {
        if (object == float32) return DType::float32;
        if (object == float64) return DType::float64;
        if (object == bfloat16) return DType::bfloat16;
        if (object == float16) return DType::float16;
        if (object == int64) return DType::int64;
        if (object == boolean) return DType::boolean;
        return DType::other;
    }
};

py::object owned(PyObject* object) {
    if (object == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(object);
}

void read_sizes(const py::object& tuple, int rank, int64_t* to) {
    for (int axis = 0; axis < rank; ++axis) {
        to[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), axis));
        if (to[axis] == -1 && PyErr_Occurred()) throw py::error_already_set();
    }
}

TensorView view_of(py::handle tensor) {
    const TorchNames& names = TorchNames::get();
    const py::object shape = owned(PyObject_GetAttr(tensor.ptr(), names.shape));
    const py::object stride = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.stride));
    const Py_ssize_t rank = PyTuple_Size(shape.ptr());
    if (rank > fastpose::max_rank || rank != PyTuple_Size(stride.ptr()))
        throw std::invalid_argument("tensor: expected at most " + std::to_string(fastpose::max_rank) +
                                    " dimensions, got " + std::to_string(rank));
    TensorView view;
    view.present = true;
    view.rank = static_cast<int>(rank);
    read_sizes(shape, view.rank, view.size);
    read_sizes(stride, view.rank, view.stride);
    view.dtype = names.dtype_of(owned(PyObject_GetAttr(tensor.ptr(), names.dtype)).ptr());
    view.on_cpu = owned(PyObject_GetAttr(tensor.ptr(), names.is_cpu)).ptr() == Py_True;
    if (!view.on_cpu) view.device_index = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.get_device)).cast<int>();
    view.data = PyLong_AsVoidPtr(owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.data_ptr)).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return view;
}

}  // namespace

namespace pybind11::detail {
template <>
struct type_caster<TensorView> {
    PYBIND11_TYPE_CASTER(TensorView, const_name("torch.Tensor | None"));
    bool load(handle source, bool) {
        if (source.is_none()) return true;
        if (PyObject_IsInstance(source.ptr(), TorchNames::get().tensor) != 1) return false;
        value = view_of(source);
        return true;
    }
};
}  // namespace pybind11::detail

// --------------------------------------------------------------------------------------------------------- attention

namespace {

using fastpose::Strided3;
namespace attention = fastpose::attention;

int at_least_one(int threads) { return std::max(threads, 1); }

template <class T>
Strided3<T> strided(const TensorView& view) {
    return {static_cast<T*>(view.data), view.stride[0], view.stride[1], view.stride[2]};
}

void check_map(const char* name, const TensorView& tensor, DType dtype, std::initializer_list<int64_t> sizes) {
    fastpose::check_cpu(name, tensor);
    fastpose::check_dtype(name, tensor, dtype);
    fastpose::check_shape(name, tensor, sizes);
}

struct AttentionInputs {
    attention::Sizes size;
    DType dtype;

    AttentionInputs(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                    const TensorView& lse) {
        fastpose::check_shape("query", query, {-1, -1, -1});
        fastpose::check_shape("value", value, {-1, -1, -1});
        if (!query || !key || !value || !out || !lse)
            throw std::invalid_argument("query, key, value, out, lse: expected tensors, got None");
        dtype = query.dtype;
        if (dtype != DType::float32 && dtype != DType::float64)
            throw std::invalid_argument(std::string("query: expected float32 or float64, got ") + name_of(dtype));
        size = {query.size[0], query.size[1], value.size[1], query.size[2], value.size[2]};
        check_map("query", query, dtype, {size.batch, size.key_channels, size.queries});
        check_map("key", key, dtype, {size.batch, size.key_channels, size.keys});
        check_map("value", value, dtype, {size.batch, size.value_channels, size.keys});
        check_map("out", out, dtype, {size.batch, size.value_channels, size.queries});
        check_map("lse", lse, dtype, {size.batch, size.queries});
        fastpose::check_contiguous("lse", lse);
    }

    void check_like_query(const char* name, const TensorView& tensor) const {
        check_map(name, tensor, dtype, {size.batch, size.key_channels, size.queries});
    }
    void check_like_key(const char* name, const TensorView& tensor) const {
        check_map(name, tensor, dtype, {size.batch, size.key_channels, size.keys});
    }
    void check_like_value(const char* name, const TensorView& tensor) const {
        check_map(name, tensor, dtype, {size.batch, size.value_channels, size.keys});
    }
    void check_like_out(const char* name, const TensorView& tensor) const {
        check_map(name, tensor, dtype, {size.batch, size.value_channels, size.queries});
    }
};

// Calls run.operator()<float>() or <double>() with the interpreter lock released.
template <class Run>
void for_real_type(DType dtype, const Run& run) {
    const py::gil_scoped_release release;
    if (dtype == DType::float32)
        run.template operator()<float>();
    else
        run.template operator()<double>();
}

void attention_fwd(TensorView query, TensorView key, TensorView value, TensorView out, TensorView lse, int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(fastpose::cpu_level())
            .forward({inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                      strided<T>(out), static_cast<T*>(lse.data)},
                     at_least_one(threads));
    });
}

void attention_bwd(TensorView query, TensorView key, TensorView value, TensorView out, TensorView lse,
                   TensorView grad_out, TensorView grad_query, TensorView grad_key, TensorView grad_value,
                   int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    inputs.check_like_out("grad_out", grad_out);
    inputs.check_like_query("grad_query", grad_query);
    inputs.check_like_key("grad_key", grad_key);
    inputs.check_like_value("grad_value", grad_value);
    if (!grad_out) throw std::invalid_argument("grad_out: expected a tensor, got None");
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(fastpose::cpu_level())
            .backward({inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                       strided<const T>(out), static_cast<const T*>(lse.data), strided<const T>(grad_out),
                       strided<T>(grad_query), strided<T>(grad_key), strided<T>(grad_value)},
                      at_least_one(threads));
    });
}

void attention_bwd2(TensorView query, TensorView key, TensorView value, TensorView out, TensorView lse,
                    TensorView grad_out, TensorView cot_query, TensorView cot_key, TensorView cot_value,
                    TensorView grad_query, TensorView grad_key, TensorView grad_value, TensorView grad_grad_out,
                    int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    inputs.check_like_out("grad_out", grad_out);
    inputs.check_like_query("cot_query", cot_query);
    inputs.check_like_key("cot_key", cot_key);
    inputs.check_like_value("cot_value", cot_value);
    inputs.check_like_query("grad_query", grad_query);
    inputs.check_like_key("grad_key", grad_key);
    inputs.check_like_value("grad_value", grad_value);
    inputs.check_like_out("grad_grad_out", grad_grad_out);
    if (!grad_out || !grad_query || !grad_key || !grad_value || !grad_grad_out)
        throw std::invalid_argument("grad_out and the four results: expected tensors, got None");
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(fastpose::cpu_level())
            .double_backward(
                {inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                 strided<const T>(out), static_cast<const T*>(lse.data), strided<const T>(grad_out),
                 strided<const T>(cot_query), strided<const T>(cot_key), strided<const T>(cot_value),
                 strided<T>(grad_query), strided<T>(grad_key), strided<T>(grad_value), strided<T>(grad_grad_out)},
                at_least_one(threads));
    });
}

// ---------------------------------------------------------------------------------------------------------- heatmaps

namespace heatmap = fastpose::heatmap;

void require(const char* name, const TensorView& tensor) {
    if (!tensor) throw std::invalid_argument(std::string(name) + ": expected a tensor, got None");
}

DType real_dtype(const char* name, const TensorView& tensor) {
    require(name, tensor);
    if (tensor.dtype != DType::float32 && tensor.dtype != DType::float64)
        throw std::invalid_argument(std::string(name) + ": expected float32 or float64, got " + name_of(tensor.dtype));
    return tensor.dtype;
}

// Large tensors may be narrower than the arithmetic: 16 bits beside float32.
void check_element(const char* name, const TensorView& tensor, DType arithmetic) {
    const bool narrow = tensor.dtype == DType::bfloat16 || tensor.dtype == DType::float16;
    if (tensor && tensor.dtype != arithmetic && !(narrow && arithmetic == DType::float32))
        throw std::invalid_argument(std::string(name) + ": expected " + name_of(arithmetic) +
                                    (arithmetic == DType::float32 ? " or 16 bits" : "") + ", got " +
                                    name_of(tensor.dtype));
}

// The arithmetic that a tensor's element type asks for.
DType arithmetic_of(const char* name, const TensorView& tensor) {
    require(name, tensor);
    const DType arithmetic = tensor.dtype == DType::float64 ? DType::float64 : DType::float32;
    check_element(name, tensor, arithmetic);
    return arithmetic;
}

// What a call on heatmaps knows of its sizes and types; each check names the argument.
struct HeatmapCall {
    heatmap::Sizes size;
    DType arithmetic, element;

    void check(const char* name, const TensorView& tensor, DType dtype, std::initializer_list<int64_t> sizes) const {
        if (!tensor) return;
        check_map(name, tensor, dtype, sizes);
    }
    void check_planes(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_optional_planes(name, tensor);
    }
    void check_optional_planes(const char* name, const TensorView& tensor) const {
        if (tensor.rank == 5)
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
    void check_joints(const TensorView& keypoints, const TensorView& sigma, const TensorView& visible) const {
        require("keypoints", keypoints);
        require("sigma", sigma);
        check_points("keypoints", keypoints);
        check_per_joint("sigma", sigma);
        check("visible", visible, DType::boolean, {size.batch, size.joints});
    }
    void check_number(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check(name, tensor, arithmetic, {});
    }
};

// Sizes of planes (B, K, H, W) or, for stacks, (B, S, K, H, W).
HeatmapCall heatmap_call(const char* name, const TensorView& planes, DType arithmetic, int rank) {
    require(name, planes);
    fastpose::check_cpu(name, planes);
    check_element(name, planes, arithmetic);
    if (planes.rank != rank)
        throw std::invalid_argument(std::string(name) + ": expected " + std::to_string(rank) + " dimensions, got " +
                                    fastpose::spell(planes.size, planes.rank));
    const int64_t* last = planes.size + rank - 3;
    const HeatmapCall call{
        {planes.size[0], rank == 5 ? planes.size[1] : 1, last[0], last[1], last[2]}, arithmetic, planes.dtype};
    if (call.size.height < 1 || call.size.width < 1)
        throw std::invalid_argument(std::string(name) + ": expected at least one pixel, got " +
                                    fastpose::spell(planes.size, planes.rank));
    return call;
}

heatmap::Planes planes(const TensorView& view) {
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

// The joints of a call as its user gave them; depth is absent where heatmaps are drawn.
struct JointViews {
    TensorView keypoints, sigma, depth, visible;
    heatmap::Profile profile;

    void check(const HeatmapCall& call) const {
        call.check_joints(keypoints, sigma, visible);
        call.check_per_joint("depth", depth);
    }
    template <class T>
    heatmap::Joints<T> joints() const {
        return {per_joint3<const T>(keypoints), per_joint<const T>(sigma), per_joint<const T>(depth),
                per_joint<const bool>(visible), profile};
    }
};

void heatmap_render(TensorView keypoints, TensorView sigma, TensorView depth, TensorView visible,
                    const std::string& profile, TensorView out, int threads) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall call = heatmap_call("out", out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .render({call.size, joints.joints<T>(), planes(out)}, at_least_one(threads));
    });
}

void heatmap_render_bwd(TensorView keypoints, TensorView sigma, TensorView depth, TensorView visible,
                        const std::string& profile, TensorView grad_out, TensorView grad_keypoints,
                        TensorView grad_sigma, TensorView grad_depth, int threads) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall call = heatmap_call("grad_out", grad_out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    call.check_per_joint("grad_depth", grad_depth);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .render_backward({call.size, joints.joints<T>(), planes(grad_out),
                              joint_gradients<T>(grad_keypoints, grad_sigma, grad_depth)},
                             at_least_one(threads));
    });
}

void heatmap_render_bwd2(TensorView keypoints, TensorView sigma, TensorView depth, TensorView visible,
                         const std::string& profile, TensorView grad_out, TensorView cot_keypoints,
                         TensorView cot_sigma, TensorView cot_depth, TensorView grad_keypoints, TensorView grad_sigma,
                         TensorView grad_depth, TensorView grad_grad_out, int threads) {
    const JointViews joints{keypoints, sigma, depth, visible, profile_named(profile)};
    const HeatmapCall call = heatmap_call("grad_out", grad_out, real_dtype("keypoints", keypoints), 4);
    joints.check(call);
    call.check_points("cot_keypoints", cot_keypoints);
    call.check_per_joint("cot_sigma", cot_sigma);
    call.check_per_joint("cot_depth", cot_depth);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    call.check_per_joint("grad_depth", grad_depth);
    call.check_planes("grad_grad_out", grad_grad_out);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .render_double_backward({call.size, joints.joints<T>(), planes(grad_out),
                                     joint_gradients<const T>(cot_keypoints, cot_sigma, cot_depth),
                                     joint_gradients<T>(grad_keypoints, grad_sigma, grad_depth), planes(grad_grad_out)},
                                    at_least_one(threads));
    });
}

// What all orders of the loss share: prediction (B, S, K, H, W), joints and weight (B, S, K).
HeatmapCall loss_call(const TensorView& prediction, const JointViews& joints, const TensorView& weight) {
    const HeatmapCall call = heatmap_call("prediction", prediction, arithmetic_of("prediction", prediction), 5);
    joints.check(call);
    call.check("weight", weight, call.arithmetic, {call.size.batch, call.size.stacks, call.size.joints});
    return call;
}

void heatmap_mse_loss(TensorView prediction, TensorView keypoints, TensorView sigma, TensorView visible,
                      TensorView weight, const std::string& profile, TensorView total, int threads) {
    const JointViews joints{keypoints, sigma, {}, visible, profile_named(profile)};
    const HeatmapCall call = loss_call(prediction, joints, weight);
    call.check_number("total", total);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .loss({call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight),
                   static_cast<T*>(total.data)},
                  at_least_one(threads));
    });
}

void heatmap_mse_loss_bwd(TensorView prediction, TensorView keypoints, TensorView sigma, TensorView visible,
                          TensorView weight, const std::string& profile, TensorView grad_total,
                          TensorView grad_prediction, TensorView grad_keypoints, TensorView grad_sigma, int threads) {
    const JointViews joints{keypoints, sigma, {}, visible, profile_named(profile)};
    const HeatmapCall call = loss_call(prediction, joints, weight);
    call.check_number("grad_total", grad_total);
    if (grad_prediction) call.check_planes("grad_prediction", grad_prediction);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .loss_backward({call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight),
                            static_cast<const T*>(grad_total.data), planes(grad_prediction),
                            joint_gradients<T>(grad_keypoints, grad_sigma)},
                           at_least_one(threads));
    });
}

void heatmap_mse_loss_bwd2(TensorView prediction, TensorView keypoints, TensorView sigma, TensorView visible,
                           TensorView weight, const std::string& profile, TensorView grad_total,
                           TensorView cot_prediction, TensorView cot_keypoints, TensorView cot_sigma,
                           TensorView grad_prediction, TensorView grad_keypoints, TensorView grad_sigma,
                           TensorView grad_grad_total, int threads) {
    const JointViews joints{keypoints, sigma, {}, visible, profile_named(profile)};
    const HeatmapCall call = loss_call(prediction, joints, weight);
    call.check_number("grad_total", grad_total);
    call.check_number("grad_grad_total", grad_grad_total);
    if (cot_prediction) call.check_planes("cot_prediction", cot_prediction);
    call.check_points("cot_keypoints", cot_keypoints);
    call.check_per_joint("cot_sigma", cot_sigma);
    call.check_planes("grad_prediction", grad_prediction);
    call.check_points("grad_keypoints", grad_keypoints);
    call.check_per_joint("grad_sigma", grad_sigma);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::kernels<T>(fastpose::cpu_level())
            .loss_double_backward(
                {call.size, joints.joints<T>(), planes(prediction), per_joint3<const T>(weight),
                 static_cast<const T*>(grad_total.data), planes(cot_prediction),
                 joint_gradients<const T>(cot_keypoints, cot_sigma), planes(grad_prediction),
                 joint_gradients<T>(grad_keypoints, grad_sigma), static_cast<T*>(grad_grad_total.data)},
                at_least_one(threads));
    });
}

// Heatmaps (B, K, H, W) and what is contiguous per joint: coordinates (B, K, 2), scores and totals (B, K).
HeatmapCall decode_call(const TensorView& heatmaps, const TensorView& coordinates) {
    const HeatmapCall call = heatmap_call("heatmaps", heatmaps, arithmetic_of("heatmaps", heatmaps), 4);
    require("coordinates", coordinates);
    call.check_points("coordinates", coordinates);
    fastpose::check_contiguous("coordinates", coordinates);
    return call;
}

void check_joint_numbers(const HeatmapCall& call, const char* name, const TensorView& tensor) {
    require(name, tensor);
    call.check_per_joint(name, tensor);
    fastpose::check_contiguous(name, tensor);
}

void heatmap_decode(TensorView heatmaps, const std::string& method, const std::vector<double>& taps, double max_step,
                    TensorView coordinates, TensorView scores, int threads) {
    const heatmap::Method chosen = method_named(method);
    const HeatmapCall call = decode_call(heatmaps, coordinates);
    check_joint_numbers(call, "scores", scores);
    if (taps.size() % 2 == 0) throw std::invalid_argument("taps: expected an odd number, got an even one");
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::decode_kernels<T>(fastpose::cpu_level())
            .decode({call.size, planes(heatmaps), chosen, taps.data(), static_cast<int64_t>(taps.size()), max_step,
                     static_cast<T*>(coordinates.data), static_cast<T*>(scores.data)},
                    at_least_one(threads));
    });
}

void softargmax(TensorView heatmaps, double beta, TensorView coordinates, TensorView scores, TensorView totals,
                int threads) {
    const HeatmapCall call = decode_call(heatmaps, coordinates);
    check_joint_numbers(call, "scores", scores);
    check_joint_numbers(call, "totals", totals);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::decode_kernels<T>(fastpose::cpu_level())
            .softargmax({call.size, planes(heatmaps), static_cast<T>(beta), static_cast<T*>(coordinates.data),
                         static_cast<T*>(scores.data), static_cast<T*>(totals.data)},
                        at_least_one(threads));
    });
}

void softargmax_bwd(TensorView heatmaps, double beta, TensorView coordinates, TensorView scores, TensorView totals,
                    TensorView grad_coordinates, TensorView grad_heatmaps, int threads) {
    const HeatmapCall call = decode_call(heatmaps, coordinates);
    check_joint_numbers(call, "scores", scores);
    check_joint_numbers(call, "totals", totals);
    require("grad_coordinates", grad_coordinates);
    call.check_points("grad_coordinates", grad_coordinates);
    call.check_planes("grad_heatmaps", grad_heatmaps);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::decode_kernels<T>(fastpose::cpu_level())
            .softargmax_backward(
                {call.size, planes(heatmaps), static_cast<T>(beta), static_cast<const T*>(coordinates.data),
                 static_cast<const T*>(scores.data), static_cast<const T*>(totals.data),
                 per_joint3<const T>(grad_coordinates), planes(grad_heatmaps)},
                at_least_one(threads));
    });
}

void softargmax_bwd2(TensorView heatmaps, double beta, TensorView coordinates, TensorView scores, TensorView totals,
                     TensorView grad_coordinates, TensorView cot_heatmaps, TensorView grad_heatmaps,
                     TensorView grad_grad_coordinates, int threads) {
    const HeatmapCall call = decode_call(heatmaps, coordinates);
    check_joint_numbers(call, "scores", scores);
    check_joint_numbers(call, "totals", totals);
    require("grad_coordinates", grad_coordinates);
    call.check_points("grad_coordinates", grad_coordinates);
    call.check_planes("cot_heatmaps", cot_heatmaps);
    call.check_planes("grad_heatmaps", grad_heatmaps);
    require("grad_grad_coordinates", grad_grad_coordinates);
    call.check_points("grad_grad_coordinates", grad_grad_coordinates);
    fastpose::check_contiguous("grad_grad_coordinates", grad_grad_coordinates);
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::decode_kernels<T>(fastpose::cpu_level())
            .softargmax_double_backward(
                {call.size, planes(heatmaps), static_cast<T>(beta), static_cast<const T*>(coordinates.data),
                 static_cast<const T*>(scores.data), static_cast<const T*>(totals.data),
                 per_joint3<const T>(grad_coordinates), planes(cot_heatmaps), planes(grad_heatmaps),
                 static_cast<T*>(grad_grad_coordinates.data)},
                at_least_one(threads));
    });
}

void flip_average(TensorView direct, TensorView mirrored, const std::vector<int64_t>& partner, TensorView out,
                  int threads) {
    const HeatmapCall call = heatmap_call("out", out, arithmetic_of("out", out), 4);
    call.check_optional_planes("direct", direct);
    call.check_optional_planes("mirrored", mirrored);
    const bool inside = std::all_of(partner.begin(), partner.end(),
                                    [&](int64_t joint) { return joint >= 0 && joint < call.size.joints; });
    if (static_cast<int64_t>(partner.size()) != call.size.joints || !inside)
        throw std::invalid_argument("partner: expected a joint for each of " + std::to_string(call.size.joints) +
                                    ", got " + std::to_string(partner.size()) + " numbers");
    for_real_type(call.arithmetic, [&]<class T>() {
        heatmap::decode_kernels<T>(fastpose::cpu_level())
            .flip_average({call.size, planes(direct), planes(mirrored), planes(out), partner.data()},
                          at_least_one(threads));
    });
}

// ---------------------------------------------------------------------------------------------------------- geometry

namespace geometry = fastpose::geometry;

struct DescriptorCall {
    geometry::Sizes size;
    DType arithmetic, element;

    DescriptorCall(const TensorView& joints, const TensorView& pairs, const char* name) {
        arithmetic = real_dtype("joints", joints);
        fastpose::check_shape("joints", joints, {-1, -1, -1});
        size = {joints.size[0], joints.size[1], joints.size[2]};
        fastpose::check_cpu("joints", joints);
        require(name, pairs);
        check_element(name, pairs, arithmetic);
        element = pairs.dtype;
        check_pairs(name, pairs);
    }
    void check_pairs(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_map(name, tensor, element, {size.batch, 2 * size.dimensions, size.points, size.points});
    }
    void check_joints(const char* name, const TensorView& tensor) const {
        require(name, tensor);
        check_map(name, tensor, arithmetic, {size.batch, size.points, size.dimensions});
    }
};

geometry::Pairs pairs(const TensorView& view) {
    return {view.data, view.dtype, view.stride[0], view.stride[1], view.stride[2], view.stride[3]};
}

void descriptor_fwd(TensorView joints, TensorView out, int threads) {
    const DescriptorCall call(joints, out, "out");
    for_real_type(call.arithmetic, [&]<class T>() {
        geometry::kernels<T>(fastpose::cpu_level())
            .forward({call.size, strided<const T>(joints), pairs(out)}, at_least_one(threads));
    });
}

void descriptor_bwd(TensorView joints, TensorView grad_out, TensorView grad_joints, int threads) {
    const DescriptorCall call(joints, grad_out, "grad_out");
    call.check_joints("grad_joints", grad_joints);
    for_real_type(call.arithmetic, [&]<class T>() {
        geometry::kernels<T>(fastpose::cpu_level())
            .backward({call.size, strided<const T>(joints), pairs(grad_out), strided<T>(grad_joints)},
                      at_least_one(threads));
    });
}

void descriptor_bwd2(TensorView joints, TensorView grad_out, TensorView cot_joints, TensorView grad_joints,
                     TensorView grad_grad_out, int threads) {
    const DescriptorCall call(joints, grad_out, "grad_out");
    call.check_joints("cot_joints", cot_joints);
    call.check_joints("grad_joints", grad_joints);
    call.check_pairs("grad_grad_out", grad_grad_out);
    for_real_type(call.arithmetic, [&]<class T>() {
        geometry::kernels<T>(fastpose::cpu_level())
            .double_backward({call.size, strided<const T>(joints), pairs(grad_out), strided<const T>(cot_joints),
                              strided<T>(grad_joints), pairs(grad_grad_out)},
                             at_least_one(threads));
    });
}

// ------------------------------------------------------------------------------------------------------------- module

fastpose::CpuLevel level_named(const std::string& name) {
    for (fastpose::CpuLevel level :
         {fastpose::CpuLevel::baseline, fastpose::CpuLevel::avx2, fastpose::CpuLevel::avx512})
        if (name == name_of(level)) return level;
    throw std::invalid_argument("simd level: expected baseline, avx2 or avx512, got " + name);
}

py::dict build_info() {
    py::dict info;
    info["compiler"] = FASTPOSE_COMPILER;
    info["simd"] = name_of(fastpose::cpu_level());
    info["widest_simd"] = name_of(fastpose::widest_cpu_level());
#ifdef _OPENMP
    info["openmp"] = true;
#else
    info["openmp"] = false;
#endif
#ifdef FASTPOSE_WITH_CUDA
    info["cuda"] = true;
#else
    info["cuda"] = false;
#endif
    return info;
}

double multiply_add(int64_t steps, int threads) {
    const py::gil_scoped_release release;
    return fastpose::limits::multiply_add(fastpose::cpu_level(), steps, at_least_one(threads));
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    TorchNames::get();  // now, under the import lock: later two threads might wait for each other
    module.doc() = "Kernels of fastpose; call them through fastpose.ops.";
    module.def("build_info", &build_info);
    module.def("set_simd", [](const std::string& name) { fastpose::set_cpu_level(level_named(name)); });
    module.def("multiply_add", &multiply_add);
    module.def("attention_fwd", &attention_fwd);
    module.def("attention_bwd", &attention_bwd);
    module.def("attention_bwd2", &attention_bwd2);
    module.def("heatmap_render", &heatmap_render);
    module.def("heatmap_render_bwd", &heatmap_render_bwd);
    module.def("heatmap_render_bwd2", &heatmap_render_bwd2);
    module.def("heatmap_mse_loss", &heatmap_mse_loss);
    module.def("heatmap_mse_loss_bwd", &heatmap_mse_loss_bwd);
    module.def("heatmap_mse_loss_bwd2", &heatmap_mse_loss_bwd2);
    module.def("heatmap_decode", &heatmap_decode);
    module.def("softargmax", &softargmax);
    module.def("softargmax_bwd", &softargmax_bwd);
    module.def("softargmax_bwd2", &softargmax_bwd2);
    module.def("flip_average", &flip_average);
    module.def("descriptor_fwd", &descriptor_fwd);
    module.def("descriptor_bwd", &descriptor_bwd);
    module.def("descriptor_bwd2", &descriptor_bwd2);
}
