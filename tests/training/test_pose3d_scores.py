"""Which metrics belong to which set: perfect and worst estimates, both scales, wild sets, the monitor, wrong input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bodies_3d import joint, standing, turned

from fastpose import skeletons
from fastpose.data.mixing import MixedDataset
from fastpose.data.person import Person, person
from fastpose.data.pose3d import DepthRule, Pose3D, project, relative_depth
from fastpose.metrics import keypoints_3d
from fastpose.nn import coordinates
from fastpose.skeletons import COCO, MPII
from fastpose.training import pose3d_data, pose3d_reference, pose3d_scores
from fastpose.training.pose3d_config import Pose3dConfig, StageConfig
from fastpose.training.pose3d_data import Pose3dDataConfig
from fastpose.training.pose3d_estimation import Estimate3D, Pose3dEstimator
from fastpose.training.pose3d_scores import Pose3dScoreConfig

CAMERA = np.array([[1100.0, 0, 500], [0, 1150, 480], [0, 0, 1]])
DATA = Pose3dDataConfig(name="h36m", root="somewhere")
ROOT_SCALE = replace(DATA, depth_scale="root")
USUAL, BY_CAMERA = Pose3dScoreConfig(), Pose3dScoreConfig(scale="gt_root_camera")
RELEASED = Pose3dScoreConfig(decoder="zhou", flip=False)
BY_BONES, BY_FOCUS = DepthRule("bone_sum", "pelvis"), DepthRule("root", "pelvis")


@dataclass
class Persons:
    """A source of persons in memory."""

    persons: list[Person]
    name: str = "h36m"
    split: str = "val"
    skeleton: skeletons.Skeleton = MPII
    scored_joints: tuple[int, ...] = tuple(range(16))

    def __len__(self) -> int:
        return len(self.persons)


class Part:
    """What ``MixedDataset`` holds: a data set with a source."""

    def __init__(self, source: Persons) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)


def laboratory(number: int = 6, *, camera: np.ndarray | None = CAMERA, seed: int = 3, **of) -> Persons:
    """Return persons with 3D truth, three of each action."""
    persons = []
    for index, pose in enumerate(standing(number, 30, seed)):
        joints = turned(pose - pose[6], index) + (100, -50, 4500 + 100 * index)
        points = project(joints, CAMERA)
        low, high = points.min(0), points.max(0)
        action = "Walking" if index % 2 else "Sitting"
        persons.append(
            person(
                Path(f"{index}.jpg"),
                points,
                np.full(16, 2),
                (low + high) / 2,
                1.25 * (high - low).max() / 200,
                person_id=index,
                pose3d=Pose3D(joints.astype(np.float32), camera, "S9", action, "1", "clip"),
            )
        )
    return Persons(persons, **of)


def wild(name: str = "lspet", skeleton: skeletons.Skeleton = MPII, **of) -> Persons:
    """Return persons with key points alone."""
    shown = [replace(one, pose3d=None, head_size=20.0) for one in laboratory(4, seed=8).persons]
    return Persons(shown, name=name, skeleton=skeleton, **of)


def perfect(source: Persons, rule: DepthRule = BY_BONES) -> Estimate3D:
    """Return what a network without error says of all persons; wild ones get the depths of their bodies."""
    side = np.array([200 * one.scale for one in source.persons])  # (N,)
    points = np.stack([one.keypoints for one in source.persons])
    centers = np.stack([one.center for one in source.persons])
    xy = 2 * (points - centers[:, None]) / side[:, None, None]
    z = np.zeros(points.shape[:2])
    for index, one in enumerate(source.persons):
        if one.pose3d is not None:
            z[index] = relative_depth(one, MPII, rule) * 2 / side[index]
    cube = np.concatenate([xy, z[..., None]], -1)
    arrays = (points, np.ones(points.shape[:2]), cube, side)
    return Estimate3D(*(array.astype(np.float32) for array in arrays))


@pytest.fixture(autouse=True)
def taught(monkeypatch):
    """The training set is in memory; returns how often it was read."""
    reads = []

    def read(config, purpose):
        reads.append(purpose)
        return laboratory(30, seed=1) if config.name == "h36m" else None

    monkeypatch.setattr(pose3d_data, "laboratory", read)
    pose3d_reference._taught.cache_clear()
    yield reads
    pose3d_reference._taught.cache_clear()


def scores(source, estimate=None, config=USUAL, data=DATA, indices=None):
    indices = np.arange(len(source)) if indices is None else indices
    estimate = perfect(source, DepthRule(data.depth_scale, data.depth_root)) if estimate is None else estimate
    return {result.name: result for result in pose3d_scores.score(source, indices, estimate, config, data)}


POSITIONS = ["MPJPE (root)", "MPJPE #1 (root depth)", "MPJPE #2 (similarity)", "MPJPE #2 (rigid)", "MPJPE (bone sum)"]
PLAUSIBLE = ["bone asymmetry", "hinge violations", "bone-length deviation", "joint-limit violations"]


# --------------------------------------------------------------------------------------------- which metrics, of what


def test_human36m_has_five_protocols_by_action_and_limb():
    found = scores(laboratory())
    assert list(found) == [f"h36m val {name}" for name in (*POSITIONS, "PCK@0.2 (torso)", *PLAUSIBLE)]
    root = found["h36m val MPJPE (root)"]
    assert list(root.rows) == ["U.Arms", "L.Arms", "U.Legs", "L.Legs", "Sitting", "Walking"]
    assert set(root.details["averages"]) == {"over samples", "over actions"}
    assert root.count == 6 * 16


def test_mpi_inf_3dhp_has_its_own():
    found = scores(laboratory(name="mpi_inf_3dhp", split="test"), config=BY_CAMERA)
    names = ["3DPCK@150mm", "3DPCK AUC", "MPJPE (root)", "PCK@0.2 (torso)", *PLAUSIBLE]
    assert list(found) == [f"mpi_inf_3dhp test {name}" for name in names]
    assert found["mpi_inf_3dhp test 3DPCK@150mm"].value == 100
    assert found["mpi_inf_3dhp test 3DPCK AUC"].rows["Walking"] > 96


def test_plausibility_has_the_truths_beside_it():
    source, estimate = laboratory(), perfect(laboratory())
    raised = estimate.cube.copy()
    for side in "lr":
        for name in ("elbow", "wrist"):
            raised[:, joint(f"{side}_{name}")] = (
                2 * raised[:, joint(f"{side}_shoulder")] - raised[:, joint(f"{side}_{name}")]
            )
    found, worse = scores(source), scores(source, replace(estimate, cube=raised))
    for name in PLAUSIBLE:
        assert found[f"h36m val {name}"].rows["truth"] == worse[f"h36m val {name}"].rows["truth"]
        assert list(found[f"h36m val {name}"].rows)[-1] == "truth"
        assert len(found[f"h36m val {name}"].rows) > 4
        assert "truth" not in scores(wild())[f"lspet val {name}"].rows
    limits = "h36m val joint-limit violations"
    assert found[limits].value < 10
    assert worse[limits].value > 20
    assert found["h36m val bone asymmetry"].value > found["h36m val bone asymmetry"].rows["truth"] > 0


@pytest.mark.parametrize("name", ["mocap", "sample-mocap"])
def test_mocap_has_the_protocols_of_positions(name):
    assert list(scores(laboratory(name=name)))[:5] == [f"{name} val {row}" for row in POSITIONS]


@pytest.mark.parametrize(
    ("name", "pck"),
    [
        ("lspet", "PCK@0.2"),
        ("lsp", "PCK@0.2"),
        ("mpii", "PCKh@0.5"),
        ("coco", "PCK@0.2 (torso)"),
        ("sample", "PCK@0.2 (torso)"),
    ],
)
def test_wild_sets_have_their_pck_and_plausibility(name, pck):
    source = wild(name)
    found = scores(source)
    assert list(found) == [f"{name} val {row}" for row in (pck, *PLAUSIBLE)]
    assert found[f"{name} val {pck}"].value == 100
    far = replace(perfect(source), keypoints=perfect(source).keypoints + 1e5)
    assert scores(source, far)[f"{name} val {pck}"].value == 0


def test_several_sets_in_one_data_set_are_scored_each_by_itself():
    sources = [laboratory(), wild("lspet"), wild("mpii")]
    dataset = MixedDataset([Part(source) for source in sources])
    found = [perfect(source) for source in sources]
    whole = Estimate3D(*(np.concatenate([getattr(one, key) for one in found]) for key in vars(found[0])))
    order = np.random.default_rng(0).permutation(len(dataset))
    mixed = Estimate3D(*(getattr(whole, key)[order] for key in vars(whole)))
    results = pose3d_scores.score(dataset, order, mixed, USUAL, DATA)
    alone = [result for source in sources for result in scores(source).values()]
    assert results == alone


def test_a_person_that_occurs_twice_counts_once():
    source, estimate = laboratory(), perfect(laboratory())
    twice = np.array([0, 1, 2, 3, 4, 5, 5, 0])
    again = Estimate3D(*(value[twice] for value in vars(estimate).values()))
    assert list(scores(source, again, indices=twice).values()) == list(scores(source).values())


# -------------------------------------------------------------------------------------------------------- millimetres


@pytest.mark.parametrize(
    "data", [DATA, ROOT_SCALE, replace(DATA, depth_root="thorax")], ids=lambda one: one.depth_scale
)
def test_a_perfect_estimate_has_no_error_in_front_of_the_camera(data):
    found = scores(laboratory(), config=BY_CAMERA, data=data)
    for name in POSITIONS[:4]:
        assert found[f"h36m val {name}"].value < 0.05  # float32 key points
    assert "true depth of the root and the camera" in found["h36m val MPJPE (root)"].protocol


def test_depths_count_from_the_estimates_own_root():
    source, estimate = laboratory(), perfect(laboratory())
    estimate.cube[..., 2] += 0.3
    assert scores(source, estimate, config=BY_CAMERA)["h36m val MPJPE #1 (root depth)"].value < 0.05


def test_one_size_for_everybody_costs_what_sizes_differ_by():
    found = scores(laboratory(), config=Pose3dScoreConfig(bone_sum=4000))
    assert 0 < found["h36m val MPJPE #2 (similarity)"].value < 25  # perspective alone
    assert found["h36m val MPJPE #2 (similarity)"].value < found["h36m val MPJPE (root)"].value < 150
    assert "14 bones scaled to 4000 mm together" in found["h36m val MPJPE (root)"].protocol
    smaller = scores(laboratory(), config=Pose3dScoreConfig(bone_sum=400))
    assert smaller["h36m val MPJPE (root)"].value > 200
    assert smaller["h36m val MPJPE #2 (similarity)"].value == pytest.approx(
        found["h36m val MPJPE #2 (similarity)"].value
    )


def test_the_mean_bone_sum_of_the_training_set_is_the_usual_one(taught):
    first, second = np.array(skeletons.MPII_BONES).T
    poses = np.stack([one.pose3d.joints for one in laboratory(30, seed=1).persons])
    mean = np.linalg.norm(poses[:, first] - poses[:, second], axis=-1).sum(-1).mean()
    plain, named = scores(laboratory()), scores(laboratory(), config=Pose3dScoreConfig(bone_sum=float(mean)))
    assert f"scaled to {mean:g} mm" in plain["h36m val MPJPE (root)"].protocol
    for name in POSITIONS:
        assert plain[f"h36m val {name}"].value == pytest.approx(named[f"h36m val {name}"].value, rel=1e-6)
    assert taught == ["train"]  # read once


def test_without_training_poses_human36ms_mean_stands_in_and_nothing_is_learned():
    found = scores(laboratory(), data=Pose3dDataConfig(name="none", wild=("sample",), validation="h36m:somewhere"))
    assert "scaled to 4296.99 mm" in found["h36m val MPJPE (root)"].protocol
    assert "h36m val bone-length deviation" not in found


def absent(config, purpose):
    raise FileNotFoundError(f"h36m: no annotation of split {purpose!r} under {config.root}")


def test_without_the_training_set_a_known_bone_sum_serves_and_nothing_is_learned(monkeypatch, caplog):
    known = scores(laboratory(), config=Pose3dScoreConfig(bone_sum=4000))
    monkeypatch.setattr(pose3d_data, "laboratory", absent)
    pose3d_reference._taught.cache_clear()
    found = scores(laboratory(), config=Pose3dScoreConfig(bone_sum=4000))
    assert [name for name in known if name not in found] == [f"h36m val {name}" for name in PLAUSIBLE[2:]]
    assert all(found[name] == known[name] for name in found)
    assert len(caplog.messages) == 1
    assert "bone-length deviation and joint-limit violations need the training set and are left out" in caplog.text
    assert "no annotation of split 'train' under somewhere" in caplog.text
    with pytest.raises(ValueError, match=r"^test\.bone_sum: expected the length .* \(h36m: no annotation of split"):
        scores(laboratory())


def test_without_a_camera_the_root_has_no_place(caplog):
    found = scores(laboratory(camera=None))
    assert "h36m val MPJPE #1 (root depth)" not in found
    assert caplog.messages == ["h36m val: 'MPJPE #1 (root depth)' is left out: nobody has a camera"]
    named = scores(laboratory())
    for name in ("MPJPE (root)", "MPJPE #2 (rigid)", "MPJPE (bone sum)"):
        assert found[f"h36m val {name}"].value == pytest.approx(named[f"h36m val {name}"].value)
    with pytest.raises(ValueError, match=r"gt_root_camera needs intrinsics, and person 0 on 0\.jpg has none"):
        scores(laboratory(camera=None), config=BY_CAMERA)


def without(source, row, **changes):
    """Return a source of which one person's pose is changed, or taken away."""
    persons = list(source.persons)
    pose = replace(persons[row].pose3d, **changes) if changes else None
    persons[row] = replace(persons[row], pose3d=pose)
    return replace(source, persons=persons)


