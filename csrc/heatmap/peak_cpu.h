// Search of a plane's peak on the CPU: one chunk's maximum is kept in the lanes.
#pragma once

#include "heatmap/planes_cpu.h"

namespace fastpose::heatmap {
namespace FASTPOSE_SIMD {

constexpr int64_t chunk = 1024;  // numbers whose maximum is kept in the lanes
constexpr int64_t together = 4;  // vectors that do not wait for each other

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

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::heatmap
