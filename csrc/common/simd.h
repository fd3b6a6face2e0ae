// Portable vectors. Kernel sources are compiled once per instruction set with that set's flags; this header gives each
// copy its own namespace (FASTPOSE_SIMD), vector width and register tile. Everything a kernel source defines lives in
// that namespace or in an anonymous one, so that no copy can be linked in place of another.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#define FASTPOSE_SIMD avx512
#define FASTPOSE_SIMD_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#define FASTPOSE_SIMD avx2
#define FASTPOSE_SIMD_BYTES 32
#else
#define FASTPOSE_SIMD baseline
#define FASTPOSE_SIMD_BYTES 16
#endif

#define FASTPOSE_INLINE inline __attribute__((always_inline))

namespace fastpose {
namespace FASTPOSE_SIMD {

template <class T>
struct Simd {
    static constexpr int lanes = FASTPOSE_SIMD_BYTES / sizeof(T);
    typedef T Vector __attribute__((vector_size(FASTPOSE_SIMD_BYTES)));
};
template <class T>
using Vector = typename Simd<T>::Vector;

template <class T>
FASTPOSE_INLINE Vector<T> load(const T* from) {
    Vector<T> value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}
template <class T>
FASTPOSE_INLINE void store(T* to, Vector<T> value) {
    std::memcpy(to, &value, sizeof(value));
}
template <class T>
FASTPOSE_INLINE Vector<T> broadcast(T value) {
    return value - Vector<T>{};
}
// NaN in `value` stays NaN: the comparison is false for it.
template <class V>
FASTPOSE_INLINE V at_least(V value, V bound) {
    return value < bound ? bound : value;
}
template <class V>
FASTPOSE_INLINE V at_most(V value, V bound) {
    return value > bound ? bound : value;
}

// exp(x) for x <= 88: x = n ln2 + r with |r| <= ln2 / 2, a polynomial in r (minimax, relative error 3e-9), 2^n from the
// exponent bits. It is 2^(n - 1) times the doubled polynomial: results below 1.42 times the smallest normal number
// become zero without a comparison, and none is subnormal. NaN stays NaN. Error <= 1 ulp, without FMA <= 1.2 ulp.
FASTPOSE_INLINE Vector<float> falling_exponential(Vector<float> x) {
    typedef int32_t Bits __attribute__((vector_size(FASTPOSE_SIMD_BYTES)));
    const Vector<float> bounded = at_least(x, broadcast(-87.3f));
    const Vector<float> magic = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vector<float> shifted = bounded * 1.44269504088896341f + magic;
    const Vector<float> n = shifted - magic;
    const Vector<float> r = (bounded - n * 0.693359375f) + n * 2.12194440054690583e-4f;
    Vector<float> p = r * 2.7629080212e-3f + 1.6737490272e-2f;
    p = p * r + 8.3336781574e-2f;
    p = p * r + 3.3333040798e-1f;
    p = p * r + 9.9999986864e-1f;
    p = p * r + 2.0f;
    p = p * r + 2.0f;
    const Bits exponent = ((Bits)shifted << 23) + 0x3f000000;  // the low bits of `shifted` hold n
    return p * (Vector<float>)exponent;
}

// exp(x) for every x: above the range it saturates near the largest number.
FASTPOSE_INLINE Vector<float> exponential(Vector<float> x) { return falling_exponential(at_most(x, broadcast(88.3f))); }

// Results below the smallest normal number are zero, above the range near the largest one. Error <= 2 ulp.
FASTPOSE_INLINE Vector<double> exponential(Vector<double> x) {
    typedef int64_t Bits __attribute__((vector_size(FASTPOSE_SIMD_BYTES)));
    const Vector<double> lowest = broadcast(-708.0);
    const Vector<double> bounded = at_most(at_least(x, lowest), broadcast(709.0));
    const Vector<double> magic = broadcast(6755399441055744.0);  // 1.5 * 2^52
    const Vector<double> shifted = bounded * 1.4426950408889634074 + magic;
    const Vector<double> n = shifted - magic;
    const Vector<double> r = (bounded - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    Vector<double> p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;  // Taylor to r^13: below 1e-17 at |r| <= 0.35
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * (r * r) + r + 1.0;
    const Bits exponent = ((Bits)shifted << 52) + 0x3ff0000000000000;
    const Vector<double> value = p * (Vector<double>)exponent;
    return x < lowest ? Vector<double>{} : value;
}

FASTPOSE_INLINE Vector<double> falling_exponential(Vector<double> x) { return exponential(x); }

// Register tile of the panel products: `rows` accumulators high, `vectors` wide, within the register file.
#if FASTPOSE_SIMD_BYTES == 64
constexpr int tile_rows = 8, tile_vectors = 3;  // 24 accumulators of 32 registers
#elif FASTPOSE_SIMD_BYTES == 32
constexpr int tile_rows = 4, tile_vectors = 3;  // 12 accumulators of 16 registers
#else
constexpr int tile_rows = 4, tile_vectors = 2;  // 8 accumulators of 16 registers
#endif

enum class Start { zero, keep, scale };  // what the accumulators begin with: 0, C, or C * scale (per lane)

template <class T, int Rows, int Vectors, Start start>
FASTPOSE_INLINE void tile_product(int64_t depth, const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_step,
                                  T* c, int64_t c_row, const T* scale) {
    constexpr int lanes = Simd<T>::lanes;
    Vector<T> sum[Rows][Vectors];
    for (int r = 0; r < Rows; ++r)
        for (int v = 0; v < Vectors; ++v) {
            if constexpr (start == Start::zero) sum[r][v] = Vector<T>{};
            if constexpr (start == Start::keep) sum[r][v] = load(c + r * c_row + v * lanes);
            if constexpr (start == Start::scale) sum[r][v] = load(c + r * c_row + v * lanes) * load(scale + v * lanes);
        }
    for (int64_t t = 0; t < depth; ++t) {
        Vector<T> right[Vectors];
        for (int v = 0; v < Vectors; ++v) right[v] = load(b + t * b_step + v * lanes);
        for (int r = 0; r < Rows; ++r) {
            const T left = a[r * a_row + t * a_step];
            for (int v = 0; v < Vectors; ++v) sum[r][v] += right[v] * left;
        }
    }
    for (int r = 0; r < Rows; ++r)
        for (int v = 0; v < Vectors; ++v) store(c + r * c_row + v * lanes, sum[r][v]);
}

// C[r][0:L] = start + sum_t A(r, t) B[t][0:L] for `rows` rows, L = Vectors * lanes. A is read in place through its two
// strides (any layout); B and C are rows of packed lanes.
template <class T, int Vectors, Start start>
FASTPOSE_INLINE void panel_product(int64_t rows, int64_t depth, const T* a, int64_t a_row, int64_t a_step, const T* b,
                                   int64_t b_step, T* c, int64_t c_row, const T* scale = nullptr) {
    int64_t r = 0;
    for (; r + tile_rows <= rows; r += tile_rows)
        tile_product<T, tile_rows, Vectors, start>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row,
                                                   scale);
    for (; r < rows; ++r)
        tile_product<T, 1, Vectors, start>(depth, a + r * a_row, a_row, a_step, b, b_step, c + r * c_row, c_row, scale);
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose
