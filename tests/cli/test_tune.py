"""``fastpose bench --tune``: the search over tiles, with a made-up module of tiles and a made-up clock."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from fastpose.cli import _tune


class Tile(NamedTuple):
    queries: int
    keys: int
    warps: int = 4
    stages: int = 1


START = Tile(64, 64)
ASKED = ("sm_90", 32, 256, torch.bfloat16, "tf32")


@dataclass(frozen=True)
class Tiles:
    forward: Tile = START
    rows: Tile = START
    columns: Tile = START
    means: Tile = START
    second_rows: Tile = START
    second_columns: Tile = START
    one_sweep: bool = True
    atomics: bool = False


@pytest.fixture
def tiles(tmp_path):
    """The interface of fastpose.ops.attention._tiles, with an entry that is written to memory."""
    written = {}
    module = SimpleNamespace(written=written, user_table=lambda: tmp_path / "tiles.json")
    module.lookup = lambda gpu, ck, cv, dtype, precision: Tiles()
    module.key = lambda gpu, ck, cv, dtype, precision: f"{gpu} ck{ck} cv{cv} {precision}"
    sides = (16, 32, 64, 128)
    module.candidates = lambda *_: ((kernel, Tile(side, 32)) for kernel in _tune.KERNELS for side in sides)
    module.write_entry = lambda path, name, entry: written.update({name: entry})
    return module


@pytest.fixture
def calls(tiles):
    """Calls that look their tiles up as the backend does, and say which order they are."""

    def call_of(order):
        def call():
            return order, tiles.lookup(*ASKED)

        return call

    return {order: call_of(order) for order in _tune.ORDERS}


def clock(call):
    """Fastest at 32 queries in every kernel but the forward, where 128 is; atomics help; 16 does not compile."""
    order, chosen = call()
    mine = [kernel for kernel in _tune.KERNELS if _tune.ORDER_OF[kernel] == order]
    if any(getattr(chosen, kernel).queries == 16 for kernel in mine):
        raise RuntimeError("out of resource: shared memory")
    best = {kernel: 128 if kernel == "forward" else 32 for kernel in mine}
    time = sum(1.0 + abs(getattr(chosen, kernel).queries - best[kernel]) / 100 for kernel in mine)
    return time * (0.8 if chosen.atomics else 1.0) * (1.0 if chosen.one_sweep else 1.3)


def test_search_finds_each_kernels_fastest_tile(tiles, calls):
    first, best = _tune.search(tiles, ASKED, calls, clock)
    assert first == Tiles()
    assert best.forward == Tile(128, 32)
    assert all(getattr(best, kernel) == Tile(32, 32) for kernel in _tune.KERNELS[1:])
    assert best.one_sweep


def test_lookup_is_put_back(tiles, calls):
    usual = tiles.lookup
    _tune.search(tiles, ASKED, calls, clock)
    assert tiles.lookup is usual


def test_atomic_sums_are_chosen_only_where_they_are_allowed(tiles, calls):
    assert not _tune.search(tiles, ASKED, calls, clock)[1].atomics
    assert _tune.search(tiles, ASKED, calls, clock, atomics=True)[1].atomics


def test_an_entry_with_atomic_sums_loses_them_where_they_are_not_allowed(tiles, calls):
    tiles.lookup = lambda *_: Tiles(atomics=True)
    first, best = _tune.search(tiles, ASKED, calls, clock)
    assert first.atomics
    assert not best.atomics


def test_noise_changes_nothing(tiles, calls):
    assert _tune.search(tiles, ASKED, calls, lambda call: 1.0)[1] == Tiles()


def test_candidates_that_fail_are_passed_over(tiles, calls):
    def fails(call):
        _, chosen = call()
        if chosen != Tiles():
            raise RuntimeError("PTX assembler failed")
        return 1.0

    assert _tune.search(tiles, ASKED, calls, fails)[1] == Tiles()


def test_a_lost_gpu_ends_the_search(tiles, calls):
    def lost(call):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        _tune.search(tiles, ASKED, calls, lost)


@pytest.mark.parametrize("atomics", [False, True])
def test_an_entry_is_written_and_the_table_shows_before_and_after(tiles, calls, monkeypatch, capsys, atomics):
    monkeypatch.setattr(_tune, "calls_of", lambda *_: calls)
    monkeypatch.setattr(_tune, "seconds", clock)
    size = _tune.Size(16, 32, 256, 4096)
    rows = _tune._tune_one(tiles, size, "float32", "high", torch.device("cpu"), atomics=atomics)
    assert capsys.readouterr().out == f"{size} float32 high: 24 candidates\n"
    assert list(tiles.written) == ["sm_90 ck32 cv256 tf32"]
    assert [row[-1].split(":")[0] for row in rows] == ["before", "after"]
    assert ["atomic sums" in row[-1] for row in rows] == [False, atomics]
    assert float(rows[0][2]) > float(rows[1][2])
    assert rows[0][1] == "float32 high"
    assert torch.get_float32_matmul_precision() == "highest"


def test_calls_of_each_order_run():
    calls = _tune.calls_of(_tune.Size(2, 4, 8, 12), torch.float32, torch.device("cpu"), backend="cpu")
    assert list(calls) == list(_tune.ORDERS)
    assert calls["forward"]().shape == (2, 8, 12)
    for _ in range(2):
        assert len(calls["backward"]()) == 3
        assert len(calls["double backward"]()) == 4


def test_tune_without_a_gpu_is_one_sentence(run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, out, err = run("bench", "--tune")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "cuda" in err.lower()


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "0,1,1,1", "1,2,3,4,5"])
def test_a_size_is_four_numbers(text):
    with pytest.raises(ValueError, match="--size: expected batch"):
        _tune.size_of(text)
    assert str(_tune.size_of("16,32,256,4096")) == "B=16 Ck=32 Cv=256 N=4096"
