// Forward attention by bf16 products, of one part or of several for each number. Sums are [row][query]: S^T = K Q^T
// with keys down the rows, so that the softmax is vertical; O^T = V P^T with channels down the rows. P is rounded to
// bf16, or split, and lies as the right operand of the second product from the start.

#include "attention/attention_amx.h"

#if defined(__AMX_BF16__)

#include <cmath>
#include <limits>

#include "attention/tiles_amx.h"
#include "common/parallel.h"

namespace fastpose::attention {
namespace {

using namespace fastpose::amx;

constexpr int64_t group = 16;  // strips of 32 queries that share a block of keys in the cache
constexpr float slack = 6;     // powers of two by which logits may pass the shift of their strip before it follows

template <int Parts>
constexpr int64_t walk = Parts == 1 ? block : 64;  // keys of one softmax: the parts of P stay in the L1 cache

template <int Parts>
constexpr int64_t probability_block = walk<Parts> / depth * Parts;  // tiles of P for 16 queries

// What a strip of 32 queries keeps while the keys pass by.
struct QueryStrip {
    float *sums, *shift, *total;  // [channel][query], [query], [query]

    QueryStrip() = default;
    QueryStrip(const Sizes& size, Arena& arena)
        : sums(arena.take<float>(round_up(size.value_channels, side) * wide)),
          shift(arena.take<float>(wide)),
          total(arena.take<float>(wide)) {}
};

template <int Parts>
struct ForwardScratch {
    QueryStrip strip[group];
    float *scores, *rescale;  // [key][query], [query]
    Tile* probabilities;      // [query / 16][key / 32][part]

    ForwardScratch(const Sizes& size, Arena& arena) {
        for (QueryStrip& each : strip) each = QueryStrip(size, arena);
        scores = arena.take<float>(walk<Parts> * wide);
        rescale = arena.take<float>(wide);
        probabilities = arena.take<Tile>(2 * probability_block<Parts>);
    }
};

// Raises the shift of a strip to the largest logit where one is far above it, and writes the factor of what was summed
// relative to the shift before; true where a factor is not 1. Logits count in powers of two: `factor` holds log2(e).
template <int Parts>
bool raise_shift(int64_t count, const float* scores, float factor, float* shift, float* rescale) {
    const __m512 scale = _mm512_set1_ps(factor), one = _mm512_set1_ps(1.0f);
    bool raised = false;
    for (int64_t v = 0; v < wide; v += side) {
        const float* column = scores + v;
        const auto logit = [&](int64_t j) { return _mm512_mul_ps(_mm512_load_ps(column + j * wide), scale); };
        const __m512 before = _mm512_load_ps(shift + v);
        __m512 largest[4] = {before, before, before, before};  // four chains: one would wait for its own latency
        int64_t j = 0;
        for (; j + 4 <= count; j += 4)  // of NaN and a number _mm512_max_ps returns the second
            for (int chain = 0; chain < 4; ++chain) largest[chain] = _mm512_max_ps(logit(j + chain), largest[chain]);
        for (; j < count; ++j) largest[0] = _mm512_max_ps(logit(j), largest[0]);
        const __m512 now = _mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3]));
        const __m512 bound = _mm512_add_ps(before, _mm512_set1_ps(slack));
        const __mmask16 far = _mm512_cmp_ps_mask(now, bound, _CMP_GT_OQ);
        _mm512_mask_store_ps(shift + v, far, now);
        _mm512_store_ps(rescale + v, _mm512_mask_mov_ps(one, far, power_of_two<Parts>(_mm512_sub_ps(before, now))));
        raised |= far != 0;
    }
    return raised;
}

// P = 2^(factor S - shift) as tiles, and its sums. Keys beyond `count`, to the end of the last step, are zero.
template <int Parts>
void probabilities(int64_t count, const float* scores, float factor, const float* shifts, float* total, Tile* to) {
    const __m512 scale = _mm512_set1_ps(factor);
    for (int64_t v = 0; v < 2; ++v, to += probability_block<Parts>) {
        const __m512 known = _mm512_load_ps(shifts + v * side);
        // While every logit so far is -inf nothing is subtracted: the power of -inf is 0, that of -inf + inf is NaN.
        const __mmask16 some =
            _mm512_cmp_ps_mask(known, _mm512_set1_ps(-std::numeric_limits<float>::infinity()), _CMP_NEQ_UQ);
        const __m512 shift = _mm512_maskz_mov_ps(some, known);
        __m512 sums = _mm512_setzero_ps();
        for (int64_t j = 0; j < round_up(count, depth); j += 2) {
            const float* at = scores + j * wide + v * side;
            const __m512 even =
                power_of_two<Parts>(_mm512_fmsub_ps(_mm512_load_ps(at), scale, shift), j < count ? 0xffff : 0);
            const __m512 odd = power_of_two<Parts>(_mm512_fmsub_ps(_mm512_load_ps(at + wide), scale, shift),
                                                   j + 1 < count ? 0xffff : 0);
            sums = _mm512_add_ps(sums, _mm512_add_ps(even, odd));
            Tile* step = to + j / depth * Parts;
            split_pairs<Parts>(even, odd, reinterpret_cast<__m512i*>(step->words[j % depth / 2]), side);
        }
        _mm512_store_ps(total + v * side, _mm512_add_ps(_mm512_load_ps(total + v * side), sums));
    }
}

void scale_columns(int64_t rows, const float* factors, float* sums) {
    const __m512 first = _mm512_load_ps(factors), second = _mm512_load_ps(factors + side);
    for (int64_t r = 0; r < rows; ++r, sums += wide) {
        _mm512_store_ps(sums, _mm512_mul_ps(_mm512_load_ps(sums), first));
        _mm512_store_ps(sums + side, _mm512_mul_ps(_mm512_load_ps(sums + side), second));
    }
}

void start_queries(const Sizes& size, const QueryStrip& strip) {
    std::fill(strip.sums, strip.sums + round_up(size.value_channels, side) * wide, 0.0f);
    std::fill(strip.shift, strip.shift + wide, -std::numeric_limits<float>::infinity());
    std::fill(strip.total, strip.total + wide, 0.0f);
}

template <class E>
void finish_queries(const AmxForward<E>& p, int64_t b, int64_t first, const QueryStrip& strip, float* inverse) {
    const int64_t cv = p.size.value_channels, count = std::min(wide, p.size.queries - first);
    for (int64_t lane = 0; lane < wide; ++lane)
        inverse[lane] = p.size.keys == 0 ? 0.0f : 1.0f / strip.total[lane];  // no keys: zeros
    scale_columns(cv, inverse, strip.sums);
    const TargetOf<E> target{p.out.at(b) + first * p.out.position, p.out.channel, p.out.position};
    store_rows(strip.sums, wide, cv, count, target);
    float* lse = p.lse + b * p.size.queries + first;
    for (int64_t lane = 0; lane < count; ++lane)
        lse[lane] = (strip.shift[lane] + std::log2(strip.total[lane])) * static_cast<float>(M_LN2);
}

// The operands of the whole batch: K by position and V by channel on the left, Q by position on the right.
template <int Parts>
class Packed {
   public:
    template <class E>
    Packed(const AmxForward<E>& p, int threads)
        : key_steps_(steps_of(p.size.key_channels) * Parts),
          value_blocks_(divide_up(p.size.value_channels, side)),
          keys_in_all_(p.size.keys),
          query_groups_(divide_up(p.size.queries, block)),
          key_groups_(divide_up(p.size.keys, block)),
          queries_(p.size.batch, query_groups_, 2 * block_steps, key_steps_),
          keys_(p.size.batch, key_groups_, 2 * block_steps, key_steps_),
          values_(p.size.batch, key_groups_, value_blocks_, block_steps * Parts) {
        const auto [batch, ck, cv, nq, nk] = p.size;
        all_ = pack_positions<Operand::right, Parts>(p.query, batch, ck, nq, queries_.data(), threads) &&
               pack_positions<Operand::left, Parts>(p.key, batch, ck, nk, keys_.data(), threads) &&
               pack_channels<Operand::left, Parts>(p.value, batch, cv, nk, values_.data(), threads);
    }
    explicit operator bool() const { return all_; }  // whether every number could be split

    const Tile* queries(int64_t b, int64_t first) const {
        return queries_.data() +
               ((b * query_groups_ + first / block) * 2 * block_steps + first % block / side) * key_steps_;
    }
    const Tile* keys(int64_t b, int64_t first) const {
        return keys_.data() + ((b * key_groups_ + first / block) * 2 * block_steps + first % block / side) * key_steps_;
    }
    const Tile* values(int64_t b, int64_t first) const {
        return values_.data() +
               ((b * key_groups_ + first / block) * value_blocks_ * block_steps + first % block / depth) * Parts;
    }
    // From the values of 16 channels to the next ones'.
    int64_t value_block(int64_t first) const {
        return steps_of(std::min(block, keys_in_all_ - first / block * block)) * Parts;
    }

   private:
    int64_t key_steps_, value_blocks_, keys_in_all_, query_groups_, key_groups_;
    Scratch<Tile> queries_, keys_, values_;
    bool all_;
};

template <int Parts, class E>
void attend(const AmxForward<E>& p, const Packed<Parts>& packed, int64_t b, int64_t first, int64_t strips,
            std::byte* memory) {
    Arena arena(memory);
    const ForwardScratch<Parts> scratch(p.size, arena);
    const TileRegisters registers;
    const FlushSubnormals flush;
    const int64_t key_steps = steps_of(p.size.key_channels), value_blocks = divide_up(p.size.value_channels, side);
    const float factor = p.scale * static_cast<float>(M_LOG2E);
    for (int64_t g = 0; g < strips; ++g) start_queries(p.size, scratch.strip[g]);
    for (int64_t j = 0; j < p.size.keys; j += walk<Parts>) {
        const int64_t count = std::min(walk<Parts>, p.size.keys - j), steps = steps_of(count);
        const Tile *keys = packed.keys(b, j), *values = packed.values(b, j);
        for (int64_t g = 0; g < strips; ++g) {
            const QueryStrip& strip = scratch.strip[g];
            multiply_rows<Sums::fresh, Parts>(2 * steps, key_steps, keys, key_steps * Parts,
                                              packed.queries(b, first + g * wide), key_steps * Parts, scratch.scores);
            if (raise_shift<Parts>(count, scratch.scores, factor, strip.shift, scratch.rescale)) {
                scale_columns(value_blocks * side, scratch.rescale, strip.sums);
                scale_columns(1, scratch.rescale, strip.total);
            }
            probabilities<Parts>(count, scratch.scores, factor, strip.shift, strip.total, scratch.probabilities);
            multiply_rows<Sums::kept, Parts>(value_blocks, steps, values, packed.value_block(j), scratch.probabilities,
                                             probability_block<Parts>, strip.sums);
        }
    }
    for (int64_t g = 0; g < strips; ++g) finish_queries(p, b, first + g * wide, scratch.strip[g], scratch.rescale);
}

// False, and nothing done, where a number does not split.
template <int Parts, class E>
bool forward_parts(const AmxForward<E>& p, int threads) {
    const Packed<Parts> packed(p, threads);
    if (!packed) return false;
    const int64_t per_worker = scratch_bytes<ForwardScratch<Parts>>(p.size);
    Scratch<std::byte> memory(per_worker, threads);
    for_strip_groups(p.size.batch, p.size.queries, group, threads,
                     [&](int64_t b, int64_t first, int64_t strips, int worker) {
                         attend(p, packed, b, first, strips, memory.data() + worker * per_worker);
                     });
    return true;
}

}  // namespace

const bool amx_compiled = true;

void forward_amx(const AmxForward<BFloat16>& p, int threads) { forward_parts<1>(p, threads); }

bool forward_amx(const AmxForward<float>& p, int parts, int threads) {
    return parts == 2 ? forward_parts<2>(p, threads) : forward_parts<3>(p, threads);
}

}  // namespace fastpose::attention

#else

namespace fastpose::attention {

const bool amx_compiled = false;

void forward_amx(const AmxForward<BFloat16>&, int) {}
bool forward_amx(const AmxForward<float>&, int, int) { return false; }

}  // namespace fastpose::attention

#endif
