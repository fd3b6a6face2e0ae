// Attention on the CPU: online softmax over blocks of keys, lanes are queries.
#include <cmath>
#include <limits>

#include "attention/tiles_cpu.h"

namespace fastpose::attention::FASTPOSE_SIMD {
namespace {

// One key block of the online softmax: scores -> probabilities relative to the running maximum.
template <class T>
FASTPOSE_INLINE void online_softmax(int64_t count, T* scores, T* maximum, T* sum, T* rescale) {
    constexpr int64_t width = packed<T>;
    for (int v = 0; v < tile_vectors; ++v) {
        T* column = scores + v * lanes<T>;
        const Vector<T> before = load(maximum + v * lanes<T>);
        Vector<T> largest = before;
        for (int64_t j = 0; j < count; ++j) largest = at_least(largest, load(column + j * width));
        // While every logit so far is -inf the shift is 0: exp(-inf) is 0, exp(-inf + inf) would be NaN.
        const Vector<T> shift = largest < -std::numeric_limits<T>::max() ? Vector<T>{} : largest;
        Vector<T> total{};
        for (int64_t j = 0; j < count; ++j) {
            const Vector<T> p = exponential(load(column + j * width) - shift);
            store(column + j * width, p);
            total += p;
        }
        const Vector<T> factor = exponential(before - shift);
        store(maximum + v * lanes<T>, largest);
        store(sum + v * lanes<T>, load(sum + v * lanes<T>) * factor + total);
        store(rescale + v * lanes<T>, factor);
    }
}

// What one tile of queries keeps while the keys pass by.
template <class T>
struct QueryTile {
    T *queries, *sums, *maximum, *total;

    QueryTile() = default;
    QueryTile(const Sizes& size, Arena<T>& arena)
        : queries(arena.take(size.key_channels * packed<T>)),
          sums(arena.take(size.value_channels * packed<T>)),
          maximum(arena.take(packed<T>)),
          total(arena.take(packed<T>)) {}
};

template <class T>
struct ForwardScratch {
    QueryTile<T> tile[group];
    T *keys, *values, *scores, *rescale;

    ForwardScratch(const Sizes& size, Arena<T>& arena) {
        for (QueryTile<T>& each : tile) each = QueryTile<T>(size, arena);
        keys = arena.take(stage_size<T>(size.key_channels));
        values = arena.take(stage_size<T>(size.value_channels));
        scores = arena.take(block * packed<T>);
        rescale = arena.take(packed<T>);
    }
};

template <class T>
void start_queries(const Forward<T>& p, int64_t b, int64_t first, const QueryTile<T>& tile) {
    constexpr int64_t width = packed<T>;
    pack(p.query, b, p.size.key_channels, first, std::min(width, p.size.queries - first), tile.queries);
    std::fill(tile.sums, tile.sums + p.size.value_channels * width, T(0));
    std::fill(tile.maximum, tile.maximum + width, -std::numeric_limits<T>::infinity());
    std::fill(tile.total, tile.total + width, T(0));
}

template <class T>
void finish_queries(const Forward<T>& p, int64_t b, int64_t first, const QueryTile<T>& tile, T* inverse) {
    constexpr int64_t width = packed<T>;
    const int64_t count = std::min(width, p.size.queries - first);
    for (int64_t lane = 0; lane < width; ++lane)
        inverse[lane] = p.size.keys == 0 ? T(0) : T(1) / tile.total[lane];  // no keys: zeros
    for (int64_t c = 0; c < p.size.value_channels; ++c)
        for (int64_t lane = 0; lane < width; ++lane) tile.sums[c * width + lane] *= inverse[lane];
    unpack(tile.sums, p.size.value_channels, first, count, p.out, b);
    T* lse = p.lse + b * p.size.queries + first;
    for (int64_t lane = 0; lane < count; ++lane) lse[lane] = tile.maximum[lane] + std::log(tile.total[lane]);
}

template <class T>
void forward_tiles(const Forward<T>& p, int64_t b, int64_t first, int64_t tiles, T* memory) {
    Arena<T> arena(memory);
    const ForwardScratch<T> scratch(p.size, arena);
    const int64_t ck = p.size.key_channels, cv = p.size.value_channels;
    for (int64_t g = 0; g < tiles; ++g) start_queries(p, b, first + g * packed<T>, scratch.tile[g]);
    for (int64_t j = 0; j < p.size.keys; j += block) {
        const int64_t count = std::min(block, p.size.keys - j);
        const Staged<T> keys = stage(p.key, b, ck, j, count, scratch.keys);
        const Staged<T> values = stage(p.value, b, cv, j, count, scratch.values);
        for (int64_t g = 0; g < tiles; ++g) {
            const QueryTile<T>& tile = scratch.tile[g];
            inner_products<T, Start::zero>(keys, ck, count, tile.queries, scratch.scores);
            online_softmax(count, scratch.scores, tile.maximum, tile.total, scratch.rescale);
            gather<T, Start::scale>(values, cv, count, scratch.scores, tile.sums, scratch.rescale);
        }
    }
    for (int64_t g = 0; g < tiles; ++g) finish_queries(p, b, first + g * packed<T>, scratch.tile[g], scratch.rescale);
}

}  // namespace

template <class T>
void forward(const Forward<T>& p, int threads) {
    const int64_t per_worker = scratch_count<ForwardScratch<T>, T>(p.size);
    Scratch<T> memory(per_worker * threads);
    for_tile_groups<T>(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t tiles, int worker) {
        forward_tiles(p, b, first, tiles, memory.data() + worker * per_worker);
    });
}
template void forward<float>(const Forward<float>&, int);
template void forward<double>(const Forward<double>&, int);

}  // namespace fastpose::attention::FASTPOSE_SIMD
