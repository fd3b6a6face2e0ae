// The pairwise descriptor on a GPU. Where the tensor of pairs is contiguous and a sample is small, a block of threads
// takes some samples: their points lie in shared memory and the run of 2 D P^2 numbers of each is accessed 16 bytes at
// once, whatever P is. Everything else (other strides, many points) is done by a warp for each row of pairs. Sums have
// one fixed order in both.

#include <cuda_runtime.h>

#include <algorithm>

#include "common/cuda_blocks.h"
#include "common/cuda_launch.h"
#include "geometry/geometry.h"
#include "geometry/geometry_math.h"

namespace fastpose::geometry::cuda {
namespace {

constexpr int threads = 128;
constexpr int at_once = 4;  // packs that a thread asks for before it uses the first

// Numbers in a block's memory: coordinates of points, and pairs that wait for their sums. Pairs that are only written
// need none, yet a block that writes too many of them leaves others idle.
constexpr int most_coordinates = 1024, most_waiting = 4096, most_written = 16384;
constexpr int wanted_written = 8192, wanted_blocks = 512;
constexpr int most_padding = 16;  // numbers beside a run that lie on its boundaries of 16 bytes

// ------------------------------------------------------------------------------------------------ runs of pairs

// The samples of a block and how to find a number's place in their run.
struct Blocks {
    int points, dimensions, samples;  // samples: of one block
    Divisor by_points, by_channels;

    FASTPOSE_ANYWHERE int squares() const { return points * points; }
    FASTPOSE_ANYWHERE int numbers() const { return 2 * dimensions * squares(); }  // of a sample
    FASTPOSE_ANYWHERE int coordinates() const { return points * dimensions; }
};

// Channel, row and column of a number, and the line of its coordinate in memory.
struct PairIndex {
    int line, channel, i, j;

    __device__ __forceinline__ PairIndex(const Blocks& blocks, int number) {
        const int row = blocks.by_points.quotient(number), plane = blocks.by_points.quotient(row);
        const int sample = blocks.by_channels.quotient(plane);
        j = number - row * blocks.points;
        i = row - plane * blocks.points;
        channel = plane - sample * 2 * blocks.dimensions;
        line = sample * blocks.dimensions + (channel < blocks.dimensions ? channel : channel - blocks.dimensions);
    }
    __device__ __forceinline__ void advance(const Blocks& blocks) {
        if (++j < blocks.points) return;
        j = 0;
        if (++i < blocks.points) return;
        i = 0;
        ++line;  // the next sample's, unless the squares of this one are next
        if (++channel == blocks.dimensions) line -= blocks.dimensions;
        if (channel == 2 * blocks.dimensions) channel = 0;
    }
};

// The packs that hold numbers [begin, begin + count) of a tensor on a 16-byte boundary; `head` numbers of the first
// come before them.
template <int N>
struct Run {
    int64_t start;  // of the first pack
    int head, count;

    __device__ __forceinline__ Run(int64_t begin, int count)
        : start(begin / N * N), head(static_cast<int>(begin % N)), count(count) {}
    __device__ __forceinline__ int packs() const { return (head + count + N - 1) / N; }
    __device__ __forceinline__ bool whole(int pack) const { return pack * N >= head && (pack + 1) * N <= head + count; }
    __device__ __forceinline__ bool holds(int place) const { return place >= head && place < head + count; }
};

// Writes pair(index) to every number of a run.
template <class T, int N, class E, class Pair>
__device__ __forceinline__ void write_run(const Run<N>& run, E* data, const Blocks& blocks, const Pair& pair) {
    for (int pack = threadIdx.x; pack < run.packs(); pack += blockDim.x) {
        E* to = data + run.start + pack * N;
        if (run.whole(pack)) {
            PairIndex index(blocks, pack * N - run.head);
            Pack<T, N> numbers;
#pragma unroll
            for (int i = 0; i < N; ++i) {
                numbers.at[i] = pair(index);
                index.advance(blocks);
            }
            write(to, numbers);
        } else {
            for (int i = 0; i < N; ++i)
                if (run.holds(pack * N + i)) to[i] = narrow<E>(pair(PairIndex(blocks, pack * N + i - run.head)));
        }
    }
}

// Brings a run into shared memory, where its first number is to[run.head].
template <class T, int N, class E>
__device__ __forceinline__ void read_run(const Run<N>& run, const E* data, T* to) {
    for (int first = threadIdx.x; first < run.packs(); first += at_once * blockDim.x) {
        Loaded<E, N> given[at_once];
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int pack = first + i * blockDim.x;
            if (run.whole(pack)) given[i] = load<N>(data + run.start + pack * N);
        }
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int pack = first + i * blockDim.x;
            if (run.whole(pack)) {
                write_shared(to + pack * N, given[i].template numbers<T>());
            } else {
                for (int place = pack * N; place < (pack + 1) * N; ++place)
                    if (run.holds(place)) to[place] = widen(data[run.start + place]);
            }
        }
    }
}

