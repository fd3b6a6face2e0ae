// Attention: each function unpacks tensors, checks them and calls the kernel.

#include "attention/attention.h"

#include "attention/attention_amx.h"
#include "bindings/direct.h"

namespace fastpose::bindings {
namespace {

template <class T>
Strided3<T> strided(const TensorView& view) {
    return {static_cast<T*>(view.data), view.stride[0], view.stride[1], view.stride[2]};
}

struct AttentionInputs {
    Cpu target;
    attention::Sizes size;
    DType dtype;

    AttentionInputs(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                    const TensorView& lse, bool bf16 = false)
        : target(query) {
        check_shape("query", query, {-1, -1, -1});
        check_shape("value", value, {-1, -1, -1});
        if (!query || !key || !value || !out || !lse)
            throw std::invalid_argument("query, key, value, out, lse: expected tensors, got None");
        dtype = query.dtype;
        if (bf16 ? dtype != DType::bfloat16 : dtype != DType::float32 && dtype != DType::float64)
            throw std::invalid_argument(std::string("query: expected ") + (bf16 ? "bfloat16" : "float32 or float64") +
                                        ", got " + name_of(dtype));
        size = {query.size[0], query.size[1], value.size[1], query.size[2], value.size[2]};
        check_tensor(target, "query", query, dtype, {size.batch, size.key_channels, size.queries});
        check_tensor(target, "key", key, dtype, {size.batch, size.key_channels, size.keys});
        check_tensor(target, "value", value, dtype, {size.batch, size.value_channels, size.keys});
        check_tensor(target, "out", out, dtype, {size.batch, size.value_channels, size.queries});
        check_tensor(target, "lse", lse, bf16 ? DType::float32 : dtype, {size.batch, size.queries});
        check_contiguous("lse", lse);
    }

    void check_like_query(const char* name, const TensorView& tensor) const {
        check_tensor(target, name, tensor, dtype, {size.batch, size.key_channels, size.queries});
    }
    void check_like_key(const char* name, const TensorView& tensor) const {
        check_tensor(target, name, tensor, dtype, {size.batch, size.key_channels, size.keys});
    }
    void check_like_value(const char* name, const TensorView& tensor) const {
        check_tensor(target, name, tensor, dtype, {size.batch, size.value_channels, size.keys});
    }
    void check_like_out(const char* name, const TensorView& tensor) const {
        check_tensor(target, name, tensor, dtype, {size.batch, size.value_channels, size.queries});
    }
};

// bf16 parts of each float32 number, as torch asks: all 24 bits, or about 16 where matrix products may be less exact.
int float32_parts() {
    const py::object asked = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(TorchState::get().matmul_precision));
    if (!asked) PyErr_Clear();  // torch refuses to say where its older and newer settings disagree
    return !asked || PyUnicode_CompareWithASCIIString(asked.ptr(), "highest") == 0 ? 3 : 2;
}

// Returns the parts in which float32 was multiplied by AMX, or 0.
int attention_fwd(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                  const TensorView& lse, int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    if (inputs.dtype == DType::float32 && attention::parts_pay(inputs.size, 2)) {
        const int parts = float32_parts();
        const Unlocked unlocked;
        if (attention::parts_pay(inputs.size, parts) &&
            attention::forward_amx({inputs.size, strided<const float>(query), strided<const float>(key),
                                    strided<const float>(value), strided<float>(out), static_cast<float*>(lse.data), 1},
                                   parts, inputs.target.place(threads)))
            return parts;
    }
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(cpu_level())
            .forward({inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                      strided<T>(out), static_cast<T*>(lse.data)},
                     inputs.target.place(threads));
    });
    return 0;
}

