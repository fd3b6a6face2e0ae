"""Persons: types, frozen arrays, the checks before training, names that may not leave the root."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastpose.data.person import LazyPersons, finish, missing_images, not_finite, person


def _person(path: Path, value: float = 1.0, labelled: int = 2):
    visibility = np.array([2, 1, 0][:3])
    visibility[labelled:] = 0
    return person(path, np.full((3, 2), value), visibility, np.zeros(2), 1.0)


def test_unlabelled_coordinates_become_zero():
    built = person(Path("a"), np.full((3, 2), np.nan), np.array([0, 0, 0]), np.zeros(2), 1.0)
    assert (built.keypoints == 0).all()


def test_types_are_those_of_the_interface():
    built = _person(Path("a"))
    assert (built.keypoints.dtype, built.visibility.dtype, built.center.dtype) == (np.float32, np.uint8, np.float32)


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        _person(Path("a")).keypoints[0, 0] = 3


def test_missing_images_are_found_once_per_folder(photo, tmp_path):
    persons = [_person(photo("a.jpg")), _person(tmp_path / "b.jpg"), _person(tmp_path / "no" / "a.jpg")]
    assert missing_images(persons) == [1, 2]


def test_finish_names_the_first_missing_image_and_the_way_out(photo, tmp_path):
    persons = [_person(photo("a.jpg")), _person(tmp_path / "b.jpg")]
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images found under .*first missing: b\.jpg.*data check"):
        finish("lsp", tmp_path, persons, minimum_joints=1, on_missing="error")


def test_finish_drops_missing_images_when_asked(photo, tmp_path):
    persons = [_person(photo("a.jpg")), _person(tmp_path / "b.jpg")]
    assert finish("lsp", tmp_path, persons, minimum_joints=1, on_missing="drop") == persons[:1]


def test_finish_tells_when_no_image_is_there(tmp_path):
    persons = [_person(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg")]
    sentence = r"lsp: none of the 2 images found, expected under .*images; add them, or name the folder"
    with pytest.raises(FileNotFoundError, match=sentence):
        finish("lsp", tmp_path, persons, minimum_joints=1, on_missing="drop")


def test_persons_that_are_built_when_asked_for(photo, tmp_path):
    places = [photo("a.jpg"), tmp_path / "b.jpg", photo("c.jpg"), photo("d.jpg")]
    lazy = LazyPersons(np.arange(4), lambda row: _person(places[row], labelled=1 if row == 3 else 2))
    left = finish("lsp", tmp_path, lazy, minimum_joints=2, on_missing="drop")
    assert isinstance(left, LazyPersons)
    assert [entry.image.name for entry in left] == ["a.jpg", "c.jpg"]
    assert left[-1].image.name == "c.jpg"
    assert [entry.image.name for entry in lazy[1:3]] == ["b.jpg", "c.jpg"]
    with pytest.raises(IndexError):
        left[2]
    with pytest.raises(FileNotFoundError, match=r"3 of 4 images found"):
        finish("lsp", tmp_path, lazy, minimum_joints=1, on_missing="error")


def test_finish_refuses_nan_coordinates(photo, tmp_path):
    persons = [_person(photo("a.jpg"), value=np.nan)]
    assert not_finite(persons) == [0]
    with pytest.raises(ValueError, match=r"a\.jpg has NaN or infinite coordinates"):
        finish("lsp", tmp_path, persons, minimum_joints=1, on_missing="error")


def test_finish_drops_persons_with_too_few_joints(photo, tmp_path):
    persons = [_person(photo("a.jpg"), labelled=1), _person(photo("b.jpg"), labelled=2)]
    assert finish("lsp", tmp_path, persons, minimum_joints=2, on_missing="error") == persons[1:]


def test_finish_refuses_an_empty_result(photo, tmp_path):
    with pytest.raises(ValueError, match="no person with at least 3 labelled joints"):
        finish("lsp", tmp_path, [_person(photo("a.jpg"))], minimum_joints=3, on_missing="error")
