// What this machine can do at most, for benchmarks to be held against.
#pragma once

#include <cstdint>

#include "common/cpu_level.h"

namespace fastpose::limits {

// Floating-point operations done by `steps` rounds of independent multiply-adds in registers on each thread; the caller
// takes the time.
namespace baseline {
double multiply_add(int64_t steps, int threads);
}
namespace avx2 {
double multiply_add(int64_t steps, int threads);
}
namespace avx512 {
double multiply_add(int64_t steps, int threads);
}

inline double multiply_add(CpuLevel level, int64_t steps, int threads) {
#if defined(__x86_64__)
    if (level == CpuLevel::avx512) return avx512::multiply_add(steps, threads);
    if (level == CpuLevel::avx2) return avx2::multiply_add(steps, threads);
#endif
    return baseline::multiply_add(steps, threads);
}

}  // namespace fastpose::limits
