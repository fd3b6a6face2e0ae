// Marks plain arithmetic that the CPU's kernels and the device code of CUDA share.
#pragma once

#ifdef __CUDACC__
#define FASTPOSE_ANYWHERE __host__ __device__ inline
#else
#define FASTPOSE_ANYWHERE inline __attribute__((always_inline))
#endif
