// Attention on the CPU, compiled once per instruction set.
//
// Every order of derivative is a sweep over tiles of the Nq x Nk map in which one side lies along the vector lanes
// (L = tile_vectors * lanes positions a tile) and the other side is walked in blocks of `block` positions. A tile is
// kept as [walked position][lane], so that row statistics are vertical and need no shuffle, and all the arithmetic is
// panel_product: a broadcast operand against packed lanes. A walked block is staged once into the cache, in the order
// of its tensor, for a group of tiles: maps with a power of two of positions would otherwise fall on few cache sets.
//
// Notation of the comments (tests/derivations/attention.py checks it): S = Q K^T, P = exp(S - L), O = P V,
// dP = dO V^T, D = rowsum(dO * O), dS = P (dP - D); A, B, C are the cotangents of dQ, dK, dV.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "attention/attention.h"
#include "common/parallel.h"
#include "common/simd.h"

namespace fastpose::attention::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

namespace {

constexpr int64_t block = 128;  // walked positions of a tile
constexpr int64_t group = 4;    // tiles that share a staged block

template <class T>
constexpr int lanes = Simd<T>::lanes;
template <class T>
constexpr int64_t packed = tile_vectors * lanes<T>;  // positions along the lanes of one tile

FASTPOSE_INLINE int64_t round_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }
FASTPOSE_INLINE int64_t divide_up(int64_t count, int64_t unit) { return (count + unit - 1) / unit; }

// to[c][lane] = from(c, first + lane); lanes beyond `count` are zero.
template <class T>
void pack(Strided3<const T> from, int64_t batch, int64_t channels, int64_t first, int64_t count, T* to) {
    constexpr int64_t width = packed<T>;
    const T* source = from.at(batch) + first * from.position;
    if (count < width) std::fill(to, to + channels * width, T(0));
    if (from.position == 1) {
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t lane = 0; lane < count; ++lane) to[c * width + lane] = source[c * from.channel + lane];
    } else {
        for (int64_t lane = 0; lane < count; ++lane)
            for (int64_t c = 0; c < channels; ++c)
                to[c * width + lane] = source[c * from.channel + lane * from.position];
    }
}

// The reverse of pack for the first `count` lanes.
template <class T>
void unpack(const T* from, int64_t channels, int64_t first, int64_t count, Strided3<T> to, int64_t batch) {
    constexpr int64_t width = packed<T>;
    T* target = to.at(batch) + first * to.position;
    if (to.position == 1) {
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t lane = 0; lane < count; ++lane) target[c * to.channel + lane] = from[c * width + lane];
    } else {
        for (int64_t lane = 0; lane < count; ++lane)
            for (int64_t c = 0; c < channels; ++c) target[c * to.channel + lane * to.position] = from[c * width + lane];
    }
}

// to[position][c]: rows of channels, padded with zeros to `width` channels (a multiple of the lanes).
template <class T>
void pack_rows(Strided3<const T> from, int64_t batch, int64_t channels, int64_t first, int64_t count, int64_t width,
               T* to) {
    const T* source = from.at(batch) + first * from.position;
    for (int64_t j = 0; j < count; ++j) {
        for (int64_t c = 0; c < channels; ++c) to[j * width + c] = source[c * from.channel + j * from.position];
        for (int64_t c = channels; c < width; ++c) to[j * width + c] = T(0);
    }
}

// A block of walked positions in the cache.
template <class T>
struct Staged {
    const T* data;
    int64_t channel, position;
};

constexpr int64_t stage_padding = 8;  // keeps the rows of a staged block off the same cache sets
template <class T>
int64_t stage_size(int64_t channels) {
    return std::max((block + stage_padding) * channels, (channels + stage_padding) * block);
}

template <class T>
Staged<T> stage(Strided3<const T> from, int64_t batch, int64_t channels, int64_t first, int64_t count, T* to) {
    const T* source = from.at(batch) + first * from.position;
    if (from.position == 1) {
        for (int64_t c = 0; c < channels; ++c)
            std::memcpy(to + c * (block + stage_padding), source + c * from.channel, count * sizeof(T));
        return {to, block + stage_padding, 1};
    }
    for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < channels; ++c)
            to[i * (channels + stage_padding) + c] = source[i * from.position + c * from.channel];
    return {to, 1, channels + stage_padding};
}

