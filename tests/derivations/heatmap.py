"""A joint's bell and its derivatives in plain tensors, equation by equation; the kernels cite them.

For one joint with centre m = (mx, my), width s and amplitude z; (u, v) is the offset of a pixel from the centre:

(1) g = exp(-c (u^2 + v^2)), c = a / s^2 with a = 1/2, or 1 for "wide"; the plane is z g.
(2) With phi = log g:  phi_mx = 2c u,  phi_my = 2c v,  phi_s = (2c / s)(u^2 + v^2).
(3) Along a direction (rx, ry, rs):  phi' = 2c (u rx + v ry) + (2c / s)(u^2 + v^2) rs, a sum of a column and a row term.
(4) phi'_mx = -2c rx - (4c / s) rs u,  phi'_my likewise,
    phi'_s = -(4c / s)(u rx + v ry) - (6c / s^2)(u^2 + v^2) rs.

So every derivative of sum(f z g) needs only the moments of f g: its sums against 1, u, v and u^2 + v^2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Joint(NamedTuple):
    """Scalars; ``a`` is 1/2 or 1."""

    x: Tensor
    y: Tensor
    sigma: Tensor
    a: float

    def offsets(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        columns = torch.arange(size[1], dtype=torch.float64)
        rows = torch.arange(size[0], dtype=torch.float64)
        return (columns - self.x)[None, :], (rows - self.y)[:, None]  # (1, W), (H, 1)

    @property
    def slope(self) -> Tensor:
        return 2 * self.a / self.sigma**2


def bell(joint: Joint, size: tuple[int, int]) -> Tensor:
    """(1) as the product of a column and a row: W + H exponentials."""
    u, v = joint.offsets(size)
    return torch.exp(-joint.slope / 2 * u**2) * torch.exp(-joint.slope / 2 * v**2)


def moments(weighted: Tensor, joint: Joint) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    u, v = joint.offsets(tuple(weighted.shape))
    return weighted.sum(), (weighted * u).sum(), (weighted * v).sum(), (weighted * (u**2 + v**2)).sum()


def log_derivative(joint: Joint, size: tuple[int, int], direction: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """(3) on the whole plane."""
    u, v = joint.offsets(size)
    x, y, sigma = direction
    return joint.slope * (u * x + v * y) + joint.slope / joint.sigma * (u**2 + v**2) * sigma


def first_gradient(weighted: Tensor, joint: Joint) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of sum(f g) in (mx, my, s), from f g, by (2)."""
    _, x, y, square = moments(weighted, joint)
    return joint.slope * x, joint.slope * y, joint.slope / joint.sigma * square


def second_gradient(
    response: Tensor, weighted: Tensor, joint: Joint, direction: tuple[Tensor, Tensor, Tensor], amplitude: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of sum(f g (extra + z phi')) in (mx, my, s): ``response`` is that integrand, ``weighted`` is f g.

    By (2) the bell contributes first_gradient(response); by (4) phi' contributes the rest.
    """
    total, x, y, square = moments(weighted, joint)
    along_x, along_y, along_sigma = direction
    bend = 2 * joint.slope / joint.sigma
    of_x, of_y, of_sigma = first_gradient(response, joint)
    return (
        of_x - amplitude * (joint.slope * along_x * total + bend * along_sigma * x),
        of_y - amplitude * (joint.slope * along_y * total + bend * along_sigma * y),
        of_sigma
        - amplitude * (bend * (along_x * x + along_y * y) + 3 * joint.slope / joint.sigma**2 * along_sigma * square),
    )


def soft_gradient(plane: Tensor, beta: float, grad: tuple[Tensor, Tensor]) -> Tensor:
    """(5) For (X, Y) = E[(x, y)] under p = softmax(beta h):  dh = beta p q,  q = gx (x - X) + gy (y - Y)."""
    p, u, v = _soft(plane, beta)
    return beta * p * (grad[0] * u + grad[1] * v)


def soft_second_gradient(
    plane: Tensor, beta: float, grad: tuple[Tensor, Tensor], cotangent: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(6) <U, dh> = beta cov(U, q):  its gradients are beta E[U (x - X)], beta E[U (y - Y)] in (gx, gy) and
    beta^2 p ((U - E U) q - cov(U, q)) in h."""
    p, u, v = _soft(plane, beta)
    q = grad[0] * u + grad[1] * v
    mean, covariance = (p * cotangent).sum(), (p * cotangent * q).sum()
    of_plane = beta**2 * p * ((cotangent - mean) * q - covariance)
    return of_plane, beta * (p * cotangent * u).sum(), beta * (p * cotangent * v).sum()


def _soft(plane: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    p = torch.softmax(beta * plane.flatten(), 0).view(plane.shape)
    columns = torch.arange(plane.shape[1], dtype=torch.float64)[None, :]
    rows = torch.arange(plane.shape[0], dtype=torch.float64)[:, None]
    return p, columns - (p * columns).sum(), rows - (p * rows).sum()
