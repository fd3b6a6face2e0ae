// Rendering and the fused squared error on the CPU, compiled once per instruction set.
//
// A joint's bell is separable: W + H exponentials once per plane, one product per pixel. Work is divided by joints
// (b, k), so that the stacks of a prediction share one bell and every result has one writer. Derivatives need only the
// moments of f g over a plane (heatmap_math.h), which are gathered in vector lanes row by row.

#include <algorithm>

#include "common/parallel.h"
#include "common/rows.h"
#include "heatmap/heatmap.h"
#include "heatmap/joints.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

using namespace fastpose::FASTPOSE_SIMD;

namespace {

template <class T>
constexpr int lanes = Simd<T>::lanes;

constexpr int64_t pixels_per_thread = 16384;  // waking a thread costs more than fewer pixels take

int threads_for(const Sizes& size, int threads) {
    const int64_t pixels = size.batch * size.stacks * size.joints * size.height * size.width;
    return static_cast<int>(std::clamp<int64_t>(pixels / pixels_per_thread, 1, threads));
}

// ------------------------------------------------------------------------------------------------------- one joint

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
    threads = threads_for(size, threads);
    const int64_t count = Workspace<T>::count(size);
    Scratch<T> memory(count * threads);
    std::fill(memory.data(), memory.data() + count * threads, T(0));
    parallel_for(threads, size.batch * size.joints, [&](int64_t item, int worker) {
        const FlushSubnormals flush;
        const int64_t b = item / size.joints, k = item % size.joints;
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

// -------------------------------------------------------------------------------------------------------- rendering

template <class T, class E>
void render_plane(const Render<T>& p, const Bell<T>& bell, T amplitude, E* out, T* buffer) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        E* target = out + y * p.out.row;
        T* row = row_to_write(target, p.out.column, p.size.width, buffer);
        const T scale = bell.rows[y] * amplitude;
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) store(row + x, load(bell.columns + x) * scale);
        write_row(row, target, p.out.column, p.size.width);
    }
}

template <class T>
void render(const Render<T>& p, int threads) {
    for_element<T>(p.out.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       render_plane(p, bell, depth_of(p.joints, b, k), p.out.template at<E>(b, 0, k), space.row(0));
                   });
    });
}

// Moments of grad_out * bell.
template <class T, class E>
Moments<T> rendered_moments(const RenderBackward<T>& p, const Bell<T>& bell, const E* grad_out, T* buffer) {
    MomentSums<T> sums;
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* grad = read_row(grad_out + y * p.grad_out.row, p.grad_out.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            sums.add(load(grad + x) * (load(bell.columns + x) * bell.rows[y]), load(bell.offsets + x));
        sums.end_row(static_cast<T>(y) - bell.mark.y);
    }
    return sums.moments();
}

template <class T>
void render_backward(const RenderBackward<T>& p, int threads) {
    for_element<T>(p.grad_out.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       Moments<T> moments;
                       if (bell.mark.present)
                           moments = rendered_moments(p, bell, p.grad_out.template at<const E>(b, 0, k), space.row(0));
                       const T depth = depth_of(p.joints, b, k);
                       const JointVector<T> gradient = first_gradient(moments, bell.mark);
                       store_gradient(p.grads, b, k, {depth * gradient.x, depth * gradient.y, depth * gradient.sigma});
                       if (p.grads.depth) p.grads.depth.at(b, k) = moments.total;
                   });
    });
}

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

// Writes grad_grad_out = d(amplitude bell) and gathers the moments of grad_out times it, and of grad_out * bell.
template <class T, class E>
void moved_moments(const RenderDoubleBackward<T>& p, const Bell<T>& bell, const Movement<T>& movement,
                   const E* grad_out, E* grad_grad_out, const Workspace<T>& space, MomentSums<T>& response,
                   MomentSums<T>& weighted) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T distance = static_cast<T>(y) - bell.mark.y;
        const T across = log_derivative(bell.mark, distance, movement.move.y, movement.move.sigma);
        const T* grad = read_row(grad_out + y * p.grad_out.row, p.grad_out.column, p.size.width, space.row(0));
        E* target = grad_grad_out + y * p.grad_grad_out.row;
        T* moved = row_to_write(target, p.grad_grad_out.column, p.size.width, space.row(1));
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> value = load(bell.columns + x) * bell.rows[y];
            const Vector<T> change = (load(movement.along + x) + across) * movement.amplitude + movement.extra;
            store(moved + x, value * change);
            response.add(load(grad + x) * value * change, load(bell.offsets + x));
            weighted.add(load(grad + x) * value, load(bell.offsets + x));
        }
        response.end_row(distance);
        weighted.end_row(distance);
        write_row(moved, target, p.grad_grad_out.column, p.size.width);
    }
}

