"""Can generated poses be told from real ones by their neighbours: the 1-NN two-sample test of system 004 (4.4.2).

A pose is (K, 2) positions in pixels of the map, and two poses are as far apart as their joints are together: the sum
over the joints of the Euclidean distances. Distances are float32, found in a kernel's registers or tile by tile: memory
grows with the number of poses, never with its square, and of a set with itself each pair is measured once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose import _checks, _native
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics.report import Result

CENTRE = (32.0, 32.0)
"""Where a joint lies that a pose does not have: the middle of the 64 x 64 map."""

DISTANCE = "sum over joints of Euclidean distances, an absent joint at (32, 32)"

_Block = tuple[int, int]
_CPU_BLOCK: _Block = (64, 1024)  # three float32 buffers of a tile stay in the second-level cache
_DEVICE_BLOCK: _Block = (4096, 4096)

_LARGEST = 1e15  # pixels, whose squares added up are numbers of float32


def positions(points: ArrayLike, present: ArrayLike | None = None) -> Tensor:
    """Return poses as points: float32 (N, K, 2), joints that are absent at the centre (32, 32).

    Args:
        points: (N, K, 2) in pixels of the 64 x 64 map, (x, y); a tensor stays on its device.
        present: (N, K), greater than 0 for joints that are there; None: all are.

    Raises:
        TypeError: no numbers.
        ValueError: another shape, or a joint that is present and not finite, or farther than 1e15 pixels: of squares
            that float32 does not hold nobody can tell which pose is nearest.
    """
    places = _numbers("points", points).float()
    if places.dim() != 3 or places.shape[-1] != 2 or not places.shape[1]:
        raise ValueError(f"points: expected poses (N, K, 2), got {tuple(places.shape)}")
    if present is not None:
        there = _numbers("present", present).to(places.device) > 0
        if there.shape != places.shape[:2]:
            raise ValueError(f"present: expected {tuple(places.shape[:2])} as points has, got {tuple(there.shape)}")
        places = torch.where(there[..., None], places, places.new_tensor(CENTRE))
    if not bool(places.isfinite().all()):
        raise ValueError("points: expected finite positions of joints that are present, found NaN or infinite ones")
    if places.numel() and float(places.abs().max()) > _LARGEST:
        raise ValueError(f"points: expected positions of up to {_LARGEST:g} pixels, found {places.abs().max():g}")
    return places


def _numbers(argument: str, value: ArrayLike) -> Tensor:
    try:
        numbers = _checks.dense(argument, value, "").detach() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or numbers.is_complex() or numbers.is_quantized or numbers.is_meta:
        raise TypeError(f"{argument}: expected numbers in a tensor or array, got {type(value).__name__}")
    return numbers.resolve_neg()  # the kernel reads memory


# --------------------------------------------------------------------------------------------------------- neighbours


def nearest(
    queries: ArrayLike, references: ArrayLike, *, exclude_self: bool = False, block: _Block | None = None
) -> tuple[Tensor, Tensor]:
    """Return how far the nearest reference of each query is, float32 (N,), and which it is, int64 (N,).

    Of references equally near the first counts.

    Args:
        queries, references: poses (N, K, 2) and (M, K, 2) as :func:`positions` gives them, on one device.
        exclude_self: query i and reference i are one pose, and no neighbours: leave-one-out.
        block: queries and references per tile; by default what suits the device, on a CPU a kernel without tiles.

    Raises:
        ValueError: shapes that do not fit, positions that are not finite, or no reference to be near.
    """
    first = _checked("queries", queries)
    second = first if references is queries else _checked("references", references, first)
    if exclude_self and len(first) != len(second):
        raise ValueError(f"references: expected the {len(first)} queries with exclude_self, got {len(second)} poses")
    if len(second) < 1 + exclude_self:
        raise ValueError(f"references: expected {1 + exclude_self} or more poses, got {len(second)}")
    best = _Best(first)
    _sweep(first, second, best, best if exclude_self and first is second else None, exclude_self, block)
    return best.distance, best.index


@dataclass(frozen=True)
class Neighbours:
    """The nearest poses of N real and N generated ones, (distances float32 (N,), indices int64 (N,)) each.

    Attributes:
        real, fake: each pose's nearest other one of its own set.
        real_to_fake, fake_to_real: each pose's nearest one of the other set.
    """

    real: tuple[Tensor, Tensor]
    fake: tuple[Tensor, Tensor]
    real_to_fake: tuple[Tensor, Tensor]
    fake_to_real: tuple[Tensor, Tensor]


def neighbours(
    real: ArrayLike, fake: ArrayLike, *, known: tuple[Tensor, Tensor] | None = None, block: _Block | None = None
) -> Neighbours:
    """Return the nearest neighbours within and between two sets of equally many poses.

    Args:
        real, fake: poses (N, K, 2) as :func:`positions` gives them, N of 2 or more, on one device.
        known: ``nearest(real, real, exclude_self=True)`` where it is known, as from one evaluation to the next.
        block: as of :func:`nearest`.

    Raises:
        ValueError: shapes that do not fit, sets of different sizes, or fewer than two poses.
    """
    first = _checked("real", real)
    second = _checked("fake", fake, first)
    if len(first) != len(second):
        raise ValueError(
            f"fake: expected {len(first)} poses, as many as real ones, got {len(second)}; take as many of both"
        )
    if len(first) < 2:
        raise ValueError(f"real, fake: expected 2 or more poses of each, got {len(first)}")
    across, back = _Best(first), _Best(second)
    _sweep(first, second, across, back, False, block)
    own = known or nearest(first, first, exclude_self=True, block=block)
    return Neighbours(
        own,
        nearest(second, second, exclude_self=True, block=block),
        (across.distance, across.index),
        (back.distance, back.index),
    )


class _Best:
    """The nearest pose found so far for each of N; of equally near ones the first, in whatever order they come."""

    def __init__(self, poses: Tensor) -> None:
        self.distance = poses.new_full((len(poses),), torch.inf)
        self.index = torch.full((len(poses),), torch.iinfo(torch.int64).max, device=poses.device)

    def update(self, start: int, tile: Tensor, offset: int) -> None:
        """Take in a tile (n, m): row i is pose ``start + i``, column j pose ``offset + j`` of the other set."""
        lowest = tile.amin(1)
        # Of most tiles few rows matter, and only their indices are looked for.
        rows = (lowest <= self.distance[start : start + len(tile)]).nonzero()[:, 0]
        if not len(rows):
            return
        distance, index = lowest[rows], tile[rows].min(1).indices + offset
        poses = rows + start
        held, place = self.distance[poses], self.index[poses]
        better = (distance < held) | ((distance == held) & (index < place))
        self.distance[poses] = torch.where(better, distance, held)
        self.index[poses] = torch.where(better, index, place)


def _sweep(
    first: Tensor, second: Tensor, rows: _Best, columns: _Best | None, leave_out: bool, block: _Block | None
) -> None:
    """Bring the distances of all pairs to the rows' and, unless None, the columns' nearest.

    Args:
        first, second: (N, K, 2) and (M, K, 2).
        rows, columns: where they are brought; one and the same for a set with itself, of which one half is measured.
        leave_out: whether pose i of both is one.
        block: rows and columns of a tile; None leaves it to the kernel where it serves the device.
    """
    if block is None and first.device.type == "cpu" and _native.missing() is None:
        _kernel(first, second, rows, columns, leave_out)
        return
    sides = _checked_block(block) if block else _CPU_BLOCK if first.device.type == "cpu" else _DEVICE_BLOCK
    planes = first.permute(2, 1, 0).contiguous(), second.permute(2, 1, 0).contiguous()  # (2, K, N): x, y
    buffers = first.new_empty((3, sides[0] * sides[1]))
    for row in range(0, len(first), sides[0]):
        for column in range(0, len(second), sides[1]):
            if columns is rows and column + sides[1] - 1 <= row:
                continue  # its mirror image is measured
            tile = _distances(*planes, (row, column), sides, buffers)
            if leave_out:
                tile.diagonal(row - column).fill_(torch.inf)
            rows.update(row, tile, column)
            if columns is not None:
                columns.update(column, tile.T, row)


def _kernel(first: Tensor, second: Tensor, rows: _Best, columns: _Best | None, leave_out: bool) -> None:
    """Do what ``_sweep`` does, by the extension's kernel for the CPU."""
    others = None if columns is rows else second.contiguous()
    kept = (None, None) if columns is None or columns is rows else (columns.distance, columns.index)
    _native.module().cpu.nearest_poses(
        first.contiguous(), others, leave_out, rows.distance, rows.index, *kept, torch.get_num_threads()
    )


