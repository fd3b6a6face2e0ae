"""Image files: whole or not there."""

from __future__ import annotations

import errno
import os
import stat

import numpy as np
import pytest

from fastpose import _files
from fastpose.data.images import read_image
from fastpose.visual import curves
from fastpose.visual.grids import save_image

PICTURE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.fixture
def full(monkeypatch) -> None:
    """Let the disk take ten bytes of a file and refuse the rest."""

    def refuse(descriptor: int) -> None:
        os.ftruncate(descriptor, 10)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", refuse)


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


def test_a_picture_is_written_through_a_link(tmp_path):
    link, target = tmp_path / "link.png", tmp_path / "elsewhere" / "target.png"
    save_image(target, 255 - PICTURE)
    link.symlink_to(target)
    assert save_image(link, PICTURE) == link
    assert link.is_symlink()
    assert np.array_equal(read_image(target), PICTURE)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name", ["a" * 251, "日" * 83 + "aa"], ids=["ascii", "unicode"])
def test_a_name_may_be_as_long_as_the_disk_takes(tmp_path, name):
    path = save_image(tmp_path / f"{name}.png", PICTURE)  # 255 bytes
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_flush_a_folder_takes_pictures(tmp_path, monkeypatch, code):
    flush = os.fsync

    def files_alone(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        flush(descriptor)

    monkeypatch.setattr(_files.os, "fsync", files_alone)
    assert np.array_equal(read_image(save_image(tmp_path / "a.png", PICTURE)), PICTURE)
