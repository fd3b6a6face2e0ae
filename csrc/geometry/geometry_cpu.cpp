// The pairwise descriptor on the CPU, compiled once per instruction set: one pass over the P x P channels in each order
// of derivative, the joints of a sample in the first-level cache.

#include <algorithm>

#include "common/parallel.h"
#include "common/rows.h"
#include "geometry/geometry.h"
#include "geometry/geometry_math.h"

namespace fastpose::geometry::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

namespace {

template <class T>
constexpr int lanes = Simd<T>::lanes;

constexpr int64_t pairs_per_item = 16384;  // samples are dealt to the threads in blocks of about this many pairs

// Memory of one worker: four vectors over the points, two rows that are read and two that are written.
template <class T>
class Workspace {
   public:
    static int64_t count(const Sizes& size) { return 8 * padded<T>(size.points); }
    Workspace(const Sizes& size, T* memory) : width_(padded<T>(size.points)), memory_(memory) {}
    T* operator[](int which) const { return memory_ + which * width_; }

   private:
    int64_t width_;
    T* memory_;
};

// Runs body(b, d, workspace) for every sample and coordinate, which nothing connects.
template <class T, class Body>
void for_coordinates(const Sizes& size, int threads, const Body& body) {
    if (size.batch == 0 || size.points == 0) return;  // without these, the others may be any number
    const int64_t pairs = std::max<int64_t>(1, 2 * size.dimensions * size.points * size.points);
    const int64_t block = std::max<int64_t>(1, pairs_per_item / pairs);
    const int64_t items = (size.batch + block - 1) / block;
    threads = static_cast<int>(std::clamp<int64_t>(items, 1, threads));
    const int64_t count = Workspace<T>::count(size);
    Scratch<T> memory(count, threads);
    std::fill(memory.data(), memory.data() + count * threads, T(0));
    parallel_for(threads, items, [&](int64_t item, int worker) {
        const Workspace<T> space(size, memory.data() + worker * count);
        for (int64_t b = item * block; b < std::min(size.batch, (item + 1) * block); ++b)
            for (int64_t d = 0; d < size.dimensions; ++d) body(b, d, space);
    });
}

// One coordinate of all points of a sample.
template <class E, class T>
void gather(const Points& points, int64_t b, int64_t d, int64_t count, T* to) {
    const E* from = points.at<const E>(b, 0, d);
    for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i * points.point]);
}

template <class E, class T>
void scatter(const T* from, const Points& points, int64_t b, int64_t d, int64_t count) {
    E* to = points.at<E>(b, 0, d);
    for (int64_t i = 0; i < count; ++i) to[i * points.point] = narrow<E>(from[i]);
}

// Whether row i of a plane can be used where it lies, in whole vectors. What these reach behind its end is the rows
// behind it: they may be read, and be written where they follow closely and get their own values later.
template <class T, class E>
FASTPOSE_INLINE bool reaches_inside(const Pairs& pairs, int64_t points, int64_t i) {
    return std::is_same_v<T, E> && pairs.column == 1 && pairs.row >= points &&
           i * pairs.row + padded<T>(points) <= (points - 1) * pairs.row + points;
}

// Two rows (differences and squares) that are computed together and written to a tensor.
template <class T, class E>
struct RowPair {
    E *first_target, *second_target;
    T *first, *second;

    RowPair(const Pairs& pairs, const Sizes& size, int64_t b, int64_t d, int64_t i, const Workspace<T>& space)
        : first_target(pairs.at<E>(b, d, i)), second_target(pairs.at<E>(b, size.dimensions + d, i)) {
        first = space[6];
        second = space[7];
        if constexpr (std::is_same_v<T, E>)
            if (pairs.row == size.points && reaches_inside<T, E>(pairs, size.points, i)) {
                first = first_target;
                second = second_target;
            }
    }
    void write(const Pairs& pairs, const Sizes& size) const {
        write_row(first, first_target, pairs.column, size.points);
        write_row(second, second_target, pairs.column, size.points);
    }
};

template <class T, class E>
void forward_coordinate(const Forward& p, int64_t b, int64_t d, const Workspace<T>& space) {
    gather<E>(p.joints, b, d, p.size.points, space[0]);
    for (int64_t i = 0; i < p.size.points; ++i) {
        const RowPair<T, E> rows(p.out, p.size, b, d, i, space);
        const T joint = space[0][i];
        for (int64_t j = 0; j < p.size.points; j += lanes<T>) {
            const Vector<T> difference = joint - load(space[0] + j);
            store(rows.first + j, difference);
            store(rows.second + j, difference * difference);
        }
        rows.write(p.out, p.size);
    }
}

