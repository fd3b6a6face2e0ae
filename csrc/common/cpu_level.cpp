#include "common/cpu_level.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace fastpose {

CpuLevel widest_cpu_level() {
#if defined(__x86_64__) && !defined(FASTPOSE_BASELINE_ONLY)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx2 && avx512) return CpuLevel::avx512;
    if (avx2) return CpuLevel::avx2;
#endif
    return CpuLevel::baseline;
}

const char* name_of(CpuLevel level) {
    switch (level) {
        case CpuLevel::avx512: return "avx512";
        case CpuLevel::avx2: return "avx2";
        default: return "baseline";
    }
}

namespace {

CpuLevel first_choice() {
    const CpuLevel widest = widest_cpu_level();
    const char* wanted = std::getenv("FASTPOSE_SIMD");
    if (wanted != nullptr)
        for (CpuLevel level : {CpuLevel::baseline, CpuLevel::avx2})
            if (std::strcmp(wanted, name_of(level)) == 0 && level <= widest) return level;
    return widest;
}

std::atomic<CpuLevel>& current() {
    static std::atomic<CpuLevel> level{first_choice()};
    return level;
}

}  // namespace

CpuLevel cpu_level() { return current().load(std::memory_order_relaxed); }

void set_cpu_level(CpuLevel level) {
    const CpuLevel widest = widest_cpu_level();
    current().store(level <= widest ? level : widest, std::memory_order_relaxed);
}

}  // namespace fastpose
