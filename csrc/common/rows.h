// Rows of planes in any element type and with any stride, seen by the kernels as padded rows of their arithmetic type
// (float for float32, bfloat16 and float16; double for float64). 16-bit numbers are converted row by row, in the cache.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "common/simd.h"
#include "common/tensor_view.h"

namespace fastpose {
namespace FASTPOSE_SIMD {

struct BFloat16 {
    uint16_t bits;
};
struct Float16 {
    uint16_t bits;
};

FASTPOSE_INLINE float widen(float value) { return value; }
FASTPOSE_INLINE double widen(double value) { return value; }
FASTPOSE_INLINE float widen(BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }
FASTPOSE_INLINE float widen(Float16 value) {
    const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
    const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
    // The product moves the exponent's bias from 15 to 127 and normalises subnormals.
    const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity or NaN
    return std::bit_cast<float>(finite | special | sign);
}

// Rounding to nearest, ties to even, as torch does.
template <class E>
E narrow(std::type_identity_t<E> value) {
    return value;
}
template <class E>
FASTPOSE_INLINE E narrow(float value)
    requires std::is_same_v<E, BFloat16>
{
    const uint32_t bits = std::bit_cast<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}
template <class E>
FASTPOSE_INLINE E narrow(float value)
    requires std::is_same_v<E, Float16>
{
    const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    // One unit in the last place of 0.5 is the smallest float16: the addition rounds to it.
    const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
    const uint32_t bounded = magnitude >= 0x477ff000u ? 0x7c00u : finite;
    const uint32_t result = magnitude > 0x7f800000u ? 0x7e00u : bounded;
    return {static_cast<uint16_t>(result | (bits >> 16 & 0x8000u))};
}

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

template <class T>
FASTPOSE_INLINE int64_t padded(int64_t count) {
    return (count + Simd<T>::lanes - 1) / Simd<T>::lanes * Simd<T>::lanes;
}

// Whether a row can be used where it lies, in whole vectors.
template <class T, class E>
FASTPOSE_INLINE bool in_place(int64_t step, int64_t count) {
    return std::is_same_v<T, E> && step == 1 && count % Simd<T>::lanes == 0;
}

// The row as padded(count) numbers: where it lies, or in `buffer`, whose padding is the caller's.
template <class T, class E>
FASTPOSE_INLINE const T* read_row(const E* from, int64_t step, int64_t count, T* buffer) {
    if constexpr (std::is_same_v<T, E>)
        if (in_place<T, E>(step, count)) return from;
    if (step == 1)
        for (int64_t i = 0; i < count; ++i) buffer[i] = widen(from[i]);
    else if (step == -1)
        for (int64_t i = 0; i < count; ++i) buffer[i] = widen(from[-i]);
    else
        for (int64_t i = 0; i < count; ++i) buffer[i] = widen(from[i * step]);
    return buffer;
}

// Where to compute padded(count) numbers that write_row then brings to their place.
template <class T, class E>
FASTPOSE_INLINE T* row_to_write(E* to, int64_t step, int64_t count, T* buffer) {
    if constexpr (std::is_same_v<T, E>)
        if (in_place<T, E>(step, count)) return to;
    return buffer;
}
template <class T, class E>
FASTPOSE_INLINE void write_row(const T* row, E* to, int64_t step, int64_t count) {
    if constexpr (std::is_same_v<T, E>)
        if (row == to) return;
    if (step == 1)
        for (int64_t i = 0; i < count; ++i) to[i] = narrow<E>(row[i]);
    else
        for (int64_t i = 0; i < count; ++i) to[i * step] = narrow<E>(row[i]);
}

template <class T>
FASTPOSE_INLINE T sum_of_lanes(Vector<T> vector) {
    T sum = 0;
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) sum += vector[lane];
    return sum;
}

// 0, 1, 2, ... along the lanes.
template <class T>
FASTPOSE_INLINE Vector<T> lane_numbers() {
    Vector<T> numbers{};
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) numbers[lane] = static_cast<T>(lane);
    return numbers;
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose
