// The second derivative of attention on the CPU: a sweep over rows for the gradient of grad_out and the row statistics,
// then one over columns.
#include "attention/columns_cpu.h"

namespace fastpose::attention::FASTPOSE_SIMD {
namespace {

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
    T *query_room, *cot_query_room, *sums, *lse, *total;
    Rows<const T> queries, cot_queries;

    TangentTile() = default;
    TangentTile(const Sizes& size, Arena& arena)
        : query_room(arena.take<T>(size.key_channels * packed<T>)),
          cot_query_room(arena.take<T>(size.key_channels * packed<T>)),
          sums(arena.take<T>(size.value_channels * packed<T>)),
          lse(arena.take<T>(packed<T>)),
          total(arena.take<T>(packed<T>)) {}

    void start(const DoubleBackward<T>& p, int64_t b, int64_t first, int64_t count) {
        const int64_t ck = p.size.key_channels;
        queries = lane_rows(p.query, b, ck, first, count, query_room);
        if (p.cot_query) cot_queries = lane_rows(p.cot_query, b, ck, first, count, cot_query_room);
        std::fill(sums, sums + p.size.value_channels * packed<T>, T(0));
        std::fill(lse, lse + packed<T>, T(0));
        std::fill(total, total + packed<T>, T(0));
        const T* saved = p.lse + b * p.size.queries + first;
        std::copy(saved, saved + count, lse);
    }

