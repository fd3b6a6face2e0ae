"""What the critic of system 002 is shown: image, heatmaps and joints of real and of estimated poses, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Evidence:
    """Poses on their images, as the critic takes them.

    Attributes:
        image: (B, 3, H, W), normalised.
        heatmaps: (B, K, h, w).
        joints: (B, K, 3) in the crop's cube.
        shown: (B, K), true where a joint may be shown.
    """

    image: Tensor
    heatmaps: Tensor
    joints: Tensor
    shown: Tensor

    def take(self, rows: list[int]) -> Evidence:
        """Return some of the samples, also more than once."""
        chosen = torch.tensor(rows, device=self.image.device)
        return Evidence(*(part[chosen] for part in vars(self).values()))

    def detach(self) -> Evidence:
        """Return the same without history."""
        return Evidence(self.image, self.heatmaps.detach(), self.joints.detach(), self.shown)

    def paired(self, other: Evidence) -> tuple[Evidence, Evidence]:
        """Return these samples and as many of ``other``; partners hide what one of them lacks."""
        shown = self.shown & other.shown
        first, second = (Evidence(each.image, each.heatmaps, each.joints, shown) for each in (self, other))
        return first, second

    def beside(self, other: Evidence) -> Evidence:
        """Return these samples and those of ``other`` behind them."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Evidence(*(torch.cat(pair) for pair in pairs))

    def sources(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return image, heatmaps and joints in which a joint that is not to be shown is blank.

        Its heatmap is 0 and its place is the middle of the joints that are shown. The geometry source knows offsets
        alone: there it is a point that says nothing that the others do not say, and that no shift of the body moves.
        """
        heatmaps = torch.where(self.shown[:, :, None, None], self.heatmaps, 0)
        shown = self.shown[:, :, None]  # (B, K, 1)
        total = torch.where(shown, self.joints, 0).sum(1, keepdim=True)  # (B, 1, 3)
        middle = total / shown.sum(1, keepdim=True).clamp(min=1)
        return self.image, heatmaps, torch.where(shown, self.joints, middle)


def choose(known: Sequence[bool], fakes: str, turn: int = 0) -> tuple[list[int], list[int]]:
    """Return the samples of a batch that are shown with their true pose, and as many to be shown with the estimate.

    Args:
        known: of each sample of the batch, true where it has 3D truth.
        fakes: from which samples estimates are taken: "3d", "wild", or "both" in turn, a wild one first.
        turn: number of the critic's step with this batch; each goes on where the one before stopped.

    Raises:
        ValueError: no sample with truth, or none of those asked for.
    """
    real = [row for row, flag in enumerate(known) if flag]
    wild = [row for row, flag in enumerate(known) if not flag]
    offered = {"3d": real, "wild": wild, "both": _in_turn(wild, real)}[fakes]
    if not real or not offered:
        raise ValueError(
            f"batch: expected samples with 3D truth and estimates of {fakes!r} samples for the critic, got {len(real)} "
            f"with truth and {len(wild)} without; change data.wild_share or loss.fakes"
        )
    count = min(len(real), len(offered))
    return _cycled(real, turn * count, count), _cycled(offered, turn * count, count)


def partners(known: Sequence[bool]) -> list[int]:
    """Return for every sample of a batch one that is shown with its true pose, each as often as the others."""
    return _cycled([row for row, flag in enumerate(known) if flag], 0, len(known))


def _in_turn(first: list[int], second: list[int]) -> list[int]:
    """Return the entries of both, of each place first one and then the other, as long as both last.

    Where a choice of ``first`` or ``second`` falls depends on the place alone: processes that share a batch choose as
    one that has all of it.
    """
    common = min(len(first), len(second))
    pairs = [pair[:: -1 if place % 2 else 1] for place, pair in enumerate(zip(first, second, strict=False))]
    return [pair[turn] for turn in (0, 1) for pair in pairs] + first[common:] + second[common:]


def _cycled(rows: list[int], first: int, count: int) -> list[int]:
    return [rows[(first + step) % len(rows)] for step in range(count)]
