// Rows of planes in any element type and with any stride, seen by the kernels as padded rows of their arithmetic type
// (float for float32, bfloat16 and float16; double for float64). 16-bit numbers are converted row by row, in the cache.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/elements.h"
#include "common/simd.h"

namespace fastpose {
namespace FASTPOSE_SIMD {

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
