"""Every differentiable operation on heatmaps as a case: inputs, call, and which inputs have a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose import ops
from fastpose.ops._autograd import Differentiable
from fastpose.ops.heatmap import functional

# (B, K, H, W): one pixel, around the vector widths (4, 8, 16 numbers), H != W, more than one chunk of the peak search.
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 15), (1, 2, 16, 16), (2, 1, 7, 17), (1, 3, 33, 8), (3, 2, 20, 35)]
LAYOUTS = ("contiguous", "channels_last", "sliced", "strided")
PAIRS = ((0, 1),)


@dataclass(frozen=True)
class Case:
    """``call(tensors, backend)`` with tensors from ``inputs(shape)``, by name."""

    operation: Differentiable
    inputs: Callable[..., dict[str, Tensor]]
    call: Callable[[dict[str, Tensor], str], Tensor]

    @property
    def differentiable(self) -> tuple[str, ...]:
        return self.operation.signature.differentiable

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that serve CPU tensors."""
        return tuple(name for name in self.operation.operation.backend_names if name in ("cpu", "reference"))


def arrange(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers (..., H, W) in another memory layout."""
    if layout == "channels_last":  # joints vary fastest
        return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)
    if layout == "sliced":
        room = torch.full((*tensor.shape[:-2], tensor.shape[-2] + 3, tensor.shape[-1] + 5), 7.0, dtype=tensor.dtype)
        room[..., 1:-2, 2:-3] = tensor
        return room[..., 1:-2, 2:-3]
    if layout == "strided":  # no unit stride at all
        room = torch.full((*tensor.shape, 2), 7.0, dtype=tensor.dtype)
        room[..., 1] = tensor
        return room[..., 1]
    return tensor.contiguous()


def joints(shape: tuple[int, ...], generator: torch.Generator) -> dict[str, Tensor]:
    """Key points around the plane, per-joint sigmas, and a mask that hides one joint in three."""
    batch, count, height, width = shape
    spread = torch.tensor([width + 4.0, height + 4.0], dtype=torch.float64)
    keypoints = torch.rand(batch, count, 2, dtype=torch.float64, generator=generator) * spread - 2
    sigma = 1 + torch.rand(batch, count, dtype=torch.float64, generator=generator)
    visibility = torch.arange(batch * count).view(batch, count) % 3 != 1
    return {"keypoints": keypoints, "sigma": sigma, "visibility": visibility}


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def render_inputs(shape, generator):
    return joints(shape, generator)


def depth_inputs(shape, generator):
    return {**joints(shape, generator), "depth": _normal(*shape[:2], generator=generator)}


def loss_inputs(shape, generator):
    batch, count, *size = shape
    weight = torch.rand(batch, 2, count, dtype=torch.float64, generator=generator)
    weight[:, :, -1] *= torch.tensor([0.0, 1.0])  # one stack of the last joint does not count
    prediction = _normal(batch, 2, count, *size, generator=generator)
    return {**joints(shape, generator), "prediction": prediction, "weight": weight}


def plane_inputs(shape, generator):
    return {"heatmaps": _normal(*shape, generator=generator)}


def flip_inputs(shape, generator):
    return {"heatmaps": _normal(*shape, generator=generator), "flipped": _normal(*shape, generator=generator)}


def _size(t: dict[str, Tensor]) -> tuple[int, int]:
    return t["size"].shape  # an empty tensor carries the size beside the others


def _render(profile: str) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda t, backend: ops.render_gaussian_heatmaps(
        t["keypoints"], _size(t), t["sigma"], visibility=t["visibility"], profile=profile, backend=backend
    )


def _depth(profile: str) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda t, backend: ops.render_depth_maps(
        t["keypoints"], t["depth"], _size(t), t["sigma"], visibility=t["visibility"], profile=profile, backend=backend
    )


def _loss(profile: str, reduction: str) -> Callable[[dict[str, Tensor], str], Tensor]:
    return lambda t, backend: ops.heatmap_mse_loss(
        t["prediction"],
        t["keypoints"],
        t["sigma"],
        visibility=t["visibility"],
        weight=t["weight"],
        profile=profile,
        reduction=reduction,
        backend=backend,
    )


CASES = {
    "render-gaussian": Case(functional._render, render_inputs, _render("gaussian")),
    "render-wide": Case(functional._render, render_inputs, _render("wide")),
    "depth-gaussian": Case(functional._render_depth, depth_inputs, _depth("gaussian")),
    "depth-wide": Case(functional._render_depth, depth_inputs, _depth("wide")),
    "loss-gaussian-mean": Case(functional._loss, loss_inputs, _loss("gaussian", "mean")),
    "loss-wide-sum": Case(functional._loss, loss_inputs, _loss("wide", "sum")),
    "loss-gaussian-none": Case(functional._loss, loss_inputs, _loss("gaussian", "none")),
    "softargmax": Case(
        functional._softargmax,
        plane_inputs,
        lambda t, backend: ops.decode_heatmaps(t["heatmaps"], "softargmax", beta=3.0, backend=backend)[0],
    ),
    "flip": Case(
        functional._flip,
        flip_inputs,
        lambda t, backend: ops.flip_average(
            t["heatmaps"], t["flipped"], PAIRS if t["heatmaps"].shape[1] > 1 else (), backend=backend
        ),
    ),
}


def tensors_of(
    case: Case, shape: tuple[int, ...], dtype=torch.float64, layout: str = "contiguous"
) -> dict[str, Tensor]:
    """The case's seeded inputs, those with a gradient as leaves that require one."""
    generator = torch.Generator().manual_seed(math.prod(shape) + 1)
    tensors = {"size": torch.empty(shape[2:])} | case.inputs(shape, generator)
    for name in case.differentiable:
        tensor = tensors[name].to(dtype)
        tensors[name] = (arrange(tensor, layout) if tensor.dim() >= 4 else tensor).requires_grad_()
    return tensors


def three_orders(case: Case, tensors: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    """Output, first gradients, and gradients of a fixed linear function of those, by name."""
    generator = torch.Generator().manual_seed(1)

    def fixed(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=torch.float64, generator=generator).to(like.dtype)

    leaves = [tensors[name] for name in case.differentiable]
    out = case.call(tensors, backend)
    grad = fixed(out).requires_grad_()
    first = torch.autograd.grad(out, leaves, grad, create_graph=True)
    scalar = sum((gradient * fixed(gradient)).sum() for gradient in first)
    second = torch.autograd.grad(scalar, (*leaves, grad), allow_unused=True)
    names = [f"d {name}" for name in case.differentiable]
    results = {"out": out, **dict(zip(names, first, strict=True))}
    return results | {f"second {n}": g for n, g in zip((*names, "grad"), second, strict=True) if g is not None}


def clamped_beside_the_step(height: float) -> Tensor:
    """Planes whose 5 x 5 pixels about the peak, blurred over 3, are negative only in the corners; far away lies a patch
    of this height, on which the blurred maximum depends.
    """
    planes = torch.zeros(1, 50, 16, 24, dtype=torch.float64)
    planes[..., 3:6, 3:6] = 0.3 + 0.3 * torch.rand(
        1, 50, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    planes[..., 4, 4] = 1.0
    planes[..., 2:7:4, 2:7:4] = -0.5
    planes[..., 8:13, 12:20] = height
    return planes
