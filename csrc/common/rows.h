// Rows of planes in any element type and with any stride, seen by the kernels as padded rows of their arithmetic type
// (float for float32, bfloat16 and float16; double for float64). 16-bit numbers are converted row by row, in the cache.
#pragma once

#include <cstdint>
#include <cstring>
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

template <class T, int Lanes>
struct Part {
    typedef T Vector __attribute__((vector_size(Lanes * sizeof(T))));
};

// All lanes of a part joined by halves, whose additions or comparisons do not wait for each other.
template <class T, int Lanes, class Join>
FASTPOSE_INLINE T join_lanes(typename Part<T, Lanes>::Vector part, const Join& join) {
    if constexpr (Lanes == 2) {
        return join(part[0], part[1]);
    } else {
        typename Part<T, Lanes / 2>::Vector low, high;
        std::memcpy(&low, &part, sizeof(low));
        std::memcpy(&high, reinterpret_cast<const char*>(&part) + sizeof(low), sizeof(high));
        return join_lanes<T, Lanes / 2>(join(low, high), join);
    }
}
template <class T>
FASTPOSE_INLINE T sum_of_lanes(Vector<T> vector) {
    return join_lanes<T, Simd<T>::lanes>(vector, [](auto low, auto high) { return low + high; });
}
template <class T>
FASTPOSE_INLINE T largest_lane(Vector<T> vector) {
    return join_lanes<T, Simd<T>::lanes>(vector, [](auto low, auto high) { return high > low ? high : low; });
}

// 0, 1, 2, ... along the lanes.
template <class T>
FASTPOSE_INLINE Vector<T> lane_numbers() {
    Vector<T> numbers{};
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) numbers[lane] = static_cast<T>(lane);
    return numbers;
}

// The lanes in reverse order.
template <class T>
FASTPOSE_INLINE Vector<T> reversed(Vector<T> vector) {
    Vector<T> result{};
    for (int lane = 0; lane < Simd<T>::lanes; ++lane) result[lane] = vector[Simd<T>::lanes - 1 - lane];
    return result;
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose
