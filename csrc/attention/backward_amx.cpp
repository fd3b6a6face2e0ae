// The first derivative of attention in bf16: a sweep whose strips are 32 keys, walked by queries. Sums are [row][key]:
// S = Q K^T and dP = dO V^T with queries down the rows, dV^T = dO^T P and dK^T = Q^T dS with channels down the rows,
// and dQ = dS K with queries down the rows and channels across. P and dS are rounded to bf16 for these products.

#include "attention/attention_amx.h"

#if defined(__AMX_BF16__)

#include <cmath>
#include <limits>

#include "attention/tiles_amx.h"

namespace fastpose::attention {
namespace {

using namespace fastpose::amx;

constexpr int64_t group = 4;  // strips that share a block of queries in the cache

// What the whole sweep reads of a block of queries, and the gradient of the query that it adds to.
struct QueryBlock {
    const Tile *queries, *grad_out;              // left operands by position, for sums over the channels
    const Tile *query_channels, *grad_channels;  // left operands by channel, for sums over the positions
    const float *lse, *delta;                    // in powers of two; D = rowsum(dO * O)
    float* grad_query;                           // rows of channels, or null
};

// What a strip of 32 keys keeps while the queries pass by.
struct KeyStrip {
    Tile *keys, *values, *key_channels;  // right operands; the last for sums over the keys
    float *grad_key, *grad_value;        // [channel][key]

    KeyStrip() = default;
    KeyStrip(const Sizes& size, Arena& arena)
        : keys(arena.take<Tile>(2 * steps_of(size.key_channels))),
          values(arena.take<Tile>(2 * steps_of(size.value_channels))),
          key_channels(arena.take<Tile>(2 * steps_of(size.key_channels))),
          grad_key(arena.take<float>(round_up(size.key_channels, side) * wide)),
          grad_value(arena.take<float>(round_up(size.value_channels, side) * wide)) {}

    void start(const Bf16Backward& p, int64_t b, int64_t first) const {
        const auto [batch, ck, cv, nq, nk] = p.size;
        const int64_t count = std::min(wide, nk - first);
        const BFloat16 *key = p.key.at(b) + first * p.key.position, *value = p.value.at(b) + first * p.value.position;
        pack<Operand::right>(Source{key, p.key.position, p.key.channel}, count, ck, 2, keys);
        pack<Operand::right>(Source{value, p.value.position, p.value.channel}, count, cv, 2, values);
        pack<Operand::right>(Source{key, p.key.channel, p.key.position}, ck, count, 2 * steps_of(ck), key_channels);
        std::fill(grad_key, grad_key + round_up(ck, side) * wide, 0.0f);
        std::fill(grad_value, grad_value + round_up(cv, side) * wide, 0.0f);
    }

    void finish(const Bf16Backward& p, int64_t b, int64_t first) const {
        const int64_t ck = p.size.key_channels, count = std::min(wide, p.size.keys - first);
        for (int64_t i = 0; i < ck * wide; ++i) grad_key[i] *= p.scale;
        if (const auto& to = p.grad_key)
            store_rows(grad_key, wide, ck, count, Target{to.at(b) + first * to.position, to.channel, to.position});
        if (const auto& to = p.grad_value)
            store_rows(grad_value, wide, p.size.value_channels, count,
                       Target{to.at(b) + first * to.position, to.channel, to.position});
    }
};

struct BackwardScratch {
    KeyStrip strip[group];
    float *scores, *grad_scores;                   // [query][key] of 32 queries
    Tile *probabilities, *score_grads, *by_query;  // right operands [key / 16][query / 32]; a left one of 32 queries

