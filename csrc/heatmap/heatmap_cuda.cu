// Rendering and the fused squared error with CUDA: streams through memory.
//
// Where sums are taken, a block of threads has a joint (b, k) to itself: the stacks of a prediction share one bell and
// every result has one writer. Where none are, it has a tile of a plane. Either way it first draws the bell's axes into
// shared memory, W + H exponentials, and then goes over the planes in groups of neighbours: 16 bytes where the layout
// has them side by side, single numbers in any other. Sums are gathered by thread and added up over the block in an
// order that never changes. Derivatives need only the moments of f g over a plane (heatmap_math.h).

#include "heatmap/tiles_cuda.h"

namespace fastpose::heatmap::cuda {
namespace {

// ------------------------------------------------------------------------------------------------------------ moments

// Adds a group of a function's values at offsets (u, v), (u + 1, v), ... to its moments.
template <class T, int N>
__device__ __forceinline__ void add(Moments<T>& sums, const Pack<T, N>& values, T u, T v) {
    T total = 0, x = 0, square = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const T offset = u + static_cast<T>(i), first = values.at[i] * offset;
        total += values.at[i];
        x += first;
        square += first * offset;
    }
    sums.total += total;
    sums.x += x;
    sums.y += total * v;
    sums.square += square + total * (v * v);
}

template <class T>
__device__ Moments<T> total_of_block(const Moments<T>& sums) {
    const Pack<T, 4> all = block_sum(Pack<T, 4>{{sums.total, sums.x, sums.y, sums.square}});
    return {all.at[0], all.at[1], all.at[2], all.at[3]};
}

// ---------------------------------------------------------------------------------------------------------- rendering

template <class T, class E, int N>
__global__ void __launch_bounds__(most_tile_threads)
    render_tiles(const __grid_constant__ Render<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    const int64_t tiles = plan.tiling.count(), items = p.size.batch * p.size.joints * tiles;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const Mark<T> mark = mark_at(p.joints, plan, p.size, item / tiles);
        const Tile tile = plan.tiling.tile(p.size, item % tiles);
        const T amplitude = depth_of(p.joints, mark.b, mark.k);
        const auto out = window<E, N>(p.out, tile, mark.b, 0, mark.k);
        draw(mark.bell, tile, axes);
        Groups<N>(tile).each([&](int y, int x) { write(out.at(y, x), axes.template values<N>(y, x, amplitude)); });
    }
}

template <class T>
__device__ void store_gradients(const RenderBackward<T>& p, const Mark<T>& mark, const Moments<T>& moments) {
    const T depth = depth_of(p.joints, mark.b, mark.k);
    const JointVector<T> gradient = first_gradient(moments, mark.bell);
    store_gradient(p.grads, mark.b, mark.k, {depth * gradient.x, depth * gradient.y, depth * gradient.sigma});
    if (p.grads.depth) p.grads.depth.at(mark.b, mark.k) = moments.total;
}

template <class T, class E, int N>
__global__ void __launch_bounds__(most_joint_threads, 1)
    render_backward_joints(const __grid_constant__ RenderBackward<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    for (int64_t joint = blockIdx.x; joint < p.size.batch * p.size.joints; joint += gridDim.x) {
        const Mark<T> mark = mark_at(p.joints, plan, p.size, joint);
        Moments<T> sums;  // of grad_out * bell
        for_tiles(p.size, mark.bell.present ? plan.tiling : Tiling{}, mark.bell, axes, [&](const Tile& tile) {
            const auto grad_out = window<const E, N>(p.grad_out, tile, mark.b, 0, mark.k);
            Groups<N>(tile).template each<4>(grad_out.loader(), [&](int y, int x, const Loaded<E, N>& grad) {
                add(sums, grad.template numbers<T>() * axes.template values<N>(y, x), mark.offset_x(tile, x),
                    mark.offset_y(tile, y));
            });
        });
        sums = total_of_block(sums);
        if (threadIdx.x == 0) store_gradients(p, mark, sums);
    }
}

// Sums of the second derivatives: moments of the whole integrand and of the part that phi' multiplies.
template <class T>
struct SecondSums {
    Moments<T> response, weighted;
};

template <class T>
__device__ SecondSums<T> total_of_block(const SecondSums<T>& sums) {
    const Moments<T>&r = sums.response, &w = sums.weighted;
    const Pack<T, 7> all = block_sum(Pack<T, 7>{{r.x, r.y, r.square, w.total, w.x, w.y, w.square}});
    return {{r.total, all.at[0], all.at[1], all.at[2]}, {all.at[3], all.at[4], all.at[5], all.at[6]}};
}

// phi', the derivative of the bell's logarithm along `move`, at a group of neighbours.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> log_derivatives(const Footprint<T>& bell, const JointVector<T>& move, T u, T v) {
    const T across = log_derivative(bell, v, move.y, move.sigma);
    Pack<T, N> result;
