"""Attention and its first two derivatives in plain tensors, equation by equation; the kernels' comments cite them.

Notation for one image: Q, A (N, k); K, B (M, k); V, C (M, v); dO, O (N, v). A, B, C are the cotangents of the first
derivatives dQ, dK, dV. Row statistics are column vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(1) S = Q K^T, L = logsumexp_j S, P = exp(S - L), O = P V. Returns O and L."""
    scores = q @ k.T  # (N, M)
    lse = torch.logsumexp(scores, dim=1, keepdim=True)  # (N, 1)
    return (scores - lse).exp() @ v, lse


def backward(q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, do: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(2) dP = dO V^T, D = rowsum(dO * O), dS = P (dP - D); dQ = dS K, dK = dS^T Q, dV = P^T dO."""
    p = (q @ k.T - lse).exp()  # (N, M)
    ds = p * (do @ v.T - (do * o).sum(1, keepdim=True))
    return ds @ k, ds.T @ q, p.T @ do


def double_backward(
    q: Tensor, k: Tensor, v: Tensor, o: Tensor, lse: Tensor, do: Tensor, a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of <A, dQ> + <B, dK> + <C, dV> with respect to Q, K, V and dO.

    (3) S' = A K^T + Q B^T, e = rowsum(P S'), P' = P (S' - e): the softmax along the direction (A, B).
    (4) O' = P' V + P C: the scalar equals <dO, O'>, so O' is the gradient of dO.
    (5) W = dO C^T, h = rowsum(dO * O'), S~ = P' (dP - D) + P (W - h).
    (6) gQ = S~ K + dS B, gK = S~^T Q + dS^T A, gV = P'^T dO.
    """
    p = (q @ k.T - lse).exp()
    dp = do @ v.T
    centred = dp - (do * o).sum(1, keepdim=True)
    tangent = a @ k.T + q @ b.T
    moved = p * (tangent - (p * tangent).sum(1, keepdim=True))
    response = moved @ v + p @ c
    second = moved * centred + p * (do @ c.T - (do * response).sum(1, keepdim=True))
    ds = p * centred
    return second @ k + ds @ b, second.T @ q + ds.T @ a, moved.T @ do, response
