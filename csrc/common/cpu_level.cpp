#include "common/cpu_level.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

bool amx_granted() {
#if defined(__x86_64__) && defined(__linux__) && !defined(FASTPOSE_BASELINE_ONLY)
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, avx512_bf16 = 1u << 5;
    constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & amx_bf16) == 0 || (d & amx_tile) == 0) return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & avx512_bf16) == 0) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace

bool amx_allowed() {
    if (cpu_level() != CpuLevel::avx512) return false;
    static const bool granted = amx_granted();
    return granted;
}

CpuLevel cpu_level() { return current().load(std::memory_order_relaxed); }

void set_cpu_level(CpuLevel level) {
    const CpuLevel widest = widest_cpu_level();
    current().store(level <= widest ? level : widest, std::memory_order_relaxed);
}

}  // namespace fastpose
