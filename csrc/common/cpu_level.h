// Which copy of the CPU kernels this machine runs: the widest instruction set that it has, or FASTPOSE_SIMD's choice.
#pragma once

namespace fastpose {

enum class CpuLevel { baseline, avx2, avx512 };

CpuLevel cpu_level();
CpuLevel widest_cpu_level();
void set_cpu_level(CpuLevel level);  // at most the widest
const char* name_of(CpuLevel level);

}  // namespace fastpose
