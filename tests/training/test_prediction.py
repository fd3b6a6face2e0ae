"""Trained weights at work: which poses, maps and letters guide a generator, and the files that come of it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import bad_images
import numpy as np
import pytest
from drawing_weights import SMALL, save

from fastpose import training
from fastpose.data.images import read_image
from fastpose.data.keypoint_files import Pose
from fastpose.data.pose3d import bone_sum
from fastpose.training import checkpoint, pose3d_pictures, prediction, systems, transfer_data, transfer_guides, try_on
from fastpose.training.transfer_guides import Guides, PoseReader
from fastpose.training.transfer_inference import PoseTransfer
from fastpose.visual.grids import save_image

SIZE = (64, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Tiny weights of every kind of generator and of a pose network."""
    made = tmp_path_factory.mktemp("weights")
    save(made, "pona/tiny")
    save(made, "sagan/tiny")
    save(made, "pose3d/tiny")
    save(made, "multiscale/semantic", *SMALL)
    save(made, "multiscale/fonts", *SMALL)
    return made


@pytest.fixture
def photo(tmp_path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return save_image(tmp_path / "in" / "anna.png", pixels)


def photo_of(size: tuple[int, int], seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def write_poses(path: Path, names: list[str], size: tuple[int, int] = SIZE, **changes: object) -> Path:
    """Write key points as ``fastpose predict --save-keypoints`` does."""
    rng = np.random.default_rng(1)
    rows = []
    for name in names:
        points = rng.uniform([12, 5], [size[1] - 12, size[0] - 5], (17, 2)).tolist()
        person = {"keypoints": points, "scores": [1.0] * 17}
        rows.append({"image": name, "size": list(size), "skeleton": "coco", "persons": [person], **changes})
    path.write_text(json.dumps(rows))
    return path


# ---- bad photographs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["predict", "transfer"])
def test_promise_17_a_bad_photograph_is_named_and_nothing_is_drawn(folder, photo, tmp_path, verb):
    bad = bad_images.write_jpeg(tmp_path / "mine" / "bad.jpg", SIZE)
    poses = write_poses(tmp_path / "k.json", ["anna.png", "bad.jpg"])

    def draw() -> None:
        if verb == "predict":
            training.predict(None, folder / "sagan-tiny.safetensors", [photo, bad], out=tmp_path / "out")
        else:
            options = {"poses": poses, "keypoints": poses, "out": tmp_path / "out"}
            training.transfer(None, folder / "pona-tiny.safetensors", [photo, bad], **options)

    for name in [name for name in bad_images.REFUSED if name != "locked"]:  # who may not read it may read no weights
        with bad_images.in_place(bad, name) as kind, pytest.raises((ValueError, OSError)) as caught:
            draw()
        assert str(bad) in str(caught.value), f"{name}: {caught.value}"
        late = verb == "predict" and kind.refused == "damaged"  # seen when it is its turn to be decoded
        assert [path.name for path in (tmp_path / "out").glob("*")] == ["anna.png"] * late, name
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    draw()
    assert list((tmp_path / "out").glob("bad*"))


# ---- pose transfer ---------------------------------------------------------------------------------------------


def test_several_persons_take_several_poses(folder, photo, tmp_path):
    other = save_image(photo.parent / "ben.jpg", np.full((*SIZE, 3), 99, np.uint8))
    keypoints = write_poses(tmp_path / "k.json", [str(photo), str(other)])
    poses = write_poses(tmp_path / "p.json", ["walk/1.jpg", "walk/2.jpg"], (200, 100))
    out = tmp_path / "out"
    written = training.transfer(
        "pona/tiny", folder / "pona-tiny.safetensors", [photo.parent], poses=poses, keypoints=keypoints, out=out
    )
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in written}
    each = {"{}_1.png", "{}_2.png", "{}_sheet.png", "{}.gif", "{}.mp4"}
    assert names == {name.format(person) for name in each for person in ("anna", "ben")}
    assert read_image(out / "anna_1.png").shape == (32, 16, 3)


def test_one_pose_makes_no_film_and_existing_files_stay(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    target = write_poses(tmp_path / "p.json", ["target.png"])
    options = {"poses": [target], "keypoints": keypoints, "out": tmp_path / "out", "explain": True}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "anna_target.png").write_text("mine")
    written = training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options)
    names = [path.name for path in written]
    assert names == [f"anna_{name}-2.png" for name in ("target", "sheet", "features", "attention")]
    assert (tmp_path / "out" / "anna_target.png").read_text() == "mine"


def test_a_photograph_with_a_very_long_name_is_drawn_under_a_shorter_one(folder, photo, tmp_path):
    long = photo.rename(photo.with_name("猫" * 83 + ".png"))  # 253 bytes
    written = training.predict(None, folder / "sagan-tiny.safetensors", [long], out=tmp_path / "out")
    assert [path.name for path in written] == ["猫" * 33 + ".png"]
    keypoints = write_poses(tmp_path / "k.json", [str(long)])
    target = write_poses(tmp_path / "p.json", ["target.png"])
    weights = folder / "pona-tiny.safetensors"
    written = training.transfer(None, weights, [long], poses=target, keypoints=keypoints, out=tmp_path / "out")
    assert [path.name for path in written] == ["猫" * 33 + f"_{name}.png" for name in ("target", "sheet")]


def test_promise_20_names_of_a_list_of_poses_write_nothing_elsewhere(folder, photo, tmp_path):
    """Nor over each other, also on disks that know no case; and each is short enough for a disk."""
    photo = photo.rename(photo.with_name("猫" * 33 + ".png"))
    hostile = [
        "../../up.png",
        "..",
        "/etc/passwd",
        "a\0b.png",
        "C:\\x.png",
        "A.png",
        "a.png",
        "猫" * 300,
        "",
        "x\n.png",
        "sheet",
    ]
    target, keypoints = write_poses(tmp_path / "p.json", hostile), write_poses(tmp_path / "k.json", [str(photo)])
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    weights = folder / "pona-tiny.safetensors"
    written = training.transfer(
        None, weights, [photo], poses=target, keypoints=keypoints, out=tmp_path / "deep" / "out"
    )
    made = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert made == set(written)
    assert {path.parent for path in made} == {tmp_path / "deep" / "out"}
    assert len({path.name.lower() for path in made}) == len(hostile) + len({".gif", ".mp4", "_sheet.png"})
    assert all(path.name.isprintable() and "\\" not in path.name and ":" not in path.name for path in made)


def test_what_is_written_is_what_the_network_gives(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    weights = folder / "pona-tiny.safetensors"
    written = training.transfer(None, weights, [photo], poses=keypoints, keypoints=keypoints, out=tmp_path / "out")
    transfer = PoseTransfer.from_weights(weights)
    pose = PoseReader(keypoints, None).of(photo)
    (expected,) = transfer(read_image(photo), pose, [pose])
    assert np.array_equal(read_image(written[0]), expected)


def test_a_missing_codec_is_a_warning_and_the_rest_is_there(folder, photo, tmp_path, monkeypatch):
    from fastpose.visual import sequences

    def refuse(path: Path, film: object) -> Path:
        raise ValueError(f"{path}: this OpenCV cannot write MP4 files (codec mp4v absent); use the GIF")

    monkeypatch.setattr(sequences, "save_video", refuse)
    keypoints = write_poses(tmp_path / "k.json", ["anna.png", "b.png"])
    with pytest.warns(UserWarning, match="cannot write MP4"):
        written = training.transfer(
            None, folder / "pona-tiny.safetensors", [photo], poses=keypoints, keypoints=keypoints, out=tmp_path / "out"
        )
    assert [path.suffix for path in written].count(".gif") == 1
    assert not [path for path in written if path.suffix == ".mp4"]


@pytest.mark.parametrize("system", ["sagan", "reid"])
def test_weights_of_another_job_are_refused(folder, photo, tmp_path, system):
    weights = folder / "sagan-tiny.safetensors" if system == "sagan" else save(tmp_path, "reid/tiny")
    with pytest.raises(ValueError, match=f"system {system}: draws nobody in other poses"):
        training.transfer(None, weights, [photo], poses=photo, out=tmp_path / "out")
    if system != "sagan":
        with pytest.raises(ValueError, match=f"system {system}: finds no key points"):
            training.predict(None, weights, [photo], out=tmp_path / "out")


def test_predict_refuses_weights_that_find_no_key_points(folder, photo, tmp_path):
    with pytest.raises(ValueError, match="system pona: finds no key points"):
        training.predict(None, folder / "pona-tiny.safetensors", [photo], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predict_writes_key_points_that_transfer_reads(folder, photo, tmp_path):
    training.predict(
        None, folder / "sagan-tiny.safetensors", [photo], out=tmp_path / "drawn", save_keypoints=tmp_path / "k.json"
    )
    (row,) = json.loads((tmp_path / "k.json").read_text())
    assert row["size"] == list(SIZE)
    row["persons"][0]["scores"] = [1.0] * 17  # a network that was never trained is sure of nothing
    (tmp_path / "k.json").write_text(json.dumps([row]))
    assert PoseReader(tmp_path / "k.json", None).of(photo).size == SIZE


def test_key_points_go_to_a_new_file_alone(folder, photo, tmp_path):
    weights, before = folder / "sagan-tiny.safetensors", photo.read_bytes()
    for path, sentence in ((photo, "exists already; name another file"), (tmp_path / "no" / "k.json", "no folder")):
        with pytest.raises(ValueError, match=sentence):
            training.predict(None, weights, [photo], out=tmp_path / "out", save_keypoints=path)
    assert photo.read_bytes() == before
    assert not (tmp_path / "out").exists()  # refused before the first photograph
    training.predict(None, weights, [photo], out=tmp_path / "out", save_keypoints=tmp_path / "out" / "k.json")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["anna.png", "k.json"]


def test_a_bad_photograph_is_found_before_any_is_drawn(folder, photo, tmp_path):
    cut = photo.parent / "cut.png"
    cut.write_bytes(photo.read_bytes()[:-20])
    with pytest.raises(ValueError, match="truncated"):
        training.predict(None, folder / "sagan-tiny.safetensors", [photo.parent], out=tmp_path / "out")
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    options = {"poses": keypoints, "keypoints": keypoints, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="truncated"):
        training.transfer(None, folder / "pona-tiny.safetensors", [photo.parent], **options)
    save_image(cut, np.zeros((*SIZE, 3), np.uint8))  # now whole, but nothing tells its joints
    with pytest.raises(ValueError, match=r"cut.png: its key points are not known"):
        training.transfer(None, folder / "pona-tiny.safetensors", [photo.parent], **options)
    assert not (tmp_path / "out").exists()


def test_a_bad_target_is_found_before_any_is_drawn(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    rows = json.loads(write_poses(tmp_path / "p.json", ["one.png", "two.png"]).read_text())
    rows[1]["persons"][0]["scores"] = [0.05] * 17
    (tmp_path / "p.json").write_text(json.dumps(rows))
    options = {"poses": tmp_path / "p.json", "keypoints": keypoints, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"no joint of pose 'two.png' is known \(none scored at least 0.1\)"):
        training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_named_like_a_photograph_is_none(photo, tmp_path):
    (photo.parent / "x.jpg").mkdir()
    assert prediction.find_photos([photo.parent]) == [photo]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"image .*empty: no image in it; expected \.jpg"):
        prediction.find_photos([tmp_path / "empty"])


@pytest.mark.parametrize("override", ["data.height=64", "data.name=photos", "data.sigma=3"])
def test_what_training_fixed_cannot_be_overridden(folder, photo, tmp_path, override):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    options = {"poses": keypoints, "keypoints": keypoints, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=rf"{override.split('=')[0]}: the training of .* fixed it"):
        training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options, overrides=[override])
    assert training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options, overrides=["run.seed=7"])


