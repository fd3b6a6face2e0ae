"""Choose tiles of the attention kernels without a GPU: the first candidates that compile without spilling a register.

``python benchmarks/tiles.py [sm_90 ...]`` compiles ahead of time for both memory layouts and writes the entries of the
published sizes into fastpose/ops/attention/tiles.json. Which of the spill-free tiles is the fastest only a GPU can
tell: there ``fastpose bench --tune`` times them.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

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
LAYOUTS = ("positions", "channels")


def fits(gpu: aot.Gpu, channels: tuple[int, int], dtype: torch.dtype, tiles: Tiles, kernel: str) -> bool:
    """Whether every start of that kernel compiles without spills within the shared memory, in both layouts."""
    before = _tiles.lookup
    _tiles.lookup = lambda *arguments: tiles
    try:
        for layout in LAYOUTS:
            for start in aot.attention_calls(gpu, dtype, *channels, layout):
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


def choose(gpu: aot.Gpu, channels: tuple[int, int], dtype: torch.dtype) -> Tiles:
    """The first fitting candidate of each kernel, preferring one sweep over the rows where that compiles."""
    chosen = Tiles(*[Tile(16, 16, 4, 1)] * len(KERNELS), one_sweep=False)
    for kernel in KERNELS:
        if kernel == "means" and dtype == torch.float32:
            continue  # only 16-bit operands need it
        for name, tile in _tiles.candidates(gpu, *channels, dtype):
            if name != kernel:
                continue
            single = channels[1] <= tile.chunk
            for sweep in (True, False) if kernel == "second_rows" and single else (chosen.one_sweep,):
                trial = replace(chosen, **{kernel: tile}, one_sweep=sweep)
                if fits(gpu, channels, dtype, trial, kernel):
                    break
            else:
                continue
            chosen = trial
            break
        print(f"  {kernel}: {tuple(getattr(chosen, kernel))}", flush=True)
    return chosen


def main(names: list[str]) -> None:
    """Choose and write the entries of the named architectures, or of all."""
    for gpu in (gpu for gpu in aot.GPUS.values() if gpu.name in (names or ("sm_80", "sm_90"))):
        for name, (dtype, precision) in ARITHMETIC.items():
            torch.set_float32_matmul_precision(precision)
            for channels in CHANNELS:
                key = _tiles.key(gpu, *channels, dtype, name)
                print(key, flush=True)
                _tiles.write_entry(TABLE, key, choose(gpu, channels, dtype))


if __name__ == "__main__":
    main(sys.argv[1:])
