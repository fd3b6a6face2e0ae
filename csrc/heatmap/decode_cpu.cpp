// Decoding of heatmaps on the CPU, compiled once per instruction set. Each plane is read once from memory: the peak
// search keeps one chunk's maximum in the lanes, and refinement looks only at the peak's neighbourhood. The blur of
// "dark" is computed where its stencil needs it; the whole plane is blurred only where a clamp depends on its maximum.

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/parallel.h"
#include "common/rows.h"
#include "heatmap/heatmap.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

namespace {

template <class T>
constexpr int lanes = Simd<T>::lanes;
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

constexpr int64_t chunk = 1024;               // numbers whose maximum is kept in the lanes
constexpr int64_t together = 4;               // vectors that do not wait for each other
constexpr int64_t pixels_per_thread = 16384;  // waking a thread costs more than fewer pixels take

int threads_for(const Sizes& size, int threads) {
    const int64_t pixels = size.batch * size.joints * size.height * size.width;
    return static_cast<int>(std::clamp<int64_t>(pixels / pixels_per_thread, 1, threads));
}

// Runs body(b, k, memory) for every plane with `count` numbers of scratch memory.
template <class T, class Body>
void for_planes(const Sizes& size, int64_t count, int threads, const Body& body) {
    threads = threads_for(size, threads);
    Scratch<T> memory(count * threads);
    parallel_for(threads, size.batch * size.joints, [&](int64_t item, int worker) {
        body(item / size.joints, item % size.joints, memory.data() + worker * count);
    });
}

// ------------------------------------------------------------------------------------------------------- the peak

// A plane as runs of equally spaced numbers in row-major order: one run where the rows follow each other.
struct Runs {
    int64_t count, length, distance, step;

    Runs(const Planes& planes, const Sizes& size) {
        const bool joined = planes.row == planes.column * size.width;
        count = joined ? 1 : size.height;
        length = joined ? size.height * size.width : size.width;
        distance = planes.row;
        step = planes.column;
    }
};

template <class T>
struct Peak {
    T value = -infinity<T>;
    int64_t run = -1, start = 0;  // the chunk that holds it; -1: no finite value
};

// Largest number; NaN loses every comparison and is passed over.
template <class T>
FASTPOSE_INLINE T largest(const T* numbers, int64_t count) {
    constexpr int64_t group = together * lanes<T>;
    Vector<T> most[together];
    for (Vector<T>& vector : most) vector = broadcast(-infinity<T>);
    int64_t i = 0;
    for (; i + group <= count; i += group)
        for (int64_t v = 0; v < together; ++v) {
            const Vector<T> value = load(numbers + i + v * lanes<T>);
            most[v] = value > most[v] ? value : most[v];
        }
    for (int64_t v = 1; v < together; ++v) most[0] = most[v] > most[0] ? most[v] : most[0];
    T result = largest_lane<T>(most[0]);
    for (; i < count; ++i) result = numbers[i] > result ? numbers[i] : result;
    return result;
}

// Place of the first number that equals `value`, which is among them. A group without it is passed over as a whole.
template <class T>
int64_t place_of(T value, const T* numbers, int64_t count) {
    constexpr int64_t group = together * lanes<T>;
    int64_t i = 0;
    for (; i + group <= count; i += group) {
        int found = 0;
        for (int64_t j = 0; j < group; ++j) found |= numbers[i + j] == value;
        if (found) break;
    }
    while (numbers[i] != value) ++i;
    return i;
}

template <class T>
T largest_finite(const T* numbers, int64_t count) {
    T result = -infinity<T>;
    for (int64_t i = 0; i < count; ++i)
        if (is_finite(numbers[i]) && numbers[i] > result) result = numbers[i];
    return result;
}

template <class T, class E>
const T* read_chunk(const E* from, int64_t step, int64_t count, T* buffer) {
    if constexpr (std::is_same_v<T, E>)
        if (step == 1) return from;
    return read_row(from, step, count, buffer);
}

template <class T, class E>
Peak<T> find_peak(const E* plane, const Runs& runs, T* buffer) {
    Peak<T> peak;
    for (int64_t run = 0; run < runs.count; ++run)
        for (int64_t start = 0; start < runs.length; start += chunk) {
            const int64_t count = std::min(chunk, runs.length - start);
            const T* numbers = read_chunk(plane + run * runs.distance + start * runs.step, runs.step, count, buffer);
            T most = largest(numbers, count);
            if (most == infinity<T>) most = largest_finite(numbers, count);
            if (most > peak.value) peak = {most, run, start};
        }
    return peak;
}

// Position in row-major order of the first number that equals the peak's.
template <class T, class E>
int64_t position_of(const Peak<T>& peak, const E* plane, const Runs& runs, T* buffer) {
    const E* from = plane + peak.run * runs.distance + peak.start * runs.step;
    const int64_t count = std::min(chunk, runs.length - peak.start);
    const T* numbers = read_chunk(from, runs.step, count, buffer);
    return peak.run * runs.length + peak.start + place_of(peak.value, numbers, count);
}

// -------------------------------------------------------------------------------------------------- dark refinement

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

// ------------------------------------------------------------------------------------------------------- softargmax

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

// Sums over a plane of p, p (x - x0) and p (y - y0), gathered in the lanes.
template <class T>
struct Expectation {
    Vector<T> total{}, x{}, y{};

