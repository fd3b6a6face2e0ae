// Building blocks of the CUDA kernels: neighbours of a row read and written 16 bytes at once, and sums over a block of
// threads whose order never changes. Blocks have whole warps.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "common/elements.h"

namespace fastpose {

// How many numbers of a row are accessed at once: 16 bytes; float64, which is there for checking, goes one by one.
template <class E>
constexpr int wide = sizeof(E) == 8 ? 1 : 16 / static_cast<int>(sizeof(E));

// Whether groups of wide<E> neighbours along a row of `width` numbers lie on 16-byte boundaries; `strides` are those of
// the other axes.
template <class E>
bool in_groups(const void* data, int64_t width, int64_t column, std::initializer_list<int64_t> strides) {
    bool whole = reinterpret_cast<uintptr_t>(data) % 16 == 0 && width % wide<E> == 0 && column == 1;
    for (const int64_t stride : strides) whole = whole && stride % wide<E> == 0;
    return whole;
}

// A grid of one block for each item; the kernel goes on in steps of gridDim.x where there are more than a grid holds.
inline dim3 grid_of(int64_t items) {
    constexpr int64_t most = 2147483647;
    return dim3(static_cast<unsigned int>(items < most ? items : most));
}

// N numbers in registers.
template <class T, int N>
struct Pack {
    T at[N];
};

// The unnamed namespace keeps the copies of different sources apart.
namespace {

#define FASTPOSE_OF_PACKS(operation)                                                                           \
    template <class T, int N>                                                                                  \
    __device__ __forceinline__ Pack<T, N> operator operation(Pack<T, N> left, const Pack<T, N>& right) {       \
        _Pragma("unroll") for (int i = 0; i < N; ++i) left.at[i] = left.at[i] operation right.at[i];           \
        return left;                                                                                           \
    }                                                                                                          \
    template <class T, int N>                                                                                  \
    __device__ __forceinline__ Pack<T, N> operator operation(Pack<T, N> left, std::type_identity_t<T> right) { \
        _Pragma("unroll") for (int i = 0; i < N; ++i) left.at[i] = left.at[i] operation right;                 \
        return left;                                                                                           \
    }
FASTPOSE_OF_PACKS(+)
FASTPOSE_OF_PACKS(-)
FASTPOSE_OF_PACKS(*)
#undef FASTPOSE_OF_PACKS

constexpr int warp_threads = 32;

// N neighbours as they lie in memory: a load that is not waited for until its numbers are asked for.
template <class E, int N>
struct Loaded {
    using Bits = std::conditional_t<N == 1, E, uint4>;
    Bits bits;

    template <class T>
    __device__ __forceinline__ Pack<T, N> numbers() const {
        Pack<T, N> result;
        if constexpr (std::is_same_v<Bits, uint4> && std::is_same_v<E, BFloat16>) {  // halves of words, not moved apart
            const unsigned int words[] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const unsigned int upper = i % 2 ? words[i / 2] & 0xffff0000u : words[i / 2] << 16;
                memcpy(&result.at[i], &upper, sizeof(upper));
            }
        } else {
            E elements[N];
            memcpy(elements, &bits, sizeof(bits));
#pragma unroll
            for (int i = 0; i < N; ++i) result.at[i] = widen(elements[i]);
        }
        return result;
    }
};

// N = wide<E> neighbours on a 16-byte boundary, or one number; the kernel must not write there.
template <int N, class E>
__device__ __forceinline__ Loaded<std::remove_const_t<E>, N> load(E* from) {
    static_assert(N == 1 || N == wide<std::remove_const_t<E>>);
    if constexpr (N == 1)
        return {*from};
    else
        return {__ldg(reinterpret_cast<const uint4*>(from))};
}

// Past the caches' other content: what a stream leaves behind is not read again by its kernel.
template <class T, int N, class E>
__device__ __forceinline__ void write(E* to, const Pack<T, N>& numbers) {
    if constexpr (N == 1) {
        *to = narrow<E>(numbers.at[0]);
    } else {
        static_assert(N == wide<E>);
        E elements[N];
#pragma unroll
        for (int i = 0; i < N; ++i) elements[i] = narrow<E>(numbers.at[i]);
        uint4 bytes;
        memcpy(&bytes, elements, sizeof(bytes));
        __stcs(reinterpret_cast<uint4*>(to), bytes);
    }
}

// Address of the i-th 16 bytes of shared memory from `numbers` on.
template <class T>
__device__ __forceinline__ auto sixteen_bytes(T* numbers, int i) {
    auto* bytes = reinterpret_cast<std::conditional_t<std::is_const_v<T>, const uint4, uint4>*>(numbers) + i;
#ifdef __CUDACC__
    return bytes;
#else
    return emulation::aligned(bytes);
#endif
}

// N numbers of shared memory, on a boundary of 16 bytes where they are a multiple of that.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> read_shared(const T* from) {
    Pack<T, N> numbers;
    if constexpr (N * sizeof(T) % 16 == 0) {
#pragma unroll
        for (int i = 0; i < N * static_cast<int>(sizeof(T)) / 16; ++i) {
            const uint4 bytes = *sixteen_bytes(from, i);
            memcpy(reinterpret_cast<char*>(numbers.at) + 16 * i, &bytes, sizeof(bytes));
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) numbers.at[i] = from[i];
    }
    return numbers;
}
template <class T, int N>
__device__ __forceinline__ void write_shared(T* to, const Pack<T, N>& numbers) {
    if constexpr (N * sizeof(T) % 16 == 0) {
#pragma unroll
        for (int i = 0; i < N * static_cast<int>(sizeof(T)) / 16; ++i) {
            uint4 bytes;
            memcpy(&bytes, reinterpret_cast<const char*>(numbers.at) + 16 * i, sizeof(bytes));
            *sixteen_bytes(to, i) = bytes;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = numbers.at[i];
    }
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int distance = warp_threads / 2; distance > 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// Sums over the threads of a block, for every thread. All of them must call it.
template <class T, int N>
__device__ __forceinline__ Pack<T, N> block_sum(const Pack<T, N>& values) {
    __shared__ T of_warps[warp_threads][N];
    Pack<T, N> sum;
#pragma unroll
    for (int i = 0; i < N; ++i) sum.at[i] = warp_sum(values.at[i]);
    __syncthreads();  // the sums before these have been read
    const unsigned int warp = threadIdx.x / warp_threads;
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (threadIdx.x % warp_threads == 0) of_warps[warp][i] = sum.at[i];
    __syncthreads();
    sum = {};
    for (unsigned int w = 0; w < blockDim.x / warp_threads; ++w)
#pragma unroll
        for (int i = 0; i < N; ++i) sum.at[i] += of_warps[w][i];
    return sum;
}

template <class T>
__device__ __forceinline__ T block_sum(T value) {
    return block_sum(Pack<T, 1>{{value}}).at[0];
}

}  // namespace
}  // namespace fastpose
