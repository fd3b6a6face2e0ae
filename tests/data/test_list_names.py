"""File names that lists hold: none leads out of the folder that the list was given for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pair_files
import pytest
import reader_files

from fastpose.data import pair_layouts
from fastpose.data.person import resolve_under

HOSTILE = (
    "../{}",
    "x/../../{}",
    "./../{}",
    "x/../..",
    "..",
    "/etc/{}",
    "//host/{}",
    "\\etc\\{}",
    "..\\{}",
    "x\\..\\..\\{}",
    "C:\\{}",
    "C:{}",
    "\\\\host\\share\\{}",
    "{}\0.jpg",
    "",
)
"""Ways out, of a name ``{}``."""

INSIDE = ("{}", "x/{}", "./{}", "x//{}", "~/{}", "~root/{}", "%2e%2e/{}", "...{}", "$HOME/{}", "x y/ü/{}", "-rf")
"""Odd names that are names."""


def _json(folder: Path, make: Callable[[Path], Any], change: Callable[[str], str]) -> Any:
    """Read a JSON file after every name in it is changed."""
    path, read = make(folder)
    swap = lambda rows: [row | {key: change(row[key]) for key in ("image", "file_name") if key in row} for row in rows]  # noqa: E731
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps(swap(content) if isinstance(content, list) else content | {"images": swap(content["images"])})
    )
    return read(path)


def _arrays(folder: Path, make: Callable[[Path], Any], change: Callable[[str], str], patch: pytest.MonkeyPatch) -> Any:
    """Read an array file of Human3.6M that is written with changed names."""
    patch.setattr(reader_files, "_NAMES", [change(name) for name in reader_files._NAMES])
    path, read = make(folder)
    return read(path)


def _h5(folder: Path, make: Callable[[Path], Any], change: Callable[[str], str]) -> Any:
    path, read = make(folder)
    path.unlink()
    content = {"part": np.ones((1, 16, 2)), "visible": np.ones((1, 16)), "center": np.ones((1, 2))}
    name = np.array([np.void(change("a.jpg").encode())])  # as bytes, NULs and all
    reader_files._h5(path, content | {"scale": np.ones(1), "normalize": np.ones(1), "imgname": name})
    return read(path)


def _table(folder: Path, change: Callable[[str], str]) -> Any:
    name = change("0001_c1s1_000001_00.jpg")
    pair_files.write_tables(folder, "market", "test", [name], [(name, name)], (128, 64))
    return pair_layouts.read_pairs(pair_layouts.MARKET, folder, "test", rule="all").persons


def _listed(folder: Path, change: Callable[[str], str]) -> Any:
    """A table of ids leaves the images' names to the list of pairs."""
    reader_files._table(folder, True)[0].rename(folder / "test_img_keypoints.csv")
    (folder / "test_img_pairs.csv").write_text(f"imgA,imgB\n{change('a0.jpg')},{change('a1.jpg')}\n")
    return pair_layouts.read_pairs(pair_layouts.MARKET, folder, "test").persons


READERS: dict[str, Callable[[Path, Callable[[str], str], pytest.MonkeyPatch], Any]] = {
    "COCO": lambda folder, change, _: _json(folder, reader_files.FILES["COCO"], change),
    "MPII .json": lambda folder, change, _: _json(folder, reader_files.FILES["MPII .json"], change),
    "Human3.6M .npz": lambda folder, change, patch: _arrays(folder, reader_files._h36m_npz, change, patch),
    "Human3.6M .mat": lambda folder, change, patch: _arrays(folder, reader_files._h36m_mat, change, patch),
    "table": lambda folder, change, _: _table(folder, change),
    "list of pairs": lambda folder, change, _: _listed(folder, change),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_promise_20_a_list_names_nothing_outside_of_its_folder(tmp_path, monkeypatch, reader, hostile):
    """It is refused; where the format itself cuts a name short, what is left of it stays inside."""
    root = tmp_path / "root" / "deep"
    root.mkdir(parents=True)
    persons: Any = []

    def read() -> None:
        persons.extend(READERS[reader](root, lambda name: hostile.replace("{}", name), monkeypatch))

    refused = pair_files.sentence(read)
    assert bool(refused) != bool(persons)
    assert "\n" not in refused
    for person in persons:
        assert root in Path(os.path.normpath(person.image)).parents, f"{reader}: {hostile!r} led to {person.image}"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_promise_20_the_one_place_where_names_become_paths_refuses_them(hostile):
    with pytest.raises(ValueError, match="leaves the folder root; expected a name relative to it"):
        resolve_under(Path("root"), hostile.replace("{}", "a.jpg"), Path("list.csv"))


@pytest.mark.parametrize("name", INSIDE)
def test_promise_20_odd_names_are_names(name):
    name = name.replace("{}", "a.jpg")
    assert resolve_under(Path("/root"), name, Path("list.csv")) == Path("/root") / name


def test_promise_20_links_that_a_user_made_are_followed(tmp_path):
    """Data sets are often put together of links."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"here")
    assert resolve_under(tmp_path / "root", "images/a.jpg", Path("list.csv")).read_bytes() == b"here"