    BackwardScratch(const Sizes& size, Arena& arena) {
        for (KeyStrip& each : strip) each = KeyStrip(size, arena);
        scores = arena.take<float>(wide * wide);
        grad_scores = arena.take<float>(wide * wide);
        probabilities = arena.take<Tile>(2 * block_steps);
        score_grads = arena.take<Tile>(2 * block_steps);
        by_query = arena.take<Tile>(2);
    }
};

// P = 2^(factor S - lse) and dS = P (dP - D) of 32 queries and 32 keys, of which the lanes of `valid` are there.
void softmax_gradient(const BackwardScratch& scratch, const float* lse, const float* delta, float factor,
                      __mmask32 valid, int64_t step) {
    const __m512 scale = _mm512_set1_ps(factor);
    for (int64_t i = 0; i < wide; i += 2) {
        __m512 p[2][2], g[2][2];
        for (int r = 0; r < 2; ++r)
            for (int v = 0; v < 2; ++v) {
                const int64_t at = (i + r) * wide + v * side;
                const __m512 logit =
                    _mm512_fmsub_ps(_mm512_load_ps(scratch.scores + at), scale, _mm512_set1_ps(lse[i + r]));
                const __m512 centred =
                    _mm512_sub_ps(_mm512_load_ps(scratch.grad_scores + at), _mm512_set1_ps(delta[i + r]));
                p[r][v] = power_of_two(logit, static_cast<__mmask16>(valid >> v * side));
                g[r][v] = _mm512_mul_ps(p[r][v], centred);
            }
        for (int v = 0; v < 2; ++v) {
            const int64_t tile = v * block_steps + step;
            _mm512_store_si512(scratch.probabilities[tile].words[i / 2], narrow_pairs(p[0][v], p[1][v]));
            _mm512_store_si512(scratch.score_grads[tile].words[i / 2], narrow_pairs(g[0][v], g[1][v]));
        }
        for (int r = 0; r < 2; ++r)
            _mm512_store_si512(scratch.by_query[i / side].words[i % side + r], narrow_both(g[r][0], g[r][1]));
    }
}

// One block of queries and one strip of keys. Sizes in steps and blocks of tiles.
struct Extent {
    int64_t key_steps, value_steps, key_blocks, value_blocks, row;  // row: floats of a row of the query's gradient

    explicit Extent(const Sizes& size)
        : key_steps(steps_of(size.key_channels)),
          value_steps(steps_of(size.value_channels)),
          key_blocks(divide_up(size.key_channels, side)),
          value_blocks(divide_up(size.value_channels, side)),
          row(round_up(size.key_channels, wide)) {}
};

void sweep_block(const Bf16Backward& p, const BackwardScratch& scratch, const KeyStrip& strip, const QueryBlock& block,
                 int64_t steps, __mmask32 valid) {
    const Extent extent(p.size);
    const float factor = p.scale * static_cast<float>(M_LOG2E);
    for (int64_t step = 0; step < steps; ++step) {
        const int64_t first = step * wide;
        multiply_rows<Sums::fresh>(2, extent.key_steps, block.queries + step * 2 * extent.key_steps, extent.key_steps,
                                   strip.keys, extent.key_steps, scratch.scores);
        multiply_rows<Sums::fresh>(2, extent.value_steps, block.grad_out + step * 2 * extent.value_steps,
                                   extent.value_steps, strip.values, extent.value_steps, scratch.grad_scores);
        softmax_gradient(scratch, block.lse + first, block.delta + first, factor, valid, step);
        for (int64_t c = 0; block.grad_query && c < extent.row; c += wide)
            multiply_rows<Sums::kept>(2, 1, scratch.by_query, 1, strip.key_channels + c / side, 1,
                                      block.grad_query + first * extent.row + c, extent.row);
    }
    if (p.grad_value)
        multiply_rows<Sums::kept>(extent.value_blocks, steps, block.grad_channels, steps, scratch.probabilities,
                                  block_steps, strip.grad_value);
    if (p.grad_key)
        multiply_rows<Sums::kept>(extent.key_blocks, steps, block.query_channels, steps, scratch.score_grads,
                                  block_steps, strip.grad_key);
}

// The query's side of the whole batch. Rows beyond the last query have P = 0.
class PackedQueries {
   public:
    PackedQueries(const Bf16Backward& p, int threads)
        : extent_(p.size),
          blocks_(divide_up(p.size.queries, block)),
          queries_(p.size.batch, blocks_, 2 * block_steps, extent_.key_steps),
          grad_out_(p.size.batch, blocks_, 2 * block_steps, extent_.value_steps),
          query_channels_(p.size.batch, blocks_, extent_.key_blocks, block_steps),
          grad_channels_(p.size.batch, blocks_, extent_.value_blocks, block_steps),
          lse_(p.size.batch, blocks_, block),
          delta_(p.size.batch, blocks_, block) {
        const auto [batch, ck, cv, nq, nk] = p.size;
        pack_positions<Operand::left>(p.query, batch, ck, nq, queries_.data(), threads);
        pack_positions<Operand::left>(p.grad_out, batch, cv, nq, grad_out_.data(), threads);
        pack_channels<Operand::left>(p.query, batch, ck, nq, query_channels_.data(), threads);
        pack_channels<Operand::left>(p.grad_out, batch, cv, nq, grad_channels_.data(), threads);
        for_blocks(batch, nq, threads, [&](int64_t b, int64_t first, int64_t count, int64_t item) {
            float *lse = lse_.data() + item * block, *delta = delta_.data() + item * block;
            const float* saved = p.lse + b * p.size.queries + first;
            for (int64_t i = 0; i < block; ++i)
                lse[i] = i < count ? saved[i] * static_cast<float>(M_LOG2E) : std::numeric_limits<float>::infinity();
            row_dots(p.grad_out, p.out, b, p.size.value_channels, first, count, delta);
        });
    }