    FASTPOSE_INLINE void add(Vector<T> weight, Vector<T> offset, T distance) {
        total += weight;
        x += weight * offset;
        y += weight * distance;
    }
};

// exp(beta (h - peak)), zero where h is not finite.
template <class T>
FASTPOSE_INLINE Vector<T> weights(Vector<T> value, T beta, T peak) {
    const Vector<T> weight = exponential((value - peak) * beta);
    return value - value == Vector<T>{} ? weight : Vector<T>{};
}

template <class T, class E>
void soft_plane(const SoftArgmax<T>& p, const E* plane, T peak, int64_t joint, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    Expectation<T> sums;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            sums.add(weights(load(row + x), p.beta, peak), lane_numbers<T>() + static_cast<T>(x), static_cast<T>(y));
    }
    const T total = sum_of_lanes<T>(sums.total);
    p.coordinates[2 * joint] = sum_of_lanes<T>(sums.x) / total;
    p.coordinates[2 * joint + 1] = sum_of_lanes<T>(sums.y) / total;
    p.scores[joint] = peak;
    p.totals[joint] = total;
}

template <class T>
void softargmax(const SoftArgmax<T>& p, int threads) {
    const Runs runs(p.heatmaps, p.size);
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, std::max(chunk, row_memory<T>(p.size)), threads, [&](int64_t b, int64_t k, T* memory) {
            const E* plane = p.heatmaps.template at<const E>(b, 0, k);
            const Peak<T> peak = find_peak(plane, runs, memory);
            const int64_t joint = b * p.size.joints + k;
            if (peak.run >= 0) return soft_plane(p, plane, peak.value, joint, memory);
            p.coordinates[2 * joint] = p.coordinates[2 * joint + 1] = p.scores[joint] = T(0);
            p.totals[joint] = infinity<T>;  // makes every weight zero in the derivatives
        });
    });
}

// The joint's expectation and the gradient that comes to it: q = gx (x - X) + gy (y - Y).
template <class T>
struct SoftJoint {
    T x, y, peak, scale, grad_x, grad_y;  // the softmax is scale exp(beta (h - peak))
};

template <class T, class Parameters>
SoftJoint<T> soft_joint(const Parameters& p, int64_t b, int64_t k) {
    const int64_t joint = b * p.size.joints + k;
    return {p.coordinates[2 * joint], p.coordinates[2 * joint + 1],   p.scores[joint],
            1 / p.totals[joint],      p.grad_coordinates.at(b, k, 0), p.grad_coordinates.at(b, k, 1)};
}

