// How torch shows a tensor to C code: the part of DLPack's exchange table (version 1 of its interface, dlpack.h of the
// DLPack specification) by which a tensor is read in place. The table of a tensor class is a capsule on that class; the
// order and the types of the fields below are fixed by the major version.
#pragma once

#include <cstdint>

#include "common/tensor_view.h"

namespace fastpose::dlpack {

struct Version {
    uint32_t major, minor;
};

struct Tensor {
    void* data;
    int32_t device_type, device_index;
    int32_t rank;
    uint8_t type_code, type_bits;
    uint16_t type_lanes;
    const int64_t *size, *stride;  // in elements; the tensor's own, valid while it lives
    uint64_t byte_offset;
};

using Read = int (*)(void* object, Tensor* out);  // 0, or -1 with a Python exception set; null where it is not offered

struct Exchange {
    Version version;
    const Exchange* older;
    void *allocate, *to_managed, *from_managed;  // of owned tensors; not used here
    Read read;
    void* current_stream;
};

constexpr uint32_t major_version = 1;
constexpr const char* capsule = "dlpack_exchange_api";
constexpr const char* attribute = "__dlpack_c_exchange_api__";

// The reader of a table, or of the first older one in its chain that has our major version.
inline Read reader_of(const Exchange* table) {
    while (table && table->version.major != major_version) table = table->older;
    return table ? table->read : nullptr;
}

inline DType dtype_of(const Tensor& tensor) {
    enum Code : uint8_t { integer = 0, real = 2, brain = 4, boolean = 6 };
    if (tensor.type_lanes != 1) return DType::other;
    switch (tensor.type_code << 8 | tensor.type_bits) {
        case real << 8 | 32: return DType::float32;
        case real << 8 | 64: return DType::float64;
        case real << 8 | 16: return DType::float16;
        case brain << 8 | 16: return DType::bfloat16;
        case integer << 8 | 64: return DType::int64;
        case boolean << 8 | 8: return DType::boolean;
        default: return DType::other;
    }
}

inline Device device_of(const Tensor& tensor) {
    enum Type : int32_t { cpu = 1, cuda = 2 };
    return tensor.device_type == cpu ? Device::cpu : tensor.device_type == cuda ? Device::cuda : Device::other;
}

}  // namespace fastpose::dlpack
