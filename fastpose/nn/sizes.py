"""Checks of what image-to-image networks are given."""

from __future__ import annotations

from torch import Tensor

from fastpose import _checks
from fastpose.nn.norm import Norm


def check_pair(image: Tensor, poses: Tensor, channels: tuple[int, int], multiple: int) -> None:
    """Raise ``ValueError`` unless image and poses are (B, channels, H, W) of one size, divisible by ``multiple``."""
    _checks.tensor("image", image, "(B, C, H, W)")
    _checks.tensor("poses", poses, "(B, C, H, W)")
    _checks.shape("image", image, (None, channels[0], None, None), f"(B, {channels[0]}, H, W)")
    batch, _, height, width = image.shape
    _checks.shape("poses", poses, (batch, channels[1], height, width), f"(B, {channels[1]}, H, W)")
    if height % multiple or width % multiple or not height * width:
        raise ValueError(
            f"image: expected height and width divisible by {multiple}, got {height} x {width}; "
            f"pad or resize image and poses to {_up(height, multiple)} x {_up(width, multiple)}"
        )


def check_maps(argument: str, maps: Tensor, channels: int, smallest: int) -> None:
    """Raise ``ValueError`` unless ``maps`` is (B, channels, H, W) with sides of at least ``smallest``."""
    _checks.tensor(argument, maps, "(B, C, H, W)")
    _checks.shape(argument, maps, (None, channels, None, None), f"(B, {channels}, H, W)")
    height, width = maps.shape[2:]
    if min(height, width) < smallest:
        raise ValueError(f"{argument}: expected height and width of at least {smallest}, got {height} x {width}")


def check_normed(argument: str, maps: Tensor, multiple: int, norm: Norm, training: bool) -> None:
    """Raise ``ValueError`` where norms of the smallest map, a ``multiple``-th of these, would see one value each.

    One value says nothing of a deviation. The instance norm sees the positions of one image, the batch norm those of
    the whole batch, and in evaluation mode none.
    """
    batch, _, height, width = maps.shape
    if height * width > multiple**2:
        return
    larger = f"{argument}: expected height or width above {multiple}"
    if norm == "instance":
        raise ValueError(f"{larger} for the instance norm, got {height} x {width}")
    if training and batch == 1:
        raise ValueError(f"{larger}, or two in a batch, to train batch norms, got one of {height} x {width}")


def check_counts(**counts: int) -> None:
    """Raise ``ValueError`` unless every count is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}: expected at least 1, got {count}")


def _up(size: int, multiple: int) -> int:
    """The next size that is divisible."""
    return max(-(-size // multiple), 1) * multiple
