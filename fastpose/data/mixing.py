"""Several domains in every batch: an exact number of samples of each, in an order that (seed, epoch) decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose.data import fingerprints
from fastpose.data.loading import epoch_keys, epoch_order
from fastpose.data.unreadable import Substitute


class MixedDataset(Dataset[dict[str, torch.Tensor]]):
    """Data sets one behind the other; with ``per_batch``, each batch has its share of every one; with ``per_epoch``,
    each epoch.

    Args:
        parts: data sets whose items are dicts with the same keys; an index runs through them in order.
        per_batch: samples of each part in a batch; None reads the parts one after the other.
        batches: with ``per_batch``, of an epoch and one process; 0: as many as the first part fills, shared by all
            processes.
        per_epoch: samples of each part in an epoch, shuffled together; not with ``per_batch``.

    An item is the part's own, with
        domain: int64, number of the part.
        index: int64, position among the samples of all parts (``locate`` gives the part and the place in it).

    A part that an epoch exhausts begins again in a new order; one that it does not exhaust goes on in the next epoch
    where it stopped, so that no sample comes twice before each has come once. With either rule a part's items are asked
    for by (round, place), rounds counting how often the part began again: each visit is augmented anew.
    """

    def __init__(
        self,
        parts: Sequence[Any],
        per_batch: Sequence[int] | None = None,
        *,
        batches: int = 0,
        per_epoch: Sequence[int] | None = None,
    ) -> None:
        self.parts, self.batches = tuple(parts), batches
        self.per_batch = None if per_batch is None else tuple(per_batch)
        self.per_epoch = None if per_epoch is None else tuple(per_epoch)
        sizes = [len(part) for part in self.parts]
        if not sizes or min(sizes) < 1:
            raise ValueError(f"parts: expected data sets with at least one sample each, got sizes {sizes}")
        if per_batch is not None and per_epoch is not None:
            raise ValueError("per_batch, per_epoch: expected one of them at most, got both; leave one out")
        for name, numbers in (("per_batch", self.per_batch), ("per_epoch", self.per_epoch)):
            if numbers is not None and (len(numbers) != len(sizes) or min(numbers) < 1):
                raise ValueError(f"{name}: expected {len(sizes)} numbers of 1 or more, got {numbers}")
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def source(self) -> Any:
        """The first part's source."""
        return self.parts[0].source

    @property
    def skipped(self) -> int:
        """Number of different samples of all parts that could not be read so far (all workers)."""
        return sum(getattr(part, "skipped", 0) for part in self.parts)

    def locate(self, index: int) -> tuple[int, int]:
        """Return the part that holds a sample and the sample's place in it; ``IndexError`` where there is none."""
        if not 0 <= index < len(self):
            raise IndexError(f"index: expected 0 to {len(self) - 1}, got {index}")
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])

    def split(self, indices: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yield each part that ``indices`` (N,) reach: the part, the places in it (n,), and which of the N they are."""
        for number, part in enumerate(self.parts):
            low, high = self._starts[number : number + 2]
            (rows,) = np.nonzero((indices >= low) & (indices < high))
            if len(rows):
                yield part, indices[rows] - low, rows

    @property
    def fingerprint(self) -> str:
        """What tells the parts from others, 16 hexadecimal digits; a part without a fingerprint has no say."""
        return fingerprints.of_parts(getattr(part, "fingerprint", "") for part in self.parts)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        visit, index = key if isinstance(key, tuple) else (0, key)
        part, place = self.locate(index)
        item = self.parts[part][(visit, place)]
        shown = int(self._starts[part]) + int(item["index"])  # another sample may stand in for an unreadable one
        mixed = {**item, "domain": torch.tensor(part), "index": torch.tensor(shown)}
        return Substitute(mixed) if isinstance(item, Substitute) else mixed

    def order(self, *, shuffle: bool, seed: int, epoch: int, batch_size: int, world_size: int) -> np.ndarray:
        """Return the keys of an epoch's items, int64 (N, 2): (round, index). With ``per_batch`` N is steps * world_size
        * batch_size, and each block of ``batch_size`` one process's batch. Without either rule, or unshuffled, as
        ``loading.epoch_keys``.

        Raises:
            ValueError: ``per_batch`` does not add up to ``batch_size``, or the first part does not fill one step.
        """
        if shuffle and self.per_batch is not None:
            return self._in_batches(self.per_batch, seed, epoch, batch_size, world_size)
        if shuffle and self.per_epoch is not None:
            drawn = [self._drawn(part, epoch * count, count, seed) for part, count in enumerate(self.per_epoch)]
            return np.concatenate(drawn)[_generator(seed, len(self.parts), epoch).permutation(sum(self.per_epoch))]
        return epoch_keys(epoch_order(len(self), shuffle=shuffle, seed=seed, epoch=epoch), epoch)

    def _in_batches(
        self, per_batch: tuple[int, ...], seed: int, epoch: int, batch_size: int, world_size: int
    ) -> np.ndarray:
        if sum(per_batch) != batch_size:
            raise ValueError(f"batch_size: expected {sum(per_batch)} = {per_batch} of each part, got {batch_size}")
        blocks = self._steps(per_batch[0], world_size) * world_size
        drawn = [
            self._drawn(part, epoch * blocks * count, blocks * count, seed).reshape(blocks, count, 2)
            for part, count in enumerate(per_batch)
        ]
        return np.concatenate(drawn, axis=1).reshape(-1, 2)  # (blocks * batch_size, 2)

    def _steps(self, share: int, world_size: int) -> int:
        """Return the steps of an epoch, of which each process takes ``share`` samples of the first part."""
        size, needed = len(self.parts[0]), share * world_size
        if not self.batches and size < needed:
            raise ValueError(
                f"part 0: a step takes {needed} samples of it ({share} for each of {world_size} processes), found "
                f"{size}; lower batch_size, or say how many batches make an epoch (data.epoch_batches)"
            )
        return self.batches or size // needed

    def _drawn(self, part: int, first: int, count: int, seed: int) -> np.ndarray:
        """Return (round, index) of ``count`` samples of a part, from the ``first`` on in an endless row of rounds, each
        a permutation of the part.
        """
        size = len(self.parts[part])
        rounds = np.arange(first // size, -(-(first + count) // size))
        rows = [_generator(seed, part, int(number)).permutation(size) for number in rounds]
        keys = np.stack([np.repeat(rounds, size), int(self._starts[part]) + np.concatenate(rows)], axis=1)
        skipped = first % size
        return keys[skipped : skipped + count]  # (count, 2)


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))
