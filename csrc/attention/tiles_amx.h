// What the AMX kernels of attention share: blocks of positions, packed tensors and scratch memory.
#pragma once

#include <atomic>
#include <cstddef>

#include "attention/attention_amx.h"
#include "common/amx_split.h"
#include "common/arena.h"
#include "common/parallel.h"

namespace fastpose::attention {
namespace {

constexpr int64_t block = 256;  // walked positions between two visits to the sums of a strip
constexpr int64_t block_steps = block / amx::depth;

FASTPOSE_INLINE int64_t steps_of(int64_t count) { return divide_up(count, amx::depth); }

// Calls body(image, first position, count, its tiles) for every block of positions of a batch.
template <class Body>
void for_blocks(int64_t batch, int64_t positions, int threads, const Body& body) {
    const int64_t blocks = divide_up(positions, block);
    parallel_for(threads, batch * blocks, [&](int64_t item, int) {
        const int64_t first = item % blocks * block;
        body(item / blocks, first, std::min(block, positions - first), item);
    });
}

// Tiles [image][block][position / 16][channel / 32][part], for sums over the channels. False where a number does not
// split.
template <amx::Operand operand, int Parts = 1, class E>
bool pack_positions(Strided3<const E> from, int64_t batch, int64_t channels, int64_t positions, amx::Tile* to,
                    int threads) {
    std::atomic<bool> all{true};
    const int64_t per_block = 2 * block_steps * steps_of(channels) * Parts;
    for_blocks(batch, positions, threads, [&](int64_t b, int64_t first, int64_t count, int64_t item) {
        const amx::SourceOf<E> source{from.at(b) + first * from.position, from.position, from.channel};
        if (!amx::pack<operand, Parts>(source, count, channels, 2 * steps_of(count), to + item * per_block))
            all.store(false, std::memory_order_relaxed);
    });
    return all;
}

// Tiles [image][block][channel / 16][position / 32][part], for sums over the positions. False where a number does not
// split.
template <amx::Operand operand, int Parts = 1, class E>
bool pack_channels(Strided3<const E> from, int64_t batch, int64_t channels, int64_t positions, amx::Tile* to,
                   int threads) {
    std::atomic<bool> all{true};
    const int64_t per_block = divide_up(channels, amx::side) * block_steps * Parts;
    for_blocks(batch, positions, threads, [&](int64_t b, int64_t first, int64_t count, int64_t item) {
        const amx::SourceOf<E> source{from.at(b) + first * from.position, from.channel, from.position};
        if (!amx::pack<operand, Parts>(source, channels, count, divide_up(channels, amx::side), to + item * per_block))
            all.store(false, std::memory_order_relaxed);
    });
    return all;
}

// dots[i] = sum_c x(c, first + i) y(c, first + i) in float32; zero from `count` to the end of the block.
inline void row_dots(Strided3<const BFloat16> x, Strided3<const BFloat16> y, int64_t b, int64_t channels, int64_t first,
                     int64_t count, float* dots) {
    const BFloat16 *left = x.at(b) + first * x.position, *right = y.at(b) + first * y.position;
    std::fill(dots, dots + block, 0.0f);
    if (x.channel == 1 && y.channel == 1) {
        for (int64_t i = 0; i < count; ++i, left += x.position, right += y.position) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t c = 0; c < channels; c += amx::depth) {
                const __mmask32 valid = amx::first_of_32(channels - c);
                sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(valid, left + c),
                                       (__m512bh)_mm512_maskz_loadu_epi16(valid, right + c));
            }
            dots[i] = _mm512_reduce_add_ps(sum);
        }
        return;
    }
    for (int64_t c = 0; c < channels; ++c, left += x.channel, right += y.channel)
        for (int64_t i = 0; i < count; ++i) dots[i] += widen(left[i * x.position]) * widen(right[i * y.position]);
}

// Runs body(image, first position, strips, worker) over groups of strips of 32 positions. Groups are smaller where
// there would be too few of them to occupy the threads.
template <class Body>
void for_strip_groups(int64_t batch, int64_t positions, int64_t group, int threads, const Body& body) {
    const int64_t strips = divide_up(positions, amx::wide);
    const int64_t size = std::clamp<int64_t>(batch * strips / (4 * threads), 1, group);
    const int64_t groups = divide_up(strips, size);
    parallel_for(threads, batch * groups, [&](int64_t item, int worker) {
        const int64_t first = item % groups * size;
        body(item / groups, first * amx::wide, std::min(size, strips - first), worker);
    });
}

}  // namespace
}  // namespace fastpose::attention