// grad_h = beta p q.
template <class T, class E>
void soft_gradient(const SoftArgmaxBackward<T>& p, const SoftJoint<T>& joint, const E* plane, E* gradient, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    T* results = buffer_of(memory, p.size, 1, T(0));
    const T scale = p.beta * joint.scale;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        E* target = gradient + y * p.grad_heatmaps.row;
        T* result = row_to_write(target, p.grad_heatmaps.column, p.size.width, results);
        const T across = joint.grad_y * (static_cast<T>(y) - joint.y);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> offset = lane_numbers<T>() + (static_cast<T>(x) - joint.x);
            store(result + x, weights(load(row + x), p.beta, joint.peak) * (offset * joint.grad_x + across) * scale);
        }
        write_row(result, target, p.grad_heatmaps.column, p.size.width);
    }
}

template <class T>
void softargmax_backward(const SoftArgmaxBackward<T>& p, int threads) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads, [&](int64_t b, int64_t k, T* memory) {
            soft_gradient(p, soft_joint<T>(p, b, k), p.heatmaps.template at<const E>(b, 0, k),
                          p.grad_heatmaps.template at<E>(b, 0, k), memory);
        });
    });
}

// Moments of p U for the cotangent U of grad_h: grad_grad_x = beta sum p U (x - X), and their mean.
template <class T, class E>
Expectation<T> cotangent_sums(const SoftArgmaxDoubleBackward<T>& p, const SoftJoint<T>& joint, const E* plane,
                              const E* cotangent, T* buffer, T* other) {
    Expectation<T> sums;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        const T* given = read_row(cotangent + y * p.cot_heatmaps.row, p.cot_heatmaps.column, p.size.width, other);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            sums.add(weights(load(row + x), p.beta, joint.peak) * (load(given + x) * joint.scale),
                     lane_numbers<T>() + (static_cast<T>(x) - joint.x), static_cast<T>(y) - joint.y);
    }
    return sums;
}

// grad_h = beta^2 p ((U - mean U) q - covariance(U, q)), the gradient of beta covariance(U, q).
template <class T, class E>
void second_plane(const SoftArgmaxDoubleBackward<T>& p, const SoftJoint<T>& joint, int64_t index, const E* plane,
                  const E* cotangent, E* gradient, T* memory) {
    const FlushSubnormals flush;
    T* buffer = buffer_of(memory, p.size, 0, -infinity<T>);
    T* other = buffer_of(memory, p.size, 1, T(0));
    T* results = buffer_of(memory, p.size, 2, T(0));
    const Expectation<T> sums = cotangent_sums(p, joint, plane, cotangent, buffer, other);
    const T mean = sum_of_lanes<T>(sums.total), along_x = sum_of_lanes<T>(sums.x), along_y = sum_of_lanes<T>(sums.y);
    const T covariance = joint.grad_x * along_x + joint.grad_y * along_y;
    const T scale = p.beta * p.beta * joint.scale;
    p.grad_grad_coordinates[2 * index] = p.beta * along_x;
    p.grad_grad_coordinates[2 * index + 1] = p.beta * along_y;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(plane + y * p.heatmaps.row, p.heatmaps.column, p.size.width, buffer);
        const T* given = read_row(cotangent + y * p.cot_heatmaps.row, p.cot_heatmaps.column, p.size.width, other);
        E* target = gradient + y * p.grad_heatmaps.row;
        T* result = row_to_write(target, p.grad_heatmaps.column, p.size.width, results);
        const T across = joint.grad_y * (static_cast<T>(y) - joint.y);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> q = (lane_numbers<T>() + (static_cast<T>(x) - joint.x)) * joint.grad_x + across;
            const Vector<T> weight = weights(load(row + x), p.beta, joint.peak) * scale;
            store(result + x, weight * ((load(given + x) - mean) * q - covariance));
        }
        write_row(result, target, p.grad_heatmaps.column, p.size.width);
    }
}

