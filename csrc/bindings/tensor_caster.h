// Torch tensors as arguments. The module is built without torch and serves every version of it: plain tensors are read
// through DLPack's table where torch has one, in tens of nanoseconds, all others through their Python attributes.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "bindings/dlpack.h"
#include "common/checks.h"
#include "common/tensor_view.h"

namespace fastpose::bindings {

namespace py = pybind11;

// What a tensor's facts are read by and compared with; lives as long as the process.
struct TorchNames {
    PyObject *float32, *float64, *bfloat16, *float16, *int64, *boolean, *tensor, *parameter;
    PyObject *data_ptr, *dtype, *shape, *stride, *is_cpu, *is_cuda, *get_device, *storage_offset;
    dlpack::Read read;

    static const TorchNames& get() {
        static const TorchNames names = [] {
            const py::module_ torch = py::module_::import("torch");
            const auto of_torch = [&](const char* name) { return py::object(torch.attr(name)).release().ptr(); };
            const auto text = [](const char* name) { return PyUnicode_InternFromString(name); };
            return TorchNames{of_torch("float32"),  of_torch("float64"),
                              of_torch("bfloat16"), of_torch("float16"),
                              of_torch("int64"),    of_torch("bool"),
                              of_torch("Tensor"),   py::object(torch.attr("nn").attr("Parameter")).release().ptr(),
                              text("data_ptr"),     text("dtype"),
                              text("shape"),        text("stride"),
                              text("is_cpu"),       text("is_cuda"),
                              text("get_device"),   text("storage_offset"),
                              reader(torch)};
        }();
        return names;
    }

    // DLPack's reader of torch.Tensor; null where this version of torch has none that we know.
    static dlpack::Read reader(const py::module_& torch) {
        const py::object capsule = py::getattr(torch.attr("Tensor"), dlpack::attribute, py::none());
        if (!PyCapsule_IsValid(capsule.ptr(), dlpack::capsule)) return nullptr;
        return dlpack::reader_of(
            static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::capsule)));
    }

    // Whether the object is a tensor of no special class: its memory is all there is to it, but for gradients and the
    // bits by which torch conjugates and changes signs lazily.
    bool plain(py::handle object) const {
        const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
        return type == tensor || type == parameter;
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

inline void check_rank(Py_ssize_t rank, Py_ssize_t strides) {
    if (rank > max_rank || rank != strides)
        throw std::invalid_argument("tensor: expected at most " + std::to_string(max_rank) + " dimensions, got " +
                                    std::to_string(rank));
}

// False where torch cannot show the tensor this way: one on a meta device, a sparse one.
inline bool read_in_place(py::handle tensor, dlpack::Read read, TensorView& view) {
    dlpack::Tensor found;
    if (read(tensor.ptr(), &found) != 0) {
        PyErr_Clear();
        return false;
    }
    check_rank(found.rank, found.rank);
    view.present = true;
    view.data = static_cast<char*>(found.data) + found.byte_offset;
    view.dtype = dlpack::dtype_of(found);
    view.device = dlpack::device_of(found);
    view.device_index = view.device == Device::cpu ? 0 : found.device_index;
    view.rank = found.rank;
    std::copy_n(found.size, found.rank, view.size);
    std::copy_n(found.stride, found.rank, view.stride);
    return true;
}

inline void read_attributes(py::handle tensor, const TorchNames& names, TensorView& view) {
    const py::object shape = owned(PyObject_GetAttr(tensor.ptr(), names.shape));
    const py::object stride = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.stride));
    const Py_ssize_t rank = PyTuple_Size(shape.ptr());
    check_rank(rank, PyTuple_Size(stride.ptr()));
    view.present = true;
    view.rank = static_cast<int>(rank);
    read_sizes(shape, view.rank, view.size);
    read_sizes(stride, view.rank, view.stride);
    view.dtype = names.dtype_of(owned(PyObject_GetAttr(tensor.ptr(), names.dtype)).ptr());
    read_device(tensor, names, view);
    view.data = PyLong_AsVoidPtr(owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.data_ptr)).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
}

// Longer axes and strides are refused, so that the kernels' sums and products of a few of them do not overflow. Along
// an axis of one number nobody moves: its stride may be anything.
inline void check_extents(TensorView& view) {
    constexpr int64_t longest = int64_t{1} << 40;
    for (int axis = 0; axis < view.rank; ++axis) {
        const bool far = view.stride[axis] >= longest || view.stride[axis] <= -longest;
        if (view.size[axis] >= longest || (far && view.size[axis] > 1))
            throw std::invalid_argument("tensor: expected sizes and strides below 2**40, got sizes " +
                                        spell(view.size, view.rank) + " and strides " + spell(view.stride, view.rank));
        if (far) view.stride[axis] = 0;
    }
}

// Whether the storage was freed. The address is then what is left of it: the tensor's offset in a storage that begins
// at 0. To ask for the offset takes time, and real addresses are seldom that low.
inline bool is_freed(py::handle tensor, const TorchNames& names, const TensorView& view) {
    const auto address = reinterpret_cast<uintptr_t>(view.data);
    if (address == 0 || address >> 40 != 0) return address == 0;
    const py::object offset = owned(PyObject_CallMethodNoArgs(tensor.ptr(), names.storage_offset));
    return address == offset.cast<uintptr_t>() * bytes_of(view.dtype);
}

// A storage that was freed, zeros that are known without one, a wrapper around another tensor, numbers that begin
// inside one: no kernel may touch them.
inline void check_memory(py::handle tensor, const TorchNames& names, const TensorView& view) {
    const bool elements = std::all_of(view.size, view.size + view.rank, [](int64_t size) { return size > 0; });
    if (view.device == Device::other || !elements) return;
    if (is_freed(tensor, names, view))
        throw std::invalid_argument("tensor: expected one with memory, got one whose storage is empty");
    const int bytes = bytes_of(view.dtype);
    if (bytes > 1 && reinterpret_cast<uintptr_t>(view.data) % bytes != 0)
        throw std::invalid_argument("tensor: expected numbers of " + std::to_string(bytes) +
                                    " bytes at a multiple of that, got another address; clone() it");
}

inline void read_view(py::handle tensor, TensorView& view) {
    const TorchNames& names = TorchNames::get();
    if (!names.read || !names.plain(tensor) || !read_in_place(tensor, names.read, view))
        read_attributes(tensor, names, view);
    check_extents(view);
    check_memory(tensor, names, view);
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
