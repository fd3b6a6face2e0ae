"""The chain from a caption and a photograph to the person in a pose: what is drawn, written and refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import bad_images
import numpy as np
import pytest
import torch
from drawing_weights import SMALL, save

from fastpose import ops
from fastpose.data import captions as caption_data
from fastpose.data import joints
from fastpose.data.images import read_image
from fastpose.data.keypoint_files import Pose
from fastpose.training import caption_prediction, composition, composition_files, prediction
from fastpose.training.caption_generation import Inputs
from fastpose.training.composition import Composer, compose
from fastpose.training.composition_files import TITLES
from fastpose.visual import composition as drawing
from fastpose.visual import grids
from fastpose.visual.grids import save_image

SIZE = (90, 60)
CAPTION = "A woman doing Yoga, on grass."
STEM = "anna_a-woman-doing-yoga-on-grass"


class Yoga:
    """A generator of known poses: pose k has so many joints as ``shown`` says."""

    conditional = True

    def __init__(self, *shown: int) -> None:
        self.shown = shown
        self.origin = {"encoder": "none", "fingerprint": "abc"}

    def inputs(self, caption: str, count: int, seed: int) -> Inputs:
        return Inputs(torch.arange(count)[:, None], None, (caption,) * count)

    def heatmaps(self, noise: torch.Tensor, vectors: torch.Tensor | None) -> torch.Tensor:
        points = torch.from_numpy(np.random.default_rng(3).integers(8, 56, (17, 2))).float()
        there = torch.arange(17) < torch.tensor(self.shown)[noise]
        return ops.render_gaussian_heatmaps(points.expand(len(noise), -1, -1), (64, 64), 2.0, visibility=there)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Tiny weights of pose transfer, of poses from captions and of neither."""
    made = tmp_path_factory.mktemp("weights")
    save(made, "pona/tiny")
    save(made, "sagan/tiny")
    save(made, "multiscale/semantic", *SMALL)
    save(made, "caption/tiny", "text.size=384")
    return made


@pytest.fixture
def photo(tmp_path) -> Path:
    """A photograph with its key points beside it."""
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    person = {"keypoints": np.random.default_rng(1).uniform([12, 5], [48, 80], (17, 2)).tolist(), "scores": [1.0] * 17}
    row = {"image": "anna.png", "size": SIZE, "skeleton": "coco", "persons": [person]}
    (tmp_path / "k.json").write_text(json.dumps([row]))
    return save_image(tmp_path / "anna.png", pixels)


@pytest.fixture
def drawn(photo, folder, monkeypatch):
    """``compose`` of that photograph with a generator of known poses."""

    def run(*shown: int, **options):
        monkeypatch.setattr(caption_prediction, "open_generator", lambda *_: Yoga(*shown))
        words = {"person": photo, "weights": folder / "pona-tiny.safetensors", "keypoints": photo.parent / "k.json"}
        words |= {"caption_weights": folder / "caption-tiny.safetensors", "out": photo.parent / "out"}
        return compose(options.pop("captions", CAPTION), **(words | {"count": len(shown)} | options))

    return run


def own_pose(photo: Path) -> Pose:
    from fastpose.training.transfer_guides import PoseReader

    return PoseReader(photo.parent / "k.json", None).of(photo)


def drawer(folder: Path, name: str = "pona-tiny"):
    return prediction.open_transfer(None, folder / f"{name}.safetensors", [])


# ---- the chain -------------------------------------------------------------------------------------------------


def test_a_pose_travels_from_heatmaps_to_the_drawing(photo, folder):
    transfer, own, image = drawer(folder), own_pose(photo), read_image(photo)
    first, second = Composer(Yoga(17, 12), transfer)(image, own, CAPTION, 2)
    assert (first.number, first.joints, second.number, second.joints) == (1, 17, 2, 12)
    expected = np.random.default_rng(3).integers(8, 56, (17, 2))
    np.testing.assert_array_equal(first.pose.keypoints[0], expected)
    assert first.heatmaps.shape == (17, 64, 64)
    assert first.heatmaps.max() == 1.0
    points, known = joints.convert(expected.astype(np.float32), np.ones(17, np.float32), "coco", "openpose")
    np.testing.assert_allclose(first.placed.keypoints, first.placement(points), atol=1e-4)
    assert known.all()
    assert first.placed.visibility.all()
    assert first.placed.size == SIZE
    missing = second.placed.visibility == 0
    assert missing.sum() == 5  # both knees, ankles, and one hip
    assert (second.placed.keypoints[missing] == 0).all()
    (alone,) = transfer(image, own, [first.placed])
    assert np.array_equal(first.image, alone)
    assert not np.array_equal(first.image, second.image)


