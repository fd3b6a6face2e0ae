// Refinement of peaks on a GPU by the logarithm of the blurred plane ("dark", "dark_udp"): the blur is computed where
// the stencil needs it; the whole plane is blurred only where a clamp depends on its maximum.
#pragma once

#include <cmath>

#include "heatmap/planes_cuda.h"

namespace fastpose::heatmap::cuda {
namespace {

// One axis of the blur, by value among a kernel's arguments, where the device finds it without a copy. It is symmetric:
// half of it does.
template <int count>
struct Taps {
    double half[count];
    int kernel;

    __device__ __forceinline__ double at(int i) const { return half[i <= kernel / 2 ? i : kernel - 1 - i]; }
};

constexpr int few_taps = 32, many_taps = (most_taps + 1) / 2;  // halves of 63 and of most_taps numbers

constexpr int blurred_rows = 5, blurred_columns = 32;  // pixels that a block blurs together
constexpr int gathered_columns = 64;

struct BlurMemory {
    double gathered[blurred_rows][gathered_columns];  // columns whose blur along y is done
    double blurred[blurred_rows][blurred_columns];
    double logarithms[5][5];
};

// Blur along y of one pixel, with zeros for what is not finite and beyond the border.
template <class E, class AnyTaps>
__device__ __forceinline__ double blur_down(const Plane<const E>& plane, int x, int y, const AnyTaps& taps) {
    const int half = taps.kernel / 2;
    const int first = y > half ? y - half : 0, end = plane.height - y > half + 1 ? y + half + 1 : plane.height;
    double sum = 0;
    if (x < 0 || x >= plane.width) return sum;
#pragma unroll 4
    for (int j = first; j < end; ++j) {
        const double value = widen(*plane.at(x, j));
        sum += taps.at(j - y + half) * (is_finite(value) ? value : 0);
    }
    return sum;
}

// Adds to the blurred pixels, of which each belongs to one thread, what `count` gathered columns from the `start`-th on
// give to them.
template <class AnyTaps>
__device__ __forceinline__ void blur_along(BlurMemory& memory, int columns, int start, int count, const AnyTaps& taps) {
    for (int pixel = threadIdx.x; pixel < blurred_rows * blurred_columns; pixel += blockDim.x) {
        const int r = pixel / blurred_columns, c = pixel % blurred_columns;
        if (c >= columns) continue;
        const int first = c > start ? c - start : 0;
        const int end = c + taps.kernel - start < count ? c + taps.kernel - start : count;
        double sum = start == 0 ? 0 : memory.blurred[r][c];
        for (int i = first; i < end; ++i) sum += taps.at(start + i - c) * memory.gathered[r][i];
        memory.blurred[r][c] = sum;
    }
}

// Fills memory.blurred with the pixels (x + c, y + r), c < columns. All threads of the block must call it.
template <class E, class AnyTaps>
__device__ __forceinline__ void blur(const Plane<const E>& plane, int x, int y, int columns, const AnyTaps& taps,
                                     BlurMemory& memory) {
    const int left = x - taps.kernel / 2, all = columns + taps.kernel - 1;
    for (int start = 0; start < all; start += gathered_columns) {
        const int count = all - start < gathered_columns ? all - start : gathered_columns;
        for (int task = threadIdx.x; task < blurred_rows * count; task += blockDim.x) {
            const int r = task / count, i = task % count;
            memory.gathered[r][i] = blur_down(plane, left + start + i, y + r, taps);
        }
        __syncthreads();
        blur_along(memory, columns, start, count, taps);
        __syncthreads();
    }
}

// Maximum of the whole blurred plane, for every thread. All of them must call it.
template <class E, class AnyTaps>
__device__ __forceinline__ double blurred_maximum(const Plane<const E>& plane, const AnyTaps& taps,
                                                  BlurMemory& memory) {
    double maximum = -infinity<double>;
    for (int y = 0; y < plane.height; y += blurred_rows)
        for (int x = 0; x < plane.width; x += blurred_columns) {
            const int columns = plane.width - x < blurred_columns ? plane.width - x : blurred_columns;
            blur(plane, x, y, columns, taps, memory);
            for (int pixel = threadIdx.x; pixel < blurred_rows * blurred_columns; pixel += blockDim.x) {
                const int r = pixel / blurred_columns, c = pixel % blurred_columns;  // this thread's own
                if (c < columns && y + r < plane.height) maximum = fmax(maximum, memory.blurred[r][c]);
            }
        }
    return block_peak(Peak<double>{maximum, 0, 0}).value;
}

struct Clamp {
    double low, high;
};

// The 5 x 5 pixels about the peak; those of the inner 3 x 3 that lie beyond the plane repeat its border for "dark_udp".
struct Stencil {
    bool udp = false;
    int left = 1, right = 3, top = 1, bottom = 3;  // of the inner 3 x 3, those on the plane