// Coordinates of `count` samples from the `first` on, as to[sample][dimension][point].
template <class T, class E>
__device__ __forceinline__ void read_points(const Points& points, const Blocks& blocks, int64_t first, int count,
                                            T* to) {
    for (int task = threadIdx.x; task < count * blocks.coordinates(); task += blockDim.x) {
        const int line = task / blocks.points;
        to[task] = widen(
            *points.at<const E>(first + line / blocks.dimensions, task % blocks.points, line % blocks.dimensions));
    }
}

// Writes sum(line, i) to coordinate i of every line.
template <class E, class Sum>
__device__ __forceinline__ void write_points(const Points& points, const Blocks& blocks, int64_t first, int count,
                                             const Sum& sum) {
    for (int task = threadIdx.x; task < count * blocks.coordinates(); task += blockDim.x) {
        const int line = task / blocks.points, i = task % blocks.points;
        *points.at<E>(first + line / blocks.dimensions, i, line % blocks.dimensions) = narrow<E>(sum(line, i));
    }
}

// Runs body(first, count) for the groups of samples that are the block's.
template <class Body>
__device__ __forceinline__ void for_samples(const Sizes& size, const Blocks& blocks, const Body& body) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blocks.samples;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blocks.samples; first < size.batch; first += step) {
        __syncthreads();  // the group before this one is done with the memory
        const int64_t left = size.batch - first;
        body(first, left < blocks.samples ? static_cast<int>(left) : blocks.samples);
    }
}

// Sum over j of term(j), beginning with j = i: threads with neighbouring i then read neighbouring banks.
template <class T, class Term>
__device__ __forceinline__ T sum_from(int i, int points, const Term& term) {
    T sum = 0;
    for (int step = 0, j = i; step < points; ++step) {
        sum += term(j);
        if (++j == points) j = 0;
    }
    return sum;
}

template <class T, class E>
__global__ void __launch_bounds__(threads)
    forward_runs(const __grid_constant__ Forward p, const __grid_constant__ Blocks blocks) {
    __shared__ T joints[most_coordinates];
    for_samples(p.size, blocks, [&](int64_t first, int count) {
        read_points<T, E>(p.joints, blocks, first, count, joints);
        __syncthreads();
        const Run<wide<E>> run(first * blocks.numbers(), count * blocks.numbers());
        write_run<T>(run, static_cast<E*>(p.out.data), blocks, [&](const PairIndex& at) {
            const T* line = joints + at.line * blocks.points;
            const T difference = line[at.i] - line[at.j];
            return at.channel < blocks.dimensions ? difference : difference * difference;
        });
    });
}

template <class T, class E>
__global__ void __launch_bounds__(threads)
    backward_runs(const __grid_constant__ Backward p, const __grid_constant__ Blocks blocks) {
    __shared__ T joints[most_coordinates];
    alignas(16) __shared__ T waiting[most_waiting + most_padding];
    for_samples(p.size, blocks, [&](int64_t first, int count) {
        const Run<wide<E>> run(first * blocks.numbers(), count * blocks.numbers());
        read_run<T>(run, static_cast<const E*>(p.grad_out.data), waiting);
        read_points<T, E>(p.joints, blocks, first, count, joints);
        __syncthreads();
        write_points<E>(p.grad_joints, blocks, first, count, [&](int line, int i) {
            const int points = blocks.points, sample = line / blocks.dimensions, d = line % blocks.dimensions;
            const T* differences = waiting + run.head + sample * blocks.numbers() + d * blocks.squares();
            const T* squares = differences + blocks.dimensions * blocks.squares();
            const T* x = joints + line * points;
            return sum_from<T>(i, points, [&](int j) {
                const int forth = i * points + j, back = j * points + i;
                return pair_gradient(x[i] - x[j], differences[forth], squares[forth]) -
                       pair_gradient(x[j] - x[i], differences[back], squares[back]);
            });
        });
    });
}