#pragma unroll
    for (int i = 0; i < N; ++i) result.at[i] = log_derivative(bell, u + static_cast<T>(i), move.x, move.sigma) + across;
    return result;
}

template <class T>
__device__ void store_gradients(const RenderDoubleBackward<T>& p, const Mark<T>& mark, const SecondSums<T>& sums,
                                const JointVector<T>& move) {
    const T amplitude = depth_of(p.joints, mark.b, mark.k);
    store_gradient(p.grads, mark.b, mark.k, second_gradient(sums.response, sums.weighted, mark.bell, move, amplitude));
    if (p.grads.depth) p.grads.depth.at(mark.b, mark.k) = log_derivative(mark.bell, sums.weighted, move);
}

// grad_grad_out = bell (extra + amplitude phi') within a tile, and the moments of grad_out times it and times the bell.
template <class T, class E, int N>
__device__ void second_tile(const RenderDoubleBackward<T>& p, const Mark<T>& mark, const Tile& tile,
                            const Axes<T>& axes, const JointVector<T>& move, SecondSums<T>& sums) {
    const T amplitude = depth_of(p.joints, mark.b, mark.k);
    const T extra = p.cotangents.depth ? p.cotangents.depth.at(mark.b, mark.k) : T(0);
    const auto grad_out = window<const E, N>(p.grad_out, tile, mark.b, 0, mark.k);
    const auto grad_grad_out = window<E, N>(p.grad_grad_out, tile, mark.b, 0, mark.k);
    Groups<N>(tile).template each<2>(grad_out.loader(), [&](int y, int x, const Loaded<E, N>& loaded) {
        const T u = mark.offset_x(tile, x), v = mark.offset_y(tile, y);
        const Pack<T, N> grad = loaded.template numbers<T>(), values = axes.template values<N>(y, x);
        const Pack<T, N> moved = values * (log_derivatives<N>(mark.bell, move, u, v) * amplitude + extra);
        write(grad_grad_out.at(y, x), moved);
        add(sums.response, grad * moved, u, v);
        add(sums.weighted, grad * values, u, v);
    });
}

template <class T, class E, int N>
__global__ void __launch_bounds__(most_joint_threads, 1)
    render_double_backward_joints(const __grid_constant__ RenderDoubleBackward<T> p,
                                  const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    for (int64_t joint = blockIdx.x; joint < p.size.batch * p.size.joints; joint += gridDim.x) {
        const Mark<T> mark = mark_at(p.joints, plan, p.size, joint);
        const JointVector<T> move = direction(p.cotangents, mark.b, mark.k);
        SecondSums<T> sums;
        for_tiles(p.size, plan.tiling, mark.bell, axes, [&](const Tile& tile) {
            if (mark.bell.present)
                second_tile<T, E, N>(p, mark, tile, axes, move, sums);
            else
                write_zeros<T>(tile, window<E, N>(p.grad_grad_out, tile, mark.b, 0, mark.k));
        });
        sums = total_of_block(sums);
        if (threadIdx.x == 0) store_gradients(p, mark, sums, move);
    }
}

// --------------------------------------------------------------------------------------------------------------- loss

// This thread's share of sum (prediction - bell)^2 over a tile.
template <class T, class E, int N>
__device__ T squared_error(const Tile& tile, const Axes<T>& axes, const Window<const E, N>& prediction) {
    T sum = 0;
    Groups<N>(tile).template each<4>(prediction.loader(), [&](int y, int x, const Loaded<E, N>& given) {
        const Pack<T, N> difference = given.template numbers<T>() - axes.template values<N>(y, x);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += difference.at[i] * difference.at[i];
    });
    return sum;
}

template <class T, class E, int N>
__global__ void __launch_bounds__(most_joint_threads)
    loss_joints(const __grid_constant__ Loss<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    for (int64_t joint = blockIdx.x; joint < p.size.batch * p.size.joints; joint += gridDim.x) {
        const int64_t b = joint / p.size.joints, k = joint % p.size.joints;
        double sum = 0;
        for (int64_t index = 0; index < plan.tiling.count(); ++index) {
            const Tile tile = plan.tiling.tile(p.size, index);
            draw(footprint(p.joints, plan.shape, p.size, b, k), tile, axes);  // not kept: registers are short here
            for (int64_t s = 0; s < p.size.stacks; ++s)
                if (const T weight = weight_of(p.weight, b, s, k); weight != 0)
                    sum += static_cast<double>(weight) *
                           squared_error(tile, axes, window<const E, N>(p.prediction, tile, b, s, k));
        }
        sum = block_sum(sum);
        if (threadIdx.x == 0) p.partials[joint] = sum;
    }
}

