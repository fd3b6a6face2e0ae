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
// small, so that the buffers stay a few times the size of the query. Parts are equal, and so are the tiles of a part.
struct KeyParts {
    int64_t parts, positions, tile;  // positions of a part and of a tile

    template <class T>
    static KeyParts of(const Sizes& size) {
        const int64_t wanted = size.batch >= 16 ? 1 : size.batch >= 8 ? 2 : 4;
        const int64_t least = size.batch >= 4 ? 2 * packed<T> : 2 * lanes<T>;  // positions of a part
        const int64_t most = std::max<int64_t>(1, size.keys / least);
        const int64_t some = round_up(divide_up(size.keys, std::min(wanted, most)), lanes<T>);
        const int64_t tile = tile_positions<T>(some);
        const int64_t positions = std::max(tile, some);
        return {std::max<int64_t>(1, divide_up(size.keys, positions)), positions, tile};
    }
};

// How many tiles share a staged block: what they keep stays in a share of the L2 cache.
template <class T>
int64_t column_group(const Sizes& size) {
    const int64_t bytes = 2 * (size.key_channels + size.value_channels) * packed<T> * int64_t{sizeof(T)};
    return std::clamp<int64_t>((int64_t{1} << 20) / std::max<int64_t>(bytes, 1), 2, group<T>);
}

// The keys of a group of tiles.
struct Columns {
    int64_t first, last, tile;

    int64_t tiles() const { return divide_up(last - first, tile); }
    int64_t start(int64_t g) const { return first + g * tile; }
    int64_t count(int64_t g) const { return std::min(tile, last - start(g)); }
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

// Runs tile_columns(image, its tiles, query rows of this part, memory) over all parts, then adds the parts up.
template <class T, class TileColumns>
void column_sweep(const Sizes& size, Strided3<T> grad_query, int64_t per_worker, int threads,
                  const TileColumns& tile_columns) {
    const KeyParts split = KeyParts::of<T>(size);
    const int64_t row_width = round_up(size.key_channels, lanes<T>);
    Scratch<T> memory(per_worker, threads);
    Scratch<T> rows(grad_query ? size.batch : 0, split.parts, size.queries, row_width);
    const int64_t per_part = size.queries * row_width, step = column_group<T>(size) * split.tile;
    parallel_for(threads, size.batch * split.parts, [&](int64_t item, int worker) {
        T* part_rows = grad_query ? rows.data() + item * per_part : nullptr;
        if (part_rows) std::fill(part_rows, part_rows + per_part, T(0));
        const int64_t first = item % split.parts * split.positions;
        const int64_t last = std::min(first + split.positions, size.keys);
        for (int64_t at = first; at < last; at += step)
            tile_columns(item / split.parts, Columns{at, std::min(at + step, last), split.tile}, part_rows,
                         memory.data() + worker * per_worker);
    });
    if (grad_query) add_parts(rows.data(), split.parts, row_width, size, grad_query, threads);
}

// What one tile of keys keeps while the queries pass by: operands along the lanes and the sums of its gradients. The
// cotangents' copies are taken for the second derivative only.
template <class T>
struct KeyTile {
    T *key_room, *value_room, *key_rows, *grad_key_room, *grad_value_room;
    T *cot_key_room, *cot_value_room, *cot_key_rows;
    Rows<const T> keys, values, cot_keys, cot_values;
    Rows<T> grad_key, grad_value;

    KeyTile() = default;
    KeyTile(const Sizes& size, bool second, Arena& arena) {
        const int64_t ck = size.key_channels * packed<T>, cv = size.value_channels * packed<T>;
        const int64_t rows = round_up(size.key_channels, lanes<T>) * packed<T>;
        key_room = arena.take<T>(ck);
        value_room = arena.take<T>(cv);
        key_rows = arena.take<T>(rows);
        grad_key_room = arena.take<T>(ck);
        grad_value_room = arena.take<T>(cv);
        cot_key_room = second ? arena.take<T>(ck) : nullptr;
        cot_value_room = second ? arena.take<T>(cv) : nullptr;
        cot_key_rows = second ? arena.take<T>(rows) : nullptr;
    }

    template <class Problem>
    void start(const Problem& p, int64_t b, int64_t first, int64_t count) {
        const int64_t ck = p.size.key_channels, cv = p.size.value_channels;
        keys = lane_rows(p.key, b, ck, first, count, key_room);
        values = lane_rows(p.value, b, cv, first, count, value_room);
        pack_rows(p.key, b, ck, first, count, round_up(ck, lanes<T>), key_rows);
        grad_key = sum_rows(p.grad_key, b, first, count, grad_key_room);
        grad_value = sum_rows(p.grad_value, b, first, count, grad_value_room);
        if (p.size.queries > 0) return;  // no block begins the sums
        for (int64_t c = 0; c < ck; ++c) std::fill_n(grad_key.data + c * grad_key.step, count, T(0));
        for (int64_t c = 0; c < cv; ++c) std::fill_n(grad_value.data + c * grad_value.step, count, T(0));
    }

    template <class Problem>
    void finish(const Problem& p, int64_t b, int64_t first, int64_t count) const {
        if (p.grad_key && grad_key.data == grad_key_room)
            unpack(grad_key.data, p.size.key_channels, first, count, p.grad_key, b);
        if (p.grad_value && grad_value.data == grad_value_room)
            unpack(grad_value.data, p.size.value_channels, first, count, p.grad_value, b);
    }
};

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::attention
