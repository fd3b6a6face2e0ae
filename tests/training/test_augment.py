"""Mixed training sets: which images stay, what is made of the others, and what is never touched."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny_market

from fastpose.data import keypoint_tables
from fastpose.data.images import image_size, read_image
from fastpose.training import augment, reid_data
from fastpose.training.reid_data import Photo

ALL = sorted(tiny_market.names(tiny_market.TRAIN))


def photos(counts: dict[int, int]) -> list[Photo]:
    return [Photo(Path(tiny_market.name(who, 1, n)), who, 1) for who, count in counts.items() for n in range(count)]


def posed(images: list[Photo], without: tuple[str, ...] = ()) -> dict[str, bool]:
    return {photo.path.name: photo.path.name not in without for photo in images}


@pytest.fixture
def root(tmp_path):
    return tiny_market.write(tmp_path / "market_data")


class Painter:
    """A pose transfer that paints the mean colour of the condition and notes what it was asked.

    With ``poses`` it paints how high the target's right wrist lies instead.
    """

    def __init__(self, size: tuple[int, int] = tiny_market.SIZE, poses: bool = False) -> None:
        self.size, self.poses, self.calls = size, poses, []

    def __call__(self, photo, source, targets):
        self.calls.append((source, list(targets)))
        if self.poses:
            return [np.full((*self.size, 3), grey(pose.keypoints[4, 1]), np.uint8) for pose in targets]
        colour = photo[: photo.shape[0] // 2].reshape(-1, 3).mean(0).round().astype(np.uint8)
        return [np.broadcast_to(colour, (*self.size, 3)) for _ in targets]


def grey(wrist: float) -> int:
    """The colour of a pose whose wrist lies 6, 7 or 8 pixels below the top."""
    return int(90 * (wrist - 6))


# ---------------------------------------------------------------------------------------------------------- the plan


@pytest.mark.parametrize("portion", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_the_portion_is_met_and_everyone_keeps_an_image(portion):
    images = photos({who: 2 + who % 7 for who in range(1, 60)})
    plan = augment.plan(images, posed(images), portion)
    names = {photo.path.name for photo in images}
    assert set(plan.real) | set(plan.conditions) == names
    assert not set(plan.real) & set(plan.conditions)
    assert len(plan.real) == max(round(portion * len(images)), 59)
    assert {name.split("_")[0] for name in plan.real} == {name.split("_")[0] for name in names}


def test_conditions_are_real_images_of_the_same_person():
    images = photos({1: 9, 2: 9, 3: 9})
    plan = augment.plan(images, posed(images), 0.5)
    assert all(made in plan.real and made[:4] == name[:4] for name, made in plan.conditions.items())
    assert len(set(plan.conditions.values())) > 3  # drawn, not always the first


def test_what_cannot_be_generated_stays_and_conditions_nothing():
    images = [
        *photos({1: 6, 2: 2}),
        Photo(Path("0000_c1s1_000001_01.jpg"), 0, 1),
        Photo(Path("-1_c1s1_000002_01.jpg"), -1, 1),
    ]
    without = tuple(
        photo.path.name for photo in images if photo.identity == 2 or photo.path.name.endswith("000003_01.jpg")
    )
    for seed in range(10):
        plan = augment.plan(images, posed(images, without), 0.1, seed)
        stay = {*without, "0000_c1s1_000001_01.jpg", "-1_c1s1_000002_01.jpg"}
        assert stay < set(plan.real)
        assert len(plan.real) == len(stay) + 1  # and one image of person 1
        assert plan.fixed == len(stay)
        assert set(plan.conditions.values()) == set(plan.real) - stay


def test_the_seed_alone_decides():
    images = photos({1: 9, 2: 9, 3: 9})
    first = augment.plan(images, posed(images), 0.4, 1)
    assert augment.plan(images[::-1], posed(images), 0.4, 1) == first
    assert augment.plan(images, posed(images), 0.4, 2) != first


def test_a_plan_counts_what_must_stay():
    images = photos({1: 9, 2: 9, 3: 1})
    plan = augment.plan(images, posed(images, (images[0].path.name,)), 0.1)
    assert (plan.fixed, plan.persons, len(plan.real)) == (1, 3, 4)
    with pytest.raises(ValueError, match="seed: expected 0 or more, got -1"):
        augment.plan(images, posed(images), 0.1, -1)


@pytest.mark.parametrize("portion", [0.0, -1.0, 1.1, float("nan")])
def test_a_portion_is_a_share(portion):
    with pytest.raises(ValueError, match="portion: expected a share above 0 and at most 1"):
        augment.plan(photos({1: 2}), {}, portion)


# ---------------------------------------------------------------------------------------------------------- the files


def test_a_mixed_set_has_the_same_names_and_an_honest_manifest(root, tmp_path):
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    painter, done = Painter(), []
    out = tmp_path / "mixed"
    mixed = augment.market(root, out, painter, portion=0.5, seed=3, about={"recipe": "r"}, report=done.append)
    assert sorted(path.name for path in (out / "train").iterdir()) == ALL
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ALL
    kinds = {row["name"]: row["kind"] for row in rows}
    assert (mixed.real, mixed.generated, mixed.fixed) == (8, 8, 1)
    assert sum(done) == 16
    for row in rows:
        path = out / "train" / row["name"]
        assert (path.read_bytes() == before[root / "train" / row["name"]]) == (row["kind"] == "real")
        assert image_size(path) == tiny_market.SIZE
        if row["kind"] == "generated":
            assert kinds[row["condition"]] == "real"
            drawn, condition = read_image(path), read_image(root / "train" / row["condition"])
            assert np.abs(drawn.mean((0, 1)) - condition[:16].mean((0, 1))).max() < 4
    assert json.loads((out / "augmentation.json").read_text()) == {
        "recipe": "r",
        "portion": 0.5,
        "reached": 0.5,
        "seed": 3,
        "real": 8,
        "generated": 8,
        "real_without_key_points": 1,
    }
    for name in ("market-annotation-train.csv", "market-pairs-train.csv"):
        assert (out / name).read_bytes() == before[root / name]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert not (out / "unfinished.txt").exists()


def test_every_missing_image_is_drawn_in_its_own_pose(root, tmp_path):
    painter = Painter(poses=True)
    mixed = augment.market(root, tmp_path / "mixed", painter, portion=0.3)
    rows = [json.loads(line) for line in (tmp_path / "mixed" / "manifest.jsonl").read_text().splitlines()]
    made = {row["name"]: row["condition"] for row in rows if row["kind"] == "generated"}
    assert {pose.name for _, targets in painter.calls for pose in targets} == set(made)
    assert {source.name for source, _ in painter.calls} == set(made.values())
    table = keypoint_tables.read_table(root / "market-annotation-train.csv")
    wrists = dict(zip(table.names, table.keypoints[:, 4, 1], strict=True))
    assert sum(wrists[name] != wrists[condition] for name, condition in made.items()) > 3
    for name in made:
        drawn = read_image(tmp_path / "mixed" / "train" / name)
        assert np.abs(drawn.astype(int) - grey(wrists[name])).max() <= 2
    assert len(made) == mixed.generated


def test_the_poses_are_those_of_the_condition_and_of_the_missing_images(root, tmp_path_factory):
    painter = Painter()
    # the folder above will do as the root
    augment.market(root.parent, tmp_path_factory.mktemp("mixed"), painter, portion=0.3)
    asked = {pose.name: pose for _, targets in painter.calls for pose in targets}
    numbers = {name: number for number, name in enumerate(tiny_market.names(tiny_market.TRAIN))}
    assert tiny_market.NO_POSE not in asked
    assert all(source.name != tiny_market.NO_POSE for source, _ in painter.calls)
    for name, pose in asked.items():
        assert pose.keypoints[4].tolist() == [3 + 4, 2 + 4 + numbers[name] % 3]  # x, y
        assert (pose.size, pose.visibility.min()) == (tiny_market.SIZE, 2)


def test_generated_images_get_the_originals_size(root, tmp_path):
    augment.market(root, tmp_path / "mixed", Painter((64, 48)), portion=0.3)
    assert {image_size(path) for path in (tmp_path / "mixed" / "train").iterdir()} == {tiny_market.SIZE}


def test_the_reduced_set_is_the_manifests_real_part(root, tmp_path):
    mixed = augment.market(root, tmp_path / "mixed", Painter(), portion=0.5)
    data = reid_data.ReidDataConfig(root=str(mixed.folder), test_root=str(root))
    assert len(reid_data.train_photos(data)) == 16
    only = reid_data.ReidDataConfig(root=str(mixed.folder), test_root=str(root), only_real=True)
    assert len(reid_data.train_photos(only)) == mixed.real
    assert len(reid_data.test_dataset(only)) == 14


def test_folders_in_the_way_are_refused_before_anything_is_written(root, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.txt").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(root)
    (tmp_path / "file").write_text("")
    cases = {full: "is not empty", root / "new": "lies in the original set", link / "new": "lies in the original set"}
    for out, message in {**cases, tmp_path / "file": "is a file", tmp_path: "is not empty"}.items():
        with pytest.raises(ValueError, match=message):
            augment.market(root, out, Painter(), portion=0.5)
    assert sorted(path.name for path in full.iterdir()) == ["a.txt"]
    assert not (root / "new").exists()


def test_a_set_without_images_or_key_points_is_one_sentence(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder train or bounding_box_train"):
        augment.market(tmp_path / "none", tmp_path / "mixed", Painter(), portion=0.5)
    (root / "market-annotation-train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no market-annotation-train.csv"):
        augment.market(root, tmp_path / "mixed", Painter(), portion=0.5)


def test_an_interrupted_set_trains_nothing(root, tmp_path):
    calls = []

    def fails(photo, source, targets):
        calls.append(source)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return Painter()(photo, source, targets)

    with pytest.raises(KeyboardInterrupt):
        augment.market(root, tmp_path / "mixed", fails, portion=0.3)
    assert len(list((tmp_path / "mixed" / "train").iterdir())) > 5
    for only_real in (False, True):
        data = reid_data.ReidDataConfig(root=str(tmp_path / "mixed"), test_root=str(root), only_real=only_real)
        with pytest.raises(ValueError, match="did not finish this set; remove the folder and write it anew"):
            reid_data.train_dataset(data, 0)
    with pytest.raises(ValueError, match="did not finish"):
        augment.market(tmp_path / "mixed", tmp_path / "again", Painter(), portion=0.3)
    with pytest.raises(ValueError, match="is not empty"):
        augment.market(root, tmp_path / "mixed", Painter(), portion=0.3)


@pytest.mark.parametrize("name", [ALL[0], ALL[7], tiny_market.NO_POSE])
def test_a_cut_image_is_found_before_anything_is_written(root, tmp_path, name):
    path = root / "train" / name
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{name}: truncated after"):
        augment.market(root, tmp_path / "mixed", Painter(), portion=0.3)
    assert not (tmp_path / "mixed").exists()


def test_the_real_sample(shared, tmp_path, tmp_path_factory):
    archive = shared / "data" / "market1501_sample" / "market_data.tar"
    if not archive.is_file():
        pytest.skip("the sample of Market-1501 is absent")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    painter = Painter((128, 64))
    mixed = augment.market(tmp_path, tmp_path_factory.mktemp("mixed"), painter, portion=0.4)
    assert mixed.real + mixed.generated == 164
    assert mixed.real == round(0.4 * 164)