def test_one_person_without_a_camera_is_left_out_of_one_result():
    source, some = laboratory(), laboratory()
    some.persons = [one for row, one in enumerate(some.persons) if row != 2]
    found, others, whole = scores(without(source, 2, intrinsics=None)), scores(some), scores(source)
    placed = found["h36m val MPJPE #1 (root depth)"]
    assert placed.value == pytest.approx(others["h36m val MPJPE #1 (root depth)"].value)
    assert (placed.count, placed.details["persons_left_out"]) == (5 * 16, 1)
    assert placed.protocol.endswith("left out: 1 without a camera")
    for name in ("MPJPE (root)", "MPJPE #2 (rigid)"):
        assert found[f"h36m val {name}"] == whole[f"h36m val {name}"]


def test_one_person_without_a_pose_is_left_out_of_what_needs_one():
    source, some = laboratory(), laboratory()
    estimate = perfect(source)
    some.persons = some.persons[1:]
    found, others = scores(without(source, 0), estimate), scores(some)
    for name in POSITIONS:
        result = found[f"h36m val {name}"]
        assert result.value == others[f"h36m val {name}"].value
        assert (result.count, result.details["persons_left_out"]) == (5 * 16, 1)
        assert result.protocol.endswith("left out: 1 without a 3D pose")
    for name in PLAUSIBLE:
        assert found[f"h36m val {name}"].rows["truth"] == others[f"h36m val {name}"].rows["truth"]
    assert found["h36m val PCK@0.2 (torso)"].count > others["h36m val PCK@0.2 (torso)"].count


