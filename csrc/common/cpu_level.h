// Which copy of the CPU kernels this machine runs: the widest instruction set that it has, or FASTPOSE_SIMD's choice.
#pragma once

namespace fastpose {

enum class CpuLevel { baseline, avx2, avx512 };

CpuLevel cpu_level();
CpuLevel widest_cpu_level();
void set_cpu_level(CpuLevel level);  // at most the widest
const char* name_of(CpuLevel level);

// Whether AMX's products of bf16 may be used: the processor has them, the operating system grants this process their
// registers (asked for once, here), and no narrower level was chosen.
bool amx_allowed();

}  // namespace fastpose

// Kernel sources are compiled once per level, each copy in a namespace of the level's name inside its domain.
// FASTPOSE_EACH_LEVEL declares the same functions in all of them; FASTPOSE_AT_LEVEL calls the copy that serves `level`,
// or the only one there is (FASTPOSE_BASELINE_ONLY).
#define FASTPOSE_EACH_LEVEL(...) \
    namespace baseline {         \
    __VA_ARGS__                  \
    }                            \
    namespace avx2 {             \
    __VA_ARGS__                  \
    }                            \
    namespace avx512 {           \
    __VA_ARGS__                  \
    }
#if defined(__x86_64__) && !defined(FASTPOSE_BASELINE_ONLY)
#define FASTPOSE_AT_LEVEL(level, ...)                              \
    ((level) == ::fastpose::CpuLevel::avx512 ? avx512::__VA_ARGS__ \
     : (level) == ::fastpose::CpuLevel::avx2 ? avx2::__VA_ARGS__   \
                                             : baseline::__VA_ARGS__)
#else
#define FASTPOSE_AT_LEVEL(level, ...) baseline::__VA_ARGS__
#endif
