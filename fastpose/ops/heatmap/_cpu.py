"""Heatmaps by the C++ kernels: float32 and float64 arithmetic; 16-bit planes are converted row by row inside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastpose import _native
from fastpose.ops._dispatch import Backend, Inputs, Parameters, cpu_reasons
from fastpose.ops.heatmap._profiles import blur_weights
from fastpose.ops.heatmap._results import (
    empty_average,
    empty_heatmaps,
    empty_loss,
    empty_points,
    empty_soft_points,
)

Needs = tuple[bool, ...]
Gradients = tuple[Any, ...]  # tensors; None for an absent one


def reasons(inputs: Inputs, parameters: Parameters) -> list[str]:
    return cpu_reasons(inputs)


def _empty(tensors: Inputs, needs: Needs) -> list[Any]:
    """Uninitialised gradients where they are wanted."""
    return [torch.empty_like(tensor) if need else None for tensor, need in zip(tensors, needs, strict=True)]


def _kept(gradients: list[Any], needs: Needs) -> Gradients:
    return tuple(gradient if need else None for gradient, need in zip(gradients, needs, strict=True))


# --------------------------------------------------------------------------------------------------------- rendering


def _render(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    """A fourth input is the tensor to draw into."""
    keypoints, sigma, visible, *given = inputs
    (out,) = given or empty_heatmaps(inputs, parameters)
    _native.module().heatmap_render(keypoints, sigma, None, visible, parameters[2], out, torch.get_num_threads())
    return (out,)


def _render_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    keypoints, sigma, visible = inputs
    gradients = _empty((keypoints, sigma), needs)
    _native.module().heatmap_render_bwd(
        keypoints, sigma, None, visible, parameters[2], grads[0], *gradients, None, torch.get_num_threads()
    )
    return tuple(gradients)


def _render_double_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, cotangents: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    keypoints, sigma, visible = inputs
    of_keypoints, of_sigma, of_grad = _empty((keypoints, sigma, grads[0]), (True, True, True))
    _native.module().heatmap_render_bwd2(
        keypoints, sigma, None, visible, parameters[2], grads[0],
        *cotangents, None, of_keypoints, of_sigma, None, of_grad, torch.get_num_threads(),
    )  # fmt: skip
    return _kept([of_keypoints, of_sigma, of_grad], needs)


def _render_depth(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    (out,) = empty_heatmaps(inputs, parameters)
    _native.module().heatmap_render(*inputs, parameters[2], out, torch.get_num_threads())
    return (out,)


def _render_depth_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    gradients = _empty(inputs[:3], needs)
    _native.module().heatmap_render_bwd(*inputs, parameters[2], grads[0], *gradients, torch.get_num_threads())
    return tuple(gradients)


def _render_depth_double_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, cotangents: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    gradients = _empty((*inputs[:3], grads[0]), (True,) * 4)
    _native.module().heatmap_render_bwd2(
        *inputs, parameters[2], grads[0], *cotangents, *gradients, torch.get_num_threads()
    )
    return _kept(gradients, needs)


# --------------------------------------------------------------------------------------------------------------- loss


def _loss(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    (total,) = empty_loss(inputs, parameters)
    _native.module().heatmap_mse_loss(*inputs, *parameters, total, torch.get_num_threads())
    return (total,)


def _loss_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    gradients = _empty(inputs[:3], needs)
    _native.module().heatmap_mse_loss_bwd(*inputs, *parameters, grads[0], *gradients, torch.get_num_threads())
    return tuple(gradients)


def _loss_double_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, cotangents: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    gradients = _empty((*inputs[:3], grads[0]), (True,) * 4)
    _native.module().heatmap_mse_loss_bwd2(
        *inputs, *parameters, grads[0], *cotangents, *gradients, torch.get_num_threads()
    )
    return _kept(gradients, needs)


# ----------------------------------------------------------------------------------------------------------- decoding


def _decode(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor]:
    (heatmaps,) = inputs
    method, kernel, max_step = parameters
    coordinates, scores = empty_points(inputs, parameters)
    _native.module().heatmap_decode(
        heatmaps, method, blur_weights(kernel), max_step, coordinates, scores, torch.get_num_threads()
    )
    return coordinates, scores


def _softargmax(inputs: Inputs, parameters: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    results = empty_soft_points(inputs, parameters)
    _native.module().softargmax(*inputs, *parameters, *results, torch.get_num_threads())
    return results


def _softargmax_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    """The gradient that comes to the scores is not looked at: they are constants."""
    gradient = torch.empty_like(inputs[0])
    coordinates, scores, totals = results
    _native.module().softargmax_bwd(
        *inputs, *parameters, coordinates, scores, totals, grads[0], gradient, torch.get_num_threads()
    )
    return (gradient,)


def _softargmax_double_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, cotangents: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    coordinates, scores, totals = results
    if cotangents[0] is None:
        return _kept([torch.zeros_like(tensor) for tensor in (inputs[0], *grads)], needs)
    of_heatmaps, of_grad = torch.empty_like(inputs[0]), torch.empty_like(coordinates)
    _native.module().softargmax_bwd2(
        *inputs,
        *parameters,
        coordinates,
        scores,
        totals,
        grads[0],
        *cotangents,
        of_heatmaps,
        of_grad,
        torch.get_num_threads(),
    )
    return _kept([of_heatmaps, of_grad, torch.zeros_like(scores) if needs[2] else None], needs)


def _average(direct: Tensor | None, mirrored: Tensor | None, permutation: list[int], out: Tensor) -> Tensor:
    _native.module().flip_average(direct, mirrored, permutation, out, torch.get_num_threads())
    return out


def _flip_average(inputs: Inputs, parameters: Parameters) -> tuple[Tensor]:
    (out,) = empty_average(inputs, parameters)
    return (_average(inputs[0], inputs[1], parameters[0], out),)


def _flip_average_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    """The average of the gradient and nothing, and of nothing and the gradient: turning back is its own transpose."""
    of_direct, of_mirrored = _empty(inputs, needs)
    if of_direct is not None:
        _average(grads[0], None, parameters[0], of_direct)
    if of_mirrored is not None:
        _average(None, grads[0], parameters[0], of_mirrored)
    return of_direct, of_mirrored


def _flip_average_double_backward(
    inputs: Inputs, results: Gradients, grads: Gradients, cotangents: Gradients, needs: Needs, parameters: Parameters
) -> Gradients:
    """The gradient is linear in what comes to it and does not depend on the heatmaps."""
    zeros = [torch.zeros_like(tensor) if need else None for tensor, need in zip(inputs, needs[:2], strict=True)]
    of_grad = _average(cotangents[0], cotangents[1], parameters[0], torch.empty_like(grads[0])) if needs[2] else None
    return (*zeros, of_grad)


render_gaussian_heatmaps = Backend("cpu", reasons, _render, _render_backward, _render_double_backward)
render_depth_maps = Backend("cpu", reasons, _render_depth, _render_depth_backward, _render_depth_double_backward)
heatmap_mse_loss = Backend("cpu", reasons, _loss, _loss_backward, _loss_double_backward)
decode_heatmaps = Backend("cpu", reasons, _decode)
softargmax = Backend("cpu", reasons, _softargmax, _softargmax_backward, _softargmax_double_backward)
flip_average = Backend("cpu", reasons, _flip_average, _flip_average_backward, _flip_average_double_backward)
