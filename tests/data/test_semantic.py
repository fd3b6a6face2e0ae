"""Maps of parts: colours to labels, names, placement beside the image, DeepFashion pairs with maps."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose import data
from fastpose.data import semantic
from fastpose.data.semantic import PALETTE, key, read_map


def _save(path, picture):
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[..., ::-1] if picture.ndim == 3 else picture)
    return path


def _labels(size=(64, 64), seed=0, parts=16):
    coarse = np.random.default_rng(seed).integers(0, parts, (8, 8), dtype=np.uint8)
    coarse[0] = 0
    return np.kron(coarse, np.ones((size[0] // 8, size[1] // 8), np.uint8))


def _painted(labels, palette=PALETTE):
    return np.array(palette, np.uint8)[labels]


@pytest.fixture
def parts(fashion):
    """A map for every image of the set but one, in the folders of the data set's own page."""
    for index, path in enumerate(sorted((fashion / "test").iterdir())[1:]):
        _save(fashion / "parts" / f"{path.stem}_segment.png", _painted(_labels((256, 256), index)))
    return fashion


def test_colours_become_labels(tmp_path):
    labels = _labels()
    assert np.array_equal(read_map(_save(tmp_path / "a.png", _painted(labels))), labels)
    assert len(PALETTE) == len(semantic.PARTS) == len(set(PALETTE)) == 16


def test_colours_that_moved_a_little_go_to_the_nearest(tmp_path):
    labels = _labels()
    noise = np.random.default_rng(0).integers(-3, 4, (64, 64, 3))
    noisy = np.clip(_painted(labels).astype(int) + noise, 0, 255).astype(np.uint8)
    assert np.array_equal(read_map(_save(tmp_path / "a.png", noisy)), labels)


def test_another_colour_is_refused_with_its_place(tmp_path):
    picture = _painted(_labels())
    picture[5, 9] = (0, 0, 255)
    path = _save(tmp_path / "a.png", picture)
    with pytest.raises(ValueError, match=r"a\.png: colour #0000ff at x 9, y 5 is none of the 16 colours") as caught:
        read_map(path)
    assert "palette=auto" in str(caught.value)
    assert read_map(path, tolerance=500).max() < 16


def test_a_grey_picture_of_small_numbers_holds_labels(tmp_path):
    labels = _labels(parts=16)
    assert labels.max() == 15
    assert np.array_equal(read_map(_save(tmp_path / "a.png", labels)), labels)
    assert not read_map(_save(tmp_path / "b.png", np.zeros((8, 8), np.uint8))).any()


def test_damaged_maps_are_one_sentence(tmp_path):
    path = _save(tmp_path / "a.png", _painted(_labels()))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="truncated"):
        read_map(path)


def test_names_of_images_and_maps_meet():
    names = [
        "fashionWOMENDressesid0000000202_1front.jpg",
        "WOMEN/Dresses/id_00000002/02_1_front_segment.png",
        "img_highres/WOMEN/Dresses/id_00000002/02_1_front.png",
        "fashionWOMENDressesid0000000202_1front.png",
    ]
    assert len({key(name) for name in names}) == 1
    assert key("MEN/Dresses/id_00000002/02_1_front.png") != key(names[0])
    assert key("MEN/Denim/id_00000080/01_1_front.png") == key("fashionMENDenimid0000008001_1front.jpg")


def test_a_portrait_map_is_centred_in_the_square():
    labels = _labels((80, 48), parts=3) + 1
    placed = semantic.placed(labels, (160, 160))
    assert (placed[:, :32] == 0).all()
    assert (placed[:, 128:] == 0).all()
    assert np.array_equal(placed[:, 32:128], np.kron(labels, np.ones((2, 2), np.uint8)))


def test_resizing_invents_no_label():
    labels = np.where(_labels((96, 96)) > 7, 15, 2).astype(np.uint8)
    for size in ((64, 64), (131, 131)):
        assert set(np.unique(semantic.placed(labels, size))) <= {2, 15}


def test_pairs_with_two_maps_are_kept(parts):
    source = data.create("semantic", parts, "test")
    assert (source.guide, source.size, len(source), len(source.persons)) == ("semantic", (256, 256), 4, 4)
    with pytest.raises(FileNotFoundError, match="1 of 6 images have no map"):
        data.create("semantic", parts, "test", missing_maps="error")


def test_labels_are_those_of_the_map_and_follow_the_crop(parts):
    whole, cropped = (data.create("semantic", parts, "test", crop=crop) for crop in ("none", "176"))
    wide, narrow = whole.view(1, (256, 256)), cropped.view(1, (256, 176))
    assert np.array_equal(wide["labels"], read_map(whole.maps[1]))
    assert np.array_equal(narrow["labels"], wide["labels"][:, 40:216])
    assert np.array_equal(narrow["image"], wide["image"][:, 40:216])
    assert whole.view(1, (64, 64))["labels"].shape == (64, 64)


def test_a_mirrored_pair_mirrors_its_maps(parts):
    source = data.create("semantic", parts, "test")
    plain, dataset = data.PairDataset(source), data.PairDataset(source, flip=True)
    samples = [dataset[(epoch, 0)] for epoch in range(12)]
    (mirrored, *_) = [one for one in samples if not one["source_image"].equal(plain[0]["source_image"])]
    for side in ("source", "target"):
        assert mirrored[f"{side}_labels"].equal(plain[0][f"{side}_labels"].flip(1))
        assert mirrored[f"{side}_image"].equal(plain[0][f"{side}_image"].flip(2))
        assert mirrored[f"{side}_labels"].dtype.is_floating_point is False


def test_the_palette_can_be_read_from_the_maps(tmp_path):
    palette = ((9, 9, 9), (1, 200, 3), (250, 0, 0))
    labels = np.zeros((30, 30), np.uint8)
    labels[:4], labels[10:12] = 2, 1
    paths = [
        _save(tmp_path / "a.png", _painted(labels, palette)),
        _save(tmp_path / "b.png", _painted(labels * 0, palette)),
    ]
    found = semantic.palette_of(paths)
    assert found == palette
    assert np.array_equal(read_map(paths[0], palette=found), labels)


def test_compressed_maps_give_no_palette(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="more than 16 colours"):
        semantic.palette_of([_save(tmp_path / "a.png", noise)])


def test_the_palette_can_be_given():
    assert semantic.find_palette("000000, #fffafa", []) == ((0, 0, 0), (255, 250, 250))
    assert semantic.find_palette("inshop", []) == PALETTE
    for text in ("insop", "000000", "00000g,ffffff", ",".join(["000000"] * 17)):
        with pytest.raises(ValueError, match="palette: expected inshop, auto, or 2 to 16 colours"):
            semantic.find_palette(text, [])


def test_a_folder_without_maps_is_named(fashion):
    with pytest.raises(FileNotFoundError, match=r"no folder .*parts of maps"):
        data.create("semantic", fashion, "test")
