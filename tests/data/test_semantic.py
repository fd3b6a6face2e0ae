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


def test_a_label_beyond_the_palette_is_refused_with_its_place(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    labels[1], labels[3, 4] = 2, 3
    path = _save(tmp_path / "a.png", labels)
    assert np.array_equal(read_map(path, palette=PALETTE[:4]), labels)
    with pytest.raises(ValueError, match=r"a\.png: label 3 at x 4, y 3; expected 0 to 2, the palette has 3 colours"):
        read_map(path, palette=PALETTE[:3])


def test_dark_greys_of_the_palette_are_colours(tmp_path):
    labels = np.zeros((9, 9), np.uint8)
    labels[1] = 1
    palette = ((0, 0, 0), (10, 10, 10), (255, 0, 0))
    path = _save(tmp_path / "a.png", _painted(labels, palette))
    assert np.array_equal(read_map(path, palette=palette), labels)
    assert np.array_equal(read_map(path, palette=palette, labels=False), labels)


def test_the_maps_of_a_folder_hold_labels_or_colours(tmp_path):
    labels = _labels((64, 64), parts=4)
    black = _save(tmp_path / "a.png", np.zeros((8, 8), np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    numbers, painted = _save(tmp_path / "b.png", labels), _save(tmp_path / "c.png", _painted(labels))
    assert semantic.hold_labels([black, tmp_path / "broken.png", numbers, painted])
    assert not semantic.hold_labels([black, tmp_path / "broken.png", painted, numbers])
    assert not semantic.hold_labels([black])
    for path, kind in ((numbers, True), (painted, False)):
        assert np.array_equal(read_map(path, labels=kind), labels)
        assert not read_map(black, palette=((9, 9, 9), (0, 0, 0)), labels=True).any()
    with pytest.raises(ValueError, match=r"b\.png: holds labels, and the first map of its folder colours"):
        read_map(numbers, labels=False)
    with pytest.raises(ValueError, match=r"c\.png: holds colours, and the first map of its folder labels"):
        read_map(painted, labels=True)


@pytest.mark.parametrize(("first", "others"), [("labels", "colours"), ("colours", "labels")])
def test_a_folder_of_both_kinds_is_refused(fashion, first, others):
    photos, labels = sorted((fashion / "test").iterdir()), _labels((256, 256), parts=8)
    for path in photos:
        kind = others if path == photos[-1] else first
        _save(fashion / "parts" / path.name, labels if kind == "labels" else _painted(labels))
    source = data.create("semantic", fashion, "test")
    rows = {person.image: row for row, person in enumerate(source.persons)}
    assert np.array_equal(source.view(rows[photos[0]], (256, 256))["labels"], labels)
    with pytest.raises(ValueError, match=f"holds {others}, and the first map of its folder {first}"):
        source.view(rows[photos[-1]], (256, 256))


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


def test_maps_may_lie_beside_the_other_files(parts):
    inner = parts / "fashion_data"
    inner.mkdir()
    for path in [path for path in parts.iterdir() if path != inner]:
        path.rename(inner / path.name)
    assert len(data.create("semantic", parts, "test")) == 4
    (inner / "parts").rename(parts / "parts")
    assert len(data.create("semantic", parts, "test")) == 4
    (parts / "parts").rename(parts / "others")
    with pytest.raises(FileNotFoundError, match=r"no folder .*fashion_data.parts of maps"):
        data.create("semantic", parts, "test")


@pytest.mark.parametrize("size", [(128, 128), (100, 76)])
def test_smaller_labels_are_labels_of_the_map(fashion, size):
    for path in (fashion / "test").iterdir():
        _save(fashion / "parts" / path.name, np.where(_labels((256, 256)) > 7, 15, 2).astype(np.uint8))
    source = data.create("semantic", fashion, "test", crop="none" if size == (128, 128) else "176")
    labels = source.view(0, size)["labels"]
    assert labels.shape == size
    assert set(np.unique(labels)) == {2, 15}  # a mean of both would be another part


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


def test_a_palette_of_labels_keeps_their_numbers(tmp_path):
    labels = np.where(_labels(parts=8) > 5, 7, 3).astype(np.uint8)
    path = _save(tmp_path / "a.png", labels)
    found = semantic.palette_of([path])
    assert found == tuple((label,) * 3 for label in range(8))
    assert np.array_equal(read_map(path, palette=found), labels)


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