def _distances(first: Tensor, second: Tensor, start: tuple[int, int], sides: _Block, buffers: Tensor) -> Tensor:
    """Return the distances (R, C) of one tile of (2, K, N) and (2, K, M), in the first of three buffers.

    Joint by joint in one order, so that equal poses are equally far apart wherever they meet.
    """
    here, there = first[..., start[0] : start[0] + sides[0]], second[..., start[1] : start[1] + sides[1]]
    shape = here.shape[-1], there.shape[-1]
    total, x, y = (buffer[: shape[0] * shape[1]].view(shape) for buffer in buffers)
    total.zero_()
    for joint in range(first.shape[1]):
        torch.sub(here[0, joint, :, None], there[0, joint], out=x)
        torch.sub(here[1, joint, :, None], there[1, joint], out=y)
        total.add_(x.mul_(x).add_(y.mul_(y)).sqrt_())
    return total


def _checked(argument: str, poses: ArrayLike, like: Tensor | None = None) -> Tensor:
    try:
        checked = positions(poses)
    except (TypeError, ValueError) as error:
        raise type(error)(str(error).replace("points", argument, 1)) from None
    if like is not None and checked.shape[1:] != like.shape[1:]:
        raise ValueError(f"{argument}: expected {like.shape[1]} joints as the other set has, got {checked.shape[1]}")
    if like is not None and checked.device != like.device:
        raise ValueError(f"{argument}: expected device {like.device} of the other set, got {checked.device}")
    return checked