template <class T, class E>
__global__ void __launch_bounds__(threads)
    double_backward_runs(const __grid_constant__ DoubleBackward p, const __grid_constant__ Blocks blocks) {
    constexpr int N = wide<E>;
    __shared__ T joints[most_coordinates], cotangents[most_coordinates];
    alignas(16) __shared__ T waiting[most_waiting / 2 + most_padding];
    const int half = blocks.numbers() / 2, room = (half + 2 * N - 2) / N * N;
    // Where the gradient that comes to the squares of a sample begins.
    const auto squares = [&](int64_t sample) { return Run<N>(sample * blocks.numbers() + half, half); };
    for_samples(p.size, blocks, [&](int64_t first, int count) {
        for (int sample = 0; sample < count; ++sample)
            read_run<T>(squares(first + sample), static_cast<const E*>(p.grad_out.data), waiting + sample * room);
        read_points<T, E>(p.joints, blocks, first, count, joints);
        read_points<T, E>(p.cot_joints, blocks, first, count, cotangents);
        __syncthreads();
        const Run<N> run(first * blocks.numbers(), count * blocks.numbers());
        write_run<T>(run, static_cast<E*>(p.grad_grad_out.data), blocks, [&](const PairIndex& at) {
            const T *x = joints + at.line * blocks.points, *u = cotangents + at.line * blocks.points;
            const T difference = x[at.i] - x[at.j], cotangent = u[at.i] - u[at.j];
            return at.channel < blocks.dimensions ? cotangent : (difference + difference) * cotangent;
        });
        write_points<E>(p.grad_joints, blocks, first, count, [&](int line, int i) {
            const int points = blocks.points, sample = line / blocks.dimensions, d = line % blocks.dimensions;
            const T* given = waiting + sample * room + squares(first + sample).head + d * blocks.squares();
            const T* u = cotangents + line * points;
            return sum_from<T>(i, points, [&](int j) {
                return pair_second_gradient(u[i] - u[j], given[i * points + j]) -
                       pair_second_gradient(u[j] - u[i], given[j * points + i]);
            });
        });
    });
}

// ---------------------------------------------------------------------------------------------------- rows of pairs

// Runs body(b, d, i, lane) for the rows of pairs that are the warp's.
template <class Body>
__device__ __forceinline__ void for_rows(const Sizes& size, const Body& body) {
    const int64_t warps = blockDim.x / warp_threads;
    const int64_t rows = size.batch * size.dimensions * size.points;
    for (int64_t row = blockIdx.x * warps + threadIdx.x / warp_threads; row < rows; row += gridDim.x * warps) {
        const int64_t coordinate = row / size.points;
        body(coordinate / size.dimensions, coordinate % size.dimensions, row % size.points,
             static_cast<int>(threadIdx.x % warp_threads));
    }
}

template <class T, class E>
__device__ __forceinline__ T coordinate(const Points& points, int64_t b, int64_t i, int64_t d) {
    return widen(*points.at<const E>(b, i, d));
}

template <class T, class E>
__device__ __forceinline__ T number(const Pairs& pairs, int64_t b, int64_t channel, int64_t i, int64_t j) {
    return widen(pairs.at<const E>(b, channel, i)[j * pairs.column]);
}

template <class T, class E>
__global__ void __launch_bounds__(threads) forward_rows(const __grid_constant__ Forward p) {
    for_rows(p.size, [&](int64_t b, int64_t d, int64_t i, int lane) {
        const T x = coordinate<T, E>(p.joints, b, i, d);
        E *differences = p.out.at<E>(b, d, i), *squares = p.out.at<E>(b, p.size.dimensions + d, i);
        for (int64_t j = lane; j < p.size.points; j += warp_threads) {
            const T difference = x - coordinate<T, E>(p.joints, b, j, d);
            differences[j * p.out.column] = narrow<E>(difference);
            squares[j * p.out.column] = narrow<E>(difference * difference);
        }
    });
}

template <class T, class E>
__global__ void __launch_bounds__(threads) backward_rows(const __grid_constant__ Backward p) {
    for_rows(p.size, [&](int64_t b, int64_t d, int64_t i, int lane) {
        const int64_t square = p.size.dimensions + d;
        const T x = coordinate<T, E>(p.joints, b, i, d);
        T sum = 0;
        for (int64_t j = lane; j < p.size.points; j += warp_threads) {
            const T difference = x - coordinate<T, E>(p.joints, b, j, d);
            sum += pair_gradient(difference, number<T, E>(p.grad_out, b, d, i, j),
                                 number<T, E>(p.grad_out, b, square, i, j)) -
                   pair_gradient(-difference, number<T, E>(p.grad_out, b, d, j, i),
                                 number<T, E>(p.grad_out, b, square, j, i));
        }
        sum = warp_sum(sum);
        if (lane == 0) *p.grad_joints.at<E>(b, i, d) = narrow<E>(sum);
    });
}

