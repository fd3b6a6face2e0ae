// The average of a flip test on the CPU, compiled once per instruction set.

#include "heatmap/planes_cpu.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

namespace {

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

}  // namespace

template <class T>
void flip_average(const FlipAverage& p, int threads) {
    for_element<T>(p.out.dtype, [&]<class E>() {
        for_planes<T>(p.size, row_memory<T>(p.size), threads,
                      [&](int64_t b, int64_t k, T* memory) { average_plane<T, E>(p, b, k, memory); });
    });
}
template void flip_average<float>(const FlipAverage&, int);
template void flip_average<double>(const FlipAverage&, int);

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