@pytest.mark.parametrize(
    ("system", "override", "why"),
    [
        ("pose3d", "data.image_size=128", "the training of .* fixed it"),
        ("pose3d", "data.mean=0,0,0", "the training of .* fixed it"),
        ("pose3d", "data.crop=stacked_hourglass", "the training of .* fixed it"),
        ("pose3d", "test.scale=gt_root_camera", "counts in an evaluation alone"),
        ("pose3d", "test.protocols=MPJPE (root)", "counts in an evaluation alone"),
        ("sagan", "data.image_size=128", "the training of .* fixed it"),
        ("sagan", "data.std=2,2,2", "the training of .* fixed it"),
        ("pona", "test.splits=2", "counts in an evaluation alone"),
    ],
)
def test_what_would_show_weights_something_else_cannot_be_overridden(folder, photo, tmp_path, system, override, why):
    weights, options = folder / f"{system}-tiny.safetensors", {"out": tmp_path / "out", "overrides": [override]}
    job = training.transfer if system == "pona" else training.predict
    with pytest.raises(ValueError, match=rf"{override.split('=')[0]}: {why}; leave this override out \(run\.\*, "):
        job(None, weights, [photo], **options)
    assert not (tmp_path / "out").exists()


def test_what_counts_for_photographs_can_be_overridden(folder, photo, tmp_path):
    changes = ["run.seed=7", "test.flip=no", "test.decoder=argmax", "test.backend=reference"]
    for name, more in (("sagan-tiny", "test.scales=0.9,1.1"), ("pose3d-tiny", "test.bone_sum=4000")):
        weights = folder / f"{name}.safetensors"
        assert training.predict(None, weights, [photo], out=tmp_path / "out", overrides=[*changes, more])


