// Torch tensors as arguments. They are read through their Python attributes, so that the module is built without torch
// and serves every version of it.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "common/tensor_view.h"

namespace fastpose::bindings {

namespace py = pybind11;

// What a tensor's facts are read by and compared with; lives as long as the process.
struct TorchNames {
    PyObject *float32, *float64, *bfloat16, *float16, *int64, *boolean, *tensor;
    PyObject *data_ptr, *dtype, *shape, *stride, *is_cpu, *is_cuda, *get_device;

    static const TorchNames& get() {
        static const TorchNames names = [] {
            const py::module_ torch = py::module_::import("torch");
            const auto of_torch = [&](const char* name) { return py::object(torch.attr(name)).release().ptr(); };
            const auto text = [](const char* name) { return PyUnicode_InternFromString(name); };
            return TorchNames{of_torch("float32"), of_torch("float64"), of_torch("bfloat16"), of_torch("float16"),
                              of_torch("int64"),   of_torch("bool"),    of_torch("Tensor"),   text("data_ptr"),
                              text("dtype"),       text("shape"),       text("stride"),       text("is_cpu"),
                              text("is_cuda"),     text("get_device")};
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

inline py::object owned(PyObject* object) {
    if (object == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(object);
}

inline void read_sizes(const py::object& tuple, int rank, int64_t* to) {
    for (int axis = 0; axis < rank; ++axis) {
        to[axis] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.ptr(), axis));
        if (to[axis] == -1 && PyErr_Occurred()) throw py::error_already_set();
    }
}

inline bool is_true(py::handle tensor, PyObject* attribute) {
    return owned(PyObject_GetAttr(tensor.ptr(), attribute)).ptr() == Py_True;
}

inline void read_device(py::handle tensor, const TorchNames& names, TensorView& view) {
    if (is_true(tensor, names.is_cpu)) return;
    view.device = is_true(tensor, names.is_cuda) ? Device::cuda : Device::other;
    view.device_index = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.get_device)).cast<int>();
}

inline void read_view(py::handle tensor, TensorView& view) {
    const TorchNames& names = TorchNames::get();
    const py::object shape = owned(PyObject_GetAttr(tensor.ptr(), names.shape));
    const py::object stride = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.stride));
    const Py_ssize_t rank = PyTuple_Size(shape.ptr());
    if (rank > max_rank || rank != PyTuple_Size(stride.ptr()))
        throw std::invalid_argument("tensor: expected at most " + std::to_string(max_rank) + " dimensions, got " +
                                    std::to_string(rank));
    view.present = true;
    view.rank = static_cast<int>(rank);
    read_sizes(shape, view.rank, view.size);
    read_sizes(stride, view.rank, view.stride);
    view.dtype = names.dtype_of(owned(PyObject_GetAttr(tensor.ptr(), names.dtype)).ptr());
    read_device(tensor, names, view);
    view.data = PyLong_AsVoidPtr(owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.data_ptr)).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
}

}  // namespace fastpose::bindings

namespace pybind11::detail {
template <>
struct type_caster<fastpose::TensorView> {
    PYBIND11_TYPE_CASTER(fastpose::TensorView, const_name("torch.Tensor | None"));
    bool load(handle source, bool) {
        if (source.is_none()) return true;
        auto* const tensor = reinterpret_cast<PyTypeObject*>(fastpose::bindings::TorchNames::get().tensor);
        if (!PyObject_TypeCheck(source.ptr(), tensor)) return false;
        fastpose::bindings::read_view(source, value);
        return true;
    }
};
}  // namespace pybind11::detail