// tile[i][lane] (+)= sum_c x(c, i) * y[c][lane]: inner products of walked positions with packed ones.
template <class T, Start start>
void inner_products(Staged<T> x, int64_t channels, int64_t count, const T* y, T* tile) {
    constexpr int64_t width = packed<T>;
    panel_product<T, tile_vectors, start>(count, channels, x.data, x.position, x.channel, y, width, tile, width);
}

// sums[c][lane] (+)= sum_i x(c, i) * tile[i][lane]: channels gathered over the walked positions.
template <class T, Start start>
void gather(Staged<T> x, int64_t channels, int64_t count, const T* tile, T* sums, const T* scale = nullptr) {
    constexpr int64_t width = packed<T>;
    panel_product<T, tile_vectors, start>(channels, count, x.data, x.channel, x.position, tile, width, sums, width,
                                          scale);
}

// rows[i][c] += sum_lane tile[i][lane] * y[lane][c] for c < width: channels gathered over the packed positions.
template <class T>
void gather_rows(int64_t count, int64_t valid_lanes, const T* tile, const T* y, int64_t width, T* rows) {
    int64_t c = 0;
    for (; c + 2 * lanes<T> <= width; c += 2 * lanes<T>)
        panel_product<T, 2, Start::keep>(count, valid_lanes, tile, packed<T>, 1, y + c, width, rows + c, width);
    if (c < width)
        panel_product<T, 1, Start::keep>(count, valid_lanes, tile, packed<T>, 1, y + c, width, rows + c, width);
}

// Runs body(image, first position, tiles, worker) over all groups of tiles of `positions` positions. Groups are smaller
// where there would be too few of them to occupy the threads.
template <class T, class Body>
void for_tile_groups(int64_t batch, int64_t positions, int threads, const Body& body) {
    const int64_t tiles = divide_up(positions, packed<T>);
    const int64_t size = std::clamp<int64_t>(batch * tiles / (4 * threads), 1, group);
    const int64_t groups = divide_up(tiles, size);
    parallel_for(threads, batch * groups, [&](int64_t item, int worker) {
        const int64_t first = item % groups * size;
        body(item / groups, first * packed<T>, std::min(size, tiles - first), worker);
    });
}

// D_i (or h_i) = sum_c x(c, i) y(c, i), the row statistics that need no tile.
template <class T>
void row_dots(Strided3<const T> x, Strided3<const T> y, const Sizes& size, T* dots, int threads) {
    parallel_for(threads, size.batch * divide_up(size.queries, block), [&](int64_t item, int) {
        const int64_t blocks = divide_up(size.queries, block);
        const int64_t b = item / blocks, first = item % blocks * block;
        const int64_t last = std::min(first + block, size.queries);
        T* row = dots + b * size.queries;
        for (int64_t i = first; i < last; ++i) row[i] = 0;
        for (int64_t c = 0; c < size.value_channels; ++c) {
            const T* left = x.at(b) + c * x.channel;
            const T* right = y.at(b) + c * y.channel;
            for (int64_t i = first; i < last; ++i) row[i] += left[i * x.position] * right[i * y.position];
        }
    });
}

// ---------------------------------------------------------------------------------------------------------- forward

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

// Scratch memory handed out piece by piece; a null start only measures.
template <class T>
class Arena {
   public:
    explicit Arena(T* start) : start_(start) {}
    T* take(int64_t count) {
        T* piece = start_ ? start_ + used_ : nullptr;
        used_ += round_up(count, 64 / sizeof(T));
        return piece;
    }
    int64_t used() const { return used_; }

   private:
    T* start_;
    int64_t used_ = 0;
};

template <class Pieces, class T>
int64_t scratch_count(const Sizes& size) {
    Arena<T> measure(nullptr);
    Pieces(size, measure);
    return round_up(measure.used(), 64);
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

template <class T>
void forward(const Forward<T>& p, int threads) {
    const int64_t per_worker = scratch_count<ForwardScratch<T>, T>(p.size);
    Scratch<T> memory(per_worker * threads);
    for_tile_groups<T>(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t tiles, int worker) {
        forward_tiles(p, b, first, tiles, memory.data() + worker * per_worker);
    });
}