// One block.
template <class T>
__global__ void __launch_bounds__(most_joint_threads)
    add_up(const double* partials, int64_t count, double factor, T* total) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total = static_cast<T>(factor * sum);
}

// grad_prediction where no gradient of the joints is wanted: factor * (prediction - bell), tile by tile.
template <class T, class E, int N>
__global__ void __launch_bounds__(most_tile_threads)
    difference_tiles(const __grid_constant__ LossBackward<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    const int64_t stacks = p.size.stacks, tiles = plan.tiling.count();
    const int64_t items = p.size.batch * p.size.joints * stacks * tiles;
    for (int64_t item = blockIdx.x; item < items; item += gridDim.x) {
        const int64_t plane = item / tiles, s = plane % stacks;
        const Mark<T> mark = mark_at(p.joints, plan, p.size, plane / stacks);
        const Tile tile = plan.tiling.tile(p.size, item % tiles);
        const T weight = weight_of(p.weight, mark.b, s, mark.k), factor = slope_of(p) * weight;
        const auto gradient = window<E, N>(p.grad_prediction, tile, mark.b, s, mark.k);
        if (weight == 0) {
            write_zeros<T>(tile, gradient);
            continue;
        }
        const auto prediction = window<const E, N>(p.prediction, tile, mark.b, s, mark.k);
        draw(mark.bell, tile, axes);
        Groups<N>(tile).template each<4>(prediction.loader(), [&](int y, int x, const Loaded<E, N>& given) {
            write(gradient.at(y, x), (given.template numbers<T>() - axes.template values<N>(y, x)) * factor);
        });
    }
}

// The gradients of a tile: factor * (prediction - bell) where it is wanted, and the moments of its product with -bell.
template <class T, class E, int N>
__device__ void first_tile(const Mark<T>& mark, const Tile& tile, const Axes<T>& axes, T factor,
                           const Window<const E, N>& prediction, const Window<E, N>& gradient, Moments<T>& sums) {
    Groups<N>(tile).template each<4>(prediction.loader(), [&](int y, int x, const Loaded<E, N>& given) {
        const Pack<T, N> values = axes.template values<N>(y, x);
        const Pack<T, N> difference = given.template numbers<T>() - values;
        if (gradient.corner) write(gradient.at(y, x), difference * factor);
        add(sums, difference * values * -factor, mark.offset_x(tile, x), mark.offset_y(tile, y));
    });
}

template <class T, class E, int N>
__global__ void __launch_bounds__(most_joint_threads, 1)
    loss_backward_joints(const __grid_constant__ LossBackward<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    for (int64_t joint = blockIdx.x; joint < p.size.batch * p.size.joints; joint += gridDim.x) {
        const Mark<T> mark = mark_at(p.joints, plan, p.size, joint);
        const bool wanted = p.grad_prediction || mark.bell.present;
        const T scale = slope_of(p);
        Moments<T> sums;
        for_tiles(p.size, wanted ? plan.tiling : Tiling{}, mark.bell, axes, [&](const Tile& tile) {
            for (int64_t s = 0; s < p.size.stacks; ++s) {
                const T weight = weight_of(p.weight, mark.b, s, mark.k);
                const auto gradient = window<E, N>(p.grad_prediction, tile, mark.b, s, mark.k);
                if (weight != 0)
                    first_tile(mark, tile, axes, scale * weight,
                               window<const E, N>(p.prediction, tile, mark.b, s, mark.k), gradient, sums);
                else if (gradient.corner)
                    write_zeros<T>(tile, gradient);
            }
        });
        sums = total_of_block(sums);
        if (threadIdx.x == 0) store_gradient(p.grads, mark.b, mark.k, first_gradient(sums, mark.bell));
    }
}

template <class E, int N>
struct Pair {
    Loaded<E, N> prediction, cotangent;
};

// With U the cotangent of grad_prediction and bell' = bell phi' the bell's change along the joint's cotangents, the
// first derivatives' product with all cotangents is 2 factor weight grad_total sum (prediction - bell) (U - bell').
// Returns this thread's share of that sum.
template <class T, class E, int N>
__device__ T second_tile(const LossDoubleBackward<T>& p, const Mark<T>& mark, int64_t s, const Tile& tile,
                         const Axes<T>& axes, const JointVector<T>& move, T factor, SecondSums<T>& sums) {
    const auto prediction = window<const E, N>(p.prediction, tile, mark.b, s, mark.k);
    const auto cotangent = window<const E, N>(p.cot_prediction, tile, mark.b, s, mark.k);
    const auto gradient = window<E, N>(p.grad_prediction, tile, mark.b, s, mark.k);
    const auto load_both = [&](int y, int x) {
        return Pair<E, N>{load<N>(prediction.at(y, x)),
                          cotangent.corner ? load<N>(cotangent.at(y, x)) : Loaded<E, N>{}};
    };
    T product = 0;
    Groups<N>(tile).template each<2>(load_both, [&](int y, int x, const Pair<E, N>& loaded) {
        const T u = mark.offset_x(tile, x), v = mark.offset_y(tile, y);
        const Pack<T, N> values = axes.template values<N>(y, x);
        const Pack<T, N> slope = log_derivatives<N>(mark.bell, move, u, v);
        const Pack<T, N> difference = loaded.prediction.template numbers<T>() - values;
        const Pack<T, N> rest = loaded.cotangent.template numbers<T>() - values * slope;
        write(gradient.at(y, x), rest * factor);
        add(sums.response, values * (rest + difference * slope) * -factor, u, v);
        add(sums.weighted, values * difference * -factor, u, v);
#pragma unroll
        for (int i = 0; i < N; ++i) product += difference.at[i] * rest.at[i];
    });
    return product;
}

