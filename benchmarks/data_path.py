"""The data path: photographs to batches for a network, beside the same pipeline with targets from the workers.

The usual way draws heatmaps in the worker, by NumPy, a patch of three deviations around each joint, and sends them;
with "float images" the worker also normalises. Ours sends uint8 crops and key points. Whatever a way leaves to the
training process is done there before a batch counts: normalising, and rendering the targets.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fastpose import data, ops
from fastpose.data import KeypointDataset, create_loader
from fastpose.data.loading import Loader
from fastpose.training import pose_data

FOLDER = "FASTPOSE_LSPET"  # environment variable: LSP-extended; else the bundled photographs
BATCH, SIDE, SIGMA = 16, 256, 1.0
BATCHES = 24
SETTINGS = pose_data.DataConfig(name="sample", image_size=SIDE, augmentation="sagan_released")

WAYS = ("heatmaps, float images", "heatmaps", "fastpose", "fastpose, cache", "fastpose, shrunk cache")


def source() -> Any:
    """Return the persons: of the folder that the environment names, or the bundled ones."""
    folder = os.environ.get(FOLDER)
    return data.create("lspet", folder, "all", skeleton="mpii") if folder else data.create("sample", None, "all")


def photographs(persons: Any) -> str:
    """Return in words what is read."""
    return f"{persons.name}, {len(persons):,} persons"


class Repeated(Dataset[dict[str, Tensor]]):
    """A data set gone through again until an epoch has ``count`` samples, with what a way adds in the worker."""

    def __init__(self, samples: KeypointDataset, count: int, way: str) -> None:
        self.samples, self.count, self.way = samples, count, way

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        epoch, index = key
        visit, place = divmod(index, len(self.samples))
        sample = self.samples[(epoch * self.count + visit, place)]
        if self.way.startswith("heatmaps"):
            sample["target"] = torch.from_numpy(drawn(sample["keypoints"].numpy(), sample["visibility"].numpy()))
        if "float" in self.way:
            sample["image"] = pose_data.normalise(sample["image"][None], SETTINGS)[0]
        return sample


def drawn(keypoints: np.ndarray, visibility: np.ndarray) -> np.ndarray:
    """Return heatmaps (K, h, w) of joints (K, 2), visibility (K,), as published codes draw them in their workers."""
    side, reach = SIDE // 4, int(np.ceil(3 * SIGMA))
    heatmaps = np.zeros((len(keypoints), side, side), np.float32)
    for heatmap, (x, y), seen in zip(heatmaps, keypoints, visibility, strict=True):
        if seen:
            left, top = max(int(x) - reach, 0), max(int(y) - reach, 0)
            columns = np.arange(left, min(int(x) + reach + 1, side), dtype=np.float32) - x
            rows = np.arange(top, min(int(y) + reach + 1, side), dtype=np.float32) - y
            patch = np.exp(-(columns**2 + rows[:, None] ** 2) / (2 * SIGMA**2))
            heatmap[top : top + len(rows), left : left + len(columns)] = patch
    return heatmaps


def ready(batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Do in the training process what the way has left to it; return images and targets."""
    image, target = batch["image"], batch.get("target")
    if image.dtype == torch.uint8:
        image = pose_data.normalise(image, SETTINGS)
    if target is None:
        size = (SIDE // 4, SIDE // 4)
        target = ops.render_gaussian_heatmaps(batch["keypoints"], size, SIGMA, visibility=batch["visibility"])
    return image, target


@dataclass(frozen=True)
class DataPath:
    """One way: its loader."""

    loader: Loader

    def epoch(self) -> None:
        """Make every batch of an epoch ready: what is timed."""
        for batch in self.loader:
            ready(batch)

    def first_batch(self) -> float:
        """Return the seconds until the first batch of fresh workers, their start among them, and end them."""
        start = time.perf_counter()
        next(iter(self.loader))
        seconds = time.perf_counter() - start
        self.loader.close()
        return seconds

    def pss(self) -> list[int]:
        """Return each worker's share of memory in bytes, pages that processes share divided among them."""
        workers = getattr(self.loader._loader._iterator, "_workers", ())
        return [found for worker in workers if (found := _pss(worker.pid)) is not None]


def _pss(process: int) -> int | None:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # not Linux
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), None)


def build(persons: Any, way: str, workers: int, cache: Path) -> DataPath:
    """Return the data path of a way; ``cache`` is a folder for decoded photographs."""
    kept = {"cache": cache, "shrink": "shrunk" in way} if "cache" in way else {}
    size = {"image_size": (SIDE, SIDE), "heatmap_size": (SIDE // 4, SIDE // 4)}
    samples = KeypointDataset(persons, augment=SETTINGS.augmentation, **size, **kept)
    return DataPath(create_loader(Repeated(samples, BATCH * BATCHES, way), BATCH, shuffle=True, workers=workers))


@contextmanager
def closed(paths: dict[str, DataPath]) -> Iterator[dict[str, DataPath]]:
    """Give the paths of all ways, and end their workers."""
    try:
        yield paths
    finally:
        for path in paths.values():
            path.loader.close()


def first_batches(paths: dict[str, DataPath]) -> dict[str, float]:
    """Return each way's seconds to a first batch while no other has workers: the mean of a turn in each direction."""
    turns = [{way: paths[way].first_batch() for way in order} for order in (list(paths), list(reversed(paths)))]
    return {way: statistics.mean(turn[way] for turn in turns) for way in paths}


def left_over(batch: dict[str, Tensor]) -> Callable[[], object]:
    """Return what the training process does for a batch."""
    return lambda: ready(batch)


def records(
    persons: Any, workers: int, cache: Path, both_orders: Callable[..., dict[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return what is recorded of every way with a number of workers."""
    with closed({way: build(persons, way, workers, cache) for way in WAYS}) as paths:
        first = first_batches(paths)
        seconds = both_orders({way: path.epoch for way, path in paths.items()})
        memory = {way: path.pss() for way, path in paths.items()}
        main = both_orders({way: left_over(next(iter(path.loader))) for way, path in paths.items()})
        return [
            {
                "photographs": photographs(persons),
                "size": f"B={BATCH}, {SIDE}x{SIDE}",
                "workers": workers,
                "provider": way,
                "images_per_s": BATCH * BATCHES / seconds[way]["median_s"],
                "q1_s": seconds[way]["q1_s"],
                "median_s": seconds[way]["median_s"],
                "q3_s": seconds[way]["q3_s"],
                "main_s": main[way]["median_s"],
                "first_batch_s": first[way],
                "worker_pss_bytes": max(memory[way], default=None),
            }
            for way in WAYS
        ]