    QueryBlock at(int64_t b, int64_t first, float* grad_query) const {
        const int64_t item = b * blocks_ + first / block;
        return {queries_.data() + item * 2 * block_steps * extent_.key_steps,
                grad_out_.data() + item * 2 * block_steps * extent_.value_steps,
                query_channels_.data() + item * extent_.key_blocks * block_steps,
                grad_channels_.data() + item * extent_.value_blocks * block_steps,
                lse_.data() + item * block,
                delta_.data() + item * block,
                grad_query ? grad_query + first * extent_.row : nullptr};
    }

   private:
    Extent extent_;
    int64_t blocks_;
    Scratch<Tile> queries_, grad_out_, query_channels_, grad_channels_;
    Scratch<float> lse_, delta_;
};

void sweep(const Bf16Backward& p, const PackedQueries& packed, int64_t b, int64_t first, int64_t strips,
           float* grad_query, std::byte* memory) {
    Arena arena(memory);
    const BackwardScratch scratch(p.size, arena);
    const TileRegisters registers;
    const FlushSubnormals flush;
    for (int64_t g = 0; g < strips; ++g) scratch.strip[g].start(p, b, first + g * wide);
    for (int64_t i = 0; i < p.size.queries; i += block) {
        const int64_t steps = steps_of(std::min(block, p.size.queries - i));
        const QueryBlock queries = packed.at(b, i, grad_query);
        for (int64_t g = 0; g < strips; ++g)
            sweep_block(p, scratch, scratch.strip[g], queries, steps, first_of_32(p.size.keys - first - g * wide));
    }
    for (int64_t g = 0; g < strips; ++g) scratch.strip[g].finish(p, b, first + g * wide);
}

// The gradient of the query is gathered in a buffer of its own for each (image, part of the keys) and added up in a
// fixed order: deterministic. The number of parts follows from the sizes alone.
struct KeyParts {
    int64_t parts, strips;

    explicit KeyParts(const Sizes& size) {
        const int64_t all = divide_up(size.keys, wide), wanted = size.batch >= 16 ? 1 : size.batch >= 8 ? 2 : 4;
        strips = std::max<int64_t>(1, divide_up(all, wanted));
        parts = std::max<int64_t>(1, divide_up(all, strips));
    }
};

void add_parts(const Bf16Backward& p, float* rows, int64_t parts, int64_t per_part, int threads) {
    const int64_t ck = p.size.key_channels, row = Extent(p.size).row;
    const auto& to = p.grad_query;
    for_blocks(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t count, int64_t) {
        float* sums = rows + b * parts * per_part + first * row;
        for (int64_t part = 1; part < parts; ++part)
            for (int64_t i = 0; i < count * row; ++i) sums[i] += sums[part * per_part + i];
        for (int64_t i = 0; i < count * row; ++i) sums[i] *= p.scale;
        for (int64_t c = 0; c < ck; c += wide)
            store_rows(sums + c, row, count, std::min(wide, ck - c),
                       Target{to.at(b) + first * to.position + c * to.channel, to.position, to.channel});
    });
}

}  // namespace

void backward_amx(const Bf16Backward& p, int threads) {
    const PackedQueries packed(p, threads);
    const KeyParts split(p.size);
    const int64_t per_worker = scratch_bytes<BackwardScratch>(p.size), strips = divide_up(p.size.keys, wide);
    const int64_t part_rows = round_up(p.size.queries, wide), row = Extent(p.size).row;
    Scratch<std::byte> memory(per_worker, threads);
    Scratch<float> rows(p.grad_query ? p.size.batch : 0, split.parts, part_rows, row);
    const int64_t per_part = part_rows * row;
    parallel_for(threads, p.size.batch * split.parts, [&](int64_t item, int worker) {
        float* sums = p.grad_query ? rows.data() + item * per_part : nullptr;
        if (sums) std::fill(sums, sums + per_part, 0.0f);
        const int64_t first = item % split.parts * split.strips, last = std::min(first + split.strips, strips);
        for (int64_t strip = first; strip < last; strip += group)
            sweep(p, packed, item / split.parts, strip * wide, std::min(group, last - strip), sums,
                  memory.data() + worker * per_worker);
    });
    if (p.grad_query) add_parts(p, rows.data(), split.parts, per_part, threads);
}

}  // namespace fastpose::attention

#else

namespace fastpose::attention {

void backward_amx(const Bf16Backward&, int) {}

}  // namespace fastpose::attention

#endif
