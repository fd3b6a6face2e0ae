// The first derivative of attention on the CPU.
#include "attention/columns_cpu.h"

namespace fastpose::attention::FASTPOSE_SIMD {
namespace {

template <class T>
struct BackwardScratch {
    KeyTile<T> tile[group<T>];
    T *queries, *grad_out, *scores, *grad_scores;

    BackwardScratch(const Sizes& size, Arena& arena) {
        for (KeyTile<T>& each : tile) each = KeyTile<T>(size, false, arena);
        queries = arena.take<T>(stage_size<T>(size.key_channels));
        grad_out = arena.take<T>(stage_size<T>(size.value_channels));
        scores = arena.take<T>(block * packed<T>);
        grad_scores = arena.take<T>(block * packed<T>);
    }
};

// tile P = exp(S - L) in place of S, and dS = P (dP - D) in place of dP
template <class T>
FASTPOSE_INLINE void softmax_gradient(int64_t count, const T* lse, const T* delta, T* scores, T* grads, int vectors) {
    for (int64_t i = 0; i < count; ++i)
        for (int v = 0; v < vectors; ++v) {
            T* s = scores + i * packed<T> + v * lanes<T>;
            T* g = grads + i * packed<T> + v * lanes<T>;
            const Vector<T> p = falling_exponential(load(s) - lse[i]);
            store(s, p);
            store(g, p * (load(g) - delta[i]));
        }
}

template <class T>
void backward_tiles(const Backward<T>& p, const T* delta, int64_t b, const Columns& columns, T* query_rows, T* memory) {
    Arena arena(memory);
    BackwardScratch<T> scratch(p.size, arena);
    const auto [batch, ck, cv, nq, nk] = p.size;
    const int64_t row_width = round_up(ck, lanes<T>), tiles = columns.tiles();
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].start(p, b, columns.start(g), columns.count(g));
    for (int64_t i = 0; i < nq; i += block) {
        const int64_t count = std::min(block, nq - i);
        const Staged<T> queries = stage(p.query, b, ck, i, count, scratch.queries);
        const Staged<T> grad_out = stage(p.grad_out, b, cv, i, count, scratch.grad_out);
        for (int64_t g = 0; g < tiles; ++g) {
            const KeyTile<T>& tile = scratch.tile[g];
            const int64_t valid = columns.count(g);
            const int vectors = vectors_of<T>(valid);
            inner_products<T, Start::zero>(queries, ck, count, tile.keys, scratch.scores, vectors);
            inner_products<T, Start::zero>(grad_out, cv, count, tile.values, scratch.grad_scores, vectors);
            softmax_gradient(count, p.lse + b * nq + i, delta + b * nq + i, scratch.scores, scratch.grad_scores,
                             vectors);
            if (p.grad_value) gather_from(i == 0, grad_out, cv, count, scratch.scores, tile.grad_value, vectors);
            if (p.grad_key) gather_from(i == 0, queries, ck, count, scratch.grad_scores, tile.grad_key, vectors);
            if (query_rows)
                gather_rows(count, valid, scratch.grad_scores, tile.key_rows, row_width, query_rows + i * row_width);
        }
    }
    for (int64_t g = 0; g < tiles; ++g) scratch.tile[g].finish(p, b, columns.start(g), columns.count(g));
}

}  // namespace

template <class T>
void backward(const Backward<T>& p, int threads) {
    Scratch<T> delta(p.size.batch, p.size.queries);
    row_dots(p.grad_out, p.out, p.size, delta.data(), threads);
    column_sweep<T>(p.size, p.grad_query, scratch_count<BackwardScratch<T>, T>(p.size), threads,
                    [&](int64_t b, const Columns& columns, T* query_rows, T* memory) {
                        backward_tiles(p, delta.data(), b, columns, query_rows, memory);
                    });
}
template void backward<float>(const Backward<float>&, int);
template void backward<double>(const Backward<double>&, int);

}  // namespace fastpose::attention::FASTPOSE_SIMD