template <class T>
void render_double_backward(const RenderDoubleBackward<T>& p, int threads) {
    for_element<T>(p.grad_out.dtype, [&]<class E>() {
        for_joints(
            p.size, p.joints, threads, [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                const T amplitude = depth_of(p.joints, b, k);
                const bool moves = bell.mark.present;  // an absent bell does not, whatever arrives
                const T extra = moves && p.cotangents.depth ? p.cotangents.depth.at(b, k) : T(0);
                const JointVector<T> move = moves ? direction(p.cotangents, b, k) : JointVector<T>{};
                MomentSums<T> response, weighted;
                moved_moments(p, bell, movement(bell, p.size, move, extra, amplitude, space.row(2)),
                              p.grad_out.template at<const E>(b, 0, k), p.grad_grad_out.template at<E>(b, 0, k), space,
                              response, weighted);
                const Moments<T> of_bell = weighted.moments();
                store_gradient(p.grads, b, k, second_gradient(response.moments(), of_bell, bell.mark, move, amplitude));
                if (p.grads.depth) p.grads.depth.at(b, k) = log_derivative(bell.mark, of_bell, move);
            });
    });
}

// ------------------------------------------------------------------------------------------------------------- loss

// Adds up in order: the schedule cannot change the answer.
inline double sum_of_joints(const double* partials, const Sizes& size) {
    double total = 0;
    for (int64_t joint = 0; joint < size.batch * size.joints; ++joint) total += partials[joint];
    return total;
}

// sum (prediction - bell)^2 over a plane.
template <class T, class E>
double squared_error(const Loss<T>& p, const Bell<T>& bell, const E* prediction, T* buffer) {
    Vector<T> sum{};
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> difference = load(row + x) - load(bell.columns + x) * bell.rows[y];
            sum += difference * difference;
        }
    }
    return sum_of_lanes<T>(sum);
}

template <class T>
void loss(const Loss<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(
            p.size, p.joints, threads, [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                double sum = 0;
                for (int64_t s = 0; s < p.size.stacks; ++s)
                    if (const T weight = weight_of(p.weight, b, s, k); weight != 0)
                        sum +=
                            weight * squared_error(p, bell, p.prediction.template at<const E>(b, s, k), space.row(0));
                p.partials[b * p.size.joints + k] = sum;
            });
    });
    *p.total = static_cast<T>(p.factor * sum_of_joints(p.partials, p.size));
}

// grad_prediction = factor * (prediction - bell).
template <class T, class E>
void difference_plane(const LossBackward<T>& p, const Bell<T>& bell, T factor, const E* prediction, E* gradient,
                      const Workspace<T>& space) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, space.row(0));
        E* target = gradient + y * p.grad_prediction.row;
        T* result = row_to_write(target, p.grad_prediction.column, p.size.width, space.row(1));
        for (int64_t x = 0; x < p.size.width; x += lanes<T>)
            store(result + x, (load(row + x) - load(bell.columns + x) * bell.rows[y]) * factor);
        write_row(result, target, p.grad_prediction.column, p.size.width);
    }
}

template <class T, class E>
void zero_plane(const Planes& planes, const Sizes& size, E* to) {
    for (int64_t y = 0; y < size.height; ++y)
        for (int64_t x = 0; x < size.width; ++x) to[y * planes.row + x * planes.column] = E{};
}

// Adds factor * (prediction - bell) * bell to the sums.
template <class T, class E>
void error_moments(const LossBackward<T>& p, const Bell<T>& bell, T factor, const E* prediction, T* buffer,
                   MomentSums<T>& sums) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, buffer);
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> value = load(bell.columns + x) * bell.rows[y];
            sums.add((load(row + x) - value) * value * factor, load(bell.offsets + x));
        }
        sums.end_row(static_cast<T>(y) - bell.mark.y);
    }
}

template <class T, class E>
void loss_gradients(const LossBackward<T>& p, const Bell<T>& bell, int64_t b, int64_t k, const Workspace<T>& space) {
    MomentSums<T> sums;
    for (int64_t s = 0; s < p.size.stacks; ++s) {
        const T factor = slope_of(p) * weight_of(p.weight, b, s, k);
        const bool counts = weight_of(p.weight, b, s, k) != 0;
        const E* prediction = p.prediction.template at<const E>(b, s, k);
        if (p.grad_prediction && counts)
            difference_plane(p, bell, factor, prediction, p.grad_prediction.template at<E>(b, s, k), space);
        else if (p.grad_prediction)
            zero_plane<T>(p.grad_prediction, p.size, p.grad_prediction.template at<E>(b, s, k));
        if ((p.grads.keypoints || p.grads.sigma) && counts && bell.mark.present)
            error_moments(p, bell, -factor, prediction, space.row(0), sums);
    }
    store_gradient(p.grads, b, k, first_gradient(sums.moments(), bell.mark));
}

