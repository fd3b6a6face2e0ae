// What the attention kernels of the CPU share: tiles, staging, products and scratch memory.
//
// Every order of derivative is a sweep over tiles of the Nq x Nk map in which one side lies along the vector lanes
// (L = tile_vectors * lanes positions a tile) and the other side is walked in blocks of `block` positions. A tile is
// kept as [walked position][lane], so that row statistics are vertical and need no shuffle, and all the arithmetic is
// panel_product: a broadcast operand against packed lanes. A walked block is staged once into the cache, in the order
// of its tensor, for a group of tiles: maps with a power of two of positions would otherwise fall on few cache sets.
//
// Notation of the comments (tests/derivations/attention.py checks it): S = Q K^T, P = exp(S - L), O = P V,
// dP = dO V^T, D = rowsum(dO * O), dS = P (dP - D); A, B, C are the cotangents of dQ, dK, dV.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "attention/attention.h"
#include "common/arena.h"
#include "common/parallel.h"
#include "common/simd.h"

namespace fastpose::attention {
namespace FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

constexpr int64_t block = 128;  // walked positions of a tile

template <class T>
constexpr int lanes = Simd<T>::lanes;
template <class T>
constexpr int64_t packed = tile_vectors * lanes<T>;  // positions along the lanes of one tile
template <class T>
constexpr int64_t group = 384 / packed<T>;  // tiles that share a staged block: their sums stay in the L2 cache

// How many positions lie along the lanes of a tile: as many for each of as few tiles as hold `positions`.
template <class T>
int64_t tile_positions(int64_t positions) {
    const int64_t tiles = std::max<int64_t>(1, divide_up(positions, packed<T>));
    return std::max<int64_t>(lanes<T>, round_up(divide_up(positions, tiles), lanes<T>));
}

// Copies `count` numbers, by vectors as far as they go.
template <class T>
FASTPOSE_INLINE void copy_row(const T* from, int64_t count, T* to) {
    int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) store(to + i, load(from + i));
    for (; i < count; ++i) to[i] = from[i];
}

// to[c][lane] = from(c, first + lane); the lanes of the last vector beyond `count` are zero.
template <class T>
void pack(Strided3<const T> from, int64_t batch, int64_t channels, int64_t first, int64_t count, T* to) {
    constexpr int64_t width = packed<T>;
    const T* source = from.at(batch) + first * from.position;
    if (count % lanes<T>)
        for (int64_t c = 0; c < channels; ++c) store(to + c * width + count / lanes<T> * lanes<T>, Vector<T>{});
    if (from.position == 1) {
        for (int64_t c = 0; c < channels; ++c) copy_row(source + c * from.channel, count, to + c * width);
    } else {
        for (int64_t lane = 0; lane < count; ++lane)
            for (int64_t c = 0; c < channels; ++c)
                to[c * width + lane] = source[c * from.channel + lane * from.position];
    }
}

// Rows of lanes: packed ones, or those of a tensor where it lies.
template <class T>
struct Rows {
    T* data;
    int64_t step;
};

constexpr int64_t in_place = 2048;   // bytes between channels up to which a block is read where it lies
constexpr int64_t close_rows = 512;  // the same for the lanes of a tile, which are read again for every few rows

// Whether the lanes of a tile may stay in the tensor: whole vectors, with channels on enough cache sets.
template <class T>
bool lies_well(Strided3<T> tensor, int64_t count) {
    return tensor.position == 1 && count % lanes<T> == 0 && tensor.channel * int64_t{sizeof(T)} <= close_rows;
}

// The rows from(c, first : first + count), packed into `to` unless they lie well.
template <class T>
Rows<const T> lane_rows(Strided3<const T> from, int64_t batch, int64_t channels, int64_t first, int64_t count, T* to) {
    if (lies_well(from, count)) return {from.at(batch) + first, from.channel};
    pack(from, batch, channels, first, count, to);
    return {to, packed<T>};
}

// Where sums over `count` lanes are kept: in the result, or in `scratch` for unpack.
template <class T>
Rows<T> sum_rows(Strided3<T> result, int64_t batch, int64_t first, int64_t count, T* scratch) {
    if (result && lies_well(result, count)) return {result.at(batch) + first, result.channel};
    return {scratch, packed<T>};
}

