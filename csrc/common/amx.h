// Products of bf16 matrices by AMX, and the packing of their operands. For sources that are compiled once, with the
// flags of AMX, AVX-512 and its bf16 instructions (*_amx.cpp).
//
// A tile is 1 KB: 16 lines of 32 numbers along the sum. A left operand keeps its words (pairs of numbers) as
// [line][pair], a right one as [pair][line], which is the transposed tile. Sums are rows of floats.
// The unnamed namespace is meant: nothing of these sources may be linked in place of another's copy.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC's own intrinsics begin with undefined vectors
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/elements.h"
#include "common/simd.h"

namespace fastpose::amx {
namespace {

constexpr int64_t side = 16;   // lines of a tile: rows or columns of the sums
constexpr int64_t depth = 32;  // numbers of a line: one step along the sum
constexpr int64_t wide = 2 * side;

struct alignas(64) Tile {
    uint32_t words[side][depth / 2];
};

// While it lives, this thread's tile registers are 16 rows of 64 bytes.
class TileRegisters {
   public:
    TileRegisters() {
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t rows[16] = {};
        } shape;
        for (int i = 0; i < 8; ++i) shape.bytes[i] = 64, shape.rows[i] = 16;
        _tile_loadconfig(&shape);
    }
    ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters&) = delete;
    TileRegisters& operator=(const TileRegisters&) = delete;
};

// ---------------------------------------------------------------------------------------------------------- packing

FASTPOSE_INLINE __mmask32 first_of_32(int64_t count) {
    return static_cast<__mmask32>(count >= 32 ? 0xffffffffu : (1u << std::max<int64_t>(count, 0)) - 1);
}
FASTPOSE_INLINE __mmask16 first_of_16(int64_t count) { return static_cast<__mmask16>(first_of_32(count)); }

