"""Metrics of pose transfer over two ranks equal one process, also where a rank has seen nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastpose

RANK = """
import json, sys
import torch
from fastpose.metrics import DetectionScore, GenerativeAccumulator, ImageAccumulator, TransferPCKh, image

folder, rank, ranks = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if ranks > 1:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)

generator = torch.Generator().manual_seed(0)
target = torch.randint(0, 256, (9, 3, 24, 16), generator=generator).to(torch.uint8)
generated = target // 2 + torch.randint(0, 128, target.shape, generator=generator).to(torch.uint8)
points = torch.rand(9, 18, 2, generator=generator) * 16
found = points + torch.randn(points.shape, generator=generator) * 3


def look(images):
    flat = images.double().flatten(2)
    return torch.cat((flat.mean(2), flat.std(2)), dim=1), flat.mean(2) / 10


def measure(share):
    images, joints = ImageAccumulator(image.protocols(image.NAMES)), TransferPCKh()
    looks = GenerativeAccumulator(look, splits=2, judge="colours")
    seen = DetectionScore(lambda batch: [[value / 255] for value in batch[:, 0, 0, 0].tolist()])
    for start in range(0, 9, 2):
        if ranks > 1 and rank != (start // 2 % 2 if share == "both" else 0):
            continue
        part = slice(start, start + 2)
        images.update(generated[part], target[part], points[part])
        joints.update(found[part], points[part])
        looks.update(generated[part], target[part], torch.arange(9)[part])
        seen.update(generated[part])
    for each in (images, joints, looks, seen):
        each.all_reduce()
    return [result.as_dict() for result in (*images.results(), joints.result(), *looks.results(), seen.result())]


print(json.dumps([measure("both"), measure("first")]))
if ranks > 1:
    torch.distributed.destroy_process_group()
"""


def run(folder, ranks):
    folder.mkdir()
    command = [sys.executable, "-P", "-c", RANK, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(Path(fastpose.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen([*command, str(rank), str(ranks)], stdout=subprocess.PIPE, text=True, env=environment)
        for rank in range(ranks)
    ]


def test_two_ranks_equal_one(tmp_path):
    processes = [*run(tmp_path / "one", 1), *run(tmp_path / "two", 2)]
    alone, first, second = (json.loads(process.communicate(timeout=120)[0]) for process in processes)
    assert first == second
    for shared in first:  # both ranks see images, and one alone does
        for ours, theirs in zip(alone[0], shared, strict=True):
            if ours["name"] in ("IS", "FID"):
                assert theirs["value"] == pytest.approx(ours["value"], rel=1e-10)
                assert theirs["count"] == ours["count"]
            else:
                assert theirs == ours  # digit by digit