template <class T, class E>
__global__ void __launch_bounds__(threads) double_backward_rows(const __grid_constant__ DoubleBackward p) {
    for_rows(p.size, [&](int64_t b, int64_t d, int64_t i, int lane) {
        const int64_t square = p.size.dimensions + d;
        const T x = coordinate<T, E>(p.joints, b, i, d), u = coordinate<T, E>(p.cot_joints, b, i, d);
        E *first = p.grad_grad_out.at<E>(b, d, i), *second = p.grad_grad_out.at<E>(b, square, i);
        T sum = 0;
        for (int64_t j = lane; j < p.size.points; j += warp_threads) {
            const T difference = x - coordinate<T, E>(p.joints, b, j, d);
            const T cotangent = u - coordinate<T, E>(p.cot_joints, b, j, d);
            first[j * p.grad_grad_out.column] = narrow<E>(cotangent);
            second[j * p.grad_grad_out.column] = narrow<E>((difference + difference) * cotangent);
            sum += pair_second_gradient(cotangent, number<T, E>(p.grad_out, b, square, i, j)) -
                   pair_second_gradient(-cotangent, number<T, E>(p.grad_out, b, square, j, i));
        }
        sum = warp_sum(sum);
        if (lane == 0) *p.grad_joints.at<E>(b, i, d) = narrow<E>(sum);
    });
}

// --------------------------------------------------------------------------------------------------------- launches

// Whether the numbers of a tensor follow each other from a 16-byte boundary on; axes of one element have no say.
bool one_run(const Pairs& pairs, const Sizes& size) {
    const auto follows = [](int64_t count, int64_t stride, int64_t expected) {
        return count < 2 || stride == expected;
    };
    const int64_t points = size.points, channels = 2 * size.dimensions;
    return reinterpret_cast<uintptr_t>(pairs.data) % 16 == 0 && follows(points, pairs.column, 1) &&
           follows(points, pairs.row, points) && follows(channels, pairs.channel, points * points) &&
           follows(size.batch, pairs.batch, channels * points * points);
}

// How to deal the samples to blocks of which each has about `wanted` numbers of their pairs, `padding` counted for
// every sample; samples = 0: not at all, as a sample has more than `capacity`.
Blocks blocks_for(const Sizes& size, int64_t capacity, int64_t wanted, int64_t padding) {
    const int64_t coordinates = size.points * size.dimensions, numbers = 2 * coordinates * size.points;
    if (coordinates > most_coordinates || numbers > capacity) return {};
    const int64_t room = std::min(most_coordinates / coordinates, std::max<int64_t>(1, wanted / (numbers + padding)));
    const int64_t samples = std::clamp<int64_t>(size.batch / wanted_blocks, 1, room);
    return {static_cast<int>(size.points), static_cast<int>(size.dimensions), static_cast<int>(samples),
            Divisor(size.points), Divisor(2 * size.dimensions)};
}

// Starts `runs` where the samples can be dealt to blocks, else `rows`.
template <class Parameters>
void start(CudaPlace place, const Parameters& p, const Blocks& blocks, void (*runs)(const Parameters, const Blocks),
           void (*rows)(const Parameters)) {
    if (blocks.samples > 0)
        return launch(place, runs, grid_of((p.size.batch + blocks.samples - 1) / blocks.samples), threads, p, blocks);
    constexpr int64_t warps = threads / warp_threads;
    launch(place, rows, grid_of((p.size.batch * p.size.dimensions * p.size.points + warps - 1) / warps), threads, p);
}

template <class T>
void forward(const Forward& p, CudaPlace place) {
    if (p.size.batch * p.size.points * p.size.dimensions == 0) return;
    const Blocks blocks = one_run(p.out, p.size) ? blocks_for(p.size, most_written, wanted_written, 0) : Blocks{};
    for_element<T>(p.joints.dtype, [&]<class E>() { start(place, p, blocks, forward_runs<T, E>, forward_rows<T, E>); });
}

template <class T>
void backward(const Backward& p, CudaPlace place) {
    if (p.size.batch * p.size.points * p.size.dimensions == 0) return;
    const Blocks blocks = one_run(p.grad_out, p.size) ? blocks_for(p.size, most_waiting, most_waiting, 0) : Blocks{};
    for_element<T>(p.joints.dtype,
                   [&]<class E>() { start(place, p, blocks, backward_runs<T, E>, backward_rows<T, E>); });
}

template <class T>
void double_backward(const DoubleBackward& p, CudaPlace place) {
    if (p.size.batch * p.size.points * p.size.dimensions == 0) return;
    const bool runs = one_run(p.grad_out, p.size) && one_run(p.grad_grad_out, p.size);
    // Half of a sample's numbers wait, and each sample's on boundaries of its own.
    const Blocks blocks = runs ? blocks_for(p.size, most_waiting, most_waiting, 2 * most_padding) : Blocks{};
    for_element<T>(p.joints.dtype,
                   [&]<class E>() { start(place, p, blocks, double_backward_runs<T, E>, double_backward_rows<T, E>); });
}

}  // namespace

template <class T>
Kernels<T, CudaPlace> kernels() {
    return {forward<T>, backward<T>, double_backward<T>};
}
template Kernels<float, CudaPlace> kernels<float>();
template Kernels<double, CudaPlace> kernels<double>();

}  // namespace fastpose::geometry::cuda
