// How a kernel is started: on the right device and stream, with its errors turned into exceptions. Nothing here waits
// for the device, so that launches can be captured into a CUDA graph.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "common/place.h"

namespace fastpose {

inline void check_cuda(cudaError_t status, const char* action) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string("CUDA: ") + action + " failed: " + cudaGetErrorString(status));
}

// Makes a device current for as long as the object lives.
class DeviceGuard {
   public:
    explicit DeviceGuard(int device) {
        check_cuda(cudaGetDevice(&before_), "reading the current device");
        if (device == before_) return;
        check_cuda(cudaSetDevice(device), "choosing the device");
        changed_ = true;
    }
    ~DeviceGuard() {
        if (changed_) cudaSetDevice(before_);
    }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

   private:
    int before_ = 0;
    bool changed_ = false;
};

// Starts blocks of threads; a grid without blocks starts nothing. Arguments travel by value.
template <class... Parameters, class... Arguments>
void launch(const CudaPlace& place, void (*kernel)(Parameters...), dim3 blocks, dim3 threads,
            const Arguments&... arguments) {
    if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0) return;
    const DeviceGuard guard(place.device);
#ifdef __CUDACC__
    kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(place.stream)>>>(arguments...);
#else
    emulation::launch(kernel, blocks, threads, arguments...);
#endif
    check_cuda(cudaGetLastError(), "starting a kernel");
}

}  // namespace fastpose
