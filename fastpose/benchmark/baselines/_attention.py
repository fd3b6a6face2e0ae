"""Attention as people write it in PyTorch today."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastpose.benchmark.baselines._compiled import Compiled, Tensors

BLOCK = 512  # queries at a time
FLASH_CHANNELS = 256  # the most that flash attention takes


def attention_naive(tensors: Tensors) -> Tensor:
    """Return attention of maps (B, C, H, W) by two matrix products and a softmax; the map is stored."""
    query, key, value = (tensor.flatten(2) for tensor in tensors)  # (B, C, N)
    out = value @ torch.softmax(query.mT @ key, dim=-1).mT
    return out.unflatten(2, tensors[0].shape[2:])


def _rows(tensors: Tensors, *, channels: int = 0) -> list[Tensor]:
    """Return maps (B, C, H, W) as (B, 1, N, C) with channels contiguous: the copies that fused kernels ask for.

    Where there are fewer than ``channels``, the same copy has zeros behind them: they add nothing to a product.
    """
    rows = [tensor.flatten(2).transpose(1, 2) for tensor in tensors]  # (B, N, C)
    missing = [max(channels - row.shape[2], 0) for row in rows]
    copies = [
        functional.pad(row, (0, more)) if more else row.contiguous() for row, more in zip(rows, missing, strict=True)
    ]
    return [copy[:, None] for copy in copies]


def _maps(out: Tensor, like: Tensor) -> Tensor:
    """Return (B, 1, N, C) as maps (B, C, H, W) like the others, without a copy: nobody asks for another layout."""
    return out[:, 0].transpose(1, 2).unflatten(2, like.shape[2:])


def attention_sdpa_by(tensors: Tensors, *, kernel: SDPBackend, padded: bool = False) -> Tensor:
    """Return scaled_dot_product_attention by one of its kernels; ``NotImplementedError`` says why it refuses.

    With ``padded``, query and key get as many channels as the value has, for a kernel that takes no others.
    """
    query, key, value = _rows(tensors, channels=tensors[2].shape[1] if padded else 0)
    try:
        with sdpa_kernel(kernel):
            out = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    except (RuntimeError, UserWarning) as error:
        raise NotImplementedError(f"not supported: {_refusal(kernel, query, key, value) or error}") from None
    return _maps(out, tensors[0])


def _refusal(kernel: SDPBackend, query: Tensor, key: Tensor, value: Tensor) -> str:
    """Return what torch says against a kernel: it warns, then raises an error that names no reason."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with sdpa_kernel(kernel):
                functional.scaled_dot_product_attention(query, key, value, scale=1.0)
        except RuntimeError as error:
            said_last = str(error)
        else:
            said_last = ""
    sentences = [str(warning.message).partition(" (Triggered")[0] for warning in said]
    about_it = [text for text in sentences if "kernel not used because" not in text and "has been runtime" not in text]
    return "; ".join(dict.fromkeys(about_it[:2])) or said_last.partition("\n")[0]


def attention_flex(tensors: Tensors) -> Tensor:
    """Return FlexAttention; to be compiled, else it stores the map."""
    from torch.nn.attention.flex_attention import flex_attention

    query, key, value = _rows(tensors)
    return _maps(flex_attention(query, key, value, scale=1.0), tensors[0])


SDPA = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
STORING = ("reference", "sdpa math", "compiled")  # ways that store the N x N map


def attention_on_gpu(*, padded: bool = False) -> dict[str, Callable[..., Tensor]]:
    """Return everything that computes attention in PyTorch on a GPU, by name; ``padded`` adds padded flash."""
    kernels = {name: partial(attention_sdpa_by, kernel=kernel) for name, kernel in SDPA.items()}
    if padded:
        kernels["sdpa flash padded"] = partial(kernels["sdpa flash"], padded=True)
    return {**kernels, "compiled": Compiled(attention_naive), "flex": Compiled(attention_flex)}


def attention_sdpa(tensors: Tensors) -> Tensor:
    """Return scaled_dot_product_attention of maps (B, C, H, W), whatever kernel torch picks."""
    query, key, value = (tensor.flatten(2).transpose(1, 2)[:, None] for tensor in tensors)  # (B, 1, N, C)
    out = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return out[:, 0].transpose(1, 2).unflatten(2, tensors[0].shape[2:])  # (B, Cv, H, W)


def attention_blocked(tensors: Tensors) -> Tensor:
    """Return attention computed for a block of queries at a time."""
    query, key, value = (tensor.flatten(2) for tensor in tensors)  # (B, C, N)
    rows = (torch.softmax(block.mT @ key, dim=-1) for block in query.split(BLOCK, dim=2))  # (B, block, Nk)
    out = torch.cat([value @ row.mT for row in rows], dim=2)  # (B, Cv, Nq)
    return out.unflatten(2, tensors[0].shape[2:])


def attention_residual_sdpa(tensors: Tensors) -> Tensor:
    """Return residual + gamma * scaled_dot_product_attention."""
    return tensors[3] + tensors[4] * attention_sdpa(tensors[:3])


def rows_of_whole_map(tensors: Tensors, *, positions: Sequence[Sequence[int]]) -> Tensor:
    """Return chosen rows of the map, after computing all of it."""
    query, key = tensors
    width = query.shape[-1]
    whole = torch.softmax(query.flatten(2).mT @ key.flatten(2), dim=-1)  # (B, N, N)
    return whole[:, [y * width + x for x, y in positions]].unflatten(2, key.shape[2:])  # (B, P, H, W)