// --------------------------------------------------------------------------------------------------- column sweeps

// Both derivatives end in a sweep whose lanes are keys and whose walk is over queries. The gradient of the query is
// gathered across lanes into a buffer of its own for each (image, part of the keys), added up afterwards in a fixed
// order: deterministic, and only Ck wide.
//
// The number of parts follows from the sizes alone, so that the number of threads cannot change the answer, and stays
// small, so that the buffers stay a few times the size of the query.
struct KeyParts {
    int64_t parts, tiles_per_part;

    template <class T>
    static KeyParts of(const Sizes& size) {
        const int64_t tiles = divide_up(size.keys, packed<T>);
        const int64_t wanted = size.batch >= 16 ? 1 : size.batch >= 8 ? 2 : 4;
        const int64_t per_part = std::max<int64_t>(1, divide_up(tiles, wanted));
        return {std::max<int64_t>(1, divide_up(tiles, per_part)), per_part};
    }
};

// to(c, i) = sum over parts of rows[part][i][c]
template <class T>
void add_parts(const T* rows, int64_t parts, int64_t width, const Sizes& size, Strided3<T> to, int threads) {
    const int64_t blocks = divide_up(size.queries, block);
    parallel_for(threads, size.batch * blocks, [&](int64_t item, int) {
        const int64_t b = item / blocks, first = item % blocks * block;
        const int64_t last = std::min(first + block, size.queries);
        for (int64_t i = first; i < last; ++i)
            for (int64_t c = 0; c < size.key_channels; ++c) {
                T sum = 0;
                for (int64_t part = 0; part < parts; ++part)
                    sum += rows[((b * parts + part) * size.queries + i) * width + c];
                to.at(b)[c * to.channel + i * to.position] = sum;
            }
    });
}

// Runs tile_columns(image, first key, tiles, query rows of this part, memory) over all parts, then adds the parts up.
template <class T, class TileColumns>
void column_sweep(const Sizes& size, Strided3<T> grad_query, int64_t per_worker, int threads,
                  const TileColumns& tile_columns) {
    const KeyParts split = KeyParts::of<T>(size);
    const int64_t row_width = round_up(size.key_channels, lanes<T>);
    const int64_t per_part = size.queries * row_width;
    Scratch<T> memory(per_worker * threads);
    Scratch<T> rows(grad_query ? size.batch * split.parts * per_part : 0);
    parallel_for(threads, size.batch * split.parts, [&](int64_t item, int worker) {
        T* part_rows = grad_query ? rows.data() + item * per_part : nullptr;
        if (part_rows) std::fill(part_rows, part_rows + per_part, T(0));
        const int64_t first = item % split.parts * split.tiles_per_part;
        const int64_t last = std::min(first + split.tiles_per_part, divide_up(size.keys, packed<T>));
        for (int64_t tile = first; tile < last; tile += group)
            tile_columns(item / split.parts, tile * packed<T>, std::min(group, last - tile), part_rows,
                         memory.data() + worker * per_worker);
    });
    if (grad_query) add_parts(rows.data(), split.parts, row_width, size, grad_query, threads);
}

// --------------------------------------------------------------------------------------------------------- backward

// What one tile of keys keeps while the queries pass by: packed operands and the sums of its gradients. The cotangents'
// copies are taken for the second derivative only.
template <class T>
struct KeyTile {
    T *keys, *values, *key_rows, *grad_key, *grad_value;
    T *cot_keys, *cot_values, *cot_key_rows;

    KeyTile() = default;
    KeyTile(const Sizes& size, bool second, Arena<T>& arena) {
        const int64_t ck = size.key_channels * packed<T>, cv = size.value_channels * packed<T>;
        const int64_t rows = round_up(size.key_channels, lanes<T>) * packed<T>;
        keys = arena.take(ck);
        values = arena.take(cv);
        key_rows = arena.take(rows);
        grad_key = arena.take(ck);
        grad_value = arena.take(cv);
        cot_keys = second ? arena.take(ck) : nullptr;
        cot_values = second ? arena.take(cv) : nullptr;
        cot_key_rows = second ? arena.take(rows) : nullptr;
    }