void attention_bwd(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                   const TensorView& lse, const TensorView& grad_out, const TensorView& grad_query,
                   const TensorView& grad_key, const TensorView& grad_value, int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    inputs.check_like_out("grad_out", grad_out);
    inputs.check_like_query("grad_query", grad_query);
    inputs.check_like_key("grad_key", grad_key);
    inputs.check_like_value("grad_value", grad_value);
    if (!grad_out) throw std::invalid_argument("grad_out: expected a tensor, got None");
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(cpu_level())
            .backward({inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                       strided<const T>(out), static_cast<const T*>(lse.data), strided<const T>(grad_out),
                       strided<T>(grad_query), strided<T>(grad_key), strided<T>(grad_value)},
                      inputs.target.place(threads));
    });
}

void attention_bwd2(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                    const TensorView& lse, const TensorView& grad_out, const TensorView& cot_query,
                    const TensorView& cot_key, const TensorView& cot_value, const TensorView& grad_query,
                    const TensorView& grad_key, const TensorView& grad_value, const TensorView& grad_grad_out,
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
        attention::kernels<T>(cpu_level())
            .double_backward(
                {inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                 strided<const T>(out), static_cast<const T*>(lse.data), strided<const T>(grad_out),
                 strided<const T>(cot_query), strided<const T>(cot_key), strided<const T>(cot_value),
                 strided<T>(grad_query), strided<T>(grad_key), strided<T>(grad_value), strided<T>(grad_grad_out)},
                inputs.target.place(threads));
    });
}

void require_bf16_kernels() {
    if (!attention::bf16_kernels())
        throw std::invalid_argument("query: expected float32 or float64, got bfloat16 without AMX; widen the tensors");
}

void attention_fwd_bf16(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                        const TensorView& lse, float scale, int threads) {
    require_bf16_kernels();
    const AttentionInputs inputs(query, key, value, out, lse, true);
    const Unlocked unlocked;
    attention::forward_amx(
        attention::AmxForward<BFloat16>{inputs.size, strided<const BFloat16>(query), strided<const BFloat16>(key),
                                        strided<const BFloat16>(value), strided<BFloat16>(out),
                                        static_cast<float*>(lse.data), scale},
        inputs.target.place(threads));
}

void attention_bwd_bf16(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                        const TensorView& lse, const TensorView& grad_out, const TensorView& grad_query,
                        const TensorView& grad_key, const TensorView& grad_value, float scale, int threads) {
    require_bf16_kernels();
    const AttentionInputs inputs(query, key, value, out, lse, true);
    require("grad_out", grad_out);
    inputs.check_like_out("grad_out", grad_out);
    inputs.check_like_query("grad_query", grad_query);
    inputs.check_like_key("grad_key", grad_key);
    inputs.check_like_value("grad_value", grad_value);
    const Unlocked unlocked;
    attention::backward_amx(
        {inputs.size, strided<const BFloat16>(query), strided<const BFloat16>(key), strided<const BFloat16>(value),
         strided<const BFloat16>(out), static_cast<const float*>(lse.data), strided<const BFloat16>(grad_out),
         strided<BFloat16>(grad_query), strided<BFloat16>(grad_key), strided<BFloat16>(grad_value), scale},
        inputs.target.place(threads));
}

// ------------------------------------------------------------------------------------------------- calls in one step

// (B, C, *S) -> (B, C, N), the same memory; false where the positions are not evenly spaced.
bool join_positions(TensorView& view) {
    if (view.rank < 3 || view.rank > 5) return false;
    int64_t count = 1, step = view.stride[view.rank - 1];
    for (int axis = view.rank - 1; axis >= 2; --axis) {
        if (view.size[axis] == 1) continue;
        if (count == 1) step = view.stride[axis];
        if (view.stride[axis] != step * count) return false;
        count *= view.size[axis];
    }
    view.rank = 3;
    view.size[2] = count;
    view.stride[2] = step;
    return true;
}

// Sizes and strides of a result, (B, Cv, *Sq) with its positions or its channels together, as those of value (B, Cv,
// N).
struct OutLayout {
    int rank;
    int64_t size[max_rank], stride[max_rank];

