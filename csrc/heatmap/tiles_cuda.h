// How the CUDA kernels of rendering and of the loss go over planes: tiles, the bell drawn on them, and their launch.
#pragma once

#include <algorithm>

#include "common/cuda_blocks.h"
#include "common/cuda_launch.h"
#include "heatmap/joints.h"

namespace fastpose::heatmap::cuda {
namespace {

// Threads of a block. Kernels that sum derivatives ask for a minimum of one block on a multiprocessor: asked for none,
// ptxas leaves registers unused for the sake of more blocks and spills others.
constexpr int most_joint_threads = 512, most_tile_threads = 256;

constexpr int tile_side = 512;                 // pixels whose axes are held in shared memory
constexpr int groups_per_thread = 8;           // at least, so that the axes are a small part of a block's work
constexpr int64_t resident_threads = 1 << 18;  // about what a large GPU runs at once

// ------------------------------------------------------------------------------------------------------------- tiles

// A part of a plane.
struct Tile {
    int64_t top, left;
    int height, width;
};

// Planes cut into tiles, numbered row by row.
struct Tiling {
    int64_t down = 0, across = 0;
    int height = 1, width = 1;  // of a tile that the plane's border does not cut

    FASTPOSE_ANYWHERE int64_t count() const { return down * across; }
    FASTPOSE_ANYWHERE Tile tile(const Sizes& size, int64_t index) const {
        const int64_t top = index / across * height, left = index % across * width;
        const int64_t below = size.height - top, beside = size.width - left;
        return {top, left, static_cast<int>(below < height ? below : height),
                static_cast<int>(beside < width ? beside : width)};
    }
};

Tiling cut(const Sizes& size, int64_t height) {
    return {(size.height + height - 1) / height, (size.width + tile_side - 1) / tile_side, static_cast<int>(height),
            tile_side};
}

// What every block of a launch knows beside the call. The shape is looked up on the host: in a kernel the table would
// be one more thing to wait for.
struct Plan {
    Tiling tiling;
    Shape shape;
};

// A tile's groups of N neighbours, numbered row by row.
template <int N>
class Groups {
   public:
    // The reciprocal is exact: there are at most 2^9 groups in a row and 2^18 in all.
    __device__ explicit Groups(const Tile& tile)
        : row_(tile.width / N), count_(row_ * tile.height), reciprocal_((1u << 31) / row_ + 1) {}

    // Runs body(y, x) for the first pixels of this thread's groups.
    template <class Body>
    __device__ __forceinline__ void each(const Body& body) const {
        for (unsigned int i = threadIdx.x; i < count_; i += blockDim.x) {
            const Pixel pixel = first_of(i);
            body(pixel.y, pixel.x);
        }
    }

    // Runs body(y, x, load(y, x)), with the loads of a batch on their way together.
    template <int batch, class Load, class Body>
    __device__ __forceinline__ void each(const Load& load, const Body& body) const {
        for (unsigned int i = threadIdx.x; i < count_; i += batch * blockDim.x) {
            Pixel pixels[batch];
            decltype(load(0, 0)) loaded[batch];
#pragma unroll
            for (int j = 0; j < batch; ++j) {
                pixels[j] = first_of(i + j * blockDim.x);
                if (i + j * blockDim.x < count_) loaded[j] = load(pixels[j].y, pixels[j].x);
            }
#pragma unroll
            for (int j = 0; j < batch; ++j)
                if (i + j * blockDim.x < count_) body(pixels[j].y, pixels[j].x, loaded[j]);
        }
    }

   private:
    struct Pixel {
        int y, x;
    };
    __device__ __forceinline__ Pixel first_of(unsigned int group) const {
        const unsigned int y = static_cast<unsigned int>((static_cast<uint64_t>(group) * reciprocal_) >> 31);
        return {static_cast<int>(y), static_cast<int>((group - y * row_) * N)};
    }

    unsigned int row_, count_, reciprocal_;
};

// Where the pixels of a tile lie in memory.
template <class E, int N>
struct Window {
    E* corner;
    int64_t row, column;

    __device__ __forceinline__ E* at(int y, int x) const { return corner + y * row + x * (N == 1 ? column : 1); }
    __device__ __forceinline__ auto loader() const {
        return [this](int y, int x) { return load<N>(at(y, x)); };
    }
};

template <class E, int N>
__device__ Window<E, N> window(const Planes& planes, const Tile& tile, int64_t b, int64_t s, int64_t k) {
    if (!planes) return {nullptr, 0, 0};
    return {planes.at<E>(b, s, k) + tile.top * planes.row + tile.left * planes.column, planes.row, planes.column};
}

template <class T, class E, int N>
__device__ void write_zeros(const Tile& tile, const Window<E, N>& to) {
    Groups<N>(tile).each([&](int y, int x) { write(to.at(y, x), Pack<T, N>{}); });
}

// -------------------------------------------------------------------------------------------------------------- bells

// value(x, y) = columns[x] * rows[y] within a tile; in shared memory.
template <class T>
struct Axes {
    alignas(16) T columns[tile_side];
    T rows[tile_side];

