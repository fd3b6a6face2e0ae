// What this machine can do at most, for benchmarks to be held against.
#pragma once

#include <cstdint>

#include "common/cpu_level.h"

namespace fastpose::limits {

// Floating-point operations done by `steps` rounds of independent multiply-adds in registers on each thread; the caller
// takes the time.
FASTPOSE_EACH_LEVEL(double multiply_add(int64_t steps, int threads);)

inline double multiply_add(CpuLevel level, int64_t steps, int threads) {
    return FASTPOSE_AT_LEVEL(level, multiply_add(steps, threads));
}

}  // namespace fastpose::limits
