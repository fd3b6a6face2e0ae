"""Odd and bad files in place of photographs, before every reader of photographs: right pixels, or path and index."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import bad_images
import cv2
import numpy as np
import pytest
import tiny_market
from bad_images import READ, REFUSED
from pair_files import write_tables

from fastpose import data, skeletons
from fastpose.data import KeypointDataset, PairDataset
from fastpose.data.images import image_size, read_image, verify_image
from fastpose.data.person import person
from fastpose.training.reid_data import ReidDataConfig, train_dataset

Reader = tuple[Path, str, Callable[[], object]]
"""A photograph among others, how a sentence begins that names it, and what reads it."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return bad_images.write_jpeg(tmp_path / "photo.jpg")


@pytest.mark.parametrize("name", READ)
def test_promise_17_an_odd_photograph_gives_its_pixels(place, name):
    picture = bad_images.photograph()
    with bad_images.in_place(place, name, picture) as kind:
        image = read_image(place)
        assert image_size(place) == verify_image(place) == image.shape[:2] == picture.shape[:2]
        assert image.dtype == np.uint8
        distance = np.abs(image.astype(int) - bad_images.expected(picture, kind)).mean()
        assert distance <= kind.near, f"{name}: {distance}"


@pytest.mark.parametrize("name", REFUSED)
def test_promise_17_a_bad_photograph_is_a_sentence_with_its_path(place, name):
    with bad_images.in_place(place, name, bad_images.photograph()) as kind:
        with pytest.raises((ValueError, OSError), match=re.escape(kind.refused)) as caught:
            read_image(place)
        assert str(place) in str(caught.value)
        if kind.refused != "damaged":  # that is seen by decoding alone
            with pytest.raises((ValueError, OSError), match=re.escape(kind.refused)):
                verify_image(place)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_promise_17_every_orientation_is_turned_upright_when_asked(place, orientation):
    upright = bad_images.photograph((48, 64))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    jpeg = bad_images.encoded(np.ascontiguousarray(stored), "JPEG", quality=95)
    place.write_bytes(bad_images.with_orientation(jpeg, orientation))
    assert np.abs(read_image(place).astype(int) - stored).mean() < 4
    assert np.abs(read_image(place, exif="apply").astype(int) - upright).mean() < 4


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_promise_17_a_pixel_and_a_strip_can_be_trained_on(tiny_source, size):
    cv2.imwrite(str(tiny_source.persons[4].image), np.full((*size, 3), 90, np.uint8))
    item = KeypointDataset(tiny_source, augment="newell", image_size=(32, 32))[4]
    assert item["image"].shape == (3, 32, 32)