def _checked_block(block: _Block) -> _Block:
    if min(block) < 1:
        raise ValueError(f"block: expected positive numbers of queries and references, got {block}")
    return block


# ----------------------------------------------------------------------------------------------------------- accuracy


def two_sample_accuracy(real: ArrayLike, fake: ArrayLike, *, block: _Block | None = None) -> list[Result]:
    """Return the leave-one-out accuracy of a 1-NN classifier of real and generated poses, as :func:`accuracy` does.

    Args:
        real, fake: poses (N, K, 2) as :func:`positions` gives them, N of 2 or more.
        block: as of :func:`nearest`.
    """
    return accuracy(neighbours(real, fake, block=block))


def accuracy(found: Neighbours) -> list[Result]:
    """Return "1-NN accuracy", "1-NN real", "1-NN generated" and "1-NN off 50 %", in percent, of nearest neighbours.

    A pose is classified rightly when the nearest other pose of its own set is strictly nearer than that of the other
    set, as in the authors' code: a tie is a mistake, so that a generator that has learnt its training poses by heart
    scores 0. Two sets of one distribution score about 50, sets far apart 100.

    Accuracy, and "off 50 %" with it, are of the mean of both sides, of which errors of opposite sign cancel: where
    generated poses lie close together, real ones are nearer to them (20 %, say) and they to each other (80 %), which
    reads 50. Only where "1-NN real" and "1-NN generated" are both about 50 are the sets alike.
    """
    right = [
        (own[0] < other[0]).double().mean().item() * 100
        for own, other in ((found.real, found.real_to_fake), (found.fake, found.fake_to_real))
    ]
    count = len(found.real[0])
    both = sum(right) / 2
    rule = f"leave-one-out 1-NN of {count:,} real and as many generated poses, a tie is a mistake; {DISTANCE}"
    off = "|1-NN accuracy - 50| in points, of the mean of 1-NN real and 1-NN generated, whose opposite errors cancel"
    details = {"real": right[0], "generated": right[1]}
    return [
        Result("1-NN accuracy", f"{rule}; poses found on their own side, %", both, 2 * count, details=details),
        Result("1-NN real", f"{rule}; real poses nearer to a real one, %", right[0], count),
        Result("1-NN generated", f"{rule}; generated poses nearer to a generated one, %", right[1], count),
        Result("1-NN off 50 %", f"{off}; {rule}", abs(both - 50), 2 * count),
    ]
