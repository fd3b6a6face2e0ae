// Float32 numbers in bf16 products: each is the sum of two or three parts, every part what the ones before it leave,
// rounded to bf16. Two hold 16 bits of it, three all 24. The parts of a tile lie one behind the other.
#pragma once

#include <bit>

#include "common/amx.h"

namespace fastpose::amx {
namespace {

constexpr float smallest_split = 0x1p-64f, largest_split = 0x1p60f;

// Whether no number's parts, nor products of two, leave the range of float32. Zero is among them, inf and NaN are not.
FASTPOSE_INLINE bool splits(__m512 x) {
    const auto bits = [](float number) { return static_cast<int>(std::bit_cast<uint32_t>(number)); };
    const __m512i magnitude = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    const __m512i above = _mm512_sub_epi32(magnitude, _mm512_set1_epi32(bits(smallest_split)));
    const __m512i span = _mm512_set1_epi32(bits(largest_split) - bits(smallest_split));
    return _mm512_mask_cmpgt_epu32_mask(_mm512_test_epi32_mask(magnitude, magnitude), above, span) == 0;
}

// words[part * apart]: 32 numbers, `low` first.
template <int Parts>
FASTPOSE_INLINE void split_both(__m512 low, __m512 high, __m512i* words, int64_t apart) {
    const auto widen_half = [](__m256i half) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
    };
    for (int part = 0; part < Parts; ++part) {
        const __m512i word = narrow_both(low, high);
        words[part * apart] = word;
        low = _mm512_sub_ps(low, widen_half(_mm512_castsi512_si256(word)));
        high = _mm512_sub_ps(high, widen_half(_mm512_extracti64x4_epi64(word, 1)));
    }
}

// words[part * apart]: the pairs (even[lane], odd[lane]).
template <int Parts>
FASTPOSE_INLINE void split_pairs(__m512 even, __m512 odd, __m512i* words, int64_t apart) {
    for (int part = 0; part < Parts; ++part) {
        const __m512i word = narrow_pairs(even, odd);
        _mm512_store_si512(words + part * apart, word);
        even = _mm512_sub_ps(even, _mm512_castsi512_ps(_mm512_slli_epi32(word, 16)));
        odd = _mm512_sub_ps(odd, _mm512_castsi512_ps(_mm512_and_si512(word, _mm512_set1_epi32(0xffff0000))));
    }
}

// words[part][line][pair] of numbers that are contiguous along the sum; whether they split
template <int Parts>
bool load_lines(SourceOf<float> from, int64_t lines, int64_t numbers, __m512i (*words)[side]) {
    bool all = true;
    for (int64_t l = 0; l < side; ++l) {
        const float* at = from.data + l * from.line;
        const int64_t count = l < lines ? numbers : 0;
        const __m512 low = _mm512_maskz_loadu_ps(first_of_16(count), at);
        const __m512 high = _mm512_maskz_loadu_ps(first_of_16(count - side), at + side);
        all &= splits(low) && splits(high);
        split_both<Parts>(low, high, &words[0][l], side);
    }
    return all;
}

// words[part][pair][line] of numbers that are contiguous from line to line; whether they split
template <int Parts>
bool load_pairs(SourceOf<float> from, int64_t lines, int64_t numbers, __m512i (*words)[side]) {
    bool all = true;
    const __mmask16 valid = first_of_16(lines);
    for (int64_t t = 0; t < depth; t += 2) {
        const float* at = from.data + t * from.along;
        const __m512 even = _mm512_maskz_loadu_ps(t < numbers ? valid : __mmask16{0}, at);
        const __m512 odd = _mm512_maskz_loadu_ps(t + 1 < numbers ? valid : __mmask16{0}, at + from.along);
        all &= splits(even) && splits(odd);
        split_pairs<Parts>(even, odd, &words[0][t / 2], side);
    }
    return all;
}

// The parts of one tile, as pack_tile of bf16; false where a number does not split, whose tile is of no use.
template <Operand operand, int Parts>
bool pack_tile(SourceOf<float> from, int64_t lines, int64_t numbers, Tile* to) {
    __m512i words[Parts][side];
    const bool by_line = from.line != 1 || from.along == 1;
    float copy[side][depth];
    if (by_line && from.along != 1) {
        for (int64_t l = 0; l < std::min(lines, side); ++l)
            for (int64_t t = 0; t < std::min(numbers, depth); ++t)
                copy[l][t] = from.data[l * from.line + t * from.along];
        from = {copy[0], depth, 1};
    }
    const bool all =
        by_line ? load_lines<Parts>(from, lines, numbers, words) : load_pairs<Parts>(from, lines, numbers, words);
    for (int part = 0; part < Parts; ++part) {
        if (by_line != (operand == Operand::left)) transpose(words[part]);
        for (int i = 0; i < side; ++i) _mm512_store_si512(to[part].words[i], words[part][i]);
    }
    return all;
}

// Rows of at most 32 lanes, as store_rows of bf16.
inline void store_rows(const float* from, int64_t from_row, int64_t rows, int64_t lanes, TargetOf<float> to) {
    if (to.lane == 1) {
        for (int64_t r = 0; r < rows; ++r)
            std::memcpy(to.data + r * to.row, from + r * from_row, lanes * sizeof(float));
    } else if (to.row == 1) {
        __m512i words[side];
        for (int64_t r = 0; r < rows; r += side)
            for (int64_t lane = 0; lane < lanes; lane += side) {
                for (int64_t i = 0; i < side; ++i) words[i] = _mm512_loadu_si512(from + (r + i) * from_row + lane);
                transpose(words);
                for (int64_t i = 0; i < std::min(lanes - lane, side); ++i)
                    _mm512_mask_storeu_epi32(to.data + r + (lane + i) * to.lane, first_of_16(rows - r), words[i]);
            }
    } else {
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t lane = 0; lane < lanes; ++lane)
                to.data[r * to.row + lane * to.lane] = from[r * from_row + lane];
    }
}

}  // namespace
}  // namespace fastpose::amx