template <class T>
void forward(const Forward& p, int threads) {
    for_element<T>(p.joints.dtype, [&]<class E>() {
        for_coordinates<T>(p.size, threads, [&](int64_t b, int64_t d, const Workspace<T>& space) {
            forward_coordinate<T, E>(p, b, d, space);
        });
    });
}

// Row i of one channel of grad_out; behind its end may stand anything.
template <class T, class E>
FASTPOSE_INLINE const T* grad_row(const Pairs& grad_out, const Sizes& size, int64_t b, int64_t channel, int64_t i,
                                  T* buffer) {
    const E* row = grad_out.at<const E>(b, channel, i);
    if constexpr (std::is_same_v<T, E>)
        if (reaches_inside<T, E>(grad_out, size.points, i)) return row;
    return read_row(row, grad_out.column, size.points, buffer);
}

// Adds sum_j t_j to the i-th result and subtracts t_j from the j-th: t_ij - t_ji summed over j, in one pass. What
// stands behind the last point is left out.
template <class T>
FASTPOSE_INLINE void spread(Vector<T> t, T* results, int64_t j, int64_t points, Vector<T>& sum) {
    if (j + lanes<T> > points) t = lane_numbers<T>() < static_cast<T>(points - j) ? t : Vector<T>{};
    store(results + j, load(results + j) - t);
    sum += t;
}

template <class T, class E>
void backward_coordinate(const Backward& p, int64_t b, int64_t d, const Workspace<T>& space) {
    const int64_t points = p.size.points;
    T *joints = space[0], *results = space[1];
    gather<E>(p.joints, b, d, points, joints);
    std::fill(results, results + padded<T>(points), T(0));
    for (int64_t i = 0; i < points; ++i) {
        const T* first = grad_row<T, E>(p.grad_out, p.size, b, d, i, space[4]);
        const T* second = grad_row<T, E>(p.grad_out, p.size, b, p.size.dimensions + d, i, space[5]);
        Vector<T> sum{};
        for (int64_t j = 0; j < points; j += lanes<T>) {
            const Vector<T> difference = joints[i] - load(joints + j);
            spread(pair_gradient<Vector<T>>(difference, load(first + j), load(second + j)), results, j, points, sum);
        }
        results[i] += sum_of_lanes<T>(sum);
    }
    scatter<E>(results, p.grad_joints, b, d, points);
}

template <class T>
void backward(const Backward& p, int threads) {
    for_element<T>(p.joints.dtype, [&]<class E>() {
        for_coordinates<T>(p.size, threads, [&](int64_t b, int64_t d, const Workspace<T>& space) {
            backward_coordinate<T, E>(p, b, d, space);
        });
    });
}

template <class T, class E>
void second_coordinate(const DoubleBackward& p, int64_t b, int64_t d, const Workspace<T>& space) {
    const int64_t points = p.size.points;
    T *joints = space[0], *cotangents = space[1], *results = space[2];
    gather<E>(p.joints, b, d, points, joints);
    gather<E>(p.cot_joints, b, d, points, cotangents);
    std::fill(results, results + padded<T>(points), T(0));
    for (int64_t i = 0; i < points; ++i) {
        const T* given = grad_row<T, E>(p.grad_out, p.size, b, p.size.dimensions + d, i, space[5]);
        const RowPair<T, E> rows(p.grad_grad_out, p.size, b, d, i, space);
        Vector<T> sum{};
        for (int64_t j = 0; j < points; j += lanes<T>) {
            const Vector<T> difference = joints[i] - load(joints + j), cotangent = cotangents[i] - load(cotangents + j);
            store(rows.first + j, cotangent);
            store(rows.second + j, (difference + difference) * cotangent);
            spread(pair_second_gradient<Vector<T>>(cotangent, load(given + j)), results, j, points, sum);
        }
        results[i] += sum_of_lanes<T>(sum);
        rows.write(p.grad_grad_out, p.size);
    }
    scatter<E>(results, p.grad_joints, b, d, points);
}

template <class T>
void double_backward(const DoubleBackward& p, int threads) {
    for_element<T>(p.joints.dtype, [&]<class E>() {
        for_coordinates<T>(p.size, threads, [&](int64_t b, int64_t d, const Workspace<T>& space) {
            second_coordinate<T, E>(p, b, d, space);
        });
    });
}

}  // namespace

template <class T>
Kernels<T, int> kernels() {
    return {forward<T>, backward<T>, double_backward<T>};
}
template Kernels<float, int> kernels<float>();
template Kernels<double, int> kernels<double>();

}  // namespace fastpose::geometry::FASTPOSE_SIMD
