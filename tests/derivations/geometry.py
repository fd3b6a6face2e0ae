"""The pairwise descriptor and its derivatives in plain tensors; csrc/geometry/geometry_math.h cites them.

For one sample x (P, D), with d_ij = x_i - x_j, G_ij the gradient that comes to d_ij and H_ij the one to d_ij^2:

(1) grad_x_i = sum_j t_ij - t_ji,  t_ij = G_ij + 2 d_ij H_ij.
(2) With u the cotangent of grad_x and u_ij = u_i - u_j:  G_ij <- u_ij,  H_ij <- 2 d_ij u_ij,
    x_i <- sum_j s_ij - s_ji,  s_ij = 2 u_ij H_ij.
"""

from __future__ import annotations

from torch import Tensor


def pairs(x: Tensor) -> Tensor:
    return x[:, None] - x[None, :]  # (P, P, D)


def gather(t: Tensor) -> Tensor:
    """sum_j t_ij - t_ji."""
    return t.sum(1) - t.sum(0)  # (P, D)


def gradient(x: Tensor, of_difference: Tensor, of_square: Tensor) -> Tensor:
    return gather(of_difference + 2 * pairs(x) * of_square)


def second_gradient(x: Tensor, of_square: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients in x, G and H."""
    u = pairs(cotangent)
    return gather(2 * u * of_square), u, 2 * pairs(x) * u
