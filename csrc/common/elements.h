// Element types of large tensors: float, double and the two 16-bit formats, which arithmetic sees as float.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "common/anywhere.h"
#include "common/tensor_view.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastpose {

struct BFloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

// Calls run.operator()<E>() with the element type of a tensor whose arithmetic type is T.
template <class T, class Run>
void for_element(DType dtype, const Run& run) {
    if constexpr (std::is_same_v<T, double>) {
        run.template operator()<double>();
    } else {
        if (dtype == DType::bfloat16)
            run.template operator()<BFloat16>();
        else if (dtype == DType::float16)
            run.template operator()<Float16>();
        else
            run.template operator()<float>();
    }
}

// The unnamed namespace keeps the copies of different instruction sets apart.
namespace {

FASTPOSE_ANYWHERE float widen(float value) { return value; }
FASTPOSE_ANYWHERE double widen(double value) { return value; }

FASTPOSE_ANYWHERE float widen(BFloat16 value) {
#ifdef __CUDA_ARCH__
    return __uint_as_float(static_cast<unsigned int>(value.bits) << 16);
#else
    return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
#endif
}

FASTPOSE_ANYWHERE float widen(Float16 value) {
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half(value.bits));
#else
    const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
    // The product moves the exponent's bias from 15 to 127 and normalises subnormals.
    const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity or NaN
    return std::bit_cast<float>(finite | special | sign);
#endif
}

// Rounding to nearest, ties to even, as torch does.
template <class E>
FASTPOSE_ANYWHERE E narrow(std::type_identity_t<E> value) {
    return value;
}

template <class E>
FASTPOSE_ANYWHERE E narrow(float value)
    requires std::is_same_v<E, BFloat16>
{
#ifdef __CUDA_ARCH__
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
#else
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
#endif
}

template <class E>
FASTPOSE_ANYWHERE E narrow(float value)
    requires std::is_same_v<E, Float16>
{
#ifdef __CUDA_ARCH__
    return {__half_as_ushort(__float2half_rn(value))};
#else
    const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    // One unit in the last place of 0.5 is the smallest float16: the addition rounds to it.
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t bounded = magnitude >= 0x477ff000u ? 0x7c00u : finite;
    const uint32_t result = magnitude > 0x7f800000u ? 0x7e00u : bounded;
    return {static_cast<uint16_t>(result | (bits >> 16 & 0x8000u))};
#endif
}

}  // namespace
}  // namespace fastpose
