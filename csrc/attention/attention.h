// Non-local attention out[:, i] = sum_j softmax_j(<query[:, i], key[:, j]>) value[:, j], its gradient and the gradient
// of its gradient, without ever storing the Nq x Nk map. The scale is the caller's: it multiplies the query.
#pragma once

#include "common/cpu_level.h"
#include "common/tensor_view.h"

namespace fastpose::attention {

struct Sizes {
    int64_t batch, key_channels, value_channels, queries, keys;
};

template <class T>
struct Forward {
    Sizes size;
    Strided3<const T> query;  // (B, Ck, Nq)
    Strided3<const T> key;    // (B, Ck, Nk)
    Strided3<const T> value;  // (B, Cv, Nk)
    Strided3<T> out;          // (B, Cv, Nq)
    T* lse;                   // (B, Nq) contiguous: log sum_j exp <query_i, key_j>
};

// First derivative. Any of the three results may be absent.
template <class T>
struct Backward {
    Sizes size;
    Strided3<const T> query, key, value;
    Strided3<const T> out;       // (B, Cv, Nq), from the forward
    const T* lse;                // (B, Nq)
    Strided3<const T> grad_out;  // (B, Cv, Nq)
    Strided3<T> grad_query;      // (B, Ck, Nq)
    Strided3<T> grad_key;        // (B, Ck, Nk)
    Strided3<T> grad_value;      // (B, Cv, Nk)
};

// Second derivative: gradients of <cot_query, grad_query> + <cot_key, grad_key> + <cot_value, grad_value>. Absent
// cotangents count as zero; results are all present.
template <class T>
struct DoubleBackward {
    Sizes size;
    Strided3<const T> query, key, value, out;
    const T* lse;
    Strided3<const T> grad_out;
    Strided3<const T> cot_query, cot_key, cot_value;  // shaped like query, key, value
    Strided3<T> grad_query, grad_key, grad_value;     // shaped like query, key, value
    Strided3<T> grad_grad_out;                        // (B, Cv, Nq)
};

template <class T>
struct Kernels {
    void (*forward)(const Forward<T>&, int threads);
    void (*backward)(const Backward<T>&, int threads);
    void (*double_backward)(const DoubleBackward<T>&, int threads);
};

// Each defined in a *_cpu.cpp of its name, which is compiled once per instruction set.
FASTPOSE_EACH_LEVEL(template <class T> void forward(const Forward<T>&, int threads);
                    template <class T> void backward(const Backward<T>&, int threads);
                    template <class T> void double_backward(const DoubleBackward<T>&, int threads);)

template <class T>
Kernels<T> kernels(CpuLevel level) {
    return {FASTPOSE_AT_LEVEL(level, forward<T>), FASTPOSE_AT_LEVEL(level, backward<T>),
            FASTPOSE_AT_LEVEL(level, double_backward<T>)};
}

}  // namespace fastpose::attention
