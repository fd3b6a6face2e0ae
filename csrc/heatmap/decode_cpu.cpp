// Decoding of heatmaps on the CPU, compiled once per instruction set. Each plane is read once from memory, by the peak
// search; refinement looks only at the peak's neighbourhood. The blur of "dark" is computed where its stencil needs it;
// the whole plane is blurred only where a clamp depends on its maximum.

#include <cmath>

#include "heatmap/peak_cpu.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

namespace {

template <class T, class E>
struct Plane {
    const E* data;
    int64_t row, column, height, width;

    double at(int64_t x, int64_t y) const {
        const double value = widen(data[y * row + x * column]);
        return is_finite(value) ? value : 0;  // for the blur, what is not finite counts as zero
    }
};

// Memory for rows of doubles: one that is read and five that gather its share of blurred rows.
inline int64_t blur_memory(const Sizes& size, int64_t kernel) { return 6 * (size.width + kernel + 4); }

// Sums taps down the columns: to[0:count] += tap * row[0:count].
FASTPOSE_INLINE void add_scaled(double* to, double tap, const double* row, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] += tap * row[i];
}

// row[i] = plane(first + i, y) for i < count, zero beyond the border.
template <class T, class E>
void padded_row(const Plane<T, E>& plane, int64_t y, int64_t first, int64_t count, double* row) {
    for (int64_t i = 0; i < count; ++i) {
        const int64_t x = first + i;
        row[i] = x >= 0 && x < plane.width ? plane.at(x, y) : 0;
    }
}

FASTPOSE_INLINE double along_row(const double* row, const double* taps, int64_t kernel) {
    double sum = 0;
    for (int64_t i = 0; i < kernel; ++i) sum += taps[i] * row[i];
    return sum;
}

// The blurred plane at the 5 x 5 pixels about (x, y); corners that no stencil uses included.
template <class T, class E>
void blur_around(const Plane<T, E>& plane, int64_t x, int64_t y, const double* taps, int64_t kernel, double* memory,
                 double (&blurred)[5][5]) {
    const int64_t half = kernel / 2, count = kernel + 4;
    double* gathered = memory + count;
    std::fill(gathered, gathered + 5 * count, 0.0);
    for (int64_t j = std::max<int64_t>(0, y - 2 - half); j <= std::min(plane.height - 1, y + 2 + half); ++j) {
        padded_row(plane, j, x - 2 - half, count, memory);
        for (int64_t r = 0; r < 5; ++r) {
            const int64_t tap = j - (y - 2 + r) + half;
            if (tap >= 0 && tap < kernel) add_scaled(gathered + r * count, taps[tap], memory, count);
        }
    }
    for (int64_t r = 0; r < 5; ++r)
        for (int64_t c = 0; c < 5; ++c) blurred[r][c] = along_row(gathered + r * count + c, taps, kernel);
}

// Maximum of the whole blurred plane.
template <class T, class E>
double blurred_maximum(const Plane<T, E>& plane, const double* taps, int64_t kernel, double* memory) {
    const int64_t half = kernel / 2, count = plane.width + kernel - 1;
    double* gathered = memory + count;
    double maximum = -infinity<double>;
    for (int64_t y = 0; y < plane.height; ++y) {
        std::fill(gathered, gathered + count, 0.0);
        for (int64_t j = std::max<int64_t>(0, y - half); j <= std::min(plane.height - 1, y + half); ++j) {
            padded_row(plane, j, -half, count, memory);
            add_scaled(gathered, taps[j - y + half], memory, count);
        }
        for (int64_t x = 0; x < plane.width; ++x) maximum = std::max(maximum, along_row(gathered + x, taps, kernel));
    }
    return maximum;
}

// Replaces what lies beyond the plane in the 3 x 3 pixels about (x, y) by the border's values.
inline void repeat_border(double (&at)[5][5], int64_t x, int64_t y, int64_t width, int64_t height) {
    for (int i = 1; i < 4; ++i) {
        if (x == 0) at[i][1] = at[i][2];
        if (x == width - 1) at[i][3] = at[i][2];
    }
    for (int i = 1; i < 4; ++i) {
        if (y == 0) at[1][i] = at[2][i];
        if (y == height - 1) at[3][i] = at[2][i];
    }
}