def test_a_pose_of_few_joints_is_not_drawn(photo, folder):
    made = Composer(Yoga(17, 7, 8), drawer(folder))(read_image(photo), own_pose(photo), CAPTION, 3)
    assert [one.image is not None for one in made] == [True, False, True]
    assert made[1].placed is None
    assert made[1].placement is None
    assert made[1].heatmaps is None


def test_generator_and_drawer_must_fit_the_chain(folder):
    with pytest.raises(ValueError, match="caption weights: make poses from noise alone; expected those of a cond"):
        Composer(SimpleNamespace(conditional=False), drawer(folder))
    with pytest.raises(ValueError, match="weights: are guided by semantic maps; expected weights guided by poses"):
        Composer(Yoga(17), drawer(folder, "multiscale-semantic"))


# ---- files -----------------------------------------------------------------------------------------------------


def test_everything_on_the_way_is_written(drawn, photo, folder):
    paths = drawn(17, 14, seed=5)
    kinds = ("", "_pose", "_placed")
    names = [f"{STEM}_{k}{kind}.png" for k in (1, 2) for kind in kinds] + [f"{STEM}_sheet.png", f"{STEM}.json"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (photo.parent / "out").iterdir()) == sorted(names)
    assert read_image(paths[0]).shape == (*drawer(folder).size, 3)
    sheet = read_image(paths[-2])
    assert sheet.shape[0] > 2 * drawing.HEIGHT
    assert sheet.shape[1] > len(TITLES) * drawing.HEIGHT / 2


def test_the_json_says_all_of_it(drawn, photo, folder):
    *_, path = drawn(17, 14, seed=5)
    told = json.loads(path.read_text())
    assert (told["caption"], told["seed"], told["size"], told["photograph"]) == (CAPTION, 5, list(SIZE), str(photo))
    assert (told["caption_weights"]["recipe"], told["weights"]["recipe"]) == ("caption/tiny", "pona/tiny")
    assert (told["count"], told["caption_weights"]["encoder"], told["caption_weights"]["fingerprint"]) == (
        2,
        "none",
        "abc",
    )
    assert told["weights"]["size"] == list(drawer(folder).size)
    np.testing.assert_allclose(told["own_pose"]["keypoints"], own_pose(photo).keypoints, atol=0.01)
    second = told["poses"][1]
    assert (second["number"], second["joints"], second["image"]) == (2, 14, f"{STEM}_2.png")
    assert second["map"]["visibility"] == [1] * 14 + [0] * 3
    assert second["map"]["size"] == [64, 64]
    nose = second["placement"]["scale"] * np.array(second["map"]["keypoints"][0]) + second["placement"]["shift"]
    np.testing.assert_allclose(second["placed"]["keypoints"][0], nose, atol=0.01)
    assert told["skipped"] == []


def test_promise_17_a_bad_photograph_is_named_and_nothing_is_written(drawn, photo):
    bad = bad_images.write_jpeg(photo.parent / "mine" / "anna.jpg", SIZE)
    for name in [name for name in bad_images.REFUSED if name != "locked"]:  # who may not read it may read no weights
        with bad_images.in_place(bad, name), pytest.raises((ValueError, OSError)) as caught:
            drawn(17, person=bad)
        assert str(bad) in str(caught.value), f"{name}: {caught.value}"
        assert not (photo.parent / "out").exists(), name
    drawn(17, person=bad)


def test_skipped_poses_are_told(drawn):
    with pytest.warns(UserWarning, match=r"on grass\.': not drawn, having fewer than 8 joints: pose 1 \(3 joints\)"):
        *_, path = drawn(3, 17)
    told = json.loads(path.read_text())
    assert [pose["number"] for pose in told["poses"]] == [2]
    assert [(pose["number"], pose["joints"], "placed" in pose) for pose in told["skipped"]] == [(1, 3, False)]


def test_where_no_pose_can_be_drawn_nothing_is_written(drawn, photo):
    with pytest.raises(ValueError, match=r"none of 2 poses has 8 joints or more, .* the best has 7; take another seed"):
        drawn(3, 7)
    assert not (photo.parent / "out").exists()


def test_files_are_never_overwritten(drawn):
    first, second = drawn(17), drawn(17)
    assert not set(first) & set(second)
    assert [path.name for path in second] == [path.name.replace(".", "-2.") for path in first]
    assert json.loads(second[-1].read_text())["poses"][0]["image"] == second[0].name


