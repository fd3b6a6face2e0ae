"""Several domains in every batch: an exact number of samples of each, in an order that (seed, epoch) decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from fastpose.data.loading import epoch_order


class MixedDataset(Dataset[dict[str, torch.Tensor]]):
    """Data sets one behind the other; with ``per_batch``, each batch has its share of every one.

    Args:
        parts: data sets whose items are dicts with the same keys; an index runs through them in order.
        per_batch: samples of each part in a batch; None reads the parts one after the other.
        batches: of an epoch and one process; 0: as many as the first part fills, shared by all processes.

    An item is the part's own, with
        domain: int64, number of the part.
        index: int64, position among the samples of all parts (``locate`` gives the part and the place in it).

    A part that an epoch exhausts begins again in a new order; one that it does not exhaust goes on in the next epoch
    where it stopped, so that no sample comes twice before each has come once.
    """

    def __init__(self, parts: Sequence[Any], per_batch: Sequence[int] | None = None, *, batches: int = 0) -> None:
        self.parts, self.per_batch, self.batches = (
            tuple(parts),
            None if per_batch is None else tuple(per_batch),
            batches,
        )
        sizes = [len(part) for part in self.parts]
        if not sizes or min(sizes) < 1:
            raise ValueError(f"parts: expected data sets with at least one sample each, got sizes {sizes}")
        if self.per_batch is not None and (len(self.per_batch) != len(sizes) or min(self.per_batch) < 1):
            raise ValueError(f"per_batch: expected {len(sizes)} numbers of 1 or more, got {self.per_batch}")
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def source(self) -> Any:
        """The first part's source."""
        return self.parts[0].source

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

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, torch.Tensor]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        part, place = self.locate(index)
        item = self.parts[part][(epoch, place)]
        shown = int(self._starts[part]) + int(item["index"])  # another sample may stand in for an unreadable one
        return {**item, "domain": torch.tensor(part), "index": torch.tensor(shown)}

    def order(self, *, shuffle: bool, seed: int, epoch: int, batch_size: int, world_size: int) -> np.ndarray:
        """Return the indices of an epoch, int64 (steps * world_size * batch_size,): each block of ``batch_size`` is
        one process's batch. Without ``per_batch``, or unshuffled, as ``loading.epoch_order``.

        Raises:
            ValueError: ``per_batch`` does not add up to ``batch_size``.
        """
        if self.per_batch is None or not shuffle:
            return epoch_order(len(self), shuffle=shuffle, seed=seed, epoch=epoch)
        if sum(self.per_batch) != batch_size:
            raise ValueError(
                f"batch_size: expected {sum(self.per_batch)} = {self.per_batch} of each part, got {batch_size}"
            )
        steps = self.batches or len(self.parts[0]) // (self.per_batch[0] * world_size)
        blocks = steps * world_size
        drawn = [
            self._drawn(part, epoch * blocks * count, blocks * count, seed).reshape(blocks, count)
            for part, count in enumerate(self.per_batch)
        ]
        return np.concatenate(drawn, axis=1).reshape(-1)  # (blocks * batch_size,)

    def _drawn(self, part: int, first: int, count: int, seed: int) -> np.ndarray:
        """Return ``count`` samples of a part from the ``first`` on, in an endless row of permutations of it."""
        size = len(self.parts[part])
        rounds = range(first // size, (first + count - 1) // size + 1 if count else first // size)
        row = [
            np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, part, r)))).permutation(size)
            for r in rounds
        ]
        skipped = first % size
        return int(self._starts[part]) + np.concatenate([np.zeros(0, np.int64), *row])[skipped : skipped + count]
