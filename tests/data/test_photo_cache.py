"""Kept photographs: the same samples as without, made once and by one process, mended where damaged."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from fastpose.data import KeypointDataset, create_loader, photo_cache, transforms


def _same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def _files(folder, suffix):
    return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))


@pytest.fixture
def crowd(tiny_source):
    """Two persons on the first photograph, the second one smaller."""
    tiny_source.persons[1] = replace(tiny_source.persons[1], image=tiny_source.persons[0].image, scale=0.2)
    return tiny_source


@pytest.mark.parametrize("crop", tuple(transforms.CROPS))
def test_samples_are_the_same_bits(crowd, tmp_path, crop):
    options = {"image_size": (48, 32), "augment": "newell", "crop": crop, "seed": 3}
    plain, kept = KeypointDataset(crowd, **options), KeypointDataset(crowd, cache=tmp_path / "kept", **options)
    assert all(_same(plain[(2, index)], kept[(2, index)]) for index in range(7))


def test_workers_read_the_same_file(tiny_source, tmp_path):
    datasets = [KeypointDataset(tiny_source, image_size=(32, 32), cache=cache) for cache in (None, tmp_path / "kept")]
    plain, kept = (
        create_loader(dataset, 7, shuffle=True, workers=2 * number) for number, dataset in enumerate(datasets)
    )
    assert _same(next(iter(plain)), next(iter(kept)))


def test_a_spawned_process_maps_the_file_itself(tiny_source, tmp_path):
    dataset = KeypointDataset(tiny_source, cache=tmp_path / "kept")
    first = dataset[0]
    sent = pickle.dumps(dataset)
    assert len(sent) < 60 * 80 * 3
    assert _same(pickle.loads(sent)[0], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_may_be_deleted_while_it_is_used(tiny_source, tmp_path, workers, monkeypatch):
    kept = KeypointDataset(tiny_source, image_size=(32, 32), cache=tmp_path / "kept", on_error="skip")
    plain = create_loader(KeypointDataset(tiny_source, image_size=(32, 32)), 7, shuffle=False)
    expected = next(iter(plain))
    shutil.rmtree(tmp_path / "kept")
    monkeypatch.setattr(photo_cache, "_decode", None)
    assert _same(next(iter(create_loader(kept, 7, shuffle=False, workers=workers))), expected)


def test_a_spawned_process_without_the_file_decodes_and_says_so(tiny_source, tmp_path, caplog):
    sent = pickle.dumps(KeypointDataset(tiny_source, cache=tmp_path / "kept"))
    (pixels,) = _files(tmp_path / "kept", ".pixels")
    pixels.unlink()
    kept, plain = pickle.loads(sent), KeypointDataset(tiny_source)
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        assert all(_same(kept[index], plain[index]) for index in (0, 5))
    why = "No such file or directory; photographs are decoded from their own files"
    assert caplog.messages[1:] == [f"cache {pixels}: {why}"]


def test_a_photograph_is_stored_once_and_decoded_once(crowd, tmp_path, monkeypatch):
    KeypointDataset(crowd, cache=tmp_path / "kept")
    (pixels,) = _files(tmp_path / "kept", ".pixels")
    assert pixels.stat().st_size == 64 + 6 * 60 * 80 * 3
    monkeypatch.setattr(photo_cache, "_decode", None)
    assert KeypointDataset(crowd, cache=tmp_path / "kept")[1]["index"] == 1


def test_shrunk_photographs_serve_the_smallest_person_and_leave_key_points_alone(crowd, tmp_path):
    options = {"image_size": (16, 16), "augment": "sagan_paper", "seed": 3}
    plain = KeypointDataset(crowd, **options)
    kept = KeypointDataset(crowd, cache=tmp_path / "kept", shrink=True, **options)
    ratios = kept._cache.plan.ratios
    assert np.allclose(ratios[:2], [16 / (200 * 0.2 * 0.75), 16 / (200 * 0.35 * 0.75)])
    for index in range(7):
        one, other = plain[(0, index)], kept[(0, index)]
        assert _same({**one, "image": other["image"]}, other)
        difference = (one["image"].float() - other["image"].float()).abs()
        assert difference.median() < 3  # at the photograph's edge, a stored pixel wide, it is more


def test_shrinking_stops_where_it_saves_little(tiny_source, tmp_path):
    kept = KeypointDataset(tiny_source, image_size=(63, 63), cache=tmp_path / "kept", shrink=True)  # crops of 70 pixels
    assert (kept._cache.plan.ratios == 1).all()


@pytest.mark.parametrize(("size", "shrunk"), [((60, 3), (9, 1)), ((3, 60), (1, 9)), ((60, 20), (9, 3))])
def test_a_strip_is_shrunk_to_a_pixel_at_least(tiny_source, photo, tmp_path, size, shrunk):
    tiny_source.persons = [replace(tiny_source.persons[0], image=photo("strip.png", size))]
    cache = photo_cache.open_cache(tmp_path / "kept", tiny_source, shrink_to=70 * 0.15)
    pixels, ratio = cache.read(0)
    assert pixels.shape == (*shrunk, 3)
    assert np.isclose(ratio, 0.15)


def test_a_photograph_that_changed_is_decoded_again(tiny_source, tmp_path):
    KeypointDataset(tiny_source, cache=tmp_path / "kept")
    shutil.copy(tiny_source.persons[1].image, tiny_source.persons[0].image)
    plain, kept = KeypointDataset(tiny_source), KeypointDataset(tiny_source, cache=tmp_path / "kept")
    assert _same(plain[0], kept[0])
    assert len(_files(tmp_path / "kept", ".pixels")) == 2


INDICES = {
    "broken index": lambda index: "{",
    "index of others": lambda index: json.dumps(index | {"key": "0"}),
    "index of fewer": lambda index: json.dumps(index | {"sizes": [], "sums": []}),
    "negative sums": lambda index: json.dumps(index | {"sums": [-1] * 7}),
    "sums of nothing": lambda index: json.dumps(index | {"sums": [None] * 7}),
    "sizes as a number": lambda index: json.dumps(index | {"sizes": 5}),
    "sizes as words": lambda index: json.dumps(index | {"sizes": [["a", "b"]] * 7}),
    "negative sizes": lambda index: json.dumps(index | {"sizes": [[-60, -80]] * 7}),
}


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty", "no index", *INDICES])
def test_a_damaged_cache_is_made_anew(tiny_source, tmp_path, damage):
    KeypointDataset(tiny_source, cache=tmp_path / "kept")
    (pixels,), (index,) = _files(tmp_path / "kept", ".pixels"), _files(tmp_path / "kept", ".json")
    whole = pixels.read_bytes()
    if damage == "cut":
        pixels.write_bytes(whole[:-64])
    elif damage == "foreign":
        pixels.write_bytes(b"x" * len(whole))
    elif damage == "empty":
        pixels.write_bytes(b"")
    elif damage == "no index":
        index.unlink()
    else:
        index.write_text(INDICES[damage](json.loads(index.read_text())))
    assert _same(KeypointDataset(tiny_source, cache=tmp_path / "kept")[4], KeypointDataset(tiny_source)[4])
    assert pixels.read_bytes() == whole


def test_damaged_pixels_are_read_from_the_photograph_and_told_once(tiny_source, tmp_path, caplog):
    KeypointDataset(tiny_source, cache=tmp_path / "kept")
    (pixels,) = _files(tmp_path / "kept", ".pixels")
    whole = bytearray(pixels.read_bytes())
    whole[20_000:34_000] = bytes(14_000)  # of the second and the third one
    pixels.write_bytes(whole)
    kept = KeypointDataset(tiny_source, cache=tmp_path / "kept")
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        assert all(_same(kept[index], KeypointDataset(tiny_source)[index]) for index in (0, 1, 1, 2))
    assert caplog.messages[1:] == [f"cache {pixels}: is damaged; delete it, and the next run makes it anew"]


def test_an_unreadable_photograph_fails_as_without(tiny_source, tmp_path):
    tiny_source.persons[4].image.write_bytes(b"")
    tiny_source.persons[5].image.unlink()
    kept = KeypointDataset(tiny_source, cache=tmp_path / "kept")
    for index in (4, 5):
        with pytest.raises((ValueError, FileNotFoundError)) as expected:
            KeypointDataset(tiny_source)[index]
        with pytest.raises(expected.type) as found:
            kept[index]
        assert str(found.value) == str(expected.value)
    assert _same(kept[6], KeypointDataset(tiny_source)[6])


def test_processes_that_begin_together_decode_each_photograph_once(tiny_source, tmp_path, monkeypatch):
    decoded, decode = [], photo_cache._decode
    monkeypatch.setattr(photo_cache, "_decode", lambda *place: decoded.append(place[1]) or decode(*place))
    with ThreadPoolExecutor(3) as pool:  # the lock is of the open file: threads stand for processes
        list(pool.map(lambda _: KeypointDataset(tiny_source, cache=tmp_path / "kept"), range(3)))
    assert sorted(decoded) == list(range(7))


def test_what_a_killed_process_left_is_removed(tiny_source, tmp_path):
    KeypointDataset(tiny_source, cache=tmp_path / "kept")
    (pixels,), (index,) = _files(tmp_path / "kept", ".pixels"), _files(tmp_path / "kept", ".json")
    left = [photo_cache._files._beside(path).with_suffix("").with_suffix(".1.tmp") for path in (pixels, index)]
    for path in left:
        path.touch()
    index.unlink()
    KeypointDataset(tiny_source, cache=tmp_path / "kept")
    assert not any(path.exists() for path in left)


def test_a_disk_without_room_is_one_sentence(tiny_source, tmp_path, monkeypatch):
    monkeypatch.setattr(photo_cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2, 1, 1))
    with pytest.raises(OSError, match=r"cache: 7 photographs of tiny train take 0\.10 MB, the disk has 0\.00 MB left;"):
        KeypointDataset(tiny_source, cache=tmp_path / "kept")


def test_a_folder_that_cannot_be_is_one_sentence(tiny_source, tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(OSError, match=r"cache: .*name another folder than .*kept, or none"):
        KeypointDataset(tiny_source, cache=tmp_path / "kept")


def test_the_bytes_are_told_before_they_are_written(tiny_source, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        KeypointDataset(tiny_source, cache=tmp_path / "kept")
    assert caplog.messages == [f"cache {tmp_path / 'kept'}: 7 photographs of tiny train take 0.10 MB, written once"]


def test_what_cannot_be_kept_is_an_error(tiny_source, tmp_path):
    with pytest.raises(ValueError, match="shrink: crop 'hg_sagan' counts whole pixels"):
        KeypointDataset(tiny_source, cache=tmp_path, shrink=True, crop="hg_sagan")
    tiny_source.photo = lambda index: np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match="cache: data set 'tiny' draws its photographs"):
        KeypointDataset(tiny_source, cache=tmp_path)
    assert not os.listdir(tmp_path / "photos")[7:]
