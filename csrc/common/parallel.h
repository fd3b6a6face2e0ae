// Threads and scratch memory of the CPU kernels. Without OpenMP the same code runs on one thread.
// The unnamed namespace is meant: each copy of a kernel source is compiled with other instruction-set flags and must
// keep its own copy of these functions too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "common/huge_pages.h"
#include "common/threads.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace fastpose {
namespace {

// Calls body(item, worker) for every item; workers are numbered from 0. An item's result must not depend on its
// worker, so that the schedule cannot change the answer. The body must not throw. A worker takes `run` neighbours at
// once.
template <class Body>
void parallel_for(int threads, int64_t items, const Body& body, int64_t run = 1) {
#ifdef _OPENMP
    if (threads > 1 && items > 1) threads = threads_to_have(threads);
    if (threads > 1 && items > 1) {
#pragma omp parallel num_threads(threads)
        {
            const int worker = omp_get_thread_num();
#pragma omp for schedule(dynamic, run)
            for (int64_t item = 0; item < items; ++item) body(item, worker);
        }
        return;
    }
#endif
    for (int64_t item = 0; item < items; ++item) body(item, 0);
}

// How many neighbouring items a worker should take at once when items in turn write a fresh result of that many bytes.
// Two threads that are the first to write to one huge page clear it both, so each takes at least a page where there are
// enough, but not more than an eighth of its share, which would leave others idle at the end.
inline int64_t run_of_pages(int threads, int64_t items, int64_t bytes) {
    if (threads < 2 || bytes < huge_pages_from) return 1;
    const int64_t runs = threads * std::clamp<int64_t>(bytes / huge_page / threads, 1, 8);
    return std::max<int64_t>(1, (items + runs - 1) / runs);
}

// While it lives, results of this thread below the smallest normal number are zero. The tails of bells and softmaxes
// are full of them, and x86 takes over a hundred cycles for each (measured: 6 times longer for a rendered plane).
class FlushSubnormals {
   public:
#if defined(__SSE2__)
    FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8000u); }
    ~FlushSubnormals() { _mm_setcsr(before_); }

   private:
    unsigned before_;
#else
    FlushSubnormals() {}
#endif
};

struct NoScratch : std::bad_alloc {
    const char* what() const noexcept override {
        return "scratch memory of a kernel: expected room for it, found none; use smaller tensors or fewer threads";
    }
};

// Uninitialised memory on a cache-line boundary, taken before any thread starts so that a failure is an exception. Its
// count is a product, which may be larger than any number: the only place where such products are multiplied.
template <class T>
class Scratch {
   public:
    template <class... Factor>
    explicit Scratch(Factor... factors) {
        int64_t bytes = sizeof(T);
        if ((__builtin_mul_overflow(bytes, static_cast<int64_t>(factors), &bytes) || ...)) throw NoScratch();
        if (__builtin_add_overflow(std::max<int64_t>(bytes, 1), 63, &bytes)) throw NoScratch();
        data_ = static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>(bytes / 64 * 64)));
        if (data_ == nullptr) throw NoScratch();
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* data() const { return data_; }

   private:
    T* data_;
};

}  // namespace
}  // namespace fastpose