template <class T>
void loss_backward(const LossBackward<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       loss_gradients<T, E>(p, bell, b, k, space);
                   });
    });
}

// Sums over the planes of a joint in the second derivative of the loss.
template <class T>
struct SecondSums {
    MomentSums<T> response, weighted;  // weighted by -2 factor weight grad_total
    double grad_grad_total = 0;
};

// With U the cotangent of grad_prediction and bell' the bell's change along the joint's cotangents, the first
// derivatives' product with all cotangents is 2 factor weight grad_total sum (prediction - bell) (U - bell').
template <class T, class E>
void second_plane(const LossDoubleBackward<T>& p, const Bell<T>& bell, const Movement<T>& movement, T factor,
                  const E* prediction, const E* cotangent, E* gradient, const Workspace<T>& space, SecondSums<T>& sums,
                  Vector<T>& product) {
    for (int64_t y = 0; y < p.size.height; ++y) {
        const T distance = static_cast<T>(y) - bell.mark.y;
        const T across = log_derivative(bell.mark, distance, movement.move.y, movement.move.sigma);
        const T* row = read_row(prediction + y * p.prediction.row, p.prediction.column, p.size.width, space.row(0));
        const T* given = space.row(3);  // zeros
        if (cotangent)
            given = read_row(cotangent + y * p.cot_prediction.row, p.cot_prediction.column, p.size.width, space.row(1));
        E* target = gradient + y * p.grad_prediction.row;
        T* result = row_to_write(target, p.grad_prediction.column, p.size.width, space.row(4));
        for (int64_t x = 0; x < p.size.width; x += lanes<T>) {
            const Vector<T> value = load(bell.columns + x) * bell.rows[y];
            const Vector<T> slope = load(movement.along + x) + across;
            const Vector<T> difference = load(row + x) - value, rest = load(given + x) - value * slope;
            product += difference * rest;
            store(result + x, rest * factor);
            sums.response.add(value * (rest + difference * slope) * -factor, load(bell.offsets + x));
            sums.weighted.add(value * difference * -factor, load(bell.offsets + x));
        }
        sums.response.end_row(distance);
        sums.weighted.end_row(distance);
        write_row(result, target, p.grad_prediction.column, p.size.width);
    }
}

template <class T, class E>
double second_joint(const LossDoubleBackward<T>& p, const Bell<T>& bell, int64_t b, int64_t k,
                    const Workspace<T>& space) {
    const JointVector<T> move = bell.mark.present ? direction(p.cotangents, b, k) : JointVector<T>{};
    const Movement<T> change = movement(bell, p.size, move, T(0), T(1), space.row(2));
    SecondSums<T> sums;
    for (int64_t s = 0; s < p.size.stacks; ++s) {
        const T weight = weight_of(p.weight, b, s, k);
        E* gradient = p.grad_prediction.template at<E>(b, s, k);
        if (weight == 0) {
            zero_plane<T>(p.grad_prediction, p.size, gradient);
            continue;
        }
        const E* cotangent = p.cot_prediction ? p.cot_prediction.template at<const E>(b, s, k) : nullptr;
        Vector<T> product{};
        second_plane(p, bell, change, slope_of(p) * weight, p.prediction.template at<const E>(b, s, k), cotangent,
                     gradient, space, sums, product);
        sums.grad_grad_total += 2 * weight * sum_of_lanes<T>(product);
    }
    store_gradient(p.grads, b, k,
                   second_gradient(sums.response.moments(), sums.weighted.moments(), bell.mark, move, T(1)));
    return sums.grad_grad_total;
}

template <class T>
void loss_double_backward(const LossDoubleBackward<T>& p, int threads) {
    for_element<T>(p.prediction.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       p.partials[b * p.size.joints + k] = second_joint<T, E>(p, bell, b, k, space);
                   });
    });
    *p.grad_grad_total = static_cast<T>(p.factor * sum_of_joints(p.partials, p.size));
}

}  // namespace

template <class T>
Kernels<T, int> kernels() {
    return {render<T>, render_backward<T>, render_double_backward<T>,
            loss<T>,   loss_backward<T>,   loss_double_backward<T>};
}
template Kernels<float, int> kernels<float>();
template Kernels<double, int> kernels<double>();

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