template <class T>
void softargmax_double_backward(const SoftArgmaxDoubleBackward<T>& p, int threads) {
    for_element<T>(p.heatmaps.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads, [&](int64_t b, int64_t k, T* memory) {
            second_plane(p, soft_joint<T>(p, b, k), b * p.size.joints + k, p.heatmaps.template at<const E>(b, 0, k),
                         p.cot_heatmaps.template at<const E>(b, 0, k), p.grad_heatmaps.template at<E>(b, 0, k), memory);
        });
    });
}

// ----------------------------------------------------------------------------------------------------- flip average

template <class T, class E>
const T* row_or_zeros(const Planes& planes, const E* row, int64_t step, int64_t width, T* buffer) {
    if (planes) return read_row(row, step, width, buffer);
    std::fill(buffer, buffer + width, T(0));
    return buffer;
}

// Whole rows of the arithmetic type in memory's order, from which the mirrored vectors are turned in registers.
template <class T>
bool plain(const FlipAverage& p) {
    const auto rows = [&](const Planes& planes) { return in_place<T, T>(planes.column, p.size.width); };
    return p.direct && p.mirrored && rows(p.direct) && rows(p.mirrored) && rows(p.out);
}

template <class T>
void average_plain(const FlipAverage& p, int64_t b, int64_t k) {
    const T *direct = p.direct.at<const T>(b, 0, k), *mirrored = p.mirrored.at<const T>(b, 0, p.partner[k]);
    T* out = p.out.at<T>(b, 0, k);
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T *left = direct + y * p.direct.row, *right = mirrored + y * p.mirrored.row + p.size.width - lanes<T>;
        T* result = out + y * p.out.row;
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            store(result + x, (load(left + x) + reversed<T>(load(right - x))) * T(0.5));
    }
}

template <class T, class E>
void average_plane(const FlipAverage& p, int64_t b, int64_t k, T* memory) {
    if constexpr (std::is_same_v<T, E>)
        if (plain<T>(p)) return average_plain<T>(p, b, k);
    const int64_t width = p.size.width;
    const E* direct = p.direct ? p.direct.at<const E>(b, 0, k) : nullptr;
    const E* mirrored =
        p.mirrored ? p.mirrored.at<const E>(b, 0, p.partner[k]) + (width - 1) * p.mirrored.column : nullptr;
    T* first = buffer_of(memory, p.size, 0, T(0));
    T* second = buffer_of(memory, p.size, 1, T(0));
    T* results = buffer_of(memory, p.size, 2, T(0));
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* left = row_or_zeros(p.direct, direct + y * p.direct.row, p.direct.column, width, first);
        const T* right = row_or_zeros(p.mirrored, mirrored + y * p.mirrored.row, -p.mirrored.column, width, second);
        E* target = p.out.at<E>(b, 0, k) + y * p.out.row;
        T* result = row_to_write(target, p.out.column, width, results);
        for (int64_t x = 0; x < width; x += lanes<T>) store(result + x, (load(left + x) + load(right + x)) * T(0.5));
        write_row(result, target, p.out.column, width);
    }
}

template <class T>
void flip_average(const FlipAverage& p, int threads) {
    for_element<T>(p.out.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads,
                      [&](int64_t b, int64_t k, T* memory) { average_plane<T, E>(p, b, k, memory); });
    });
}

}  // namespace

template <class T>
DecodeKernels<T, int> decode_kernels() {
    return {decode<T>, softargmax<T>, softargmax_backward<T>, softargmax_double_backward<T>, flip_average<T>};
}
template DecodeKernels<float, int> decode_kernels<float>();
template DecodeKernels<double, int> decode_kernels<double>();

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
