// Attention by the processor's own bf16 products, with float32 sums, logits and statistics: of bf16 tensors, and the
// forward of float32 ones, whose numbers are sums of two or three of bf16. The scale of the logits is the kernel's: a
// bf16 query that was scaled beforehand would be rounded once more.
#pragma once

#include <algorithm>

#include "attention/attention.h"
#include "common/elements.h"

namespace fastpose::attention {

template <class E>
struct AmxForward {
    Sizes size;
    Strided3<const E> query, key, value;
    Strided3<E> out;
    float* lse;  // (B, Nq) contiguous: log sum_j exp(scale <query_i, key_j>)
    float scale;
};

// Any of the three results may be absent.
struct Bf16Backward {
    Sizes size;
    Strided3<const BFloat16> query, key, value, out;
    const float* lse;
    Strided3<const BFloat16> grad_out;
    Strided3<BFloat16> grad_query, grad_key, grad_value;
    float scale;
};

// Compiled once, with the flags of AMX; where the compiler has none, `amx_compiled` is false and they must not be
// called.
extern const bool amx_compiled;
void forward_amx(const AmxForward<BFloat16>& problem, int threads);
// With `parts` (2 or 3) of each number: 3 are as exact as float32 arithmetic, 2 to about 2^-16. False, and nothing
// done, where a number's parts or products might leave the range of float32.
bool forward_amx(const AmxForward<float>& problem, int parts, int threads);
void backward_amx(const Bf16Backward& problem, int threads);

// Whether these kernels can serve: they were compiled, and the processor and the operating system allow AMX.
inline bool bf16_kernels() { return amx_compiled && amx_allowed(); }

// Whether the forward of float32 is faster in so many parts: the work per logit (exponentials, splitting, tiles filled
// up with zeros) must be small beside its products, and packing beside everything.
inline bool parts_pay(const Sizes& size, int parts) {
    const int64_t channels = parts == 2 ? 64 : 160, positions = parts == 2 ? 128 : 512;
    return size.key_channels + size.value_channels >= channels && std::min(size.queries, size.keys) >= positions &&
           bf16_kernels();
}

}  // namespace fastpose::attention
