// Attention of bf16 tensors by the processor's own bf16 products, with float32 sums, logits and statistics. The scale
// of the logits is the kernel's: a query that was scaled beforehand would be rounded once more.
#pragma once

#include "attention/attention.h"
#include "common/elements.h"

namespace fastpose::attention {

struct Bf16Forward {
    Sizes size;
    Strided3<const BFloat16> query, key, value;
    Strided3<BFloat16> out;
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
void forward_amx(const Bf16Forward& problem, int threads);
void backward_amx(const Bf16Backward& problem, int threads);

// Whether these kernels can serve: they were compiled, and the processor and the operating system allow AMX.
inline bool bf16_kernels() { return amx_compiled && amx_allowed(); }

}  // namespace fastpose::attention
