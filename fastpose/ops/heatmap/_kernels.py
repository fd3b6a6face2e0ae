"""Heatmaps by one set of kernels: float32 and float64 arithmetic; 16-bit planes are converted inside the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose.ops._dispatch import Backend, Inputs, Parameters
from fastpose.ops._places import Kernels, Place, empty, fresh, kept
from fastpose.ops.heatmap._profiles import blur_weights
from fastpose.ops.heatmap._results import (
    empty_average,
    empty_heatmaps,
    empty_loss,
    empty_points,
    empty_soft_points,
)

Needs = tuple[bool, ...]
Gradients = tuple[Any, ...]  # None for one that is not wanted


def backends(place: Place) -> tuple[Backend, ...]:
    """The backends at a place: rendering, depth maps, loss, decoding, soft-argmax, flip average."""
    kernels = (_Render, _RenderDepth, _Loss, _Decode, _SoftArgmax, _FlipAverage)
    return tuple(kind(place).backend() for kind in kernels)


class _Heatmaps(Kernels):
    folder = "heatmap"


# --------------------------------------------------------------------------------------------------------- rendering


class _Render(_Heatmaps):
    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
        """A fourth input is the tensor to draw into."""
        keypoints, sigma, visible, *given = inputs
        out = given[0] if given else fresh(*empty_heatmaps(inputs, parameters))
        self.run("heatmap_render", out, keypoints, sigma, None, visible, parameters[2], out)
        return (out,)

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        keypoints, sigma, visible = inputs
        gradients = empty((keypoints, sigma), needs)
        joints = (keypoints, sigma, None, visible, parameters[2])
        self.run("heatmap_render_bwd", grads[0], *joints, grads[0], *gradients, None)
        return tuple(gradients)

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        keypoints, sigma, visible = inputs
        gradients = empty((keypoints, sigma, grads[0]), (True, True, True))
        of_keypoints, of_sigma, of_grad = gradients
        joints = (keypoints, sigma, None, visible, parameters[2])
        results = (of_keypoints, of_sigma, None, of_grad)
        self.run("heatmap_render_bwd2", grads[0], *joints, grads[0], *cotangents, None, *results)
        return kept(gradients, needs)


class _RenderDepth(_Heatmaps):
    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
        out = fresh(*empty_heatmaps(inputs, parameters))
        self.run("heatmap_render", out, *inputs, parameters[2], out)
        return (out,)

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        gradients = empty(inputs[:3], needs)
        self.run("heatmap_render_bwd", grads[0], *inputs, parameters[2], grads[0], *gradients)
        return tuple(gradients)

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        gradients = empty((*inputs[:3], grads[0]), (True,) * 4)
        self.run("heatmap_render_bwd2", grads[0], *inputs, parameters[2], grads[0], *cotangents, *gradients)
        return kept(gradients, needs)


# -------------------------------------------------------------------------------------------------------------- loss


def _partials(prediction: Tensor) -> Tensor:
    """Room for one partial sum per joint."""
    return prediction.new_empty((prediction.shape[0], prediction.shape[2]), dtype=torch.float64)


class _Loss(_Heatmaps):
    """The kernels multiply by a factor instead of dividing."""

    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
        (total,) = empty_loss(inputs, parameters)
        profile, divisor = parameters
        self.run("heatmap_mse_loss", total, *inputs, profile, 1 / divisor, _partials(inputs[0]), total)
        return (total,)

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        gradients = empty(inputs[:3], needs)
        profile, divisor = parameters
        self.run("heatmap_mse_loss_bwd", grads[0], *inputs, profile, 1 / divisor, grads[0], *gradients)
        return tuple(gradients)

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        gradients = empty((*inputs[:3], grads[0]), (True,) * 4)
        profile, divisor = parameters
        results = (*gradients[:3], _partials(inputs[0]), gradients[3])
        self.run("heatmap_mse_loss_bwd2", grads[0], *inputs, profile, 1 / divisor, grads[0], *cotangents, *results)
        return kept(gradients, needs)


# ---------------------------------------------------------------------------------------------------------- decoding


MOST_TAPS = 981  # csrc/heatmap/heatmap.h: more do not fit the arguments of a CUDA kernel


class _Decode(_Heatmaps):
    def __init__(self, place: Place) -> None:
        super().__init__(place, any_size=place.name != "cuda")

    def reasons(self, inputs: Inputs, parameters: Parameters) -> list[str]:
        found = self.place.reasons(inputs)
        if self.place.name == "cuda" and len(parameters) > 1 and parameters[1] > MOST_TAPS:
            found.append(f"it serves a kernel of at most {MOST_TAPS} taps, got {parameters[1]}")
        return found

    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
        method, kernel, max_step = parameters
        results = empty_points(inputs, parameters)
        self.run("heatmap_decode", inputs[0], inputs[0], method, blur_weights(kernel), max_step, *results)
        return results


class _SoftArgmax(_Heatmaps):
    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        results = empty_soft_points(inputs, parameters)
        self.run("softargmax", inputs[0], *inputs, *parameters, *results)
        return results

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        """The gradient that comes to the scores is not looked at: they are constants."""
        gradient = fresh(torch.empty_like(inputs[0]))
        self.run("softargmax_bwd", gradient, *inputs, *parameters, *results, grads[0], gradient)
        return (gradient,)

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        coordinates, scores, _ = results
        if cotangents[0] is None:
            return kept([torch.zeros_like(tensor) for tensor in (inputs[0], *grads)], needs)
        of_heatmaps, of_grad = fresh(torch.empty_like(inputs[0])), torch.empty_like(coordinates)
        given = (*results, grads[0], cotangents[0])
        self.run("softargmax_bwd2", of_grad, *inputs, *parameters, *given, of_heatmaps, of_grad)
        return kept([of_heatmaps, of_grad, torch.zeros_like(scores) if needs[2] else None], needs)


# ------------------------------------------------------------------------------------------------------ flip average


class _FlipAverage(_Heatmaps):
    def _average(self, direct: Tensor | None, mirrored: Tensor | None, permutation: list[int], out: Tensor) -> Tensor:
        self.run("flip_average", out, direct, mirrored, permutation, out)
        return out

    def forward(self, inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
        out = fresh(*empty_average(inputs, parameters))
        return (self._average(inputs[0], inputs[1], parameters[0], out),)

    def backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        """Averages of the gradient and nothing, and of nothing and the gradient: turning back is its own transpose."""
        of_direct, of_mirrored = empty(inputs, needs)
        if of_direct is not None:
            self._average(grads[0], None, parameters[0], of_direct)
        if of_mirrored is not None:
            self._average(None, grads[0], parameters[0], of_mirrored)
        return of_direct, of_mirrored

    def double_backward(
        self, inputs: Inputs, results: Inputs, grads: Inputs, cotangents: Inputs, needs: Needs, parameters: Parameters
    ) -> Gradients:
        """The gradient is linear in what comes to it and does not depend on the heatmaps."""
        zeros = [torch.zeros_like(tensor) if need else None for tensor, need in zip(inputs, needs[:2], strict=True)]
        if not needs[2]:
            return (*zeros, None)
        return (*zeros, self._average(cotangents[0], cotangents[1], parameters[0], fresh(torch.empty_like(grads[0]))))