FASTPOSE_INLINE void transpose(__m512i* rows) {
    __m512i pairs[16];
    for (int i = 0; i < 16; i += 2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {  // rows[i + c]: column c of each quarter, of rows i .. i + 3
        rows[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
        rows[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
        rows[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
        rows[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
    }
    for (int c = 0; c < 4; ++c) {
        const __m512i low = _mm512_shuffle_i32x4(rows[c], rows[c + 4], 0x88);
        const __m512i low_odd = _mm512_shuffle_i32x4(rows[c], rows[c + 4], 0xdd);
        const __m512i high = _mm512_shuffle_i32x4(rows[c + 8], rows[c + 12], 0x88);
        const __m512i high_odd = _mm512_shuffle_i32x4(rows[c + 8], rows[c + 12], 0xdd);
        pairs[c] = _mm512_shuffle_i32x4(low, high, 0x88);
        pairs[c + 4] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
        pairs[c + 8] = _mm512_shuffle_i32x4(low, high, 0xdd);
        pairs[c + 12] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
    }
    for (int i = 0; i < 16; ++i) rows[i] = pairs[i];
}

// Numbers of a matrix in memory: strides from line to line and along the sum.
template <class E>
struct SourceOf {
    const E* data;
    int64_t line, along;
};
using Source = SourceOf<BFloat16>;

enum class Operand { left, right };

// words[line][pair] of numbers that are contiguous along the sum
FASTPOSE_INLINE void load_lines(Source from, int64_t lines, int64_t numbers, __m512i* words) {
    const __mmask32 valid = first_of_32(numbers);
    for (int l = 0; l < side; ++l)
        words[l] = _mm512_maskz_loadu_epi16(l < lines ? valid : __mmask32{0}, from.data + l * from.line);
}

// words[pair][line] of numbers that are contiguous from line to line
FASTPOSE_INLINE void load_pairs(Source from, int64_t lines, int64_t numbers, __m512i* words) {
    const __mmask16 valid = first_of_16(lines);
    for (int t = 0; t < depth / 2; ++t) {
        const BFloat16* at = from.data + 2 * t * from.along;
        const __m256i even = _mm256_maskz_loadu_epi16(2 * t < numbers ? valid : __mmask16{0}, at);
        const __m256i odd = _mm256_maskz_loadu_epi16(2 * t + 1 < numbers ? valid : __mmask16{0}, at + from.along);
        const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16);
        words[t] = _mm512_or_si512(_mm512_cvtepu16_epi32(even), high);
    }
}

inline void load_scattered(Source from, int64_t lines, int64_t numbers, __m512i* words) {
    BFloat16 line[depth];
    for (int l = 0; l < side; ++l) {
        for (int t = 0; t < depth; ++t)
            line[t] = l < lines && t < numbers ? from.data[l * from.line + t * from.along] : BFloat16{0};
        words[l] = _mm512_loadu_si512(line);
    }
}

// One tile from at most 16 lines of at most 32 numbers; the rest is zero.
template <Operand operand, int Parts = 1>
bool pack_tile(Source from, int64_t lines, int64_t numbers, Tile* to) {
    __m512i words[side];
    bool by_line = true;
    if (from.along == 1) {
        load_lines(from, lines, numbers, words);
    } else if (from.line == 1) {
        load_pairs(from, lines, numbers, words);
        by_line = false;
    } else {
        load_scattered(from, lines, numbers, words);
    }
    if (by_line != (operand == Operand::left)) transpose(words);
    for (int i = 0; i < side; ++i) _mm512_store_si512(to->words[i], words[i]);
    return true;
}

// Tiles [line / 16][number / 32][part] of `blocks` times 16 lines; lines and numbers that are not there are zero.
// False where a number has no parts (amx_split.h).
template <Operand operand, int Parts = 1, class E>
bool pack(SourceOf<E> from, int64_t lines, int64_t numbers, int64_t blocks, Tile* to) {
    bool all = true;
    for (int64_t l = 0; l < blocks * side; l += side)
        for (int64_t t = 0; t < numbers; t += depth, to += Parts)
            all &= pack_tile<operand, Parts>(
                SourceOf<E>{from.data + l * from.line + t * from.along, from.line, from.along}, lines - l, numbers - t,
                to);
    return all;
}

// ---------------------------------------------------------------------------------------------------------- results

// Two vectors as 32 numbers of bf16: `low` first.
FASTPOSE_INLINE __m512i narrow_both(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Words of a right operand: the pairs (even[lane], odd[lane]).
FASTPOSE_INLINE __m512i narrow_pairs(__m512 even, __m512 odd) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, narrow_both(even, odd));
}

// Where rows of sums go: strides from row to row and from lane to lane.
template <class E>
struct TargetOf {
    E* data;
    int64_t row, lane;
};
using Target = TargetOf<BFloat16>;

// 32 rows of 16 lanes, turned over: rows are contiguous in the target.
inline void store_turned(const float* from, int64_t from_row, int64_t rows, int64_t lanes, Target to) {
    __m512i words[side];
    for (int64_t t = 0; t < side; ++t) {
        const float* even = from + 2 * t * from_row;
        words[t] = narrow_pairs(2 * t < rows ? _mm512_loadu_ps(even) : _mm512_setzero_ps(),
                                2 * t + 1 < rows ? _mm512_loadu_ps(even + from_row) : _mm512_setzero_ps());
    }
    transpose(words);
    for (int64_t lane = 0; lane < std::min(lanes, side); ++lane)
        _mm512_mask_storeu_epi16(to.data + lane * to.lane, first_of_32(rows), words[lane]);
}

// Rows of at most 32 lanes, rounded to bf16. Each row of `from` holds 32 floats.
inline void store_rows(const float* from, int64_t from_row, int64_t rows, int64_t lanes, Target to) {
    if (to.lane == 1) {
        for (int64_t r = 0; r < rows; ++r) {
            const float* row = from + r * from_row;
            _mm512_mask_storeu_epi16(to.data + r * to.row, first_of_32(lanes),
                                     narrow_both(_mm512_loadu_ps(row), _mm512_loadu_ps(row + side)));
        }
    } else if (to.row == 1) {
        for (int64_t r = 0; r < rows; r += wide)
            for (int64_t lane = 0; lane < lanes; lane += side)
                store_turned(from + r * from_row + lane, from_row, rows - r, lanes - lane,
                             {to.data + r + lane * to.lane, 1, to.lane});
    } else {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t lane = 0; lane < lanes; ++lane)
                to.data[r * to.row + lane * to.lane] = narrow<BFloat16>(from[r * from_row + lane]);
    }
}

// --------------------------------------------------------------------------------------------------------- products

enum class Sums { fresh, kept };  // whether the sums begin at 0 or with what is there

// One product of 16 Blocks rows with 32 columns; operands that the product before had are still there.
template <int Blocks, bool next_left, bool next_right>
FASTPOSE_INLINE void product(const Tile* left, int64_t left_block, const Tile* right, int64_t right_block) {
    if constexpr (next_left) _tile_loadd(4, left, 64);
    if constexpr (next_right) _tile_loadd(6, right, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Blocks == 2 && next_left) _tile_loadd(5, left + left_block, 64);
    if constexpr (Blocks == 2 && !next_left) _tile_dpbf16ps(2, 5, 6);
    if constexpr (next_right) _tile_loadd(7, right + right_block, 64);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (Blocks == 2) {
        if constexpr (next_left) _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

// Products of all parts but those that are smaller than what the parts leave.
template <int Blocks, int Parts>
FASTPOSE_INLINE void products(const Tile* left, int64_t left_block, const Tile* right, int64_t right_block) {
    if constexpr (Parts == 1) {
        product<Blocks, true, true>(left, left_block, right, right_block);
    } else if constexpr (Parts == 2) {
        product<Blocks, true, true>(left, left_block, right + 1, right_block);
        product<Blocks, false, true>(left, left_block, right, right_block);
        product<Blocks, true, false>(left + 1, left_block, right, right_block);
    } else {
        product<Blocks, true, true>(left, left_block, right + 2, right_block);
        product<Blocks, false, true>(left, left_block, right + 1, right_block);
        product<Blocks, true, false>(left + 1, left_block, right + 1, right_block);
        product<Blocks, false, true>(left + 1, left_block, right, right_block);
        product<Blocks, true, false>(left + 2, left_block, right, right_block);
        product<Blocks, true, false>(left, left_block, right, right_block);
    }
}

// A strip of 32 columns of sums, in 16 Blocks rows (1 or 2 blocks): left tiles [block][step][part], right tiles
// [column block][step][part].
template <int Blocks, Sums begin, int Parts>
FASTPOSE_INLINE void multiply(int64_t steps, const Tile* left, int64_t left_block, const Tile* right,
                              int64_t right_block, float* sums, int64_t row) {
    const int64_t bytes = row * static_cast<int64_t>(sizeof(float));
    if constexpr (begin == Sums::fresh) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (Blocks == 2) _tile_zero(2);
        if constexpr (Blocks == 2) _tile_zero(3);
    } else {
        _tile_loadd(0, sums, bytes);
        _tile_loadd(1, sums + side, bytes);
        if constexpr (Blocks == 2) _tile_loadd(2, sums + side * row, bytes);
        if constexpr (Blocks == 2) _tile_loadd(3, sums + side * row + side, bytes);
    }
    for (int64_t t = 0; t < steps * Parts; t += Parts)
        products<Blocks, Parts>(left + t, left_block, right + t, right_block);
    _tile_stored(0, sums, bytes);
    _tile_stored(1, sums + side, bytes);
    if constexpr (Blocks == 2) _tile_stored(2, sums + side * row, bytes);
    if constexpr (Blocks == 2) _tile_stored(3, sums + side * row + side, bytes);
}

// sums[16 blocks rows][32 columns]
template <Sums begin, int Parts = 1>
void multiply_rows(int64_t blocks, int64_t steps, const Tile* left, int64_t left_block, const Tile* right,
                   int64_t right_block, float* sums, int64_t row = wide) {
    int64_t i = 0;
    for (; i + 2 <= blocks; i += 2)
        multiply<2, begin, Parts>(steps, left + i * left_block, left_block, right, right_block, sums + i * side * row,
                                  row);
    if (i < blocks)
        multiply<1, begin, Parts>(steps, left + i * left_block, left_block, right, right_block, sums + i * side * row,
                                  row);
}

// 2^x: x = n + r with 0 <= r < 1, a polynomial in r. To 2^-18 of its value, where bf16 keeps 2^-9, or for more parts as
// exactly as float32 has it. 0 at -inf; NaN stays.
template <int Parts = 1>
FASTPOSE_INLINE __m512 power_of_two(__m512 x, __mmask16 lanes = 0xffff) {
    constexpr float rough[] = {1.353417e-2f, 5.201146e-2f, 2.4144276e-1f, 6.9300383e-1f, 1.00000259f};
    constexpr float exact[] = {
        2.170225542e-4f, 1.243968807e-3f, 9.678840938e-3f, 5.548334203e-2f, 2.402298363e-1f, 6.931469838e-1f, 1.0f};
    const __m512 r = _mm512_reduce_ps(x, 0x09);  // x - floor(x)
    __m512 p = _mm512_set1_ps(Parts == 1 ? rough[0] : exact[0]);
    for (int i = 1; i < (Parts == 1 ? 5 : 7); ++i)
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(Parts == 1 ? rough[i] : exact[i]));
    return _mm512_maskz_scalef_ps(lanes, p, x);  // times 2^floor(x)
}

}  // namespace
}  // namespace fastpose::amx
