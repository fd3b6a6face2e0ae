// Attention on the CPU: online softmax over blocks of keys, lanes are queries.
#include <cmath>
#include <limits>

#include "attention/tiles_cpu.h"

namespace fastpose::attention::FASTPOSE_SIMD {
namespace {

// largest[lane] = max(largest[lane], tile[j][lane]) over the rows of a tile; two chains for each vector hide the
// latency.
template <class T, int vectors>
FASTPOSE_INLINE void largest_of_rows(int64_t count, const T* tile, Vector<T>* largest) {
    constexpr int64_t width = packed<T>;
    Vector<T> other[vectors];
    for (int v = 0; v < vectors; ++v) other[v] = largest[v];
    for (int64_t j = 0; j + 1 < count; j += 2)
        for (int v = 0; v < vectors; ++v) {
            largest[v] = at_least(largest[v], load(tile + j * width + v * lanes<T>));
            other[v] = at_least(other[v], load(tile + (j + 1) * width + v * lanes<T>));
        }
    for (int v = 0; v < vectors; ++v) {
        if (count % 2) other[v] = at_least(other[v], load(tile + (count - 1) * width + v * lanes<T>));
        largest[v] = at_least(largest[v], other[v]);
    }
}

// One key block of the online softmax: scores -> probabilities relative to the running maximum. Returns whether that
// maximum moved, so that earlier sums are to be rescaled.
template <class T, int vectors>
FASTPOSE_INLINE bool online_softmax(int64_t count, T* scores, T* maximum, T* sum, T* rescale) {
    constexpr int64_t width = packed<T>;
    Vector<T> largest[vectors], total[vectors];
    for (int v = 0; v < vectors; ++v) largest[v] = load(maximum + v * lanes<T>);
    largest_of_rows<T, vectors>(count, scores, largest);
    bool moved = false;
    for (int v = 0; v < vectors; ++v) {
        const Vector<T> before = load(maximum + v * lanes<T>);
        for (int lane = 0; lane < lanes<T>; ++lane) moved |= before[lane] != largest[v][lane];
        store(maximum + v * lanes<T>, largest[v]);
        // While every logit so far is -inf the shift is 0: exp(-inf) is 0, exp(-inf + inf) would be NaN.
        largest[v] = largest[v] < -std::numeric_limits<T>::max() ? Vector<T>{} : largest[v];
        const Vector<T> factor = falling_exponential(before - largest[v]);
        store(rescale + v * lanes<T>, factor);
        total[v] = load(sum + v * lanes<T>) * factor;
    }
    for (int64_t j = 0; j < count; ++j)
        for (int v = 0; v < vectors; ++v) {
            T* at = scores + j * width + v * lanes<T>;
            const Vector<T> p = falling_exponential(load(at) - largest[v]);
            store(at, p);
            total[v] += p;
        }
    for (int v = 0; v < vectors; ++v) store(sum + v * lanes<T>, total[v]);
    return moved;
}

template <class T>
bool online_softmax(int vectors, int64_t count, T* scores, T* maximum, T* sum, T* rescale) {
    if (vectors == tile_vectors) return online_softmax<T, tile_vectors>(count, scores, maximum, sum, rescale);
    if (vectors == 2) return online_softmax<T, 2>(count, scores, maximum, sum, rescale);
    return online_softmax<T, 1>(count, scores, maximum, sum, rescale);
}

// What one tile of queries keeps while the keys pass by.
template <class T>
struct QueryTile {
    T *query_room, *sum_room, *maximum, *total;
    int64_t count;  // positions
    Rows<const T> queries;
    Rows<T> sums;

    QueryTile() = default;
    QueryTile(const Sizes& size, Arena& arena)
        : query_room(arena.take<T>(size.key_channels * packed<T>)),
          sum_room(arena.take<T>(size.value_channels * packed<T>)),
          maximum(arena.take<T>(packed<T>)),
          total(arena.take<T>(packed<T>)) {}

    bool in_result() const { return sums.data != sum_room; }  // the sums of normalised probabilities
};

template <class T>
struct ForwardScratch {
    QueryTile<T> tile[group<T>];
    T *keys, *values, *scores, *rescale;

    ForwardScratch(const Sizes& size, Arena& arena) {
        for (QueryTile<T>& each : tile) each = QueryTile<T>(size, arena);
        keys = arena.take<T>(stage_size<T>(size.key_channels));
        values = arena.take<T>(stage_size<T>(size.value_channels));
        scores = arena.take<T>(block * packed<T>);
        rescale = arena.take<T>(packed<T>);
    }
};

template <class T>
void start_queries(const Forward<T>& p, int64_t b, int64_t first, QueryTile<T>& tile) {
    constexpr int64_t width = packed<T>;
    tile.count = std::min(tile_positions<T>(p.size.queries), p.size.queries - first);
    tile.queries = lane_rows(p.query, b, p.size.key_channels, first, tile.count, tile.query_room);
    tile.sums = {tile.sum_room, width};
    if (p.size.keys > 0 && p.size.keys <= block) tile.sums = sum_rows(p.out, b, first, tile.count, tile.sum_room);
    if (p.size.keys == 0) std::fill(tile.sum_room, tile.sum_room + p.size.value_channels * width, T(0));
    std::fill(tile.maximum, tile.maximum + width, -std::numeric_limits<T>::infinity());
    std::fill(tile.total, tile.total + width, T(0));
}

// Probabilities relative to the maximum -> probabilities, where one block holds all keys.
template <class T>
FASTPOSE_INLINE void normalise(const QueryTile<T>& tile, int64_t count, int vectors, T* scores) {
    for (int v = 0; v < vectors; ++v) {
        const Vector<T> factor = broadcast(T(1)) / load(tile.total + v * lanes<T>);
        for (int64_t j = 0; j < count; ++j) {
            T* at = scores + j * packed<T> + v * lanes<T>;
            store(at, load(at) * factor);
        }
    }
}

// out = sums / total for all tiles of a group. With positions contiguous each channel may have pages of its own, so its
// row is written for one tile after the other.
template <class T>
void write_outputs(const Forward<T>& p, int64_t b, int64_t first, int64_t tiles, const QueryTile<T>* tile) {
    constexpr int64_t width = packed<T>;
    const int64_t step = p.out.position == 1 ? 1 : p.size.value_channels;
    for (int64_t c = 0; c < p.size.value_channels; c += step)
        for (int64_t g = 0; g < tiles; ++g) {
            if (tile[g].in_result()) continue;
            T* sums = tile[g].sum_room + c * width;
            for (int64_t row = 0; row < step; ++row)
                for (int v = 0; v < vectors_of<T>(tile[g].count); ++v) {
                    T* at = sums + row * width + v * lanes<T>;
                    store(at, load(at) * load(tile[g].total + v * lanes<T>));
                }
            Strided3<T> out = p.out;
            out.data += c * out.channel;
            unpack(sums, step, first + g * tile_positions<T>(p.size.queries), tile[g].count, out, b);
        }
}

template <class T>
void finish_queries(const Forward<T>& p, int64_t b, int64_t first, int64_t tiles, const QueryTile<T>* tile) {
    constexpr int64_t width = packed<T>;
    for (int64_t g = 0; g < tiles; ++g) {
        T* lse = p.lse + b * p.size.queries + first + g * tile_positions<T>(p.size.queries);
        for (int64_t lane = 0; lane < tile[g].count; ++lane)
            lse[lane] = tile[g].maximum[lane] + std::log(tile[g].total[lane]);
        for (int64_t lane = 0; lane < width; ++lane)
            tile[g].total[lane] = p.size.keys == 0 ? T(0) : T(1) / tile[g].total[lane];  // no keys: zeros
    }
    write_outputs(p, b, first, tiles, tile);
}

template <class T>
void forward_tiles(const Forward<T>& p, int64_t b, int64_t first, int64_t tiles, T* memory) {
    Arena arena(memory);
    ForwardScratch<T> scratch(p.size, arena);
    const int64_t ck = p.size.key_channels, cv = p.size.value_channels;
    for (int64_t g = 0; g < tiles; ++g)
        start_queries(p, b, first + g * tile_positions<T>(p.size.queries), scratch.tile[g]);
    for (int64_t j = 0; j < p.size.keys; j += block) {
        const int64_t count = std::min(block, p.size.keys - j);
        const Staged<T> keys = stage(p.key, b, ck, j, count, scratch.keys);
        const Staged<T> values = stage(p.value, b, cv, j, count, scratch.values);
        for (int64_t g = 0; g < tiles; ++g) {
            const QueryTile<T>& tile = scratch.tile[g];
            const int vectors = vectors_of<T>(tile.count);
            inner_products<T, Start::zero>(keys, ck, count, tile.queries, scratch.scores, vectors);
            const bool moved =
                online_softmax(vectors, count, scratch.scores, tile.maximum, tile.total, scratch.rescale);
            if (tile.in_result()) normalise(tile, count, vectors, scratch.scores);
            if (j == 0)
                gather<T, Start::zero>(values, cv, count, scratch.scores, tile.sums, vectors);
            else if (moved)
                gather<T, Start::scale>(values, cv, count, scratch.scores, tile.sums, vectors, scratch.rescale);
            else
                gather<T, Start::keep>(values, cv, count, scratch.scores, tile.sums, vectors);
        }
    }
    finish_queries(p, b, first, tiles, scratch.tile);
}

}  // namespace

template <class T>
void forward(const Forward<T>& p, int threads) {
    const int64_t per_worker = scratch_count<ForwardScratch<T>, T>(p.size);
    Scratch<T> memory(per_worker, threads);
    for_tile_groups<T>(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t tiles, int worker) {
        forward_tiles(p, b, first, tiles, memory.data() + worker * per_worker);
    });
}
template void forward<float>(const Forward<float>&, int);
template void forward<double>(const Forward<double>&, int);

}  // namespace fastpose::attention::FASTPOSE_SIMD
