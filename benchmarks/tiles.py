"""Choose tiles of the attention kernels without a GPU: the first candidates that compile without spilling a register.

``python benchmarks/tiles.py [sm_90 ...]`` compiles ahead of time for both memory layouts and writes the entries of the
published sizes into fastpose/ops/attention/tiles.json. Which of the spill-free tiles is the fastest only a GPU can
tell: there ``fastpose bench --tune`` times them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import aot
import torch

import fastpose
from fastpose.ops.attention import _tiles
from fastpose.ops.attention._tiles import KERNELS, Tile, Tiles

TABLE = Path(fastpose.__file__).parent / "ops" / "attention" / "tiles.json"
CHANNELS = ((8, 64), (16, 128), (32, 256), (64, 512))  # of the published networks: Ck = C / 8, Cv = C
ARITHMETIC = {
    "half": (torch.bfloat16, "highest"),
    "tf32x3": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
}
HALVES = (torch.bfloat16, torch.float16)  # one column of the table, nearly the same code


def fits(gpu: aot.Gpu, channels: tuple[int, int], dtype: torch.dtype, tiles: Tiles, kernel: str) -> bool:
    """Whether every start of that kernel compiles without spills within the shared memory, in both layouts, with the
    residual and without."""
    before = _tiles.lookup
    _tiles.lookup = lambda *arguments: tiles
    try:
        for each, layout, fused in product(HALVES if dtype in HALVES else (dtype,), aot.LAYOUTS, (False, True)):
            for start in aot.attention_calls(gpu, each, *channels, layout, fused=fused):
                if start.kernel.__name__ == kernel and not _compiles(start, gpu):
                    return False
        return True
    finally:
        _tiles.lookup = before


def _compiles(start: aot.Start, gpu: aot.Gpu) -> bool:
    try:
        found = aot.compile_ahead(start, 10 * gpu.capability[0] + gpu.capability[1])
    except Exception:  # the compiler has many ways to say that a tile is too large
        return False
    return found.spilled == 0 and found.shared <= gpu.shared_memory


def choose(gpu: aot.Gpu, channels: tuple[int, int], dtype: torch.dtype, known: Tiles | None) -> Tiles:
    """Known tiles where they fit, else the first candidate that does; one sweep over the rows where that compiles."""
    chosen = known or Tiles(*[Tile(16, 16, 4, 1, 32, 64)] * len(KERNELS), one_sweep=False)
    for kernel in KERNELS:
        if kernel == "means" and dtype == torch.float32:
            continue  # only 16-bit operands need it
        if known is None or not fits(gpu, channels, dtype, chosen, kernel):
            trials = (replace(chosen, **change) for change in _changes(gpu, channels, dtype, kernel))
            fitting = next((trial for trial in trials if fits(gpu, channels, dtype, trial, kernel)), None)
            if fitting is None:
                raise SystemExit(f"{gpu.name}, {channels}, {dtype}: no candidate of {kernel} compiles without spills")
            chosen = fitting
        print(f"  {kernel}: {tuple(getattr(chosen, kernel))}", flush=True)
    return chosen


def _changes(gpu: aot.Gpu, channels: tuple[int, int], dtype: torch.dtype, kernel: str) -> Iterator[dict[str, Any]]:
    for name, tile in _tiles.candidates(gpu, *channels, dtype):
        if name == kernel and kernel == "second_rows":
            single = channels[1] <= tile.chunk  # several programs per row cannot do it in one sweep
            yield from ({kernel: tile, "one_sweep": sweep} for sweep in ((True, False) if single else (False,)))
        elif name == kernel:
            yield {kernel: tile}


def main(names: list[str]) -> None:
    """Choose and write the entries of the named architectures, or of all; entries that fit stay as they are."""
    for gpu in (gpu for gpu in aot.GPUS.values() if gpu.name in (names or ("sm_80", "sm_90"))):
        for name, (dtype, precision) in ARITHMETIC.items():
            torch.set_float32_matmul_precision(precision)
            for channels in CHANNELS:
                key = _tiles.key(gpu, *channels, dtype, name)
                print(key, flush=True)
                known = _tiles.read_table(TABLE).get(key) if TABLE.is_file() else None
                _tiles.write_entry(TABLE, key, choose(gpu, channels, dtype, known))


if __name__ == "__main__":
    main(sys.argv[1:])
