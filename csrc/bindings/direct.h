// Public calls in one step: a function for each operation reads its arguments, makes the results and runs the kernel.
// It serves ordinary tensors on the CPU of which no gradient is wanted, and returns None for anything else, upon which
// the caller goes the long way, which has the sentences for mistakes, the derivatives and the other backends.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>

#include "bindings/calls.h"
#include "common/huge_pages.h"

namespace fastpose::bindings {

// What torch's state is asked by; lives as long as the process.
struct TorchState {
    PyObject *tracing, *dispatch_modes, *function_modes, *transforms, *grad_enabled, *autocast, *threads,
        *matmul_precision;
    PyObject *empty_like, *addcmul;
    PyObject* forward_ad;                                                                        // a module
    PyObject *level, *is_neg, *requires_grad, *new_empty_strided, *dtype_keyword, *out_keyword;  // names

    static const TorchState& get();
    // Whether nothing in torch looks on: no tracer, mode or transform, no forward-mode derivative.
    bool undisturbed() const;
};

inline py::object ask(PyObject* function) { return owned(PyObject_CallNoArgs(function)); }

// Whether a tensor is its memory: of no special class, and without the bit by which torch changes signs lazily.
inline bool is_memory(py::handle tensor) {
    return TorchNames::get().plain(tensor) &&
           owned(PyObject_CallMethodNoArgs(tensor.ptr(), TorchState::get().is_neg)).ptr() == Py_False;
}

// One call, usual until something else is found. What is read after that is not there, or zero.
class Direct {
   public:
    Direct() : usual_(TorchState::get().undisturbed()) {}
    explicit operator bool() const { return usual_; }
    void expect(bool condition) { usual_ = usual_ && condition; }

    TensorView tensor(py::handle given);  // absent for None
    TensorView constant(py::handle given);
    double number(py::handle given);  // a float or an int
    int64_t integer(py::handle given);

   private:
    bool usual_;
};

// A result; a large one may lie in huge pages.
struct Fresh {
    py::object tensor;
    TensorView view;

    explicit Fresh(py::object made) : tensor(std::move(made)) {
        read_view(tensor, view);
        prefer_huge_pages(view.data, static_cast<size_t>(view.elements()) * bytes_of(view.dtype));
    }
};

// Uninitialised, on the device of `like`, which `view` shows: contiguous, or with the given strides.
Fresh empty(py::handle like, const TensorView& view, DType dtype, std::initializer_list<int64_t> sizes);
Fresh empty(py::handle like, const TensorView& view, DType dtype, int rank, const int64_t* sizes,
            const int64_t* strides);

Fresh empty_like(py::handle like);

// Room for numbers (B, K) that nobody reads after the call.
struct Scratch {
    TensorView view;

    Scratch(DType dtype, int64_t batch, int64_t joints);

   private:
    std::unique_ptr<std::byte[]> room_;
};

// The same memory with an axis of this size more, along which nothing moves.
TensorView with_axis(TensorView view, int axis, int64_t size);

inline DType wide(DType element) { return element == DType::float64 ? DType::float64 : DType::float32; }
inline bool is_real(DType dtype) { return dtype == DType::float32 || dtype == DType::float64; }
inline bool is_element(DType dtype) { return is_real(dtype) || dtype == DType::bfloat16 || dtype == DType::float16; }
inline int direct_threads() { return ask(TorchState::get().threads).cast<int>(); }

// As a Python function: what a check refuses is for the long way to explain.
template <class... Arguments>
auto direct(py::object (*function)(Arguments...)) {
    return [function](Arguments... arguments) -> py::object {
        try {
            return function(arguments...);
        } catch (const std::invalid_argument&) {
            return py::none();
        }
    };
}

}  // namespace fastpose::bindings
