// Where a kernel runs: the CPU's kernels take a number of threads, those of CUDA a device and a stream. No CUDA headers
// here, so that a build without CUDA can include it.
#pragma once

namespace fastpose {

struct CudaPlace {
    int device = 0;
    void* stream = nullptr;  // cudaStream_t; null is the default stream
};

}  // namespace fastpose
