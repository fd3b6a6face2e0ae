// The Python module fastpose._C: one function per operation and order of derivative. Each unpacks tensors into views,
// checks them, releases the interpreter lock and calls the kernel. No arithmetic here. Tensors are read through their
// Python attributes, so that the module is built without torch and serves every version of it.

#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "attention/attention.h"
#include "common/checks.h"
#include "common/cpu_level.h"
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
    module.doc() = "Kernels of fastpose; call them through fastpose.ops.";
    module.def("build_info", &build_info);
    module.def("set_simd", [](const std::string& name) { fastpose::set_cpu_level(level_named(name)); });
    module.def("multiply_add", &multiply_add);
    module.def("attention_fwd", &attention_fwd);
    module.def("attention_bwd", &attention_bwd);
    module.def("attention_bwd2", &attention_bwd2);
}
