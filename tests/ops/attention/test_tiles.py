"""The table of tiles: what comes with the package, the user's own entries, and the rule for everything else."""

import json

import pytest
import torch

from fastpose.ops._devices import Gpu
from fastpose.ops.attention import _tiles
from fastpose.ops.attention._tiles import Tile, Tiles

HOPPER = Gpu("a Hopper", (9, 0), 232448, 132)
NEWER = Gpu("a newer one", (12, 0), 101376, 170)
MINE = Tiles(*[Tile(32, 64, 4, 3)] * 6, atomics=True)


@pytest.fixture
def table(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "tiles.json"
    monkeypatch.setenv(_tiles.USER_TABLE, str(path))
    return path


def test_triton_key_names_what_the_choice_depends_on():
    assert _tiles.key(HOPPER, 20, 200, torch.bfloat16, "tf32") == "sm_90 ck32 cv256 half"
    assert _tiles.key(HOPPER, 8, 64, torch.float32, "tf32x3") == "sm_90 ck16 cv64 tf32x3"


def test_triton_own_entry_goes_first_and_survives_a_second_one(table):
    args = (32, 256, torch.bfloat16, "tf32")
    before = _tiles.lookup(HOPPER, *args)
    _tiles.write_entry(table, _tiles.key(HOPPER, *args), MINE)
    _tiles.write_entry(table, "sm_90 ck64 cv512 half", before)
    assert _tiles.lookup(HOPPER, *args) == MINE != before
    assert _tiles.lookup(HOPPER, 64, 512, torch.float16, "tf32") == before
    assert len(json.loads(table.read_text())) == 2


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 1}', '{"a": {"forward": [16, 16, 4, 1, 16, 0]}}', "\x00\xff"]
)
def test_triton_broken_table_is_named_in_one_sentence(table, content):
    table.parent.mkdir()
    table.write_text(content)
    with pytest.raises(
        ValueError, match=r"expected a table of attention tiles, got .*fastpose bench --tune"
    ) as failure:
        _tiles.lookup(HOPPER, 32, 250, torch.float32, "tf32")
    assert str(table) in str(failure.value)


@pytest.mark.parametrize("gpu", [HOPPER, NEWER], ids=lambda gpu: gpu.architecture)
@pytest.mark.parametrize("channels", [(8, 16), (128, 512), (32, 256)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_triton_every_size_has_tiles(gpu, channels, dtype):
    tiles = _tiles.lookup(gpu, *channels, dtype, "tf32x3" if dtype == torch.float32 else "tf32")
    for kernel in _tiles.KERNELS:
        assert min(tiles[kernel][:2]) >= 16


def test_triton_table_of_a_user_without_a_folder_is_passed_over(monkeypatch):
    def nowhere():
        raise RuntimeError("no home")

    monkeypatch.delenv(_tiles.USER_TABLE, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(_tiles.Path, "home", nowhere)
    assert _tiles.user_table() is None
    assert _tiles.lookup(NEWER, 24, 48, torch.float16, "tf32").forward


@pytest.mark.parametrize("value_channels", [1, 16, 40, 512])
def test_triton_every_kernel_has_candidates(value_channels):
    found = {kernel for kernel, _ in _tiles.candidates(HOPPER, 8, value_channels, torch.float32)}
    assert found == set(_tiles.KERNELS)


def test_triton_candidates_name_known_kernels_and_powers_of_two():
    found = list(_tiles.candidates(HOPPER, 32, 256, torch.bfloat16))
    assert {kernel for kernel, _ in found} == set(_tiles.KERNELS)
    assert all(side & (side - 1) == 0 for _, tile in found for side in tile[:2])
