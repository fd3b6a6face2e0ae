"""Every public operation by finite differences in float64, as users call it: a new one without a call here fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastpose import ops

Call = tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]
"""A function of tensors that all have a gradient, and their shapes."""

SIZE, SEEDS = (4, 6), range(3)
FLAT = {"explain", "operations"}
"""Names of ``fastpose.ops`` that compute nothing."""

CALLS: dict[str, tuple[Call, ...]] = {
    "attention_rows": (
        (lambda q, k: ops.attention_rows(q, k, [(1, 0), (2, 1)], scale=0.7), ((2, 3, 2, 3), (2, 3, 5))),
    ),
    "decode_heatmaps": (
        (lambda maps: ops.decode_heatmaps(maps, "softargmax", beta=2.0)[0], ((2, 2, *SIZE),)),
        (lambda maps: ops.decode_heatmaps(maps, "softargmax", beta=25.0)[0], ((1, 1, *SIZE),)),
    ),
    "flip_average": ((lambda one, two: ops.flip_average(one, two, ((0, 1),)), ((2, 3, *SIZE), (2, 3, *SIZE))),),
    "heatmap_mse_loss": tuple(
        (
            lambda maps, points, sigma, profile=profile, reduction=reduction: ops.heatmap_mse_loss(
                maps, 2 + points, 1.5 + sigma.tanh(), profile=profile, reduction=reduction
            ),
            ((2, 3, *SIZE), (2, 3, 2), (2, 3)),
        )
        for profile in ("gaussian", "wide")
        for reduction in ("mean", "sum", "none")
    ),
    "nonlocal_attention": ((lambda q, k, v: ops.nonlocal_attention(q, k, v), ((2, 2, 3), (2, 2, 4), (2, 3, 4))),),
    "nonlocal_attention_residual": (
        (ops.nonlocal_attention_residual, ((1, 2, 3), (1, 2, 4), (1, 2, 4), (1, 2, 3), (1,))),
    ),
    "pairwise_descriptor": ((ops.pairwise_descriptor, ((2, 4, 3),)), (ops.pairwise_descriptor, ((2, 3, 2),))),
    "render_depth_maps": tuple(
        (
            lambda points, depth, sigma, profile=profile: ops.render_depth_maps(
                2 + points, depth, SIZE, 1.5 + sigma.tanh(), profile=profile
            ),
            ((2, 3, 2), (2, 3), (2, 3)),
        )
        for profile in ("gaussian", "wide")
    ),
    "render_gaussian_heatmaps": tuple(
        (
            lambda points, sigma, profile=profile: ops.render_gaussian_heatmaps(
                2 + points, SIZE, 1.5 + sigma.tanh(), profile=profile
            ),
            ((2, 3, 2), (2, 3)),
        )
        for profile in ("gaussian", "wide")
    ),
}


def test_promise_15_every_public_operation_has_its_gradients_checked():
    assert set(CALLS) == set(ops.__all__) - FLAT
    assert set(ops.operations()) <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_promise_15_two_orders_by_finite_differences(name):
    for number, (function, shapes) in enumerate(CALLS[name]):
        for seed in SEEDS:
            generator = torch.Generator().manual_seed(seed)
            tensors = [
                torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes
            ]
            where = f"{name}, call {number}, seed {seed}"
            assert torch.autograd.gradcheck(function, tensors, fast_mode=True), where
            assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True), where