    template <int N>
    __device__ __forceinline__ Pack<T, N> values(int y, int x, T amplitude = 1) const {
        return read_shared<N>(columns + x) * (rows[y] * amplitude);
    }
};

template <class T>
__device__ void draw_axis(int64_t first, int count, T centre, T sharpness, T low, T high, T* values) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const T position = static_cast<T>(first + i), offset = position - centre;
        values[i] = position < low || position > high ? T(0) : std::exp(-(offset * offset) * sharpness);
    }
}

// An absent bell is zero everywhere: nothing lies between its bounds.
template <class T>
__device__ void draw(Footprint<T> mark, const Tile& tile, Axes<T>& axes) {
    if (!mark.present) mark.bottom = -1;
    __syncthreads();  // the tile before this one is done
    draw_axis(tile.left, tile.width, mark.x, mark.sharpness, mark.left, mark.right, axes.columns);
    draw_axis(tile.top, tile.height, mark.y, mark.sharpness, mark.top, mark.bottom, axes.rows);
    __syncthreads();
}

// A joint and its bell, as a block of threads sees it.
template <class T>
struct Mark {
    int64_t b, k;
    Footprint<T> bell;

    // From the bell's centre to a pixel.
    __device__ __forceinline__ T offset_x(const Tile& tile, int x) const {
        return static_cast<T>(tile.left) + static_cast<T>(x) - bell.x;
    }
    __device__ __forceinline__ T offset_y(const Tile& tile, int y) const {
        return static_cast<T>(tile.top) + static_cast<T>(y) - bell.y;
    }
};

template <class T>
__device__ Mark<T> mark_at(const Joints<T>& joints, const Plan& plan, const Sizes& size, int64_t joint) {
    const int64_t b = joint / size.joints, k = joint % size.joints;
    return {b, k, footprint(joints, plan.shape, size, b, k)};
}

// Runs body(tile) for every tile of a joint's planes, with the bell drawn on it.
template <class T, class Body>
__device__ __forceinline__ void for_tiles(const Sizes& size, const Tiling& tiling, const Footprint<T>& bell,
                                          Axes<T>& axes, const Body& body) {
    for (int64_t index = 0; index < tiling.count(); ++index) {
        const Tile tile = tiling.tile(size, index);
        draw(bell, tile, axes);
        body(tile);
    }
}

// ------------------------------------------------------------------------------------------------------------- launch

// Calls run.operator()<E, N>() with the planes' element type and how many neighbours their layout gives at once.
template <class T, class Run>
void for_access(const Sizes& size, std::initializer_list<Planes> tensors, const Run& run) {
    for_element<T>(tensors.begin()->dtype, [&]<class E>() {
        bool whole = true;
        for (const Planes& planes : tensors)
            whole = whole &&
                    (!planes || in_groups<E>(planes.data, size.width, planes.column,
                                             {size.batch > 1 ? planes.batch : 0, size.stacks > 1 ? planes.stack : 0,
                                              size.joints > 1 ? planes.joint : 0, planes.row}));
        if (whole)
            run.template operator()<E, wide<E>>();
        else
            run.template operator()<E, 1>();
    });
}

// Threads for a plane with this many groups, of which `blocks` are worked on: as many as find work, fewer where the
// blocks alone fill the device and longer streams cost less.
unsigned int threads_for(int64_t groups, int64_t blocks, int most) {
    int64_t threads = warp_threads;
    const auto busy = [&](int64_t more) { return more * groups_per_thread <= groups; };
    const auto filled = [&](int64_t more) { return more > 2 * warp_threads && blocks * more > resident_threads; };
    while (2 * threads <= most && busy(2 * threads) && !filled(2 * threads)) threads *= 2;
    return static_cast<unsigned int>(threads);
}

// A block of threads for each joint.
template <class Parameters>
void launch_joints(CudaPlace place, void (*kernel)(Parameters, Plan), const Parameters& p, int group) {
    const int64_t joints = p.size.batch * p.size.joints;
    const unsigned int threads = threads_for(p.size.height * p.size.width / group, joints, most_joint_threads);
    launch(place, kernel, grid_of(joints), threads, p, Plan{cut(p.size, tile_side), shape_of(p.joints.profile)});
}

// A block of threads for each tile of the planes, which is as high as gives each thread its groups.
template <class Parameters>
void launch_tiles(CudaPlace place, void (*kernel)(Parameters, Plan), const Parameters& p, int group) {
    const int64_t row = std::clamp<int64_t>(p.size.width / group, 1, tile_side / group);
    const unsigned int threads = threads_for(row * p.size.height, 0, most_tile_threads);
    const Tiling tiling = cut(p.size, std::clamp<int64_t>(threads * groups_per_thread / row, 1, tile_side));
    const int64_t planes = p.size.batch * p.size.stacks * p.size.joints;
    launch(place, kernel, grid_of(planes * tiling.count()), threads, p, Plan{tiling, shape_of(p.joints.profile)});
}

}  // namespace
}  // namespace fastpose::heatmap::cuda
