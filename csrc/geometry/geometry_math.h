// Plain arithmetic of the pairwise descriptor, for the CPU and for CUDA.
//
// With d_ij = x_i - x_j, G the gradient that comes to the d_ij channel and H the one to its square,
//   grad_x_i = sum_j t_ij - t_ji,                 t_ij = G_ij + 2 d_ij H_ij,
// and with u the cotangent of grad_x and u_ij = u_i - u_j, the second derivative gives
//   G_ij <- u_ij,  H_ij <- 2 d_ij u_ij,  x_i <- sum_j s_ij - s_ji,  s_ij = 2 u_ij H_ij.
// Checked by tests/derivations/geometry.py. One pair of gradients (row i minus column j) serves both sums.
#pragma once

#include <cstdint>

#include "common/anywhere.h"

namespace fastpose::geometry {
namespace {

// Division of numbers from 0 on by a positive constant, as a multiplication: exact where number * divisor < 2^32.
struct Divisor {
    uint64_t factor = 0;

    Divisor() = default;
    explicit Divisor(int64_t divisor) : factor(((uint64_t{1} << 32) + divisor - 1) / divisor) {}
    FASTPOSE_ANYWHERE int quotient(int number) const {
        return static_cast<int>(static_cast<uint64_t>(number) * factor >> 32);
    }
};

template <class V>
FASTPOSE_ANYWHERE V pair_gradient(V difference, V grad_difference, V grad_square) {
    return grad_difference + (difference + difference) * grad_square;
}

template <class V>
FASTPOSE_ANYWHERE V pair_second_gradient(V cotangent_difference, V grad_square) {
    return (cotangent_difference + cotangent_difference) * grad_square;
}

}  // namespace
}  // namespace fastpose::geometry