template <class T, class E, int N>
__global__ void __launch_bounds__(most_joint_threads, 1)
    loss_double_backward_joints(const __grid_constant__ LossDoubleBackward<T> p, const __grid_constant__ Plan plan) {
    __shared__ Axes<T> axes;
    for (int64_t joint = blockIdx.x; joint < p.size.batch * p.size.joints; joint += gridDim.x) {
        const Mark<T> mark = mark_at(p.joints, plan, p.size, joint);
        JointVector<T> move;  // an absent bell does not move
        if (mark.bell.present) move = direction(p.cotangents, mark.b, mark.k);
        const T scale = slope_of(p);
        SecondSums<T> sums;
        double grad_grad_total = 0;
        for_tiles(p.size, plan.tiling, mark.bell, axes, [&](const Tile& tile) {
            for (int64_t s = 0; s < p.size.stacks; ++s) {
                const T weight = weight_of(p.weight, mark.b, s, mark.k);
                if (weight != 0)
                    grad_grad_total += 2 * static_cast<double>(weight) *
                                       second_tile<T, E, N>(p, mark, s, tile, axes, move, scale * weight, sums);
                else
                    write_zeros<T>(tile, window<E, N>(p.grad_prediction, tile, mark.b, s, mark.k));
            }
        });
        sums = total_of_block(sums);
        grad_grad_total = block_sum(grad_grad_total);
        if (threadIdx.x != 0) continue;
        store_gradient(p.grads, mark.b, mark.k, second_gradient(sums.response, sums.weighted, mark.bell, move, T(1)));
        p.partials[joint] = grad_grad_total;
    }
}

// ------------------------------------------------------------------------------------------------------ entry points

template <class T>
void launch_sum(CudaPlace place, const Sizes& size, const double* partials, double factor, T* total) {
    launch(place, add_up<T>, 1, most_joint_threads, partials, size.batch * size.joints, factor, total);
}

template <class T>
void render(const Render<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.out}, [&]<class E, int N>() { launch_tiles(place, render_tiles<T, E, N>, p, N); });
}

template <class T>
void render_backward(const RenderBackward<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.grad_out},
                  [&]<class E, int N>() { launch_joints(place, render_backward_joints<T, E, N>, p, N); });
}

template <class T>
void render_double_backward(const RenderDoubleBackward<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.grad_out, p.grad_grad_out},
                  [&]<class E, int N>() { launch_joints(place, render_double_backward_joints<T, E, N>, p, N); });
}

template <class T>
void loss(const Loss<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.prediction}, [&]<class E, int N>() { launch_joints(place, loss_joints<T, E, N>, p, N); });
    launch_sum(place, p.size, p.partials, p.factor, p.total);
}

template <class T>
void loss_backward(const LossBackward<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.prediction, p.grad_prediction}, [&]<class E, int N>() {
        if (p.grads.keypoints || p.grads.sigma)
            launch_joints(place, loss_backward_joints<T, E, N>, p, N);
        else if (p.grad_prediction)
            launch_tiles(place, difference_tiles<T, E, N>, p, N);
    });
}

template <class T>
void loss_double_backward(const LossDoubleBackward<T>& p, CudaPlace place) {
    for_access<T>(p.size, {p.prediction, p.cot_prediction, p.grad_prediction},
                  [&]<class E, int N>() { launch_joints(place, loss_double_backward_joints<T, E, N>, p, N); });
    launch_sum(place, p.size, p.partials, p.factor, p.grad_grad_total);
}

}  // namespace

template <class T>
Kernels<T, CudaPlace> kernels() {
    return {render<T>, render_backward<T>, render_double_backward<T>,
            loss<T>,   loss_backward<T>,   loss_double_backward<T>};
}
template Kernels<float, CudaPlace> kernels<float>();
template Kernels<double, CudaPlace> kernels<double>();

}  // namespace fastpose::heatmap::cuda
