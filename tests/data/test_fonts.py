"""Letters of fonts: what is drawn, colours, pairs, skeletons, splits, and fonts of no use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastpose import data
from fastpose.data import fonts

# The fonts that come with matplotlib.
WITH_CAPITALS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf", "STIXGeneral.ttf")
WITHOUT = "STIXSizOneSymReg.ttf"


def _bundled(name):
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name


@pytest.fixture
def folder(tmp_path):
    """Five fonts, one of them in a sub-folder."""
    for index, name in enumerate(WITH_CAPITALS):
        target = tmp_path / ("more" if index == 4 else ".") / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(_bundled(name), target)
    return tmp_path


def test_every_font_gives_its_pairs(folder):
    source = data.create("fonts", folder, "all")
    assert (len(source), len(source.persons), source.size, source.guide) == (1000, 130, (256, 256), "skeleton")
    letters = source.pairs % 26
    assert (letters[:, 0] != letters[:, 1]).all()
    assert (source.pairs[:, 0] // 26 == source.pairs[:, 1] // 26).all()
    assert len(np.unique(source.pairs, axis=0)) == 1000
    assert source.persons[129].image == folder / "more" / "STIXGeneral.ttf"
    assert source.persons[129].identity == fonts.identity(_bundled("STIXGeneral.ttf"))
    assert source.persons[129].identity.startswith("STIXGeneral Regular ")


def test_all_pairs_of_a_font(folder):
    source = data.create("fonts", folder, "all", pairs_per_font=650)
    first = {tuple(pair) for pair in source.pairs[:650].tolist()}
    assert first == {(one, other) for one in range(26) for other in range(26) if one != other}


def test_fonts_of_train_and_test_are_disjoint(folder):
    train, test = (data.create("fonts", folder, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (800, 200)
    data.pairs.check_disjoint(train, test)


def _into(folder, split, names):
    (folder / split).mkdir()
    for name in names:
        (folder / name).rename(folder / split / name)


def _files(source):
    return {person.image.name for person in source.persons}


def test_folders_named_like_splits_are_the_splits(folder):
    _into(folder, "train", WITH_CAPITALS[:3])
    _into(folder, "test", WITH_CAPITALS[3:4])
    train, test = (data.create("fonts", folder, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (600, 200)
    assert _files(train) == set(WITH_CAPITALS[:3])
    assert _files(test) == set(WITH_CAPITALS[3:4])


@pytest.mark.parametrize(("named", "other"), [("train", "test"), ("test", "train")])
def test_one_folder_named_like_a_split_leaves_the_other_fonts_to_the_other_split(folder, named, other):
    _into(folder, named, WITH_CAPITALS[:3])
    shutil.copy(folder / named / WITH_CAPITALS[0], folder / "copy.ttf")
    inside, outside = (data.create("fonts", folder, split) for split in (named, other))
    assert _files(inside) == set(WITH_CAPITALS[:3])
    assert _files(outside) == set(WITH_CAPITALS[3:])  # without the copy
    data.pairs.check_disjoint(inside, outside)


def test_a_folder_that_holds_all_fonts_leaves_none_to_the_other_split(folder):
    _into(folder, "train", WITH_CAPITALS[:4])
    shutil.rmtree(folder / "more")
    assert len(data.create("fonts", folder, "train")) == 800
    with pytest.raises(ValueError, match=r"has a folder train/, and no other font outside of it for split 'test'"):
        data.create("fonts", folder, "test")


@pytest.mark.parametrize("holdout", [0.2, 0.4, 0.6, 0.8])
def test_copies_of_a_font_fall_into_one_split(folder, holdout):
    (folder / "again").mkdir()
    for index, name in enumerate(WITH_CAPITALS[:4]):
        shutil.copy(folder / name, folder / "again" / f"{9 - index}.ttf")
    train, test = (data.create("fonts", folder, split, holdout=holdout) for split in ("train", "test"))
    assert len(train) + len(test) == 9 * 200
    data.pairs.check_disjoint(train, test)
    contents = [{person.image.read_bytes() for person in source.persons[::26]} for source in (train, test)]
    assert not contents[0] & contents[1]


def test_a_copy_in_the_other_folder_is_noticed(folder):
    _into(folder, "train", WITH_CAPITALS[:3])
    _into(folder, "test", WITH_CAPITALS[3:4])
    shutil.copy(folder / "train" / WITH_CAPITALS[0], folder / "test" / "other.ttf")
    with pytest.raises(ValueError, match=r"1 identities are in both split 'train' and split 'test': DejaVu Sans Book "):
        data.pairs.check_disjoint(*(data.create("fonts", folder, split) for split in ("train", "test")))


def test_a_font_keeps_its_colour_and_pairs_whatever_other_fonts_there_are(folder):
    before = data.create("fonts", folder, "all")
    (folder / WITH_CAPITALS[0]).unlink()
    after = data.create("fonts", folder, "all")
    old = {(before.persons[a].image.name, a % 26, b % 26) for a, b in before.pairs.tolist()}
    new = {(after.persons[a].image.name, a % 26, b % 26) for a, b in after.pairs.tolist()}
    assert new < old
    path = folder / WITH_CAPITALS[1]
    assert np.array_equal(fonts.colour(path, 0), fonts.colour(path, 0))
    assert not np.array_equal(fonts.colour(path, 0), fonts.colour(path, 1))


def test_a_view_is_a_coloured_letter_on_white_with_its_skeleton(folder):
    source = data.create("fonts", folder, "all")
    view = source.view(3, (256, 256))
    image, lines = view["image"], view["skeleton"]
    assert (image.dtype, image.shape, lines.dtype, lines.shape) == (np.uint8, (256, 256, 3), np.uint8, (256, 256))
    assert (image[0] == 255).all()
    colour = fonts.colour(source.persons[3].image, 0)
    solid = (image == colour).all(2)
    assert solid.sum() > 1000
    assert set(np.unique(lines)) == {0, 255}
    assert solid[lines > 0].mean() > 0.95
    assert (lines > 0).sum() < 0.2 * solid.sum()


def test_letters_are_centred_and_fill_the_picture():
    for size in ((256, 256), (64, 96)):
        boxes = []
        for letter in fonts.LETTERS:
            mask = fonts.letter_mask(_bundled("DejaVuSans.ttf"), letter, size)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert abs((rows[0] + rows[-1]) - (size[0] - 1)) <= 1
            assert abs((columns[0] + columns[-1]) - (size[1] - 1)) <= 1
            boxes.append((len(rows) / size[0], len(columns) / size[1]))
        assert 0.75 < np.max(boxes) < 0.86


def test_the_skeleton_of_a_coloured_picture_is_that_of_the_letter():
    path = _bundled("DejaVuSerif.ttf")
    for letter in "AQS":
        image = fonts.coloured(fonts.letter_mask(path, letter), np.array([30, 190, 60], np.uint8))
        drawn, seen = fonts.letter_skeleton(path, letter), fonts.skeleton(image)
        assert (drawn != seen).mean() < 2e-4


def _covers(rows, columns):
    """White paper of 40 x 40 with black ink in some rows and columns."""
    image = np.full((40, 40, 3), 255, np.uint8)
    image[rows, columns] = 0
    return image


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (slice(9, 10), slice(9, 10), set()),  # 4/16 of a lone pixel are left
        (slice(9, 10), slice(9, 11), set()),  # 6/16
        (slice(9, 10), slice(5, 30), {(9, column) for column in range(6, 29)}),  # 8/16 of a line, 6/16 of its ends
    ],
)
def test_letters_are_blurred_before_they_are_thinned(rows, columns, expected):
    """A pixel counts when the Gaussian (1, 2, 1) x (1, 2, 1) / 16 leaves at least half of it."""
    lines = fonts.skeleton(_covers(rows, columns))
    assert {(int(y), int(x)) for y, x in np.argwhere(lines)} == expected


def test_a_skeleton_is_the_thinned_blurred_letter():
    """With OpenCV's blur in place of ours."""
    import cv2

    from fastpose.data.thinning import thin

    for letter in "BGRW":
        solid = (fonts.letter_mask(_bundled("STIXGeneral.ttf"), letter) > 127).astype(np.float32)
        blurred = cv2.GaussianBlur(solid, (3, 3), 0, borderType=cv2.BORDER_CONSTANT)
        expected = thin(blurred >= 0.5)
        assert np.array_equal(fonts.letter_skeleton(_bundled("STIXGeneral.ttf"), letter) > 0, expected)
        assert not np.array_equal(thin(blurred > 0.2), expected)


def test_a_stored_skeleton_is_read_again(tmp_path):
    import cv2

    lines = fonts.letter_skeleton(_bundled("DejaVuSans.ttf"), "R")
    cv2.imwrite(str(tmp_path / "r.png"), lines)
    assert np.array_equal(fonts.read_skeleton(tmp_path / "r.png"), lines)


def test_colours_show_on_white():
    drawn = np.array([fonts.colour(Path(f"{index}.ttf"), 0) for index in range(300)], dtype=float)
    assert (drawn @ [0.299, 0.587, 0.114]).max() <= 200
    assert (drawn.std(0) > 40).all()
    assert len(np.unique(drawn, axis=0)) == 300


def test_samples_are_skeleton_images(folder):
    sample = data.PairDataset(data.create("fonts", folder, "test"), size=(64, 64))[0]
    assert {name: tuple(value.shape) for name, value in sample.items()} == {
        "index": (),
        "source_image": (3, 64, 64),
        "source_skeleton": (1, 64, 64),
        "target_image": (3, 64, 64),
        "target_skeleton": (1, 64, 64),
    }


def test_letters_are_not_mirrored(folder):
    with pytest.raises(ValueError, match="flip: a mirrored letter of 'fonts' is no letter"):
        data.PairDataset(data.create("fonts", folder, "test"), flip=True)