def test_every_caption_has_its_files_and_equal_ones_count_once(drawn):
    paths = drawn(17, captions=["one  leg", "two legs", "one leg"])
    assert [path.name for path in paths if path.suffix == ".json"] == ["anna_one-leg.json", "anna_two-legs.json"]


def test_with_weights_of_both_kinds_the_seed_decides(photo, folder):
    text = caption_data.sample("train").captions[0]

    def run(seed: int, count: int) -> list[list]:
        *_, path = compose(
            text,
            person=photo,
            caption_weights=folder / "caption-tiny.safetensors",
            weights=folder / "pona-tiny.safetensors",
            keypoints=photo.parent / "k.json",
            out=photo.parent / "out",
            count=count,
            seed=seed,
        )
        return [pose["map"]["scores"] for pose in json.loads(path.read_text())["poses"]]

    (one,), (first, second), (other,) = run(0, 1), run(0, 2), run(1, 1)
    assert one == first
    assert first != second
    assert first != other


def test_a_sheet_shows_the_first_poses_and_says_so(drawn, monkeypatch):
    told = []
    monkeypatch.setattr(composition_files, "SHOWN", 1)
    monkeypatch.setattr(drawing, "sheet", lambda *_, note: (told.append(note), np.zeros((4, 4, 3), np.uint8))[1])
    assert len(drawn(17, 16)) == 2 * 3 + 2
    drawn(17)
    assert told == ["1 of 2 poses are shown; each has files of its own", ""]


def test_what_is_drawn_stays_where_the_drawing_ends_early(drawn, photo, monkeypatch):
    written = []

    def stopped(path: Path, picture: np.ndarray) -> Path:
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(save_image(path, picture))
        return path

    monkeypatch.setattr(grids, "save_image", stopped)
    monkeypatch.setattr(composition, "BATCH", 1)
    with pytest.raises(KeyboardInterrupt):
        drawn(17, 16)
    assert {path.name for path in (photo.parent / "out").iterdir()} == {path.name for path in written}
    assert [path.name for path in written][::3] == [f"{STEM}_1.png", f"{STEM}_2.png"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"count": 0}, "count: expected a whole number of 1 or more, got 0"),
        ({"count": 1001}, "count: expected at most 1,000 poses at a time, got 1,001 of each of 1 captions"),
        ({"count": 400, "captions": ["a", "b", "c"]}, "at most 1,000 poses at a time, got 400 of each of 3 captions"),
        ({"seed": -1}, "seed: expected a whole number of 0 or more, got -1"),
        ({"captions": []}, "caption: expected a text, got none"),
        ({"overrides": ["run.device=cpu", "text.encoder=minilm"]}, "text.encoder: the weights fix it; pass the encod"),
        ({"overrides": ["data.name=x"]}, "data.name: the weights fix it; leave this override out"),
    ],
)
def test_numbers_and_overrides_are_checked_before_anything_is_opened(photo, options, sentence):
    nothing = {"person": "none.png", "weights": "none.safetensors", "caption_weights": "none.safetensors"}
    with pytest.raises(ValueError, match=sentence):
        compose(options.pop("captions", CAPTION), **nothing, **options)


def test_the_photograph_is_checked_before_captions_are_read(drawn, photo, monkeypatch):
    def opened(*_: object) -> None:
        raise AssertionError("the text encoder is slow")

    monkeypatch.setattr(Yoga, "__init__", opened)
    other = save_image(photo.parent / "otto.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(ValueError, match="its key points are not known"):
        drawn(17, person=other)
    with pytest.raises(ValueError, match="is a folder; expected one photograph"):
        drawn(17, person=photo.parent)


def test_long_captions_and_names_in_other_alphabets_become_files(drawn, photo):
    letter = "\U00010428"  # four bytes, and not in the pictures' font
    person = photo.rename(photo.with_name(60 * letter + ".png"))
    (row,) = json.loads((photo.parent / "k.json").read_text())
    (photo.parent / "k.json").write_text(json.dumps([row | {"image": person.name}]))
    with pytest.warns(UserWarning, match="the pictures' font has not all letters of it"):
        paths = drawn(17, person=person, captions=60 * letter)
    assert all(path.is_file() and len(path.name.encode()) < 230 for path in paths)
    told = json.loads(paths[-1].read_text())
    assert (told["caption"], told["title"]) == (60 * letter, "caption 1")


def test_the_overlay_leaves_its_photograph_as_it_is():
    image = np.full((40, 30, 3), 200, np.uint8)
    shown = drawing.on_photograph(image, np.zeros((18, 2)), np.zeros(18), dim=True)
    assert (image == 200).all()
    assert shown.max() < 100