    template <class Problem>
    void start(const Problem& p, int64_t b, int64_t first) const {
        const int64_t ck = p.size.key_channels, cv = p.size.value_channels;
        const int64_t count = std::min(packed<T>, p.size.keys - first);
        pack(p.key, b, ck, first, count, keys);
        pack(p.value, b, cv, first, count, values);
        pack_rows(p.key, b, ck, first, count, round_up(ck, lanes<T>), key_rows);
        std::fill(grad_key, grad_key + ck * packed<T>, T(0));
        std::fill(grad_value, grad_value + cv * packed<T>, T(0));
    }

    template <class Problem>
    void finish(const Problem& p, int64_t b, int64_t first) const {
        const int64_t count = std::min(packed<T>, p.size.keys - first);
        if (p.grad_key) unpack(grad_key, p.size.key_channels, first, count, p.grad_key, b);
        if (p.grad_value) unpack(grad_value, p.size.value_channels, first, count, p.grad_value, b);
    }
};

template <class T>
struct BackwardScratch {
    KeyTile<T> tile[group];
    T *queries, *grad_out, *scores, *grad_scores;

    BackwardScratch(const Sizes& size, Arena<T>& arena) {
        for (KeyTile<T>& each : tile) each = KeyTile<T>(size, false, arena);
        queries = arena.take(stage_size<T>(size.key_channels));
        grad_out = arena.take(stage_size<T>(size.value_channels));
        scores = arena.take(block * packed<T>);
        grad_scores = arena.take(block * packed<T>);
    }
};

// tile P = exp(S - L) in place of S, and dS = P (dP - D) in place of dP
template <class T>
FASTPOSE_INLINE void softmax_gradient(int64_t count, const T* lse, const T* delta, T* scores, T* grads) {
    for (int64_t i = 0; i < count; ++i)
        for (int v = 0; v < tile_vectors; ++v) {
            T* s = scores + i * packed<T> + v * lanes<T>;
            T* g = grads + i * packed<T> + v * lanes<T>;
            const Vector<T> p = exponential(load(s) - lse[i]);
            store(s, p);
            store(g, p * (load(g) - delta[i]));
        }
}

template <class T>
void backward_tiles(const Backward<T>& p, const T* delta, int64_t b, int64_t first, int64_t tiles, T* query_rows,
                    T* memory) {
    Arena<T> arena(memory);
    const BackwardScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    const int64_t row_width = round_up(ck, lanes<T>);
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].start(p, b, first + g * packed<T>);
    for (int64_t i = 0; i < nq; i += block) {
        const int64_t count = std::min(block, nq - i);
        const Staged<T> queries = stage(p.query, b, ck, i, count, scratch.queries);
        const Staged<T> grad_out = stage(p.grad_out, b, cv, i, count, scratch.grad_out);
        for (int64_t g = 0; g < tiles; ++g) {
            const KeyTile<T>& tile = scratch.tile[g];
            inner_products<T, Start::zero>(queries, ck, count, tile.keys, scratch.scores);
            inner_products<T, Start::zero>(grad_out, cv, count, tile.values, scratch.grad_scores);
            softmax_gradient(count, p.lse + b * nq + i, delta + b * nq + i, scratch.scores, scratch.grad_scores);
            if (p.grad_value) gather<T, Start::keep>(grad_out, cv, count, scratch.scores, tile.grad_value);
            if (p.grad_key) gather<T, Start::keep>(queries, ck, count, scratch.grad_scores, tile.grad_key);
            const int64_t valid = std::min(packed<T>, nk - first - g * packed<T>);
            if (query_rows)
                gather_rows(count, valid, scratch.grad_scores, tile.key_rows, row_width, query_rows + i * row_width);
        }
    }
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].finish(p, b, first + g * packed<T>);
}

template <class T>
void backward(const Backward<T>& p, int threads) {
    Scratch<T> delta(p.size.batch * p.size.queries);
    row_dots(p.grad_out, p.out, p.size, delta.data(), threads);
    column_sweep<T>(p.size, p.grad_query, scratch_count<BackwardScratch<T>, T>(p.size), threads,
                    [&](int64_t b, int64_t first, int64_t tiles, T* query_rows, T* memory) {
                        backward_tiles(p, delta.data(), b, first, tiles, query_rows, memory);
                    });
}

