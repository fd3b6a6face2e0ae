"""The one comparer of tensors, with its own test (test_comparing.py)."""

from __future__ import annotations

import torch
from tolerances import RELATIVE, SECOND_ORDER
from torch import Tensor


def assert_close(found: Tensor, expected: Tensor, *, name: str = "tensor", order: int = 0, scale: float = 0.0) -> None:
    """Fail unless ``found`` equals ``expected`` within the table's tolerance for the dtype of ``found``.

    ``order`` is the order of derivative; ``scale`` the size of the terms where they cancel in the expected tensor.
    """
    assert found.dtype == expected.dtype, f"{name}: {found.dtype}, expected {expected.dtype}"
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, expected {tuple(expected.shape)}"
    wide = expected.detach().double()
    difference = (found.detach().double() - wide).abs()
    if wide.numel() == 0:
        return
    assert torch.isfinite(wide).equal(torch.isfinite(found.detach())), f"{name}: non-finite at other places"
    largest = max(float(wide[torch.isfinite(wide)].abs().max()) if torch.isfinite(wide).any() else 0.0, scale)
    limit = RELATIVE[found.dtype] * largest * (SECOND_ORDER if order == 2 else 1.0)
    worst = float(difference.nan_to_num(0.0).max())
    index = torch.unravel_index(difference.nan_to_num(0.0).argmax(), difference.shape)
    assert worst <= limit, (
        f"{name}: off by {worst:.3g} at {tuple(int(i) for i in index)}, allowed {limit:.3g} "
        f"(largest expected {largest:.3g})"
    )


def assert_no_missing_gradient(found: Tensor, expected: Tensor, *, name: str = "gradient") -> None:
    """Fail where ``found`` is exactly zero in whole although ``expected`` is not: a forgotten term."""
    if float(expected.detach().abs().max()) > 0:
        assert float(found.detach().abs().max()) > 0, f"{name}: all zero, expected up to {expected.abs().max():.3g}"
