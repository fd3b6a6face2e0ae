// What the calls in one step share: torch's state, arguments, results.

#include "bindings/direct.h"

namespace fastpose::bindings {

const TorchState& TorchState::get() {
    static const TorchState state = [] {
        const py::module_ torch = py::module_::import("torch"), core = py::module_::import("torch._C");
        const py::module_ functorch = py::module_::import("torch._C._functorch");
        const auto of = [](const py::module_& owner, const char* name) {
            return py::object(owner.attr(name)).release().ptr();
        };
        const auto text = [](const char* name) { return PyUnicode_InternFromString(name); };
        return TorchState{of(core, "_get_tracing_state"),
                          of(core, "_len_torch_dispatch_stack"),
                          of(core, "_len_torch_function_stack"),
                          of(functorch, "peek_interpreter_stack"),
                          of(torch, "is_grad_enabled"),
                          of(core, "_is_any_autocast_enabled"),
                          of(torch, "get_num_threads"),
                          of(core, "_get_float32_matmul_precision"),
                          of(torch, "empty_like"),
                          of(torch, "addcmul"),
                          py::module_::import("torch.autograd.forward_ad").release().ptr(),
                          text("_current_level"),
                          text("is_neg"),
                          text("requires_grad"),
                          text("new_empty_strided"),
                          py::make_tuple("dtype").release().ptr(),
                          py::make_tuple("out").release().ptr()};
    }();
    return state;
}

bool TorchState::undisturbed() const {
    const auto number = [](const py::object& value) { return PyLong_AsLong(value.ptr()); };
    return ask(tracing).is_none() && number(ask(dispatch_modes)) == 0 && number(ask(function_modes)) == 0 &&
           number(owned(PyObject_GetAttr(forward_ad, level))) < 0 && ask(transforms).is_none();
}

// ---------------------------------------------------------------------------------------------------------- arguments

TensorView Direct::tensor(py::handle given) {
    TensorView view;
    if (!usual_ || given.is_none()) return view;
    const TorchState& torch = TorchState::get();
    expect(is_memory(given) && !(is_true(given, torch.requires_grad) && ask(torch.grad_enabled).ptr() == Py_True));
    try {
        if (usual_) read_view(given, view);
    } catch (const py::error_already_set&) {  // sparse ones and others that have no strides or no one memory
        usual_ = false;
    }
    expect(view.device == Device::cpu);
    return view;
}

TensorView Direct::constant(py::handle given) {
    const TensorView view = tensor(given);
    expect(!view || !is_true(given, TorchState::get().requires_grad));
    return view;
}

double Direct::number(py::handle given) {
    expect(PyFloat_Check(given.ptr()) || PyLong_CheckExact(given.ptr()));
    if (!usual_) return 0;
    const double value = PyFloat_AsDouble(given.ptr());
    expect(!PyErr_Occurred());  // an int beyond every float
    PyErr_Clear();
    return value;
}

int64_t Direct::integer(py::handle given) {
    int overflow = 0;
    expect(PyLong_CheckExact(given.ptr()));
    const int64_t value = usual_ ? PyLong_AsLongLongAndOverflow(given.ptr(), &overflow) : 0;
    expect(overflow == 0);
    return value;
}

TensorView with_axis(TensorView view, int axis, int64_t size) {
    if (view.rank >= max_rank) throw std::invalid_argument("tensor: expected fewer dimensions");
    std::copy_backward(view.size + axis, view.size + view.rank, view.size + view.rank + 1);
    std::copy_backward(view.stride + axis, view.stride + view.rank, view.stride + view.rank + 1);
    view.size[axis] = size;
    view.stride[axis] = 0;
    ++view.rank;
    return view;
}

// ------------------------------------------------------------------------------------------------------------ results

namespace {

py::object tuple_of(const int64_t* numbers, int count) {
    py::object tuple = owned(PyTuple_New(count));
    for (int i = 0; i < count; ++i)
        PyTuple_SET_ITEM(tuple.ptr(), i, owned(PyLong_FromLongLong(numbers[i])).release().ptr());
    return tuple;
}

}  // namespace

Fresh empty(py::handle like, const TensorView& view, DType dtype, int rank, const int64_t* sizes,
            const int64_t* strides) {
    const TorchState& torch = TorchState::get();
    const py::object size = tuple_of(sizes, rank), stride = tuple_of(strides, rank);
    PyObject* const named = dtype == DType::float64 ? TorchNames::get().float64 : TorchNames::get().float32;
    PyObject* const arguments[] = {like.ptr(), size.ptr(), stride.ptr(), named};
    PyObject* const keywords = view.dtype == dtype ? nullptr : torch.dtype_keyword;  // to name a dtype takes longer
    return Fresh(owned(PyObject_VectorcallMethod(torch.new_empty_strided, arguments, 3, keywords)));
}

Fresh empty(py::handle like, const TensorView& view, DType dtype, std::initializer_list<int64_t> sizes) {
    const int rank = static_cast<int>(sizes.size());
    int64_t strides[max_rank];
    uint64_t step = 1;  // wraps round for sizes that torch refuses
    for (int axis = rank - 1; axis >= 0; --axis) {
        strides[axis] = static_cast<int64_t>(step);
        step *= std::max<int64_t>(sizes.begin()[axis], 1);
    }
    return empty(like, view, dtype, rank, sizes.begin(), strides);
}

Fresh empty_like(py::handle like) {
    return Fresh(owned(PyObject_CallOneArg(TorchState::get().empty_like, like.ptr())));
}

Scratch::Scratch(DType dtype, int64_t batch, int64_t joints) {
    int64_t bytes = 0;
    if (__builtin_mul_overflow(batch, joints, &bytes) || __builtin_mul_overflow(bytes, bytes_of(dtype), &bytes))
        throw std::invalid_argument("tensor: expected sizes that memory can hold");
    room_.reset(new std::byte[static_cast<size_t>(bytes)]);
    view.present = true;
    view.data = room_.get();
    view.dtype = dtype;
    view.rank = 2;
    view.size[0] = batch;
    view.size[1] = view.stride[0] = joints;
    view.stride[1] = 1;
}

}  // namespace fastpose::bindings
