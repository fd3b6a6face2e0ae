// A stand-in for <cuda_runtime.h> that runs kernels on the CPU, so that the .cu sources themselves are tested where no
// GPU is. Each thread of a block is a fiber; fibers switch only at barriers and shuffles, in an order that changes from
// round to round, which brings a missing barrier to light. A barrier that some threads never reach is an error, as it
// is one (a hang, or worse) on a GPU; so is an access of several bytes off their boundary.
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __align__(bytes) alignas(bytes)

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
};
using uint3 = dim3;
struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

namespace emulation {

constexpr size_t stack_bytes = 64 << 10;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    uint64_t barriers = 0, warp_barriers = 0;  // how many it has reached
    uint64_t exchanged = 0;                    // what it gives to the other lanes of its warp
    bool done = false;
};

// The block that runs on this thread of the CPU.
struct Block {
    std::vector<Fiber> fibers;
    ucontext_t scheduler;
    unsigned int current = 0;
    std::function<void()> body;
    std::exception_ptr failure;
};
inline thread_local Block* running = nullptr;

inline unsigned int rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }

inline void enter() {
    Block& block = *running;
    try {
        block.body();
    } catch (...) {
        block.failure = std::current_exception();
    }
    block.fibers[block.current].done = true;
    swapcontext(&block.fibers[block.current].context, &block.scheduler);
}

inline void pause() { swapcontext(&running->fibers[running->current].context, &running->scheduler); }

inline bool may_go_on(const Block& block, unsigned int index) {
    const Fiber& mine = block.fibers[index];
    const unsigned int warp = index / warpSize;
    for (unsigned int i = 0; i < block.fibers.size(); ++i) {
        const Fiber& other = block.fibers[i];
        if (other.barriers < mine.barriers) return false;
        if (i / warpSize == warp && other.warp_barriers < mine.warp_barriers) return false;
    }
    return true;
}

inline void resume(Block& block, unsigned int index) {
    block.current = index;
    const unsigned int plane = blockDim.x * blockDim.y;
    threadIdx = dim3(index % blockDim.x, index % plane / blockDim.x, index / plane);
    swapcontext(&block.scheduler, &block.fibers[index].context);
}

// Goes round the fibers, forwards and backwards in turn, until all have ended.
inline void run_block(Block& block) {
    const unsigned int count = static_cast<unsigned int>(block.fibers.size());
    bool forwards = (blockIdx.x + blockIdx.y) % 2 == 0;
    for (bool ended = false; !ended; forwards = !forwards) {
        bool moved = false;
        ended = true;
        for (unsigned int i = 0; i < count; ++i) {
            const unsigned int index = forwards ? i : count - 1 - i;
            if (block.fibers[index].done) continue;
            ended = false;
            if (!may_go_on(block, index)) continue;
            resume(block, index);
            moved = true;
            if (block.failure) std::rethrow_exception(block.failure);
        }
        if (!ended && !moved) throw std::logic_error("emulated kernel: a barrier was not reached by all threads");
    }
}

inline void prepare(Block& block) {
    for (Fiber& fiber : block.fibers) {
        fiber.done = false;
        fiber.barriers = fiber.warp_barriers = 0;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 blocks, dim3 threads, const Arguments&... arguments) {
    if (threads.x * threads.y * threads.z == 0 || threads.x * threads.y * threads.z > 1024)
        throw std::logic_error("emulated kernel: expected 1 to 1024 threads per block");
    if (blocks.y > 65535 || blocks.z > 65535 || blocks.x > 2147483647u)
        throw std::logic_error("emulated kernel: the grid is larger than CUDA allows");
    Block block;
    block.fibers = std::vector<Fiber>(threads.x * threads.y * threads.z);
    block.body = [&] { kernel(arguments...); };
    running = &block;
    gridDim = blocks;
    blockDim = threads;
    for (unsigned int z = 0; z < blocks.z; ++z)
        for (unsigned int y = 0; y < blocks.y; ++y)
            for (unsigned int x = 0; x < blocks.x; ++x) {
                blockIdx = dim3(x, y, z);
                prepare(block);
                run_block(block);
            }
    running = nullptr;
}

inline void warp_barrier() {
    ++running->fibers[running->current].warp_barriers;
    pause();
}

// Every lane of the warp gives a value and takes that of lane `source`.
template <class T>
T exchange(T value, unsigned int source) {
    static_assert(sizeof(T) <= 8);
    const unsigned int index = running->current, first = index / warpSize * warpSize;
    std::memcpy(&running->fibers[index].exchanged, &value, sizeof(T));
    warp_barrier();
    T taken = value;
    if (first + source < running->fibers.size())
        std::memcpy(&taken, &running->fibers[first + source].exchanged, sizeof(T));
    warp_barrier();  // nobody gives the next value before all have taken this one
    return taken;
}

inline unsigned int lane() { return running->current % warpSize; }

// The address of a T; a GPU stops at one that is not a multiple of its size, where the CPU goes on.
template <class T>
T* aligned(T* address) {
    if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0)
        throw std::logic_error("emulated kernel: " + std::to_string(sizeof(T)) +
                               " bytes are accessed at an address that is not a multiple of that");
    return address;
}

}  // namespace emulation

inline void __syncthreads() {
    ++emulation::running->fibers[emulation::running->current].barriers;
    emulation::pause();
}
inline void __syncwarp(unsigned int = 0xffffffffu) { emulation::warp_barrier(); }

template <class T>
T __shfl_xor_sync(unsigned int, T value, int mask, int = warpSize) {
    return emulation::exchange(value, emulation::lane() ^ static_cast<unsigned int>(mask));
}
template <class T>
T __shfl_down_sync(unsigned int, T value, unsigned int delta, int = warpSize) {
    const unsigned int source = emulation::lane() + delta;
    return emulation::exchange(value, source < warpSize ? source : emulation::lane());
}
template <class T>
T __shfl_sync(unsigned int, T value, int source, int = warpSize) {
    return emulation::exchange(value, static_cast<unsigned int>(source));
}

// Cache hints mean nothing here.
template <class T>
T __ldg(const T* address) {
    return *emulation::aligned(address);
}
template <class T>
T __ldcs(const T* address) {
    return *emulation::aligned(address);
}
template <class T>
void __stcs(T* address, T value) {
    *emulation::aligned(address) = value;
}