def test_fonts_of_no_use_are_refused_or_skipped(folder):
    shutil.copy(_bundled(WITHOUT), folder / "a_symbols.ttf")
    (folder / "broken.ttf").write_bytes(b"no font")
    (folder / "cut.otf").write_bytes((folder / WITH_CAPITALS[0]).read_bytes()[:900])
    with pytest.raises(
        ValueError, match=r"3 of 8 fonts are of no use, first font .*a_symbols\.ttf: lacks 26"
    ) as caught:
        data.create("fonts", folder, "all")
    assert "\n" not in str(caught.value)
    assert len(data.create("fonts", folder, "all", unusable="skip")) == 1000
    reasons = {path.name: reason for path, reason in fonts.read(folder).unusable}
    assert reasons["broken.ttf"].endswith("broken.ttf: cannot be read: no TrueType or OpenType font, or a damaged one")
    assert "ft2font" not in "".join(reasons.values())
    assert "cannot be read" in reasons["cut.otf"] or "lacks" in reasons["cut.otf"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs_per_font": 0}, "pairs_per_font: expected 1 to 650"),
        ({"pairs_per_font": 651}, "pairs_per_font: expected 1 to 650"),
        ({"holdout": 0.0}, "holdout: expected a fraction"),
        ({"unusable": "drop"}, "unusable: expected one of error, skip"),
        ({"split": "val"}, "split: expected one of train, test, all"),
    ],
)
def test_options_out_of_range(folder, options, words):
    with pytest.raises(ValueError, match=words):
        data.create("fonts", folder, **options)


def test_bad_letters_fonts_and_pictures_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="letter: expected one of ABC"):
        fonts.letter_mask(_bundled("DejaVuSans.ttf"), "é")
    with pytest.raises(FileNotFoundError, match=r"font none\.ttf: no such file"):
        fonts.letter_mask("none.ttf", "A")
    with pytest.raises(ValueError, match=r"image: expected uint8 \(H, W, 3\)"):
        fonts.skeleton(np.zeros((4, 4), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"no \.ttf or \.otf file"):
        data.create("fonts", tmp_path)
