// A block of threads for each plane of heatmaps: how its pixels are dealt to the threads, how it is started, and the
// search for its peak.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "common/cuda_blocks.h"
#include "common/cuda_launch.h"
#include "heatmap/heatmap.h"

namespace fastpose::heatmap::cuda {
namespace {

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

constexpr int least_plane_threads = 64, most_plane_threads = 256;  // of a block
constexpr int64_t most_blocks = 2147483647;                        // of a grid
constexpr int at_once = 4;  // packs that a thread asks for before it uses the first

// -------------------------------------------------------------------------------------------- the pixels of a plane

template <class E>
struct Plane {
    E* data;
    int64_t row, column;
    int width, height;

    __device__ __forceinline__ E* at(int x, int y) const { return data + y * row + x * column; }
};

template <class E>
__device__ __forceinline__ Plane<E> plane_of(const Planes& planes, const Sizes& size, int64_t b, int64_t k) {
    return {planes.at<E>(b, 0, k), planes.row, planes.column, static_cast<int>(size.width),
            static_cast<int>(size.height)};
}

// Which plane a block has: there is one for each joint of the batch's elements from `first` on.
struct PlaneGrid {
    int64_t first;
    unsigned int joints;
    bool grouped;  // whether pixels can be accessed in packs of wide<E>

    __device__ __forceinline__ int64_t batch() const { return first + blockIdx.x / joints; }
    __device__ __forceinline__ int joint() const { return static_cast<int>(blockIdx.x % joints); }
};

// Goes through the packs of N neighbours along the rows: thread t takes the t-th, the (t + blockDim.x)-th, ...
template <int N>
struct Walk {
    int x, y, across, down, width, height;

    __device__ __forceinline__ Walk(int width, int height) : width(width), height(width > 0 ? height : 0) {
        const unsigned int packs = width < N ? 1 : width / N;
        x = static_cast<int>(threadIdx.x % packs) * N;
        y = static_cast<int>(threadIdx.x / packs);
        across = static_cast<int>(blockDim.x % packs) * N;
        down = static_cast<int>(blockDim.x / packs);
    }
    __device__ __forceinline__ bool inside() const { return y < height; }
    __device__ __forceinline__ void advance() {
        x += across;
        y += down;
        if (x < width) return;
        x -= width;
        ++y;
    }
};

// Runs use(x, y, read(x, y)) for every pack of the thread, with up to `batch` reads on their way.
template <int batch, int N, class Read, class Use>
__device__ __forceinline__ void for_packs(int width, int height, const Read& read, const Use& use) {
    for (Walk<N> walk(width, height); walk.inside();) {
        int x[batch], y[batch];
        decltype(read(0, 0)) given[batch];
#pragma unroll
        for (int i = 0; i < batch; ++i) {
            x[i] = walk.x;
            y[i] = walk.inside() ? walk.y : -1;
            if (y[i] >= 0) given[i] = read(x[i], y[i]);
            walk.advance();
        }
#pragma unroll
        for (int i = 0; i < batch; ++i)
            if (y[i] >= 0) use(x[i], y[i], given[i]);
    }
}

// ------------------------------------------------------------------------------------------------------- the peak

template <class T>
struct Peak {
    T value;  // minus infinity: no finite value
    int x, y;

    __device__ __forceinline__ bool found() const { return value > -infinity<T>; }
};

// The higher of two peaks, the first in row-major order where they are equal.
template <class T>
__device__ __forceinline__ Peak<T> higher(const Peak<T>& a, const Peak<T>& b) {
    const bool b_first = b.y < a.y || (b.y == a.y && b.x < a.x);
    return b.value > a.value || (b.value == a.value && b_first) ? b : a;
}

// The highest peak of a block's threads, for every thread. All of them must call it.
template <class T>
__device__ __forceinline__ Peak<T> block_peak(Peak<T> peak) {
    __shared__ Peak<T> of_warps[most_plane_threads / warp_threads];
#pragma unroll
    for (int distance = warp_threads / 2; distance > 0; distance /= 2)
        peak = higher(peak, Peak<T>{__shfl_xor_sync(0xffffffffu, peak.value, distance),
                                    __shfl_xor_sync(0xffffffffu, peak.x, distance),
                                    __shfl_xor_sync(0xffffffffu, peak.y, distance)});
    __syncthreads();  // the search before this one has been read
    if (threadIdx.x % warp_threads == 0) of_warps[threadIdx.x / warp_threads] = peak;
    __syncthreads();
    peak = of_warps[0];
    for (unsigned int warp = 1; warp < blockDim.x / warp_threads; ++warp) peak = higher(peak, of_warps[warp]);
    return peak;
}

template <class T, int N, class E>
__device__ __forceinline__ Peak<T> find_peak(const Plane<const E>& plane) {
    Peak<T> peak{-infinity<T>, 0, 0};
    for_packs<at_once, N>(
        plane.width, plane.height, [&](int x, int y) { return load<N>(plane.at(x, y)); },
        [&](int x, int y, const Loaded<E, N>& given) {
            const Pack<T, N> numbers = given.template numbers<T>();
#pragma unroll
            for (int i = 0; i < N; ++i)  // NaN loses every comparison
                if (numbers.at[i] > peak.value && numbers.at[i] < infinity<T>) peak = {numbers.at[i], x + i, y};
        });
    return block_peak(peak);
}

// ------------------------------------------------------------------------------------------------------------ launches

// Whether all of these planes can be accessed in packs of wide<E> numbers.
template <class E, class... Operands>
bool grouped(const Sizes& size, const Operands&... planes) {
    return (
        (!planes || in_groups<E>(planes.data, size.width, planes.column, {planes.batch, planes.joint, planes.row})) &&
        ...);
}

// Threads of a block, each with about `at_once` packs.
dim3 threads_for(const Sizes& size, int pack) {
    if (std::max({size.joints, size.height, size.width}) >= 1 << 30)
        throw std::invalid_argument("heatmaps: expected less than 2^30 joints, rows and columns, got " +
                                    std::to_string(size.joints) + ", " + std::to_string(size.height) + " and " +
                                    std::to_string(size.width) + "; decode on the CPU");
    const int64_t wanted = size.height * size.width / (pack * at_once);
    int threads = least_plane_threads;
    while (threads < most_plane_threads && threads < wanted) threads *= 2;
    return dim3(static_cast<unsigned int>(threads));
}

// Starts a block for each plane of `joints` joints; more than a grid holds are split along the batch.
template <class E, class Kernel, class Parameters, class... Rest>
void start(CudaPlace place, Kernel kernel, int64_t joints, const Parameters& p, bool grouped, const Rest&... rest) {
    // Drivers before R530 take no more.
    static_assert(sizeof(Parameters) + sizeof(PlaneGrid) + (sizeof(Rest) + ... + 0) <= 4096, "arguments of a kernel");
    if (joints == 0) return;
    const dim3 threads = threads_for(p.size, grouped ? wide<E> : 1);
    const int64_t most = most_blocks / joints;
    for (int64_t first = 0; first < p.size.batch; first += most) {
        const int64_t count = std::min(most, p.size.batch - first);
        const PlaneGrid grid{first, static_cast<unsigned int>(joints), grouped};
        launch(place, kernel, dim3(static_cast<unsigned int>(count * joints)), threads, p, grid, rest...);
    }
}

}  // namespace
}  // namespace fastpose::heatmap::cuda
