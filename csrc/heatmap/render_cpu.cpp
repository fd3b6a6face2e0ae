// Rendering of joints and its two derivatives on the CPU, compiled once per instruction set.

#include "heatmap/joints_cpu.h"

namespace fastpose::heatmap::FASTPOSE_SIMD {

namespace {

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

}  // namespace

template <class T>
void render(const Render<T>& p, int threads) {
    for_element<T>(p.out.dtype, [&]<class E>() {
        for_joints(p.size, p.joints, threads,
                   [&](int64_t b, int64_t k, const Bell<T>& bell, const Workspace<T>& space) {
                       render_plane(p, bell, depth_of(p.joints, b, k), p.out.template at<E>(b, 0, k), space.row(0));
                   });
    });
}
template void render<float>(const Render<float>&, int);
template void render<double>(const Render<double>&, int);

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
template void render_backward<float>(const RenderBackward<float>&, int);
template void render_backward<double>(const RenderBackward<double>&, int);

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
template void render_double_backward<float>(const RenderDoubleBackward<float>&, int);
template void render_double_backward<double>(const RenderDoubleBackward<double>&, int);

}  // namespace fastpose::heatmap::FASTPOSE_SIMD