    void finish(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int64_t b, int64_t first,
                int64_t count) const {
        const int64_t cv = p.size.value_channels;
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
    TangentTile<T> tile[group<T>];
    T *keys, *values, *cot_keys, *cot_values, *scores, *tangents;

    TangentScratch(const Sizes& size, Arena& arena) {
        for (TangentTile<T>& each : tile) each = TangentTile<T>(size, arena);
        keys = arena.take<T>(stage_size<T>(size.key_channels));
        cot_keys = arena.take<T>(stage_size<T>(size.key_channels));
        values = arena.take<T>(stage_size<T>(size.value_channels));
        cot_values = arena.take<T>(stage_size<T>(size.value_channels));
        scores = arena.take<T>(block * packed<T>);
        tangents = arena.take<T>(block * packed<T>);
    }
};

// tile P in place of S, and P S' in place of S'; e gathers the latter
template <class T>
FASTPOSE_INLINE void softmax_tangent(int64_t count, const T* lse, T* scores, T* tangents, T* sum, int vectors) {
    for (int v = 0; v < vectors; ++v) {
        const Vector<T> shift = load(lse + v * lanes<T>);
        Vector<T> total = load(sum + v * lanes<T>);
        for (int64_t j = 0; j < count; ++j) {
            T* s = scores + j * packed<T> + v * lanes<T>;
            T* t = tangents + j * packed<T> + v * lanes<T>;
            const Vector<T> p = falling_exponential(load(s) - shift);
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
    Arena arena(memory);
    TangentScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    const int64_t step = tile_positions<T>(nq);
    for (int64_t g = 0; g < tiles; ++g)
        scratch.tile[g].start(p, b, first + g * step, std::min(step, nq - first - g * step));
    for (int64_t j = 0; j < nk; j += block) {
        const int64_t count = std::min(block, nk - j);
        const Staged<T> keys = stage(p.key, b, ck, j, count, scratch.keys);
        const Staged<T> values = stage(p.value, b, cv, j, count, scratch.values);
        const Staged<T> cot_keys = p.cot_key ? stage(p.cot_key, b, ck, j, count, scratch.cot_keys) : keys;
        const Staged<T> cot_values = p.cot_value ? stage(p.cot_value, b, cv, j, count, scratch.cot_values) : values;
        for (int64_t g = 0; g < tiles; ++g) {
            const TangentTile<T>& tile = scratch.tile[g];
            const int vectors = vectors_of<T>(std::min(step, nq - first - g * step));
            const Rows<T> sums{tile.sums, packed<T>};
            inner_products<T, Start::zero>(keys, ck, count, tile.queries, scratch.scores, vectors);
            std::fill(scratch.tangents, scratch.tangents + count * packed<T>, T(0));
            if (p.cot_query)
                inner_products<T, Start::keep>(keys, ck, count, tile.cot_queries, scratch.tangents, vectors);
            if (p.cot_key) inner_products<T, Start::keep>(cot_keys, ck, count, tile.queries, scratch.tangents, vectors);
            softmax_tangent(count, tile.lse, scratch.scores, scratch.tangents, tile.total, vectors);
            if (p.cot_query || p.cot_key) gather<T, Start::keep>(values, cv, count, scratch.tangents, sums, vectors);
            if (p.cot_value) gather<T, Start::keep>(cot_values, cv, count, scratch.scores, sums, vectors);
        }
    }
    for (int64_t g = 0; g < tiles; ++g)
        scratch.tile[g].finish(p, rows, b, first + g * step, std::min(step, nq - first - g * step));
}

template <class T>
void tangent_sweep(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int threads) {
    const int64_t per_worker = scratch_count<TangentScratch<T>, T>(p.size);
    Scratch<T> memory(per_worker, threads);
    for_tile_groups<T>(p.size.batch, p.size.queries, threads, [&](int64_t b, int64_t first, int64_t tiles, int worker) {
        tangent_tiles(p, rows, b, first, tiles, memory.data() + worker * per_worker);
    });
}

// Column sweep: with P' = P (S' - e) and S~ = P' (dP - D) + P (W - h), W = dO C^T,
//   grad_query = S~ K + dS B,  grad_key = S~^T Q + dS^T A,  grad_value = P'^T dO.
// In place: S -> dS, S' -> P', dP -> S~.
template <class T>
FASTPOSE_INLINE void second_gradients(int64_t count, const T* lse, const T* delta, const T* tangent, const T* response,
                                      T* scores, T* tangents, T* grads, const T* products, int vectors) {
    for (int64_t i = 0; i < count; ++i)
        for (int v = 0; v < vectors; ++v) {
            const int64_t at = i * packed<T> + v * lanes<T>;
            const Vector<T> p = falling_exponential(load(scores + at) - lse[i]);
            const Vector<T> centred = load(grads + at) - delta[i];
            const Vector<T> moved = p * (load(tangents + at) - tangent[i]);
            store(scores + at, p * centred);
            store(tangents + at, moved);
            store(grads + at, moved * centred + p * (load(products + at) - response[i]));
        }
}

template <class T>
struct SecondScratch {
    KeyTile<T> tile[group<T>];
    T *queries, *cot_queries, *grad_out, *scores, *tangents, *grads, *products;

    SecondScratch(const Sizes& size, Arena& arena) {
        for (KeyTile<T>& each : tile) each = KeyTile<T>(size, true, arena);
        queries = arena.take<T>(stage_size<T>(size.key_channels));
        cot_queries = arena.take<T>(stage_size<T>(size.key_channels));
        grad_out = arena.take<T>(stage_size<T>(size.value_channels));
        scores = arena.take<T>(block * packed<T>);
        tangents = arena.take<T>(block * packed<T>);
        grads = arena.take<T>(block * packed<T>);
        products = arena.take<T>(block * packed<T>);
    }
};

template <class T>
void start_cotangents(const DoubleBackward<T>& p, KeyTile<T>& tile, int64_t b, int64_t first, int64_t count) {
    const int64_t ck = p.size.key_channels, cv = p.size.value_channels;
    if (p.cot_key) tile.cot_keys = lane_rows(p.cot_key, b, ck, first, count, tile.cot_key_room);
    if (p.cot_key) pack_rows(p.cot_key, b, ck, first, count, round_up(ck, lanes<T>), tile.cot_key_rows);
    if (p.cot_value) tile.cot_values = lane_rows(p.cot_value, b, cv, first, count, tile.cot_value_room);
}

// One tile of the map: products, pointwise second gradients, and their gathering.
template <class T>
void second_tile(const DoubleBackward<T>& p, const RowStatistics<T>& rows, const SecondScratch<T>& scratch,
                 const KeyTile<T>& tile, Staged<T> queries, Staged<T> cot_queries, Staged<T> grad_out, int64_t b,
                 int64_t i, int64_t count, int64_t valid, T* query_rows) {
    const int64_t ck = p.size.key_channels, cv = p.size.value_channels, row_width = round_up(ck, lanes<T>);
    const int64_t at = b * p.size.queries + i;
    const int vectors = vectors_of<T>(valid);
    inner_products<T, Start::zero>(queries, ck, count, tile.keys, scratch.scores, vectors);
    inner_products<T, Start::zero>(grad_out, cv, count, tile.values, scratch.grads, vectors);
    std::fill(scratch.tangents, scratch.tangents + count * packed<T>, T(0));
    if (p.cot_query) inner_products<T, Start::keep>(cot_queries, ck, count, tile.keys, scratch.tangents, vectors);
    if (p.cot_key) inner_products<T, Start::keep>(queries, ck, count, tile.cot_keys, scratch.tangents, vectors);
    if (p.cot_value)
        inner_products<T, Start::zero>(grad_out, cv, count, tile.cot_values, scratch.products, vectors);
    else
        std::fill(scratch.products, scratch.products + count * packed<T>, T(0));
    second_gradients(count, p.lse + at, rows.delta + at, rows.tangent + at, rows.response + at, scratch.scores,
                     scratch.tangents, scratch.grads, scratch.products, vectors);
    gather_from(i == 0, grad_out, cv, count, scratch.tangents, tile.grad_value, vectors);
    gather_from(i == 0, queries, ck, count, scratch.grads, tile.grad_key, vectors);
    if (p.cot_query) gather<T, Start::keep>(cot_queries, ck, count, scratch.scores, tile.grad_key, vectors);
    gather_rows(count, valid, scratch.grads, tile.key_rows, row_width, query_rows);
    if (p.cot_key) gather_rows(count, valid, scratch.scores, tile.cot_key_rows, row_width, query_rows);
}

template <class T>
void second_tiles(const DoubleBackward<T>& p, const RowStatistics<T>& rows, int64_t b, const Columns& columns,
                  T* query_rows, T* memory) {
    Arena arena(memory);
    SecondScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    const int64_t tiles = columns.tiles(), row_width = round_up(ck, lanes<T>);
    for (int64_t g = 0; g < tiles; ++g) {
        scratch.tile[g].start(p, b, columns.start(g), columns.count(g));
        start_cotangents(p, scratch.tile[g], b, columns.start(g), columns.count(g));
    }
    for (int64_t i = 0; i < nq; i += block) {
        const int64_t count = std::min(block, nq - i);
        const Staged<T> queries = stage(p.query, b, ck, i, count, scratch.queries);
        const Staged<T> cot_queries = p.cot_query ? stage(p.cot_query, b, ck, i, count, scratch.cot_queries) : queries;
        const Staged<T> grad_out = stage(p.grad_out, b, cv, i, count, scratch.grad_out);
        for (int64_t g = 0; g < tiles; ++g)
            second_tile(p, rows, scratch, scratch.tile[g], queries, cot_queries, grad_out, b, i, count,
                        columns.count(g), query_rows + i * row_width);
    }
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].finish(p, b, columns.start(g), columns.count(g));
}

}  // namespace

template <class T>
void double_backward(const DoubleBackward<T>& p, int threads) {
    Scratch<T> statistics(3, p.size.batch, p.size.queries);
    const int64_t positions = p.size.batch * p.size.queries;
    const RowStatistics<T> rows{statistics.data(), statistics.data() + positions, statistics.data() + 2 * positions};
    tangent_sweep(p, rows, threads);
    const Strided3<const T> grad_grad_out{p.grad_grad_out.data, p.grad_grad_out.batch, p.grad_grad_out.channel,
                                          p.grad_grad_out.position};
    row_dots(p.grad_out, p.out, p.size, rows.delta, threads);
    row_dots(p.grad_out, grad_grad_out, p.size, rows.response, threads);
    column_sweep<T>(p.size, p.grad_query, scratch_count<SecondScratch<T>, T>(p.size), threads,
                    [&](int64_t b, const Columns& columns, T* query_rows, T* memory) {
                        second_tiles(p, rows, b, columns, query_rows, memory);
                    });
}
template void double_backward<float>(const DoubleBackward<float>&, int);
template void double_backward<double>(const DoubleBackward<double>&, int);

}  // namespace fastpose::attention::FASTPOSE_SIMD
