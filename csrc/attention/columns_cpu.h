// The sweep over columns in which both derivatives of attention on the CPU end: lanes are keys, the walk is over
// queries.
//
// The gradient of the query is gathered across lanes into a buffer of its own for each (image, part of the keys), added
// up afterwards in a fixed order: deterministic, and only Ck wide.
#pragma once

#include "attention/tiles_cpu.h"

namespace fastpose::attention {
namespace FASTPOSE_SIMD {

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
        for (int64_t tile = first; tile < last; tile += group<T>)
            tile_columns(item / split.parts, tile * packed<T>, std::min(group<T>, last - tile), part_rows,
                         memory.data() + worker * per_worker);
    });
    if (grad_query) add_parts(rows.data(), split.parts, row_width, size, grad_query, threads);
}
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

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::attention
