"""One published size of each operation: what `fastpose doctor` asks about and `fastpose bench` times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastpose import ops, skeletons


@dataclass(frozen=True)
class Case:
    """A call of an operation.

    Attributes:
        size: the size in words.
        tensors: makes the tensor inputs on a device, the same ones every time.
        call: the operation on those tensors, with ``backend=`` and further keywords.
        keywords: its other arguments.
        wanting: indices of the tensors whose gradient is timed; empty where there is none.
    """

    size: str
    tensors: Callable[[torch.device], tuple[Tensor, ...]]
    call: Callable[..., Any]
    keywords: dict[str, Any]
    wanting: tuple[int, ...] = ()

    def run(self, tensors: tuple[Tensor, ...], backend: str) -> Tensor:
        """Return the (first) result of one call."""
        result = self.call(*tensors, **self.keywords, backend=backend)
        return result[0] if isinstance(result, tuple) else result


def _random(*shapes: tuple[int, ...], scale: float = 1.0) -> Callable[[torch.device], tuple[Tensor, ...]]:
    def make(device: torch.device) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        return tuple((torch.rand(shape, generator=generator) * scale).to(device) for shape in shapes)

    return make


def cases() -> dict[str, Case]:
    """Return a case for each operation, by the operation's name."""
    attention = ((1, 32, 64, 64), (1, 32, 64, 64), (1, 256, 64, 64))  # query, key, value after a stack of the hourglass
    maps = (6, 16, 64, 64)  # the paper's batch, MPII's joints
    return {
        "nonlocal_attention": Case(
            "B=1 Ck=32 Cv=256 N=4096", _random(*attention, scale=0.2), ops.nonlocal_attention, {}, (0, 1, 2)
        ),
        "nonlocal_attention_residual": Case(
            "B=1 Ck=32 Cv=256 N=4096",
            _random(*attention, attention[2], (1,), scale=0.2),
            ops.nonlocal_attention_residual,
            {},
            (0, 1, 2, 3, 4),
        ),
        "render_gaussian_heatmaps": Case(
            "(6, 16, 64, 64), sigma 1",
            _random((6, 16, 2), scale=64),
            ops.render_gaussian_heatmaps,
            {"size": (64, 64), "sigma": 1.0},
            (0,),
        ),
        "render_depth_maps": Case(
            "(6, 16, 64, 64), sigma 1",
            _random((6, 16, 2), (6, 16), scale=64),
            ops.render_depth_maps,
            {"size": (64, 64), "sigma": 1.0},
        ),
        "heatmap_mse_loss": Case(
            "4 stacks of (6, 16, 64, 64)",
            _random((6, 4, 16, 64, 64), (6, 16, 2), scale=64),
            ops.heatmap_mse_loss,
            {"sigma": 1.0},
            (0,),
        ),
        "decode_heatmaps": Case("(6, 16, 64, 64), quarter", _random(maps), ops.decode_heatmaps, {"method": "quarter"}),
        "flip_average": Case(
            "(6, 16, 64, 64)", _random(maps, maps), ops.flip_average, {"pairs": skeletons.MPII.flip_pairs}, (0, 1)
        ),
        "pairwise_descriptor": Case("(6, 16, 3)", _random((6, 16, 3)), ops.pairwise_descriptor, {}, (0,)),
    }
