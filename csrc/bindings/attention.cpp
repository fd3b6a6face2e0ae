// Attention: each function unpacks tensors, checks them and calls the kernel.

#include "attention/attention.h"

#include "bindings/calls.h"

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
                    const TensorView& lse)
        : target(query) {
        check_shape("query", query, {-1, -1, -1});
        check_shape("value", value, {-1, -1, -1});
        if (!query || !key || !value || !out || !lse)
            throw std::invalid_argument("query, key, value, out, lse: expected tensors, got None");
        dtype = query.dtype;
        if (dtype != DType::float32 && dtype != DType::float64)
            throw std::invalid_argument(std::string("query: expected float32 or float64, got ") + name_of(dtype));
        size = {query.size[0], query.size[1], value.size[1], query.size[2], value.size[2]};
        check_tensor(target, "query", query, dtype, {size.batch, size.key_channels, size.queries});
        check_tensor(target, "key", key, dtype, {size.batch, size.key_channels, size.keys});
        check_tensor(target, "value", value, dtype, {size.batch, size.value_channels, size.keys});
        check_tensor(target, "out", out, dtype, {size.batch, size.value_channels, size.queries});
        check_tensor(target, "lse", lse, dtype, {size.batch, size.queries});
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

void attention_fwd(const TensorView& query, const TensorView& key, const TensorView& value, const TensorView& out,
                   const TensorView& lse, int threads) {
    const AttentionInputs inputs(query, key, value, out, lse);
    for_real_type(inputs.dtype, [&]<class T>() {
        attention::kernels<T>(cpu_level())
            .forward({inputs.size, strided<const T>(query), strided<const T>(key), strided<const T>(value),
                      strided<T>(out), static_cast<T*>(lse.data)},
                     inputs.target.place(threads));
    });
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

}  // namespace

void bind_attention(py::module_& module) {
    module.def("attention_fwd", &attention_fwd);
    module.def("attention_bwd", &attention_bwd);
    module.def("attention_bwd2", &attention_bwd2);
}

}  // namespace fastpose::bindings