@pytest.mark.parametrize(("system", "lacks"), [("sagan", "test.bone_sum"), ("pose3d", "test.scales")])
def test_a_refusal_offers_what_the_system_knows(folder, photo, tmp_path, system, lacks):
    weights, options = folder / f"{system}-tiny.safetensors", {"out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"\(run\.\*, test\.flip, .* may change\)") as refusal:
        training.predict(None, weights, [photo], **options, overrides=["data.image_size=128"])
    assert lacks not in str(refusal.value)
    with pytest.raises(ValueError, match=f"unknown key '{lacks}'"):
        training.predict(None, weights, [photo], **options, overrides=[f"{lacks}=1"])


def test_folders_that_photographs_do_not_need_may_be_named(folder, photo, tmp_path):
    pose3d = ["data.root=/h36m", "data.wild=mpii:/mpii", "data.validation=h36m:/h36m"]
    for system, overrides in (("sagan", ["data.root=/lsp"]), ("pose3d", pose3d)):
        weights = folder / f"{system}-tiny.safetensors"
        assert training.predict(None, weights, [photo], out=tmp_path / "out", overrides=overrides)


@pytest.mark.parametrize("inside", ["", "deeper"])
def test_a_file_is_no_folder_for_pictures(folder, photo, tmp_path, inside):
    mine = tmp_path / "k.json"
    mine.write_text("mine")
    sentence = r"out: expected a folder, .*k\.json.* is a file or lies in one; name another"
    with pytest.raises(ValueError, match=sentence):
        training.predict(None, folder / "sagan-tiny.safetensors", [photo], out=mine / inside)
    with pytest.raises(ValueError, match=sentence):
        training.transfer(None, folder / "pona-tiny.safetensors", [photo], poses=photo, out=mine / inside)
    assert mine.read_text() == "mine"


def test_weights_of_nan_draw_nothing(photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    options = {"poses": keypoints, "keypoints": keypoints, "out": tmp_path / "out"}
    with pytest.raises(ValueError, match="expected finite images, got NaN"):
        training.transfer(None, save(tmp_path, "pona/tiny", value=float("nan")), [photo], **options)
    broken = save(tmp_path, "sagan/tiny", value=float("nan"))
    with pytest.raises(ValueError, match=r"sagan-tiny.safetensors: .* holds NaN or infinite values"):
        training.predict(None, broken, [photo], out=tmp_path / "drawn", save_keypoints=tmp_path / "n.json")
    assert not (tmp_path / "n.json").exists()


# ---- poses in space --------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def few_frames(monkeypatch):
    """A turn of three pictures is one."""
    monkeypatch.setattr(pose3d_pictures, "FRAMES", 3)


def test_weights_that_know_depth_draw_a_picture_and_a_film(folder, photo, tmp_path):
    other = save_image(photo.parent / "grey.png", np.full((*SIZE, 3), 99, np.uint8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "anna.gif").write_text("mine")
    weights = folder / "pose3d-tiny.safetensors"
    written = training.predict("pose3d/tiny", weights, [photo, other], out=tmp_path / "out")
    assert [path.name for path in written] == ["anna-2.png", "anna-2.gif", "grey.png", "grey.gif"]
    assert (tmp_path / "out" / "anna.gif").read_text() == "mine"
    picture = read_image(written[0])
    assert picture.shape[1] > 4 * 300  # the photograph and three sides
    assert written[1].read_bytes().startswith(b"GIF89a")


def test_joints_in_millimetres_say_what_they_mean_and_transfer_reads_them(folder, photo, tmp_path):
    weights = folder / "pose3d-tiny.safetensors"
    sums = []
    for bones, override in ((4297.0, []), (3000.0, ["test.bone_sum=3000"])):
        path = tmp_path / f"{bones}.json"
        training.predict(None, weights, [photo], out=tmp_path / "out", save_keypoints=path, overrides=override)
        (row,) = json.loads(path.read_text())
        assert row["joints_3d"]["unit"] == "mm"
        assert row["joints_3d"]["scale"] == f"assumed: the 14 bones together are {bones:.1f} mm long"
        joints = np.array(row["persons"][0]["joints_3d"])
        assert joints.shape == (16, 3)
        assert joints[row["joints"].index("pelvis")].tolist() == [0, 0, 0]
        sums.append(bone_sum(joints))
    np.testing.assert_allclose(sums, [4297.0, 3000.0], atol=2)
    row["persons"][0]["scores"] = [1.0] * 16
    (tmp_path / "k.json").write_text(json.dumps([row]))
    assert PoseReader(tmp_path / "k.json", None).of(photo).size == SIZE
    assert "joints_3d" not in json.dumps(_flat(folder, photo, tmp_path))


def test_the_size_is_that_of_the_persons_the_weights_were_trained_on(photo, tmp_path):
    weights, path = save(tmp_path, "pose3d/tiny", measured={"test.bone_sum": 3951.25}), tmp_path / "k.json"
    training.predict(None, weights, [photo], out=tmp_path / "out", save_keypoints=path)
    (row,) = json.loads(path.read_text())
    assert row["joints_3d"]["scale"] == "assumed: the 14 bones together are 3951.2 mm long"
    np.testing.assert_allclose(bone_sum(np.array(row["persons"][0]["joints_3d"])), 3951.25, atol=2)


def _flat(folder: Path, photo: Path, tmp_path: Path) -> object:
    """Return what weights of a 2D network write."""
    path = tmp_path / "flat.json"
    training.predict(None, folder / "sagan-tiny.safetensors", [photo], out=tmp_path / "flat", save_keypoints=path)
    return json.loads(path.read_text())


def test_weights_that_know_depth_serve_transfer_as_a_pose_network(folder, photo):
    pose = PoseReader(None, folder / "pose3d-tiny.safetensors").of(photo)
    assert pose.keypoints.shape == (18, 2)


@pytest.mark.parametrize("size", [(1, 1), (2, 500)])
def test_the_smallest_photographs_are_drawn(folder, tmp_path, size):
    tiny = save_image(tmp_path / "tiny.png", np.full((*size, 3), 7, np.uint8))
    written = training.predict(None, folder / "pose3d-tiny.safetensors", [tiny], out=tmp_path / "out")
    assert [path.name for path in written] == ["tiny.png", "tiny.gif"]


def test_a_grey_photograph_is_one_and_a_text_is_none(folder, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "grey.png"), np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8))
    (tmp_path / "text.jpg").write_text("no photograph")
    weights, out = folder / "pose3d-tiny.safetensors", tmp_path / "out"
    with pytest.raises(ValueError, match=r"image .*text\.jpg: not a JPEG, PNG, BMP or WebP file"):
        training.predict(None, weights, [tmp_path / "grey.png", tmp_path / "text.jpg"], out=out)
    assert not out.exists()
    assert len(training.predict(None, weights, [tmp_path / "grey.png"], out=out)) == 2


def test_a_network_that_overflows_is_named_with_the_photograph(photo, tmp_path):
    """Its weights are finite, what it gives is not."""
    weights = save(tmp_path, "pose3d/tiny", value=1e30)
    with pytest.raises(ValueError, match=r"image .*anna\.png: network: gives NaN or infinite values"):
        training.predict(None, weights, [photo], out=tmp_path / "out", save_keypoints=tmp_path / "k.json")
    assert not (tmp_path / "k.json").exists()
    broken = save(tmp_path, "pose3d/tiny", value=float("nan"))
    with pytest.raises(ValueError, match=r"pose3d-tiny\.safetensors: .* holds NaN or infinite values"):
        training.predict(None, broken, [photo], out=tmp_path / "drawn")
    assert not (tmp_path / "drawn").exists()


# ---- where poses come from -------------------------------------------------------------------------------------


def test_poses_are_found_by_name_and_the_nearest_name_wins(tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "3.png"]
    reader = PoseReader(write_poses(tmp_path / "k.json", names), None)
    for asked, found in (("b/1.jpg", "b/1.jpg"), ("x/b/1.jpg", "b/1.jpg"), ("c/2.jpg", "b/2.jpg"), ("3.jpg", "3.png")):
        assert reader.of(Path(asked)).name == found
    with pytest.raises(ValueError, match=r"photograph c/1.jpg: 2 poses are named 'a/1.jpg' or alike"):
        reader.of(Path("c/1.jpg"))
    with pytest.raises(ValueError, match=r"photograph 9.jpg: its key points are not known; .*k.json has 4 poses"):
        reader.of(Path("9.jpg"))


def test_a_pose_network_serves_where_the_file_does_not(folder, photo, tmp_path):
    reader = PoseReader(None, folder / "sagan-tiny.safetensors")
    pose = reader.of(photo)
    assert (pose.name, pose.size, pose.keypoints.shape) == ("anna.png", SIZE, (18, 2))
    with pytest.raises(ValueError, match="system pona: finds no key points"):
        PoseReader(None, folder / "pona-tiny.safetensors").of(photo)


def test_joints_of_low_score_are_missing():
    from fastpose.skeletons import COCO, OPENPOSE
    from fastpose.training.estimation import Estimate

    scores = np.full((1, 17), 0.05, np.float32)
    scores[0, COCO.index("l_knee")] = 0.9
    points = np.arange(34, dtype=np.float32).reshape(1, 17, 2)
    pose = transfer_guides.pose_of("a.jpg", Estimate(points, scores), COCO, (9, 8, 3))
    assert np.flatnonzero(pose.visibility).tolist() == [OPENPOSE.index("l_knee")]
    assert pose.size == (9, 8)
    assert isinstance(pose, Pose)


def test_a_folder_of_tables_or_of_photographs_is_a_sequence(photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png", "ben.png"])
    save_image(photo.parent / "ben.png", np.zeros((*SIZE, 3), np.uint8))
    reader = PoseReader(keypoints, None)
    assert [pose.name for pose in reader.listed([photo.parent])] == ["anna.png", "ben.png"]
    sequence = tmp_path / "sequence"
    sequence.mkdir()
    for number in range(3):
        person = [value for joint in range(18) for value in (joint + 1, number + 2, 0.9)]
        text = json.dumps({"people": [{"pose_keypoints_2d": person}]})
        (sequence / f"video_{number:03}_keypoints.json").write_text(text)
    assert [pose.name for pose in reader.listed([sequence])] == ["video_000", "video_001", "video_002"]


def test_a_target_takes_no_key_points_of_another_photograph_of_its_name(photo, tmp_path):
    reader = PoseReader(write_poses(tmp_path / "k.json", ["elsewhere/anna.jpg"], (200, 100)), None)
    with pytest.raises(ValueError, match=r"--pose .*anna.png: pose 'elsewhere/anna.jpg' is of an image of 100 x 200"):
        reader.listed([photo])


def test_a_table_without_sizes_takes_that_of_the_image_where_it_is(photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", [str(photo)], size=None or SIZE)
    rows = json.loads(keypoints.read_text())
    del rows[0]["size"]
    keypoints.write_text(json.dumps(rows))
    assert [pose.size for pose in PoseReader(None, None).listed([keypoints])] == [SIZE]


def test_key_points_of_a_wider_copy_of_the_photograph_are_refused(folder, photo, tmp_path):
    """A table of DeepFashion's squares beside an image of 176 columns would shift every joint."""
    row = ["[" + ", ".join(str(value + joint) for joint in range(18)) + "]" for value in (20, 30)]
    (tmp_path / "k.csv").write_text("name:keypoints_y:keypoints_x\nanna.png: " + ": ".join(row) + "\n")
    with pytest.raises(
        ValueError, match=r"the joints of pose 'anna.png' reach \(47, 37\), beyond the photograph of 40 x 64"
    ):
        training.transfer(
            None,
            folder / "pona-tiny.safetensors",
            [photo],
            poses=photo,
            keypoints=tmp_path / "k.csv",
            out=tmp_path / "out",
        )


@pytest.mark.parametrize(
    ("guides", "error", "sentence"),
    [
        ({}, ValueError, "nothing says what to draw; name target poses with --pose"),
        ({"poses": (Path("no.json"),)}, FileNotFoundError, "--pose no.json: no such file or folder"),
        (
            {"poses": (Path("in"),)},
            ValueError,
            "photograph in/anna.png: its key points are not known; pass --keypoints",
        ),
        ({"poses": (Path("empty"),)}, FileNotFoundError, "--pose empty: nothing in it"),
        ({"poses": (Path("a.txt"),)}, ValueError, r"--pose a.txt: expected a file that ends in .json, .csv, .jpg"),
        ({"keypoints": Path("no.json")}, FileNotFoundError, "key points no.json: no such file"),
        ({"letters": "A"}, ValueError, "--letters: of no use to a generator guided by poses; it takes --pose"),
        ({"source_map": Path("a.png")}, ValueError, "--source-map: of no use to a generator guided by poses"),
    ],
)
def test_what_is_missing_or_of_no_use_is_one_sentence(folder, photo, tmp_path, monkeypatch, guides, error, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").touch()
    drawer = PoseTransfer.from_weights(folder / "pona-tiny.safetensors")
    with pytest.raises(error, match=sentence):
        transfer_guides.reader(drawer, Guides(**guides))


# ---- parts and letters -----------------------------------------------------------------------------------------


@pytest.fixture
def maps(tmp_path) -> tuple[Path, Path]:
    """Two maps of parts: top (1) and pants (6)."""
    labels = np.zeros((*SIZE, 3), np.uint8)
    labels[10:30, 10:30], labels[30:60, 10:30] = 1, 6
    first, second = tmp_path / "maps" / "anna.png", tmp_path / "other.png"
    return save_image(first, labels), save_image(second, labels[:, ::-1])


def test_maps_of_parts_lead_a_reconstruction(folder, photo, maps, tmp_path):
    weights = folder / "multiscale-semantic.safetensors"
    options = {"target_maps": [maps[1]], "out": tmp_path / "out", "explain": True}
    written = training.transfer("multiscale/semantic", weights, [photo], source_map=maps[0].parent, **options)
    names = [path.name for path in written]
    assert names == ["anna_other.png", "anna_sheet.png", "anna_features.png", "anna_gates.png"]
    with pytest.raises(ValueError, match=r"anna.png: no map of what it shows; pass --source-map"):
        training.transfer(None, weights, [photo], **options)
    with pytest.raises(FileNotFoundError, match="no image named anna in this folder"):
        training.transfer(None, weights, [photo], source_map=tmp_path / "out", **options)


COLOURS = ("000000", "ff0000", "00ff00", "0000ff", "ffff00", "00ffff", "ff00ff")


def test_maps_are_read_by_the_colours_of_the_training(photo, maps, tmp_path):
    weights = save(tmp_path, "multiscale/semantic", *SMALL, "data.palette=auto")
    options = {"source_map": maps[0], "target_maps": maps[1], "out": tmp_path / "out"}
    with pytest.raises(ValueError, match=r"data\.palette=auto: means the colours found in the maps"):
        training.transfer(None, weights, [photo], **options)
    assert training.transfer(None, weights, [photo], **options, overrides=["data.palette=" + ",".join(COLOURS)])
    config = transfer_data.TransferDataConfig(name="semantic", palette="000000,ff0000")
    coloured = save_image(tmp_path / "red.png", np.full((4, 4, 3), (255, 0, 0), np.uint8))
    assert (transfer_guides.read_parts(coloured, config) == 1).all()


def test_a_colour_that_the_palette_lacks_tells_the_way_out(folder, photo, maps, tmp_path):
    odd = save_image(tmp_path / "odd.png", np.full((*SIZE, 3), (90, 0, 200), np.uint8))
    options = {"source_map": maps[0], "target_maps": odd, "out": tmp_path / "out"}
    weights = folder / "multiscale-semantic.safetensors"
    with pytest.raises(ValueError, match=r"odd.png: colour #5a00c8 .*; pass data.palette=COLOURS or a larger data.tol"):
        training.transfer(None, weights, [photo], **options)
    with pytest.raises(ValueError, match=r"data\.palette=auto: means the colours found in the maps of the training"):
        training.transfer(None, weights, [photo], **options, overrides=["data.palette=auto"])
    assert training.transfer(None, weights, [photo], **options, overrides=["data.tolerance=500"])


def font() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def test_letters_are_drawn_in_the_style_of_one(folder, tmp_path):
    from fastpose.data import fonts

    weights = folder / "multiscale-fonts.safetensors"
    mask = fonts.letter_mask(font(), "Q", (80, 80))
    glyph = save_image(tmp_path / "q.png", fonts.coloured(mask, np.array([200, 0, 0])))
    drawn = save_image(tmp_path / "r.png", fonts.letter_skeleton(font(), "R", (80, 80)))
    options = {"letters": "AB", "font": font(), "target_maps": drawn}
    written = training.transfer(None, weights, [glyph], out=tmp_path / "out", **options)
    names = [path.name for path in written]
    assert names == ["q_r.png", "q_A.png", "q_B.png", "q_sheet.png", "q.gif", "q.mp4"]
    with pytest.raises(ValueError, match="--font: expected with --letters"):
        training.transfer(None, weights, [glyph], letters="A", out=tmp_path / "out")
    save_image(glyph, np.full((80, 80, 3), 255, np.uint8))
    with pytest.raises(ValueError, match=r"q\.png: shows no letter"):
        training.transfer(None, weights, [glyph], letters="A", font=font(), out=tmp_path / "out")


# ---- try-on ----------------------------------------------------------------------------------------------------


def test_try_on_draws_the_chosen_parts_alone(folder, photo, maps, tmp_path):
    weights = folder / "multiscale-semantic.safetensors"
    drawer = PoseTransfer.from_weights(weights)
    person, wearer = read_image(photo), np.full((*SIZE, 3), 200, np.uint8)
    own, worn = (read_image(path)[..., 0] for path in maps)
    (crude,) = drawer(wearer, worn, [own])
    fine = try_on.dress(drawer, person, own, wearer, worn, [1])
    mask = drawer.side(own, "map")["labels"] == 1
    assert 0 < mask.sum() < mask.size
    assert np.array_equal(fine[mask], crude[mask])
    assert np.array_equal(fine[~mask], drawer.fitted(person)[~mask])
    other = try_on.dress(drawer, person, own, photo_of(SIZE), worn, [1])
    assert (other[mask] != fine[mask]).any()  # what the wearer looks like counts
    assert np.array_equal(other[~mask], fine[~mask])
    with pytest.raises(ValueError, match="parts: none of 2 is in the target's map, which has 1, 6"):
        try_on.dress(drawer, person, own, wearer, worn, [2])
    with pytest.raises(ValueError, match="parts: none of skirt is in the target's map, which has top, pants"):
        try_on.dress(drawer, person, own, wearer, worn, {2: "skirt"})
    with pytest.raises(ValueError, match="target map: expected a map as wide and high as its photograph"):
        try_on.dress(drawer, person, own[:20], wearer, worn, [1])


def test_try_on_writes_one_image_and_no_other(folder, photo, maps, tmp_path):
    options = {
        "target_map": maps[0],
        "reference": photo,
        "reference_map": maps[1],
        "parts": ["top", 6],
        "out": tmp_path / "new" / "dressed.png",
    }
    weights = folder / "multiscale-semantic.safetensors"
    assert try_on.try_on("multiscale/semantic", weights, photo, **options) == options["out"]
    assert read_image(options["out"]).shape == (32, 32, 3)
    with pytest.raises(ValueError, match="exists already"):
        try_on.try_on(None, weights, photo, **options)
    options["out"] = tmp_path / "again.png"
    with pytest.raises(ValueError, match="guided by a pose; expected maps of parts"):
        try_on.try_on(None, folder / "pona-tiny.safetensors", photo, **options)


def test_parts_have_numbers_and_names():
    with pytest.raises(
        ValueError, match="unknown part 'top'; expected a number from 1 to 2, palettes of your own have no"
    ):
        try_on.part_numbers(["top"], "000000,ff0000,00ff00")
    assert list(try_on.part_numbers([2], "000000,ff0000,00ff00")) == [2]
    assert try_on.part_numbers(["top", "6", 15]) == {1: "top", 6: "6", 15: "15"}
    for wrong, sentence in (
        (["tpo"], "unknown part 'tpo'; did you mean 'top'"),
        ([], "at least one"),
        ([99], "1 to 15"),
    ):
        with pytest.raises(ValueError, match=sentence):
            try_on.part_numbers(wrong)


# ---- files -----------------------------------------------------------------------------------------------------


def test_names_are_numbered_and_never_taken_twice(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a-3.png").symlink_to(tmp_path / "nowhere")
    names = prediction.Names(tmp_path, [tmp_path / "b.png"])
    assert [names.free(name).name for name in ("a.png", "a.png", "b.png", "c.png", "c.png")] == [
        "a-2.png",
        "a-4.png",
        "b-2.png",
        "c.png",
        "c-2.png",
    ]


def test_the_files_of_a_photograph_have_one_number(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    poses = write_poses(tmp_path / "p.json", ["a.png", "b.png"])
    options = {"poses": poses, "keypoints": keypoints, "out": tmp_path / "out"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "anna-2.gif").touch()
    (tmp_path / "out" / "anna_b.png").touch()
    written = training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options)
    assert [path.name for path in written] == [
        f"anna{n}" for n in ("_a-3.png", "_b-3.png", "_sheet-3.png", "-3.gif", "-3.mp4")
    ]


def test_any_name_of_a_pose_makes_a_file(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png"])
    names = ["sheet.png", "a\nb.png", "nul\0.png", "日本.jpg", "x" * 300 + ".png", "\ud800.png", "a:b.png", "Sheet.png"]
    poses = write_poses(tmp_path / "p.json", names)
    options = {"poses": poses, "keypoints": keypoints, "out": tmp_path / "out"}
    written = training.transfer(None, folder / "pona-tiny.safetensors", [photo], **options)
    made = ["sheet-2", "a_b", "nul_", "日本", "x" * 60, "_", "a_b-2", "Sheet-3", "sheet"]
    assert [path.name for path in written[:9]] == [f"anna_{name}.png" for name in made]
    assert len({path.name for path in (tmp_path / "out").iterdir()}) == len(written) == 11


def test_the_header_tells_the_system_without_reading_the_tensors(folder, photo):
    assert systems.transfers(folder / "pona-tiny.safetensors")
    assert not systems.transfers(folder / "sagan-tiny.safetensors")
    assert checkpoint.read_about(folder / "pona-tiny.safetensors")["recipe"] == "pona/tiny"
    for wrong, sentence in (
        (photo, "bytes of something else"),
        (folder, "is a folder"),
        (folder / "no", "no such file"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=f"checkpoint {wrong}: .*{sentence}"):
            systems.transfers(wrong)


def test_no_warning_without_a_reason(folder, photo, tmp_path):
    keypoints = write_poses(tmp_path / "k.json", ["anna.png", "b.png"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.transfer(
            None, folder / "pona-tiny.safetensors", [photo], poses=keypoints, keypoints=keypoints, out=tmp_path / "out"
        )