def test_the_root_lies_on_the_ray_of_its_pixel():
    source = laboratory()
    estimate = perfect(source)
    estimate.keypoints[:, joint("pelvis")] += (11, 0)  # about 11 / 1100 x 4.75 m aside; the cube stays
    plain, moved = scores(source), scores(source, estimate)
    assert moved["h36m val MPJPE (root)"].value == pytest.approx(plain["h36m val MPJPE (root)"].value)
    assert moved["h36m val MPJPE #1 (root depth)"].value > plain["h36m val MPJPE #1 (root depth)"].value + 10
    assert moved["h36m val MPJPE #1 (root depth)"].value < plain["h36m val MPJPE #1 (root depth)"].value + 50


def test_zhous_protocol_is_named_only_where_joints_are_read_as_released():
    name = "h36m val MPJPE (Zhou)"
    for other in (USUAL, replace(RELEASED, flip=True), replace(RELEASED, decoder="quarter")):
        assert name not in scores(laboratory(), config=other)
    lab = scores(laboratory(), config=replace(RELEASED, bone_sum=4000))
    assert "h36m val MPJPE (bone sum)" not in lab
    assert "4296.99 mm together" in lab[name].protocol
    assert "joints read by 'zhou' without flip test" in lab[name].protocol
    with pytest.raises(
        ValueError, match=r"test\.protocols: 'MPJPE \(Zhou\)' .* needs test\.decoder=zhou and test\.flip=no"
    ):
        Pose3dScoreConfig(protocols=("MPJPE (Zhou)",))
    both = replace(RELEASED, bone_sum=4000, protocols=("MPJPE (Zhou)", "MPJPE (bone sum)"))
    found = scores(laboratory(), config=both)
    assert "4000 mm together" in found["h36m val MPJPE (bone sum)"].protocol
    assert found[name] == lab[name]