// -------------------------------------------------------------------------------------------------- double backward

template <class T>
struct RowStatistics {
    T* delta;     // D_i = sum_j P_ij dP_ij
    T* tangent;   // e_i = sum_j P_ij S'_ij
    T* response;  // h_i = <dO_i, O'_i>
};

// Row sweep: the derivative of attention along (A, B, C), which is the gradient of grad_out:
// O' = (P S') V + P C - e O with S' = A K^T + Q B^T.
template <class T>
struct TangentTile {
    T *queries, *cot_queries, *sums, *lse, *total;

    TangentTile() = default;
    TangentTile(const Sizes& size, Arena<T>& arena)
        : queries(arena.take(size.key_channels * packed<T>)),
          cot_queries(arena.take(size.key_channels * packed<T>)),
          sums(arena.take(size.value_channels * packed<T>)),
          lse(arena.take(packed<T>)),
          total(arena.take(packed<T>)) {}

    void start(const DoubleBackward<T>& p, int64_t b, int64_t first) const {
        const int64_t ck = p.size.key_channels, count = std::min(packed<T>, p.size.queries - first);
        pack(p.query, b, ck, first, count, queries);
        if (p.cot_query) pack(p.cot_query, b, ck, first, count, cot_queries);
        std::fill(sums, sums + p.size.value_channels * packed<T>, T(0));
        std::fill(lse, lse + packed<T>, T(0));
        std::fill(total, total + packed<T>, T(0));
        const T* saved = p.lse + b * p.size.queries + first;
        std::copy(saved, saved + count, lse);
    }

    void finish(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int64_t b, int64_t first) const {
        const int64_t cv = p.size.value_channels, count = std::min(packed<T>, p.size.queries - first);
        const T* out = p.out.at(b) + first * p.out.position;
        for (int64_t c = 0; c < cv; ++c)
            for (int64_t lane = 0; lane < count; ++lane)
                sums[c * packed<T> + lane] -= total[lane] * out[c * p.out.channel + lane * p.out.position];
        unpack(sums, cv, first, count, p.grad_grad_out, b);
        std::copy(total, total + count, rows.tangent + b * p.size.queries + first);
    }
};

template <class T>
struct TangentScratch {
    TangentTile<T> tile[group];
    T *keys, *values, *cot_keys, *cot_values, *scores, *tangents;

    TangentScratch(const Sizes& size, Arena<T>& arena) {
        for (TangentTile<T>& each : tile) each = TangentTile<T>(size, arena);
        keys = arena.take(stage_size<T>(size.key_channels));
        cot_keys = arena.take(stage_size<T>(size.key_channels));
        values = arena.take(stage_size<T>(size.value_channels));
        cot_values = arena.take(stage_size<T>(size.value_channels));
        scores = arena.take(block * packed<T>);
        tangents = arena.take(block * packed<T>);
    }
};

// tile P in place of S, and P S' in place of S'; e gathers the latter
template <class T>
FASTPOSE_INLINE void softmax_tangent(int64_t count, const T* lse, T* scores, T* tangents, T* sum) {
    for (int v = 0; v < tile_vectors; ++v) {
        const Vector<T> shift = load(lse + v * lanes<T>);
        Vector<T> total = load(sum + v * lanes<T>);
        for (int64_t j = 0; j < count; ++j) {
            T* s = scores + j * packed<T> + v * lanes<T>;
            T* t = tangents + j * packed<T> + v * lanes<T>;
            const Vector<T> p = exponential(load(s) - shift);
            const Vector<T> weighted = p * load(t);
            store(s, p);
            store(t, weighted);
            total += weighted;
        }
        store(sum + v * lanes<T>, total);
    }
}