    OutLayout(const TensorView& query, const TensorView& value) : rank(query.rank) {
        const bool channels_last = value.stride[1] == 1 && value.stride[2] != 1;
        const int64_t channels = value.size[1];
        int64_t positions = 1;
        for (int axis = rank - 1; axis >= 2; --axis) {
            size[axis] = query.size[axis];
            stride[axis] = channels_last ? positions * channels : positions;
            positions *= std::max<int64_t>(size[axis], 1);
        }
        size[0] = value.size[0], size[1] = channels;
        stride[0] = positions * std::max<int64_t>(channels, 1), stride[1] = channels_last ? 1 : positions;
    }
};

bool same_sizes(const TensorView& one, const TensorView& other, int from_axis) {
    if (one.rank != other.rank) return false;
    for (int axis = from_axis; axis < one.rank; ++axis)
        if (one.size[axis] != other.size[axis]) return false;
    return true;
}

// None, or a new tensor with the attended values.
py::object attend(Direct& call, py::handle query, py::handle key, py::handle value, py::handle scale) {
    const TensorView maps[] = {call.tensor(query), call.tensor(key), call.tensor(value)};
    TensorView joined[] = {maps[0], maps[1], maps[2]};
    for (TensorView& view : joined) call.expect(join_positions(view));
    call.expect(call.number(scale) == 1 && is_real(maps[0].dtype) && maps[2].dtype == maps[0].dtype &&
                same_sizes(maps[1], maps[2], 2) && ask(TorchState::get().autocast).ptr() == Py_False);
    if (!call) return py::none();
    const OutLayout layout(maps[0], joined[2]);
    const Fresh out = empty(value, maps[2], maps[2].dtype, layout.rank, layout.size, layout.stride);
    TensorView attended = out.view;
    join_positions(attended);
    const Scratch lse(maps[0].dtype, joined[0].size[0], joined[0].size[2]);
    attention_fwd(joined[0], joined[1], joined[2], attended, lse.view, direct_threads());
    return out.tensor;
}

py::object direct_attention(py::handle query, py::handle key, py::handle value, py::handle scale) {
    Direct call;
    return attend(call, query, key, value, scale);
}

py::object direct_residual(py::handle query, py::handle key, py::handle value, py::handle residual, py::handle gamma,
                           py::handle scale) {
    Direct call;
    const TensorView start = call.tensor(residual), factor = call.tensor(gamma);
    call.expect(factor && factor.elements() == 1 && factor.rank <= start.rank && factor.dtype == start.dtype);
    py::object attended = attend(call, query, key, value, scale);
    if (attended.is_none()) return attended;
    TensorView view;
    read_view(attended, view);
    if (view.dtype != start.dtype || !same_sizes(view, start, 0)) return py::none();
    // The sum takes the attended values' place where it would be laid out as they are: memory that is warm.
    const bool in_place = std::equal(view.stride, view.stride + view.rank, start.stride);
    PyObject* const arguments[] = {residual.ptr(), gamma.ptr(), attended.ptr(), attended.ptr()};
    const TorchState& torch = TorchState::get();
    return owned(PyObject_Vectorcall(torch.addcmul, arguments, 3, in_place ? torch.out_keyword : nullptr));
}

}  // namespace

void bind_direct_attention(py::module_& module) {
    module.def("nonlocal_attention", direct(&direct_attention));
    module.def("nonlocal_attention_residual", direct(&direct_residual));
}

void bind_attention(py::module_& module) {
    module.def("attention_fwd", &attention_fwd);
    module.def("attention_bwd", &attention_bwd);
    module.def("attention_bwd2", &attention_bwd2);
    module.def("attention_serves_bf16", &attention::bf16_kernels);
    module.def("attention_fwd_bf16", &attention_fwd_bf16);
    module.def("attention_bwd_bf16", &attention_bwd_bf16);
}

}  // namespace fastpose::bindings