def test_the_bone_sums_protocol_takes_the_usual_size_and_moves_both_thoraxes():
    own = scores(laboratory(name="mocap"), config=Pose3dScoreConfig(bone_sum=4000))
    assert "4000 mm together" in own["mocap val MPJPE (bone sum)"].protocol
    assert "'quarter' with flip test" in own["mocap val MPJPE (bone sum)"].protocol
    source, estimate = laboratory(), perfect(laboratory())
    estimate.cube[:, joint("thorax")] += 0.5  # it is put elsewhere anyway
    name = "h36m val MPJPE (bone sum)"
    assert scores(source, estimate)[name].value == scores(laboratory())[name].value


def test_zhous_protocol_has_the_released_errors_of_all_joints_but_the_spine(shared):
    path = shared / "oracles" / "eval_hg3d.safetensors"
    if not path.is_file():
        pytest.skip("the stored outputs of the published evaluation are absent")
    stored = pytest.importorskip("safetensors.torch").load_file(path)
    heatmaps, depth = stored["input.hm"], stored["input.depth"]
    true = stored["input.gt_mm"].numpy() + (0, 0, 5000)
    points, heights = pose3d_scores.decoded(heatmaps, RELEASED)
    cube = coordinates.cube(points, depth, heatmaps.shape[-2:])
    side = np.full(len(cube), 200, np.float32)
    estimate = Estimate3D(*(np.asarray(each) for each in (points, heights, cube, side)))
    template = laboratory(1).persons[0]
    source = Persons(
        [
            replace(template, person_id=index, pose3d=replace(template.pose3d, joints=pose.astype(np.float32)))
            for index, pose in enumerate(true)
        ]
    )
    found = scores(source, estimate, config=RELEASED)["h36m val MPJPE (Zhou)"]
    read = keypoints_3d.published_joints(heatmaps, depth)  # whose mean error is the stored one
    errors = keypoints_3d.joint_errors(read, true, align="zhou").mean(0)
    expected = dict(zip(MPII.joints, errors.tolist(), strict=True))
    for name in MPII.joints:
        if name != "thorax":
            assert found.per_joint[name] == pytest.approx(expected[name], abs=1e-2)