template <class T>
void tangent_tiles(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int64_t b, int64_t first, int64_t tiles,
                   T* memory) {
    Arena<T> arena(memory);
    const TangentScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].start(p, b, first + g * packed<T>);
    for (int64_t j = 0; j < nk; j += block) {
        const int64_t count = std::min(block, nk - j);
        const Staged<T> keys = stage(p.key, b, ck, j, count, scratch.keys);
        const Staged<T> values = stage(p.value, b, cv, j, count, scratch.values);
        const Staged<T> cot_keys = p.cot_key ? stage(p.cot_key, b, ck, j, count, scratch.cot_keys) : keys;
        const Staged<T> cot_values = p.cot_value ? stage(p.cot_value, b, cv, j, count, scratch.cot_values) : values;
        for (int64_t g = 0; g < tiles; ++g) {
            const TangentTile<T>& tile = scratch.tile[g];
            inner_products<T, Start::zero>(keys, ck, count, tile.queries, scratch.scores);
            std::fill(scratch.tangents, scratch.tangents + count * packed<T>, T(0));
            if (p.cot_query) inner_products<T, Start::keep>(keys, ck, count, tile.cot_queries, scratch.tangents);
            if (p.cot_key) inner_products<T, Start::keep>(cot_keys, ck, count, tile.queries, scratch.tangents);
            softmax_tangent(count, tile.lse, scratch.scores, scratch.tangents, tile.total);
            if (p.cot_query || p.cot_key) gather<T, Start::keep>(values, cv, count, scratch.tangents, tile.sums);
            if (p.cot_value) gather<T, Start::keep>(cot_values, cv, count, scratch.scores, tile.sums);
        }
    }
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].finish(p, rows, b, first + g * packed<T>);
}

template <class T>
void tangent_sweep(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int threads) {
    const int64_t per_worker = scratch_count<TangentScratch<T>, T>(p.size);
    Scratch<T> memory(per_worker * threads);
    for_tile_groups<T>(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t tiles, int worker) {
        tangent_tiles(p, rows, b, first, tiles, memory.data() + worker * per_worker);
    });
}

// Column sweep: with P' = P (S' - e) and S~ = P' (dP - D) + P (W - h), W = dO C^T,
//   grad_query = S~ K + dS B,  grad_key = S~^T Q + dS^T A,  grad_value = P'^T dO.
// In place: S -> dS, S' -> P', dP -> S~.
template <class T>
FASTPOSE_INLINE void second_gradients(int64_t count, const T* lse, const T* delta, const T* tangent, const T* response,
                                      T* scores, T* tangents, T* grads, const T* products) {
    for (int64_t i = 0; i < count; ++i)
        for (int v = 0; v < tile_vectors; ++v) {
            const int64_t at = i * packed<T> + v * lanes<T>;
            const Vector<T> p = exponential(load(scores + at) - lse[i]);
            const Vector<T> centred = load(grads + at) - delta[i];
            const Vector<T> moved = p * (load(tangents + at) - tangent[i]);
            store(scores + at, p * centred);
            store(tangents + at, moved);
            store(grads + at, moved * centred + p * (load(products + at) - response[i]));
        }
}

template <class T>
struct SecondScratch {
    KeyTile<T> tile[group];
    T *queries, *cot_queries, *grad_out, *scores, *tangents, *grads, *products;

    SecondScratch(const Sizes& size, Arena<T>& arena) {
        for (KeyTile<T>& each : tile) each = KeyTile<T>(size, true, arena);
        queries = arena.take(stage_size<T>(size.key_channels));
        cot_queries = arena.take(stage_size<T>(size.key_channels));
        grad_out = arena.take(stage_size<T>(size.value_channels));
        scores = arena.take(block * packed<T>);
        tangents = arena.take(block * packed<T>);
        grads = arena.take(block * packed<T>);
        products = arena.take(block * packed<T>);
    }
};

template <class T>
void start_cotangents(const DoubleBackward<T>& p, const KeyTile<T>& tile, int64_t b, int64_t first) {
    const int64_t ck = p.size.key_channels, count = std::min(packed<T>, p.size.keys - first);
    if (p.cot_key) pack(p.cot_key, b, ck, first, count, tile.cot_keys);
    if (p.cot_key) pack_rows(p.cot_key, b, ck, first, count, round_up(ck, lanes<T>), tile.cot_key_rows);
    if (p.cot_value) pack(p.cot_value, b, p.size.value_channels, first, count, tile.cot_values);
}

