// How the kernels of the CPU that are compiled once per instruction set go over the planes of heatmaps.
#pragma once

#include <algorithm>
#include <limits>

#include "common/parallel.h"
#include "common/rows.h"
#include "heatmap/heatmap.h"

namespace fastpose::heatmap {
namespace FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

template <class T>
constexpr int lanes = Simd<T>::lanes;
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

constexpr int64_t pixels_per_thread = 16384;  // waking a thread costs more than fewer pixels take

inline int64_t pixels_of(const Sizes& size) {
    uint64_t count = 1;  // as TensorView::elements
    for (int64_t side : {size.batch, size.stacks, size.joints, size.height, size.width}) count *= side;
    return static_cast<int64_t>(count);
}

inline int threads_for(const Sizes& size, int threads) {
    return static_cast<int>(std::clamp<int64_t>(pixels_of(size) / pixels_per_thread, 1, threads));
}

// Runs body(b, k, worker) for every joint; the planes of neighbours lie side by side.
template <class Body>
void deal_joints(const Sizes& size, int threads, const Body& body) {
    const int64_t items = size.batch * size.joints, bytes = pixels_of(size) * sizeof(float);
    parallel_for(
        threads, items, [&](int64_t item, int worker) { body(item / size.joints, item % size.joints, worker); },
        run_of_pages(threads, items, bytes));
}

// Runs body(b, k, memory) for every plane with `count` numbers of scratch memory.
template <class T, class Body>
void for_planes(const Sizes& size, int64_t count, int threads, const Body& body) {
    if (size.batch == 0 || size.joints == 0) return;  // a plane that nobody draws may be of any size
    threads = threads_for(size, threads);
    Scratch<T> memory(count, threads);
    deal_joints(size, threads, [&](int64_t b, int64_t k, int worker) { body(b, k, memory.data() + worker * count); });
}

// Rows of a worker: two that are read, one that is written; their padding never counts.
template <class T>
int64_t row_memory(const Sizes& size) {
    return 3 * padded<T>(size.width);
}
template <class T>
T* buffer_of(T* memory, const Sizes& size, int which, T padding) {
    T* row = memory + which * padded<T>(size.width);
    std::fill(row + size.width, row + padded<T>(size.width), padding);
    return row;
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::heatmap