@pytest.mark.parametrize("decoder", ["quarter", "argmax", "zhou"])
def test_joints_are_decoded_as_the_section_says(decoder):
    planes = torch.zeros(1, 1, 8, 8)
    planes[0, 0, 2, 5], planes[0, 0, 4, 2] = 1, 0.5  # x = 5, y = 2; row x - 1, column y is read for x by "zhou"
    points, heights = pose3d_scores.decoded(planes, Pose3dScoreConfig(decoder=decoder))
    expected = {"quarter": [5.0, 2.0], "argmax": [5.0, 2.0], "zhou": [4.75, 2.25]}
    assert points.tolist() == [[expected[decoder]]]
    assert (heights.tolist(), points.dtype) == ([[1.0]], torch.float32)


class Fixed(torch.nn.Module):
    """A network that says the same of every image."""

    def __init__(self, heatmaps, depth):
        super().__init__()
        self.heatmaps, self.depth = torch.nn.Parameter(heatmaps), torch.nn.Parameter(depth)

    def forward(self, images):
        return [self.heatmaps.expand(len(images), -1, -1, -1)], self.depth.expand(len(images), -1)


def test_an_estimator_reads_joints_as_released():
    heatmaps, depth = torch.rand(1, 16, 8, 8), torch.rand(1, 16) - 0.5
    estimator = Pose3dEstimator(Fixed(heatmaps, depth), replace(DATA, image_size=32), RELEASED)
    with torch.no_grad():
        found = estimator.read(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.eye(2, 3)[None]).cube
    cells = keypoints_3d.published_joints(heatmaps, depth)
    expected = (cells - cells.new_tensor([0.5, 0.5, 0])) / 4 - 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_worse_depth_scores_worse_everywhere():
    source, estimate = laboratory(12), perfect(laboratory(12))
    worse = replace(
        estimate, cube=estimate.cube + np.float32(0.2) * np.sin(np.arange(16 * 3)).reshape(16, 3) * (0, 0, 1)
    )
    good, bad = scores(source, config=BY_CAMERA), scores(source, worse, config=BY_CAMERA)
    for name in (*POSITIONS, "bone asymmetry", "bone-length deviation"):
        assert bad[f"h36m val {name}"].value > good[f"h36m val {name}"].value + 1
    assert bad["h36m val PCK@0.2 (torso)"].value == 100


