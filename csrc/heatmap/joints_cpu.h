// What rendering and the fused squared error share on the CPU: a joint's bell and the moments of functions over it.
//
// A bell is separable: W + H exponentials once per plane, one product per pixel. Work is divided by joints (b, k), so
// that the stacks of a prediction share one bell and every result has one writer. Derivatives need only the moments of
// f g over a plane (heatmap_math.h), which are gathered in vector lanes row by row.
#pragma once

#include "heatmap/joints.h"
#include "heatmap/planes_cpu.h"

namespace fastpose::heatmap {
namespace FASTPOSE_SIMD {

// value(x, y) = columns[x] * rows[y]; numbers beyond the plane are zero.
template <class T>
struct Bell {
    Footprint<T> mark;
    T* offsets;  // (W) x - centre
    T* columns;  // (W)
    T* rows;     // (H)
};

// Memory of one worker: the bell's axes and four rows, zero where nothing is written.
template <class T>
class Workspace {
   public:
    static int64_t count(const Sizes& size) { return 7 * padded<T>(size.width) + padded<T>(size.height); }
    Workspace(const Sizes& size, T* memory) : width_(padded<T>(size.width)), memory_(memory) {}
    T* row(int which) const { return memory_ + (2 + which) * width_; }
    Bell<T> bell() const { return {{}, memory_, memory_ + width_, memory_ + 7 * width_}; }

   private:
    int64_t width_;
    T* memory_;
};

template <class T>
void draw_axis(int64_t count, T centre, T sharpness, T low, T high, T* values, T* offsets) {
    for (int64_t i = 0; i < padded<T>(count); i += lanes<T>) {
        const Vector<T> position = lane_numbers<T>() + static_cast<T>(i);
        const Vector<T> offset = position - centre;
        const Vector<T> value = exponential(-(offset * offset) * sharpness);
        const Vector<T> above = position < low ? Vector<T>{} : value;
        store(values + i, position > high ? Vector<T>{} : above);
        if (offsets) store(offsets + i, offset);
    }
    std::fill(values + count, values + padded<T>(count), T(0));
}

template <class T>
Bell<T> draw(const Joints<T>& joints, const Sizes& size, int64_t b, int64_t k, const Workspace<T>& space) {
    Bell<T> bell = space.bell();
    bell.mark = footprint(joints, shape_of(joints.profile), size, b, k);
    const Footprint<T>& mark = bell.mark;
    draw_axis(size.width, mark.x, mark.sharpness, mark.left, mark.right, bell.columns, bell.offsets);
    draw_axis<T>(size.height, mark.y, mark.sharpness, mark.top, mark.bottom, bell.rows, nullptr);
    if (!mark.present) std::fill(bell.rows, bell.rows + size.height, T(0));
    return bell;
}

// Runs body(b, k, bell, workspace) for every joint.
template <class T, class Body>
void for_joints(const Sizes& size, const Joints<T>& joints, int threads, const Body& body) {
    if (size.batch == 0 || size.joints == 0) return;  // a plane that nobody draws may be of any size
    threads = threads_for(size, threads);
    const int64_t count = Workspace<T>::count(size);
    Scratch<T> memory(count, threads);
    std::fill(memory.data(), memory.data() + count * threads, T(0));
    deal_joints(size, threads, [&](int64_t b, int64_t k, int worker) {
        const FlushSubnormals flush;
        const Workspace<T> space(size, memory.data() + worker * count);
        body(b, k, draw(joints, size, b, k, space), space);
    });
}

// Moments of a function over a plane, gathered in the lanes.
template <class T>
struct MomentSums {
    Vector<T> total{}, x{}, y{}, square{};
    Vector<T> row_total{}, row_x{}, row_square{};  // of the row that is being gathered

    FASTPOSE_INLINE void add(Vector<T> value, Vector<T> offset) {
        const Vector<T> first = value * offset;
        row_total += value;
        row_x += first;
        row_square += first * offset;
    }
    FASTPOSE_INLINE void end_row(T distance) {
        total += row_total;
        x += row_x;
        y += row_total * distance;
        square += row_square + row_total * (distance * distance);
        row_total = row_x = row_square = Vector<T>{};
    }
    Moments<T> moments() const {
        return {sum_of_lanes<T>(total), sum_of_lanes<T>(x), sum_of_lanes<T>(y), sum_of_lanes<T>(square)};
    }
};

// What the second derivative adds to a bell: the direction of movement and phi' along the columns.
template <class T>
struct Movement {
    JointVector<T> move;
    T extra, amplitude;  // d(amplitude), amplitude
    const T* along;      // (W) the columns' share of phi'
};

template <class T>
Movement<T> movement(const Bell<T>& bell, const Sizes& size, const JointVector<T>& move, T extra, T amplitude,
                     T* along) {
    for (int64_t x = 0; x < size.width; ++x) along[x] = log_derivative(bell.mark, bell.offsets[x], move.x, move.sigma);
    return {move, extra, amplitude, along};
}

}  // namespace FASTPOSE_SIMD
}  // namespace fastpose::heatmap
