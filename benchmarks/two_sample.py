"""The 1-NN two-sample test of system 004's evaluation, beside blocks of torch.cdist, joint by joint."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastpose.benchmark.cases import Work
from fastpose.benchmark.results_file import REFERENCE
from fastpose.metrics import two_sample

JOINTS = 17
POSES = {"2 x 2,000 poses": 2000, "2 x 17,326 poses": 17326}
"""The sizes of the test."""
ONCE = "2 x 17,326 poses"
"""The published size: timed once and by ours alone, as the usual way takes minutes for it."""
TEST = "two_sample_accuracy"
BLOCK = 512
"""Poses that the usual way compares with all others at a time."""
TOLERANCE = 0.1
"""By how many points the accuracies may differ: poses whose two neighbours are equally far but for rounding."""


def poses(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return real and generated poses (N, K, 2): of each set a few hundred kinds, with noise."""
    generator = torch.Generator().manual_seed(0)
    kinds = 16 + 32 * torch.rand(2, 300, JOINTS, 2, generator=generator)
    sets = []
    for kind in (kinds[0], torch.cat((kinds[0, :200], kinds[1, :100]))):  # of the generated a third is made up
        chosen = torch.randint(len(kind), (count,), generator=generator)
        sets.append((kind[chosen] + 4 * torch.randn(count, JOINTS, 2, generator=generator)).to(device))
    return sets[0], sets[1]


def usual_accuracy(real: Tensor, fake: Tensor) -> float:
    """Return the accuracy in percent as one writes it down: both sets in one, blocks of rows of the distance matrix."""
    every = torch.cat((real, fake))
    label = torch.arange(len(every), device=every.device) >= len(real)
    right = 0
    for start in range(0, len(every), BLOCK):
        rows = every[start : start + BLOCK]
        distance = sum(torch.cdist(rows[:, joint], every[:, joint]) for joint in range(every.shape[1]))
        distance.diagonal(start).fill_(torch.inf)  # itself
        own = label[start : start + BLOCK, None] == label
        nearest = distance.masked_fill(~own, torch.inf).amin(1)
        right += int((nearest < distance.masked_fill(own, torch.inf).amin(1)).sum())
    return 100 * right / len(every)


def our_accuracy(real: Tensor, fake: Tensor) -> float:
    """Return the same by `metrics.two_sample`."""
    return two_sample.two_sample_accuracy(real, fake)[0].value


TESTS: dict[str, Callable[[Tensor, Tensor], float]] = {REFERENCE: usual_accuracy, "fastpose": our_accuracy}


def work(count: int) -> Work:
    """Return what a test of 2 x ``count`` poses has to do: each pair once, seven operations per joint."""
    pairs = count * (2 * count - 1)
    return Work(flop=7.0 * JOINTS * pairs)
