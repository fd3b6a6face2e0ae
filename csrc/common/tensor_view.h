// What a kernel may know of a tensor: address, element type, device, sizes and strides (in elements). No torch here.
#pragma once

#include <cstdint>

#include "common/anywhere.h"

namespace fastpose {

enum class Device : uint8_t { cpu, cuda, other };
enum class DType : uint8_t { float32, float64, bfloat16, float16, int64, boolean, other };

constexpr int max_rank = 6;

constexpr int bytes_of(DType dtype) {
    switch (dtype) {
        case DType::boolean: return 1;
        case DType::bfloat16:
        case DType::float16: return 2;
        case DType::float32: return 4;
        case DType::float64:
        case DType::int64: return 8;
        default: return 0;
    }
}

struct TensorView {
    bool present = false;  // false: an optional tensor that was not given
    void* data = nullptr;  // address of element (0, ..., 0)
    DType dtype = DType::other;
    Device device = Device::cpu;
    int device_index = 0;
    int rank = 0;
    int64_t size[max_rank] = {};
    int64_t stride[max_rank] = {};

    explicit operator bool() const { return present; }
    int64_t elements() const {
        uint64_t count = 1;  // wraps round where an axis of none comes after long ones
        for (int axis = 0; axis < rank; ++axis) count *= static_cast<uint64_t>(size[axis]);
        return static_cast<int64_t>(count);
    }
    bool contiguous() const {
        if (elements() == 0) return true;
        int64_t expected = 1;
        for (int axis = rank - 1; axis >= 0; --axis) {
            if (size[axis] != 1 && stride[axis] != expected) return false;
            expected *= size[axis];
        }
        return true;
    }
};

// A (B, C, N) tensor of known element type: attention's view of a feature map with its spatial axes flattened.
template <class T>
struct Strided3 {
    T* data = nullptr;  // null: the tensor is absent
    int64_t batch = 0, channel = 0, position = 0;

    FASTPOSE_ANYWHERE T* at(int64_t b) const { return data + b * batch; }
    FASTPOSE_ANYWHERE explicit operator bool() const { return data != nullptr; }
};

}  // namespace fastpose