def test_promise_17_a_bomb_takes_no_memory(tmp_path):
    """A file of 48 KB, and one of 16 GB that begins as a photograph, under 400 MB more than Python and OpenCV take."""
    (tmp_path / "bomb.png").write_bytes(bad_images.bomb())
    assert (tmp_path / "bomb.png").stat().st_size < 50_000
    with (tmp_path / "long.jpg").open("wb") as file:
        file.write(bad_images.encoded(bad_images.photograph(), "JPEG"))
        file.truncate(16 << 30)
    code = """
import resource, sys
import cv2
from fastpose.data.images import read_image, verify_image
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (400 << 20),) * 2)
for path in sys.argv[1:]:
    for read in (read_image, verify_image):
        try:
            read(path)
        except ValueError as error:
            print(error)
"""
    words = [sys.executable, "-c", code, *map(str, (tmp_path / "bomb.png", tmp_path / "long.jpg"))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all("20000 x 20000 pixels exceed the limit" in line for line in lines[:2])
    assert all("17,179,869,184 bytes are too many for 64 x 48 pixels" in line for line in lines[2:])
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 4 << 20  # KB


SHORT = """
import resource, sys
import cv2, numpy
from types import SimpleNamespace
from fastpose import skeletons
from fastpose.data import KeypointDataset
from fastpose.data.person import person
path, what = sys.argv[1:]
entry = person(path, numpy.full((14, 2), 20.0), numpy.full(14, 2), numpy.array([32.0, 24.0]), 0.2)
source = SimpleNamespace(name="tiny", split="train", skeleton=skeletons.LSP, persons=[entry] * 2)
dataset = KeypointDataset(source, on_error="skip")
if what == "memory":
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (100 << 20),) * 2)
else:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    dataset[0]
except MemoryError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("what", "said"), [("memory", "9000 x 9000 pixels"), ("files", "Too many open files")])
def test_promise_17_what_this_process_lacks_is_no_fault_of_a_photograph(tmp_path, what, said):
    """Nothing is skipped for it, and no file is called damaged."""
    path = tmp_path / "large.png"
    path.write_bytes(bad_images.bomb(9000, 9000))
    words = [sys.executable, "-c", SHORT, str(path), what]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"image {path}: {said}"
    assert "takes its place" not in done.stderr


# ------------------------------------------------------------------------------------------------------------ readers


def _persons(root: Path, cache: Path | None = None) -> Reader:
    path = bad_images.write_jpeg(root / "photo.jpg")
    persons = [person(path, np.full((14, 2), 20.0), np.full(14, 2), np.array([32.0, 24.0]), 0.2)] * 5
    source = SimpleNamespace(name="tiny", split="train", skeleton=skeletons.LSP, persons=persons)
    return path, "tiny person 4: ", lambda: KeypointDataset(source, cache=cache)[4]


def _cached(root: Path) -> Reader:
    reader = _persons(root, root / "cache")
    root.chmod(0o777)  # whoever may not read the photograph may still write the cache
    return reader


def _market(root: Path) -> Reader:
    names = tiny_market.names({1: (1, 1)})
    write_tables(root, "market", "test", names, [(names[0], names[1])], (128, 64))
    paths = [bad_images.write_jpeg(root / "test" / name, (128, 64)) for name in names]
    pairs = data.create("market", root, "test")
    return paths[1], "market pair 0: ", lambda: PairDataset(pairs)[0]


def _photos(root: Path) -> Reader:
    paths = [bad_images.write_jpeg(root / "anna" / name, (128, 64)) for name in ("a.jpg", "b.jpg")]
    people = [{"keypoints": [[10 + joint, 20 + 4 * joint] for joint in range(17)], "scores": [0.9] * 17}]
    rows = [{"image": f"anna/{path.name}", "skeleton": "coco", "persons": people} for path in paths]
    (root / "keypoints.json").write_text(json.dumps(rows))
    pairs = data.create("photos", root, "all")
    return paths[1], "photos pair 0: ", lambda: PairDataset(pairs)[0]


def _reid(root: Path) -> Reader:
    paths = [bad_images.write_jpeg(root / "train" / name, (64, 32)) for name in tiny_market.names({2: (1, 1, 2, 3)})]
    dataset = train_dataset(ReidDataConfig(root=str(root)), seed=0)
    return paths[3], "market image 3: ", lambda: dataset[3]


@pytest.mark.parametrize("reader", [_persons, _cached, _market, _photos, _reid])
def test_promise_17_every_data_set_names_path_and_index(tmp_path, reader):
    path, begin, read = reader(tmp_path)
    for name in REFUSED:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        with bad_images.in_place(path, name) as kind:
            with pytest.raises((ValueError, OSError)) as caught:
                read()
            said = str(caught.value)
            assert said.startswith(begin), f"{name}: {said}"
            assert kind.refused in said.partition(str(path))[2], f"{name}: {said}"
    read()


def test_promise_17_a_photograph_of_another_size_than_annotated_is_refused(tmp_path):
    path, begin, read = _market(tmp_path)
    bad_images.write_jpeg(path, (130, 64))
    with pytest.raises(ValueError, match=rf"{begin}image .*expected 64 x 128 pixels, found 64 x 130"):
        read()


def test_the_page_of_promises_says_how_many_files_were_tried():
    page = (Path(__file__).resolve().parents[2] / "docs" / "reliability.md").read_text()
    assert f"{len(REFUSED)} files that are refused and {len(READ)} odd ones that are read" in page