// The reverse of pack for the first `count` lanes.
template <class T>
void unpack(const T* from, int64_t channels, int64_t first, int64_t count, Strided3<T> to, int64_t batch) {
    constexpr int64_t width = packed<T>;
    T* target = to.at(batch) + first * to.position;
    if (to.position == 1) {
        for (int64_t c = 0; c < channels; ++c) copy_row(from + c * width, count, target + c * to.channel);
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
    if (from.position == 1 && from.channel * int64_t{sizeof(T)} <= in_place) return {source, from.channel, 1};
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

// How many vectors of a tile hold positions, for the last tile of an image is computed no wider than it is.
template <class T>
FASTPOSE_INLINE int vectors_of(int64_t positions) {
    return static_cast<int>(std::min<int64_t>(tile_vectors, divide_up(positions, lanes<T>)));
}

template <class T, Start start, class BStep, class CStep>
__attribute__((noinline)) void panel_of(int vectors, int64_t rows, int64_t depth, const T* a, int64_t a_row,
                                        int64_t a_step, const T* b, BStep b_step, T* c, CStep c_step, const T* scale) {
    if (vectors == tile_vectors)
        panel_product<T, tile_vectors, start>(rows, depth, a, a_row, a_step, b, b_step, c, c_step, scale);
    else if (vectors == 2)
        panel_product<T, 2, start>(rows, depth, a, a_row, a_step, b, b_step, c, c_step, scale);
    else
        panel_product<T, 1, start>(rows, depth, a, a_row, a_step, b, b_step, c, c_step, scale);
}

// Functions of their own for packed rows, whose step the compiler then knows, and for those that stay in a tensor.
template <class T, Start start>
void tile_panel(int vectors, int64_t rows, int64_t depth, const T* a, int64_t a_row, int64_t a_step, Rows<const T> b,
                Rows<T> c, const T* scale = nullptr) {
    constexpr std::integral_constant<int64_t, packed<T>> width;
    if (b.step == width && c.step == width)
        panel_of<T, start>(vectors, rows, depth, a, a_row, a_step, b.data, width, c.data, width, scale);
    else
        panel_of<T, start>(vectors, rows, depth, a, a_row, a_step, b.data, b.step, c.data, c.step, scale);
}

constexpr int64_t inner_channels = 128;  // at a time: their packed rows stay in the L1 cache for a whole block

// tile[i][lane] (+)= sum_c x(c, i) * y[c][lane]: inner products of walked positions with those along the lanes.
template <class T, Start start>
void inner_products(Staged<T> x, int64_t channels, int64_t count, Rows<const T> y, T* tile, int vectors) {
    const Rows<T> sums{tile, packed<T>};
    const int64_t some = std::min(channels, inner_channels);
    tile_panel<T, start>(vectors, count, some, x.data, x.position, x.channel, y, sums);
    for (int64_t c = some; c < channels; c += inner_channels)
        tile_panel<T, Start::keep>(vectors, count, std::min(inner_channels, channels - c), x.data + c * x.channel,
                                   x.position, x.channel, {y.data + c * y.step, y.step}, sums);
}

// sums[c][lane] (+)= sum_i x(c, i) * tile[i][lane]: channels gathered over the walked positions.
template <class T, Start start>
void gather(Staged<T> x, int64_t channels, int64_t count, const T* tile, Rows<T> sums, int vectors,
            const T* scale = nullptr) {
    tile_panel<T, start>(vectors, channels, count, x.data, x.channel, x.position, {tile, packed<T>}, sums, scale);
}

// The same, begun at 0 by the first block.
template <class T>
void gather_from(bool first_block, Staged<T> x, int64_t channels, int64_t count, const T* tile, Rows<T> sums,
                 int vectors) {
    if (first_block)
        gather<T, Start::zero>(x, channels, count, tile, sums, vectors);
    else
        gather<T, Start::keep>(x, channels, count, tile, sums, vectors);
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

// Runs body(image, first position, tiles, worker) over all groups of tiles of `positions` positions. The groups of an
// image differ by one tile at most; there are at least a few for each thread, and as many for one as for another.
template <class T, class Body>
void for_tile_groups(int64_t batch, int64_t positions, int threads, const Body& body) {
    const int64_t tiles = divide_up(positions, tile_positions<T>(positions));
    if (batch * tiles == 0) return;
    const int64_t least = threads == 1 ? 1 : 4 * threads;
    const int64_t wanted = round_up(std::max(batch * divide_up(tiles, group<T>), least), threads);
    const int64_t groups = std::min(tiles, divide_up(wanted, batch));
    parallel_for(threads, batch * groups, [&](int64_t item, int worker) {
        const int64_t first = item % groups * tiles / groups, last = (item % groups + 1) * tiles / groups;
        body(item / groups, first * tile_positions<T>(positions), last - first, worker);
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
            if (x.position == 1 && y.position == 1)
                for (int64_t i = first; i < last; ++i) row[i] += left[i] * right[i];
            else
                for (int64_t i = first; i < last; ++i) row[i] += left[i * x.position] * right[i * y.position];
        }
    });
}

// The numbers of T that what `Pieces` takes fits into, whole cache lines of them.
template <class Pieces, class T>
int64_t scratch_count(const Sizes& size) {
    return round_up(divide_up(scratch_bytes<Pieces>(size), sizeof(T)), 64);
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::attention