def test_a_dead_network_has_a_score():
    source = laboratory()
    dead = replace(perfect(source), cube=np.zeros((6, 16, 3), np.float32), keypoints=np.full((6, 16, 2), 9, np.float32))
    for config in (USUAL, BY_CAMERA):
        found = scores(source, dead, config=config)
        assert all(np.isfinite(result.value) for result in found.values())
        assert found["h36m val bone asymmetry"].value == 200


@pytest.mark.parametrize("name", ["h36m", "mpi_inf_3dhp"])
def test_a_network_that_gives_nan_is_one_sentence(name):
    estimate = perfect(laboratory())
    estimate.cube[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"prediction: 1 joints are not finite \(first: person 2, r_ankle\)"):
        scores(laboratory(name=name), estimate)


@pytest.mark.parametrize("depth", [1e2, 1e5, 1e8])
def test_a_network_that_diverges_is_never_the_best(depth):
    source, estimate = laboratory(), perfect(laboratory())
    estimate.cube[1, joint("r_wrist"), 2] = depth
    found, good = scores(source, estimate, config=BY_CAMERA), scores(source, config=BY_CAMERA)
    for name in POSITIONS[:4]:
        worse = 10 if "similarity" in name else depth
        assert found[f"h36m val {name}"].value > good[f"h36m val {name}"].value + worse
    estimate.cube[1, joint("r_wrist"), 2] = 1e12
    with pytest.raises(ValueError, match="the network diverges, or its scale is wrong"):
        scores(source, estimate, config=BY_CAMERA)


def test_joints_without_a_label_are_not_measured():
    source = laboratory()
    hidden = np.where(np.arange(16) == joint("l_wrist"), 0, 2).astype(np.uint8)
    source.persons = [replace(one, visibility=hidden) for one in source.persons]
    estimate = perfect(source, BY_FOCUS)
    estimate.cube[:, joint("l_wrist"), 2] += 0.1
    found = scores(source, estimate, config=BY_CAMERA, data=ROOT_SCALE)
    assert found["h36m val MPJPE (root)"].value < 0.05
    assert found["h36m val MPJPE (root)"].count == 6 * 15


def test_chosen_protocols_and_average():
    config = Pose3dScoreConfig(protocols=("3DPCK AUC", "MPJPE (root)"), average="actions")
    source = laboratory(5)  # three sit, two walk
    found = scores(source, config=config)
    assert list(found)[:2] == ["h36m val 3DPCK AUC", "h36m val MPJPE (root)"]
    root = found["h36m val MPJPE (root)"]
    assert root.value == root.details["averages"]["over actions"] != root.details["averages"]["over samples"]
    source.persons = [replace(one, pose3d=replace(one.pose3d, action="")) for one in source.persons]
    assert scores(source, config=config)["h36m val MPJPE (root)"].details["actions"] == {}


# ---------------------------------------------------------------------------------------------- monitor, configuration


def configured(stage="pose", test=USUAL, **data):
    return Pose3dConfig(data=Pose3dDataConfig(**data), test=test, stage=StageConfig(name=stage))


def test_the_monitor_is_a_result_of_the_stage():
    wild_set = ("lspet:somewhere",)
    assert pose3d_scores.monitor(configured(name="h36m", wild=wild_set)) == ("h36m val MPJPE (root)", "min")
    assert pose3d_scores.monitor(configured("2d", name="h36m", wild=wild_set)) == ("lspet val PCK@0.2", "max")
    assert pose3d_scores.monitor(configured("2d", name="h36m")) == ("h36m val PCK@0.2 (torso)", "max")
    assert pose3d_scores.monitor(configured("2d", name="none", wild=("mpii:x",))) == ("mpii val PCKh@0.5", "max")
    other = configured(name="h36m", validation="mpi_inf_3dhp:somewhere")
    assert pose3d_scores.monitor(other) == ("mpi_inf_3dhp test MPJPE (root)", "min")
    alone = Pose3dScoreConfig(protocols=("3DPCK AUC",))
    assert pose3d_scores.monitor(configured(test=alone, name="mocap", root="x")) == ("mocap val 3DPCK AUC", "max")