// One tile of the map: products, pointwise second gradients, and their gathering.
template <class T>
void second_tile(const DoubleBackward<T>& p, const RowStatistics<T>& rows, const SecondScratch<T>& scratch,
                 const KeyTile<T>& tile, Staged<T> queries, Staged<T> cot_queries, Staged<T> grad_out, int64_t at,
                 int64_t count, int64_t valid, T* query_rows) {
    const int64_t ck = p.size.key_channels, cv = p.size.value_channels, row_width = round_up(ck, lanes<T>);
    inner_products<T, Start::zero>(queries, ck, count, tile.keys, scratch.scores);
    inner_products<T, Start::zero>(grad_out, cv, count, tile.values, scratch.grads);
    std::fill(scratch.tangents, scratch.tangents + count * packed<T>, T(0));
    if (p.cot_query) inner_products<T, Start::keep>(cot_queries, ck, count, tile.keys, scratch.tangents);
    if (p.cot_key) inner_products<T, Start::keep>(queries, ck, count, tile.cot_keys, scratch.tangents);
    if (p.cot_value)
        inner_products<T, Start::zero>(grad_out, cv, count, tile.cot_values, scratch.products);
    else
        std::fill(scratch.products, scratch.products + count * packed<T>, T(0));
    second_gradients(count, p.lse + at, rows.delta + at, rows.tangent + at, rows.response + at, scratch.scores,
                     scratch.tangents, scratch.grads, scratch.products);
    gather<T, Start::keep>(grad_out, cv, count, scratch.tangents, tile.grad_value);
    gather<T, Start::keep>(queries, ck, count, scratch.grads, tile.grad_key);
    if (p.cot_query) gather<T, Start::keep>(cot_queries, ck, count, scratch.scores, tile.grad_key);
    gather_rows(count, valid, scratch.grads, tile.key_rows, row_width, query_rows);
    if (p.cot_key) gather_rows(count, valid, scratch.scores, tile.cot_key_rows, row_width, query_rows);
}

template <class T>
void second_tiles(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int64_t b, int64_t first, int64_t tiles,
                  T* query_rows, T* memory) {
    Arena<T> arena(memory);
    const SecondScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    for (int64_t g = 0; g < tiles; ++g) {
        scratch.tile[g].start(p, b, first + g * packed<T>);
        start_cotangents(p, scratch.tile[g], b, first + g * packed<T>);
    }
    for (int64_t i = 0; i < nq; i += block) {
        const int64_t count = std::min(block, nq - i);
        const Staged<T> queries = stage(p.query, b, ck, i, count, scratch.queries);
        const Staged<T> cot_queries = p.cot_query ? stage(p.cot_query, b, ck, i, count, scratch.cot_queries) : queries;
        const Staged<T> grad_out = stage(p.grad_out, b, cv, i, count, scratch.grad_out);
        for (int64_t g = 0; g < tiles; ++g)
            second_tile(p, rows, scratch, scratch.tile[g], queries, cot_queries, grad_out, b * nq + i, count,
                        std::min(packed<T>, nk - first - g * packed<T>), query_rows + i * round_up(ck, lanes<T>));
    }
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].finish(p, b, first + g * packed<T>);
}

template <class T>
void double_backward(const DoubleBackward<T>& p, int threads) {
    const int64_t positions = p.size.batch * p.size.queries;
    Scratch<T> statistics(3 * positions);
    const RowStatistics<T> rows{statistics.data(), statistics.data() + positions, statistics.data() + 2 * positions};
    tangent_sweep(p, rows, threads);
    const Strided3<const T> grad_grad_out{p.grad_grad_out.data, p.grad_grad_out.batch, p.grad_grad_out.channel,
                                          p.grad_grad_out.position};
    row_dots(p.grad_out, p.out, p.size, rows.delta, threads);
    row_dots(p.grad_out, grad_grad_out, p.size, rows.response, threads);
    column_sweep<T>(p.size, p.grad_query, scratch_count<SecondScratch<T>, T>(p.size), threads,
                    [&](int64_t b, int64_t first, int64_t tiles, T* query_rows, T* memory) {
                        second_tiles(p, rows, b, first, tiles, query_rows, memory);
                    });
}

}  // namespace

template <class T>
Kernels<T> kernels() {
    return {forward<T>, backward<T>, double_backward<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();

}  // namespace fastpose::attention::FASTPOSE_SIMD
