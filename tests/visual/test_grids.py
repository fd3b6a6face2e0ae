"""Image files: whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from fastpose.data.images import read_image
from fastpose.visual import curves
from fastpose.visual.grids import save_image

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def full(monkeypatch) -> None:
    """Let the disk take ten bytes of a file and refuse the rest."""

    def refuse(path: Path, data: bytes) -> int:
        with path.open("wb") as stream:
            stream.write(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)


def test_a_picture_is_written_into_a_new_folder_and_over_an_old_one(tmp_path):
    path = tmp_path / "new" / "日本.png"
    assert save_image(path, 255 - PICTURE) == path
    assert save_image(path, PICTURE) == path
    assert np.array_equal(read_image(path), PICTURE)
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ValueError, match=r"expected a name that ends in \.png, \.jpg or \.jpeg"):
        save_image(tmp_path / "a.gif", PICTURE)


def test_a_disk_that_refuses_leaves_no_half_of_a_picture(tmp_path, full):
    for write in (lambda path: save_image(path, PICTURE), lambda path: curves.plot_curves([{"loss": 1.0}], path)):
        with pytest.raises(OSError, match=r"a\.png: could not be written \(No space left on device\)"):
            write(tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_leaves_the_old_picture(tmp_path, full):
    path = tmp_path / "a.png"
    path.write_text("old")
    with pytest.raises(OSError, match="could not be written"):
        save_image(path, PICTURE)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