def test_the_monitor_may_be_named_with_or_without_its_set():
    for name in ("MPJPE #2 (rigid)", "h36m val MPJPE #2 (rigid)"):
        chosen = configured(test=Pose3dScoreConfig(monitor=name), name="h36m")
        assert pose3d_scores.monitor(chosen) == ("h36m val MPJPE #2 (rigid)", "min")
    limits = configured(test=Pose3dScoreConfig(monitor="lspet val joint-limit violations"), wild=("lspet:x",))
    assert pose3d_scores.monitor(limits)[1] == "min"
    for name, near in (("h36m val MPJPE #2", "h36m val MPJPE #2"), ("MPJPE rot", r"MPJPE \(root\)")):
        with pytest.raises(ValueError, match=f"test.monitor: .*did you mean '{near}") as caught:
            pose3d_scores.monitor(configured(test=Pose3dScoreConfig(monitor=name), name="h36m"))
        assert len(str(caught.value)) < 120


def test_a_monitor_that_needs_cameras_is_refused_where_there_are_none(monkeypatch):
    name = "MPJPE #1 (root depth)"
    for test in (Pose3dScoreConfig(monitor=name), Pose3dScoreConfig(protocols=(name,))):
        assert pose3d_scores.monitor(configured(test=test, name="h36m")) == (f"h36m val {name}", "min")
    monkeypatch.setattr(pose3d_data, "laboratory", lambda config, purpose: laboratory(camera=None))
    for test in (Pose3dScoreConfig(monitor=name), Pose3dScoreConfig(protocols=(name,))):
        with pytest.raises(
            ValueError, match=r"root depth\)' needs cameras, .*; name another, such as 'MPJPE \(root\)'"
        ):
            pose3d_scores.monitor(configured(test=test, name="h36m"))
    assert pose3d_scores.monitor(configured(name="h36m")) == ("h36m val MPJPE (root)", "min")


def test_every_name_that_can_be_monitored_is_given():
    source, photographs = laboratory(), wild("lspet")
    given = {*scores(source), *scores(photographs)}
    assert set(pose3d_scores._result_names(configured(name="h36m", wild=("lspet:x",)))) == given
    given = set(scores(source, config=RELEASED))
    assert set(pose3d_scores._result_names(configured(test=RELEASED, name="h36m"))) == given


def test_the_section_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"test\.scale: .*did you mean 'bone_sum'"):
        Pose3dScoreConfig(scale="bonesum")
    with pytest.raises(ValueError, match=r"test\.protocols: .*did you mean 'MPJPE \(root\)'"):
        Pose3dScoreConfig(protocols=("MPJPE root",))
    with pytest.raises(ValueError, match=r"test\.bone_sum: expected mm"):
        Pose3dScoreConfig(bone_sum=-1)
    with pytest.raises(ValueError, match=r"test\.average"):
        Pose3dScoreConfig(average="people")
    with pytest.raises(ValueError, match=r"test\.decoder"):
        Pose3dScoreConfig(decoder="zhu")


class Told:
    """An estimator that knows the truth."""

    test = BY_CAMERA

    def run_loader(self, loader):
        found = [perfect(part.source) for part in loader.dataset.parts]
        whole = Estimate3D(*(np.concatenate([getattr(one, key) for one in found]) for key in vars(found[0])))
        return np.arange(len(loader.dataset)), whole


def test_evaluate_measures_all_validation_sets(monkeypatch):
    photographs = wild("sample", COCO)
    monkeypatch.setattr(pose3d_data, "laboratory", lambda config, purpose: laboratory(8))
    monkeypatch.setattr(pose3d_data, "wild", lambda config, purpose: [replace(photographs, skeleton=MPII)])
    config = Pose3dConfig(data=replace(DATA, wild=("sample",)))
    results = {result.name: result for result in pose3d_scores.evaluate(Told(), config)}
    assert results["h36m val MPJPE (root)"].value < 0.05
    assert results["sample val PCK@0.2 (torso)"].value == 100
    name, mode = pose3d_scores.monitor(config)
    assert name in results
    assert mode == "min"