    __device__ __forceinline__ static int inner(int i, int first, int last) {
        if (i == 1 && first == 2) return 2;
        return i == 3 && last == 2 ? 2 : i;
    }
    __device__ __forceinline__ double at(const BlurMemory& memory, int r, int c) const {
        const bool ring = r == 0 || r == 4 || c == 0 || c == 4;
        return ring ? memory.blurred[r][c] : memory.blurred[inner(r, top, bottom)][inner(c, left, right)];
    }
};

// Whether no logarithm that the step looks at can meet a clamp. Then the factor that brings the blurred plane to its
// old maximum cancels in all differences: it is at least 1, and at most peak / blurred peak.
__device__ __forceinline__ bool inside_clamp(const Stencil& stencil, const BlurMemory& memory, double peak,
                                             const Clamp& clamp) {
    double least = memory.blurred[2][2], most = least;
    for (int i = 0; i < 25; ++i) {
        if (!step_uses(stencil.udp, i / 5, i % 5)) continue;
        const double value = stencil.at(memory, i / 5, i % 5);
        least = fmin(least, value);
        most = fmax(most, value);
    }
    return least >= clamp.low && most * (peak / memory.blurred[2][2]) <= clamp.high;
}

// Fills memory.logarithms. All threads of the block must call it.
template <class E, class AnyTaps>
__device__ __forceinline__ void logarithms_about(const Plane<const E>& plane, int x, int y, double peak,
                                                 const Stencil& stencil, const Clamp& clamp, const AnyTaps& taps,
                                                 BlurMemory& memory) {
    blur(plane, x - 2, y - 2, 5, taps, memory);
    const int r = threadIdx.x / 5, c = threadIdx.x % 5;
    const double mine = r < 5 ? stencil.at(memory, r, c) : 1;
    double scale = 1;
    if (!inside_clamp(stencil, memory, peak, clamp)) {  // the same answer in every thread
        __syncthreads();                                // all have read what the next blur overwrites
        scale = peak / blurred_maximum(plane, taps, memory);
    }
    if (r < 5) memory.logarithms[r][c] = std::log(fmin(fmax(mine * scale, clamp.low), clamp.high));
    __syncthreads();
}

template <class T, class E, class AnyTaps>
__device__ __forceinline__ Step refine_dark(const Decode<T>& p, const Plane<const E>& plane, const Peak<T>& peak,
                                            const AnyTaps& taps) {
    __shared__ BlurMemory memory;
    const bool udp = p.method == Method::dark_udp;
    const int x = peak.x, y = peak.y, right = plane.width - 1, bottom = plane.height - 1;
    const bool inside = x > 1 && x < right - 1 && y > 1 && y < bottom - 1;
    if (!(peak.value > 0) || !(udp || inside)) return {};
    const Clamp clamp = udp ? Clamp{1e-3, 50} : Clamp{1e-10, infinity<double>};
    Stencil stencil;
    if (udp) stencil = {true, x == 0 ? 2 : 1, x == right ? 2 : 3, y == 0 ? 2 : 1, y == bottom ? 2 : 3};
    logarithms_about(plane, x, y, static_cast<double>(peak.value), stencil, clamp, taps, memory);
    return udp ? dark_udp_step(memory.logarithms, p.max_step) : dark_step(memory.logarithms, p.max_step);
}

// Half of the taps; those of a method that does not blur are not looked at.
template <int count, class T>
Taps<count> half_of(const Decode<T>& p) {
    Taps<count> taps{};
    taps.kernel = static_cast<int>(p.kernel);
    for (int64_t i = 0; i < (p.kernel + 1) / 2; ++i) taps.half[i] = p.taps[i];
    return taps;
}

template <class T>
void check_taps(const Decode<T>& p) {
    if (p.kernel > most_taps)
        throw std::invalid_argument("taps: expected at most " + std::to_string(most_taps) + " numbers on a GPU, got " +
                                    std::to_string(p.kernel) + "; decode on the CPU");
    for (int64_t i = 0; i < p.kernel / 2; ++i)
        if (p.taps[i] != p.taps[p.kernel - 1 - i])
            throw std::invalid_argument("taps: expected the same numbers in both directions on a GPU, got two at " +
                                        std::to_string(i) + " from the ends that differ; decode on the CPU");
}

}  // namespace
}  // namespace fastpose::heatmap::cuda
