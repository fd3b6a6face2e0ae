#include <cuda_runtime.h>

#include "common/cuda_ready.h"

namespace fastpose {

#ifdef __CUDACC__

namespace {
std::string spell_version(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}
}  // namespace

// Drivers serve older runtimes, and newer ones of the same major version.
std::string cuda_problem() {
    int driver = 0, runtime = 0;
    if (cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&runtime) != cudaSuccess)
        return "its CUDA runtime cannot be asked for its version";
    if (driver / 1000 >= runtime / 1000) return "";
    return "it was built with CUDA " + spell_version(runtime) + ", for which the driver (CUDA " +
           spell_version(driver) + ") is too old";
}

#else  // the emulation of tests

std::string cuda_problem() { return ""; }

#endif

}  // namespace fastpose