struct Clamp {
    double low, high;
};

// Factor that brings the blurred plane to its old maximum. It cancels in all differences of logarithms unless a pixel
// of the step hits a clamp, which cannot be where the unscaled values are inside: the factor is at least 1, and at most
// peak / blurred peak.
template <class T, class E>
double rescale(const Decode<T>& p, const Plane<T, E>& plane, double peak, const double (&blurred)[5][5],
               const Clamp& clamp, double* memory) {
    double least = blurred[2][2], most = blurred[2][2];
    for (int r = 0; r < 5; ++r)
        for (int c = 0; c < 5; ++c) {
            if (!step_uses(p.method == Method::dark_udp, r, c)) continue;
            least = std::min(least, blurred[r][c]);
            most = std::max(most, blurred[r][c]);
        }
    if (least >= clamp.low && most * (peak / blurred[2][2]) <= clamp.high) return 1;
    return peak / blurred_maximum(plane, p.taps, p.kernel, memory);
}

template <class T, class E>
Step refine_dark(const Decode<T>& p, const Plane<T, E>& plane, double peak, int64_t x, int64_t y, double* memory) {
    const bool udp = p.method == Method::dark_udp;
    const bool inside = x > 1 && x < plane.width - 2 && y > 1 && y < plane.height - 2;
    if (!(peak > 0) || !(udp || inside)) return {};
    const Clamp clamp = udp ? Clamp{1e-3, 50} : Clamp{1e-10, infinity<double>};
    double at[5][5];
    blur_around(plane, x, y, p.taps, p.kernel, memory, at);
    if (udp) repeat_border(at, x, y, plane.width, plane.height);
    const double scale = rescale(p, plane, peak, at, clamp, memory);
    for (auto& row : at)
        for (double& value : row) value = std::log(std::clamp(value * scale, clamp.low, clamp.high));
    return udp ? dark_udp_step(at, p.max_step) : dark_step(at, p.max_step);
}

template <class T, class E>
Step refine_quarter(const E* plane, const Planes& planes, const Sizes& size, int64_t x, int64_t y) {
    const auto at = [&](int64_t column, int64_t row) -> T {
        return widen(plane[row * planes.row + column * planes.column]);
    };
    Step step;
    if (x > 1 && x < size.width - 1 && y > 0) step.x = quarter(at(x + 1, y), at(x - 1, y));
    if (y > 1 && y < size.height - 1 && x > 0) step.y = quarter(at(x, y + 1), at(x, y - 1));
    return step;
}

template <class T, class E>
Step refine(const Decode<T>& p, const E* plane, double peak, int64_t x, int64_t y, double* memory) {
    switch (p.method) {
        case Method::argmax: return {};
        case Method::quarter: return refine_quarter<T>(plane, p.heatmaps, p.size, x, y);
        default: {
            const Plane<T, E> view{plane, p.heatmaps.row, p.heatmaps.column, p.size.height, p.size.width};
            return refine_dark(p, view, peak, x, y, memory);
        }
    }
}

}  // namespace

template <class T>
void decode(const Decode<T>& p, int threads) {
    const Runs runs(p.heatmaps, p.size);
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<double>(p.size, chunk + blur_memory(p.size, p.kernel), threads,
                           [&](int64_t b, int64_t k, double* memory) {
                               const E* plane = p.heatmaps.template at<const E>(b, 0, k);
                               T* buffer = reinterpret_cast<T*>(memory);
                               const Peak<T> peak = find_peak(plane, runs, buffer);
                               const bool found = peak.run >= 0;
                               const int64_t position = found ? position_of(peak, plane, runs, buffer) : 0;
                               const int64_t x = position % p.size.width, y = position / p.size.width;
                               Step step;
                               if (found) step = refine(p, plane, peak.value, x, y, memory + chunk);
                               const int64_t joint = b * p.size.joints + k;
                               p.coordinates[2 * joint] = static_cast<T>(static_cast<double>(x) + step.x);
                               p.coordinates[2 * joint + 1] = static_cast<T>(static_cast<double>(y) + step.y);
                               p.scores[joint] = found ? peak.value : T(0);
                           });
    });
}
template void decode<float>(const Decode<float>&, int);
template void decode<double>(const Decode<double>&, int);

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
