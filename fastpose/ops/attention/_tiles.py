"""Which tiles attention's Triton kernels use: a checked-in table, a table of the user's own, and a rule for the rest.

Nothing is tuned at run time. ``fastpose bench --tune`` times the candidates and writes an entry into the user's table,
which goes before the one that comes with the package (``tiles.json``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fastpose.ops._devices import Gpu

KERNELS = ("forward", "rows", "columns", "means", "second_rows", "second_columns")
USER_TABLE = "FASTPOSE_TILES"  # environment variable with the path of the user's table


class Tile(NamedTuple):
    """What one program works on.

    Attributes:
        queries, keys: positions of a tile.
        warps: of the program.
        stages: of its software pipeline.
        depth: value channels that are multiplied at a time where a product runs over all of them.
        chunk: value channels whose sums it keeps; more than those are dealt to several programs.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    depth: int = 512
    chunk: int = 256


STREAMING = Tile(16, 16, 4, 1)  # of the kernel that only reads


@dataclass(frozen=True)
class Tiles:
    """A tile per kernel.

    Attributes:
        one_sweep: whether one sweep over the rows gives all that the second derivative needs of them, or two do.
        atomics: whether query gradients may be summed atomically, in no fixed order.
    """

    forward: Tile
    rows: Tile
    columns: Tile
    means: Tile
    second_rows: Tile
    second_columns: Tile
    one_sweep: bool = True
    atomics: bool = False

    def __getitem__(self, kernel: str) -> Tile:
        return STREAMING if kernel == "row_products" else getattr(self, kernel)


def padded(channels: int) -> int:
    """Channels as a matrix instruction wants them: a power of two, at least 16."""
    return max(16, 1 << (channels - 1).bit_length())


def arithmetic(dtype: torch.dtype, precision: str) -> str:
    """Name of the table's column: "half" for both 16-bit types, else the precision of float32 products."""
    return "half" if dtype.itemsize == 2 else precision


def key(gpu: Gpu, key_channels: int, value_channels: int, dtype: torch.dtype, precision: str) -> str:
    """Name of the table's entry."""
    channels = f"ck{padded(key_channels)} cv{padded(value_channels)}"
    return f"{gpu.architecture} {channels} {arithmetic(dtype, precision)}"


def lookup(gpu: Gpu, key_channels: int, value_channels: int, dtype: torch.dtype, precision: str) -> Tiles:
    """Tiles for a call: the user's entry, the package's, or the rule's."""
    return _lookup(gpu, padded(key_channels), padded(value_channels), dtype, precision, os.environ.get(USER_TABLE))


@lru_cache(maxsize=256)
def _lookup(gpu: Gpu, ck: int, cv: int, dtype: torch.dtype, precision: str, table: str | None) -> Tiles:
    name = key(gpu, ck, cv, dtype, precision)
    for path in (user_table(), Path(__file__).with_name("tiles.json")):
        if path is not None and path.is_file() and name in (entries := read_table(path)):
            return entries[name]
    return rule(gpu, ck, cv, dtype)


def rule(gpu: Gpu, key_channels: int, value_channels: int, dtype: torch.dtype) -> Tiles:
    """Cautious tiles for a size that no table holds: small enough for every GPU that is served."""
    narrow = padded(key_channels) <= 64
    if dtype.itemsize == 2:
        side, streamed, depth = (64, 32, 64) if narrow else (32, 32, 32)
        rows, columns = Tile(side, streamed, 4, 1, depth, 64), Tile(streamed, side, 4, 1, depth, 64)
        return Tiles(rows, rows, columns, rows, rows, columns, one_sweep=False)
    plain = Tile(32, 16, 4, 1, 32, 64) if narrow else Tile(16, 16, 4, 1, 32, 64)
    small = Tile(16, 16, 4, 1, 32, 64)
    return Tiles(plain, plain, plain, plain, small, small, one_sweep=False)


# ---------------------------------------------------------------------------------------------------------- the tables


def user_table() -> Path | None:
    """Path of the user's own table, which may not exist yet; None where a user has no folder that can be read."""
    if chosen := os.environ.get(USER_TABLE):
        return Path(chosen)
    try:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastpose" / "tiles.json"
        path.is_file()
    except (OSError, RuntimeError):
        return None
    return path


def read_table(path: Path) -> dict[str, Tiles]:
    """Entries of a table; ``ValueError`` with one sentence where it is none."""
    try:
        content = json.loads(path.read_text())
        return {name: _tiles(entry) for name, entry in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(
            f"{path}: expected a table of attention tiles, got {error}; delete it, or write it anew with "
            "`fastpose bench --tune`"
        ) from error


def write_entry(path: Path, name: str, tiles: Tiles) -> None:
    """Put an entry into a table, which is created where it does not exist and replaced whole where it does."""
    entries = read_table(path) if path.is_file() else {}
    entries[name] = tiles
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"  {json.dumps(key)}: {json.dumps(asdict(entry))}" for key, entry in sorted(entries.items()))
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    partial.replace(path)
    _lookup.cache_clear()


def _tiles(entry: dict[str, Any]) -> Tiles:
    kernels = {kernel: Tile(*(int(number) for number in entry[kernel])) for kernel in KERNELS}
    for kernel, tile in kernels.items():
        sizes = (tile.queries, tile.keys, tile.depth, tile.chunk)
        if any(size < 16 or size & (size - 1) for size in sizes) or tile.warps not in (1, 2, 4, 8, 16):
            raise ValueError(f"{kernel} {list(tile)}, where sizes (16 at least) and warps are powers of two")
    forward, rows, columns, means, second_rows, second_columns = kernels.values()
    flags = (bool(entry[name]) for name in ("one_sweep", "atomics"))
    return Tiles(forward, rows, columns, means, second_rows, second_columns, *flags)


def candidates(gpu: Gpu, key_channels: int, value_channels: int, dtype: torch.dtype) -> Iterator[tuple[str, Tile]]:
    """(kernel, tile) worth trying, large ones first; one that does not fit fails to compile or to start: pass it over.

    The side whose sums stay in registers counts most: every position of the other side is read once for it. Narrower
    chunks of the value channels compute the logits again, which costs less than tiles of 16 positions do.
    """
    wide = padded(value_channels)
    warps = {128: (8,), 64: (4, 8), 32: (4, 8), 16: (4,)}
    for kernel in KERNELS:
        summing = kernel in ("forward", "columns", "second_rows", "second_columns")
        whole = kernel in ("forward", "means")  # no product over all value channels
        chunks = [chunk for chunk in (256, 128, 64) if chunk <= max(wide, 64)] if summing else [256]
        depths = [512] if whole else sorted({min(depth, wide) for depth in (256, 64, 32)}, reverse=True)
        for resident, sizes in product((128, 64, 32, 16), ((64, 32), (16,))):
            for chunk, streamed, depth, count in product(chunks, sizes, depths, warps[resident]):
                queries, keys = (streamed, resident) if kernel.endswith("columns") else (resident, streamed)
                stages = 2 if resident > 32 else 1  # small tiles are for what hardly fits
                yield kernel, Tile(queries, keys, count, stages, depth, chunk)
