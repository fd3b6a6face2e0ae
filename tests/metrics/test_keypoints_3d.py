"""MPJPE, 3DPCK and millimetres: perfect and worst predictions, what each alignment forgives, the published code."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bodies_3d import joint, rotation, standing, turned

from fastpose import ops
from fastpose.metrics import MPJPEAccumulator, heatmaps, keypoints_3d
from fastpose.skeletons import H36M, MPII_BONES

ALIGNED = ("root_depth", "root", "similarity", "rigid")
NAMES = {
    "root_depth": "MPJPE #1 (root depth)",
    "root": "MPJPE (root)",
    "similarity": "MPJPE #2 (similarity)",
    "rigid": "MPJPE #2 (rigid)",
    "zhou": "MPJPE (Zhou)",
}
CAMERA = np.array([[1100.0, 0, 500], [0, 1150, 480], [0, 0, 1]])


def persons(number: int = 4, seed: int = 1) -> np.ndarray:
    return standing(number, 60, seed)


def value(align: str, prediction: np.ndarray, target: np.ndarray, **options: object) -> float:
    return keypoints_3d.mpjpe(prediction, target, align=align, **options).value


# ---------------------------------------------------------------------------------------------------------- protocols


@pytest.mark.parametrize("align", keypoints_3d.ALIGNMENTS)
def test_each_protocol_has_its_name_and_sentence(align):
    result = keypoints_3d.mpjpe(persons(), persons(), align=align)
    assert result.name == NAMES.get(align, "MPJPE")
    assert "mean joint position error in mm" in result.protocol
    assert result.count == 4 * 16


@pytest.mark.parametrize("align", ["none", *ALIGNED])
def test_a_perfect_prediction_has_no_error(align):
    assert value(align, persons(), persons()) == pytest.approx(0, abs=1e-6)


def test_the_root_depth_alone_is_aligned():
    target = persons()
    assert value("root_depth", target + (0, 0, 700), target) == pytest.approx(0, abs=1e-9)
    assert value("root_depth", target + (30, 40, 700), target) == pytest.approx(50)
    assert value("root", target + (30, 40, 700), target) == pytest.approx(0, abs=1e-9)
    assert value("none", target + (30, 40, 0), target) == pytest.approx(50)


def test_rigid_forgives_motions_and_similarity_a_size_too():
    target = persons()
    moved, larger = turned(target, 3, shift=500), turned(target, 4, scale=1.7, shift=300)
    assert value("root", moved, target) > 50
    assert value("rigid", moved, target) == pytest.approx(0, abs=1e-6)
    assert value("similarity", larger, target) == pytest.approx(0, abs=1e-6)
    assert value("rigid", larger, target) > 50


def test_protocol_2_does_not_see_where_a_pose_stands_or_how_it_is_turned():
    target, prediction = persons(), persons(seed=9)
    for align in ("rigid", "similarity"):
        plain = value(align, prediction, target)
        assert value(align, turned(prediction, 6, shift=4000), target) == pytest.approx(plain, rel=1e-6)


def test_a_mirrored_pose_is_not_forgiven():
    target = persons()
    mirrored = target * (-1, 1, 1)
    assert value("similarity", mirrored, target) > 20
    assert value("similarity", mirrored, target) <= value("rigid", mirrored, target) + 20


def test_similarity_is_never_worse_in_squares():
    target, prediction = persons(), persons(seed=8) * 1.3
    squares = [
        float(keypoints_3d.joint_errors(prediction, target, align=align).square().sum()) for align in ALIGNED[2:]
    ]
    assert squares[0] < squares[1] < float(keypoints_3d.joint_errors(prediction, target, align="root").square().sum())


def test_the_best_scale_of_a_mirrored_pose_is_the_proper_ones():
    target = np.random.default_rng(2).normal(0, 300, (5, 16, 3))
    mirrored = target * (-1, 1, 1)
    rigid, similar = (keypoints_3d.joint_errors(mirrored, target, align=align) for align in ("rigid", "similarity"))
    assert (similar.square().sum(1) < rigid.square().sum(1)).all()


def test_an_alignment_goes_by_the_labelled_joints_alone():
    transform = pytest.importorskip("scipy.spatial.transform")
    target, prediction = persons(1), turned(persons(1, seed=7), 2)
    labelled = np.arange(16) % 3 > 0
    found = keypoints_3d.joint_errors(prediction, target, labelled[None], align="rigid")[0, labelled]
    centred = [pose[0, labelled] - pose[0, labelled].mean(0) for pose in (target, prediction)]
    assert float(found.square().sum().sqrt()) == pytest.approx(transform.Rotation.align_vectors(*centred)[1])


@pytest.mark.parametrize("seed", range(4))
def test_rigid_is_scipys_rotation(seed):
    transform = pytest.importorskip("scipy.spatial.transform")
    target, prediction = persons(3, seed), turned(persons(3, seed + 10), seed)
    found = keypoints_3d.joint_errors(prediction, target, align="rigid").square().sum(1).sqrt()
    for index in range(3):
        centred = [pose[index] - pose[index].mean(0) for pose in (target, prediction)]
        _, rssd = transform.Rotation.align_vectors(*centred)
        assert float(found[index]) == pytest.approx(rssd, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_similarity_is_scipys_procrustes(seed):
    spatial = pytest.importorskip("scipy.spatial")
    target = np.random.default_rng(seed).normal(0, 300, (3, 16, 3))
    prediction = turned(target + np.random.default_rng(seed + 9).normal(0, 60, target.shape), seed, scale=0.4)
    found = keypoints_3d.joint_errors(prediction, target, align="similarity").square().sum(1)
    for index in range(3):  # no reflection would fit better here; scipy would take it
        _, _, disparity = spatial.procrustes(target[index], prediction[index])
        size = np.square(target[index] - target[index].mean(0)).sum()
        assert float(found[index]) / size == pytest.approx(disparity, rel=1e-9)


def test_degenerate_poses_have_a_defined_error():
    target = persons(1)
    centred = np.linalg.norm(target - target.mean(1, keepdims=True), axis=-1).mean()
    point, line = np.full_like(target, 7.0), np.arange(16)[None, :, None] * np.ones((1, 16, 3))
    for align in ("similarity", "rigid"):
        assert value(align, point, target) == pytest.approx(centred)
        assert 0 < value(align, line * 50, target) < 2000
        assert value(align, target, target * (1, 1, 0)) < 200  # a flat body
        assert value(align, target * (1, 1, 0), target) < 200
    assert value("similarity", target, point) == pytest.approx(0, abs=1e-9)  # the best scale is none
    assert value("rigid", turned(line, 5), line) == pytest.approx(0, abs=1e-9)
    assert value("rigid", line @ rotation(2), line) == pytest.approx(0, abs=1e-9)
    assert value("zhou", point, target) == pytest.approx(value("root", point, target), rel=0.2)  # it stays a point


# --------------------------------------------------------------------------------------------------- masks and tables


@pytest.mark.parametrize("align", [*ALIGNED, "none"])
def test_joints_without_a_label_have_no_say(align):
    target, prediction = persons(), persons(seed=5)
    visibility = np.ones((4, 16))
    visibility[:, joint("l_wrist")] = visibility[1, joint("head_top")] = 0
    plain = keypoints_3d.mpjpe(prediction, target, visibility, align=align)
    wild = prediction.copy()
    wild[:, joint("l_wrist")] = np.nan
    wild[1, joint("head_top")] = 1e6
    assert keypoints_3d.mpjpe(wild, target, visibility, align=align) == plain
    assert plain.count == 4 * 15 - 1
    assert "l_wrist" not in plain.per_joint


def test_a_person_without_a_labelled_pelvis_is_left_out_where_it_is_needed():
    target, visibility = persons(), np.ones((4, 16))
    visibility[2, joint("pelvis")] = 0
    root = keypoints_3d.mpjpe(target + 5, target, visibility, align="root")
    assert (root.count, root.details["persons_left_out"], root.details["persons"]) == (48, 1, 4)
    assert keypoints_3d.mpjpe(target + 5, target, visibility, align="rigid").count == 63
    visibility[2] = 0
    assert keypoints_3d.mpjpe(target + 5, target, visibility, align="rigid").details["persons_left_out"] == 1


def test_rows_of_limbs_and_actions_and_both_means():
    target = persons(3)
    prediction = target.copy()
    prediction[0, [joint("l_wrist"), joint("r_wrist")]] += (30, 40, 0)
    prediction[0, joint("r_ankle")] += (0, 0, 90)
    result = keypoints_3d.mpjpe(prediction, target, actions=["Walking", "Sitting", "Sitting"])
    total = 50 * 2 + 90
    assert result.rows == pytest.approx(
        {"U.Arms": 0, "L.Arms": 50 / 3, "U.Legs": 0, "L.Legs": 90 / 6, "Sitting": 0, "Walking": total / 16}
    )
    assert result.value == pytest.approx(total / 48)
    assert result.details["averages"] == pytest.approx({"over samples": total / 48, "over actions": total / 32})
    assert result.per_joint["r_ankle"] == pytest.approx(30)
    means = keypoints_3d.mpjpe(prediction, target, actions=["Walking", "Sitting", "Sitting"], average="actions")
    assert means.value == pytest.approx(total / 32)
    assert "unweighted mean of the actions" in means.protocol
    json.loads(means.as_json())


def test_other_skeletons_have_the_rows_of_their_joints():
    target = np.random.default_rng(0).normal(0, 300, (2, 17, 3))
    prediction = target.copy()
    prediction[:, H36M.index("l_knee")] += (3, 4, 0)
    result = keypoints_3d.mpjpe(prediction, target, skeleton="h36m")
    assert result.rows["U.Legs"] == pytest.approx(2.5)
    assert result.count == 34
    with pytest.raises(ValueError, match="'zhou' is defined for the 16 joints of mpii, got 'h36m'"):
        keypoints_3d.mpjpe(prediction, target, skeleton="h36m", align="zhou")


def test_inputs_stay_unchanged_and_tensors_serve():
    target, prediction = persons(), persons(seed=2)
    kept = prediction.copy()
    tensors = [torch.from_numpy(prediction).requires_grad_(), torch.from_numpy(target)]
    for align in keypoints_3d.ALIGNMENTS:
        assert keypoints_3d.mpjpe(*tensors, align=align) == keypoints_3d.mpjpe(prediction, target, align=align)
    np.testing.assert_array_equal(prediction, kept)


# ------------------------------------------------------------------------------------------------------ 3DPCK and AUC


def test_pck_and_auc_of_a_perfect_and_a_worst_prediction():
    target = persons()
    far = target.copy()
    far[:, np.arange(16) != joint("pelvis")] += 1e6
    for prediction, expected in ((target, 100.0), (far, 0.0)):
        for result in (keypoints_3d.pck_3d(prediction, target), keypoints_3d.auc_3d(prediction, target)):
            assert result.value == expected
            assert set(result.rows.values()) == {expected}
            assert result.count == 4 * 14
    assert keypoints_3d.pck_3d(target, target).name == "3DPCK@150mm"
    assert keypoints_3d.auc_3d(target, target).name == "3DPCK AUC"


def test_auc_is_the_mean_over_thresholds_from_0_to_150():
    target = persons().round()
    prediction = target.copy()
    prediction[:, np.arange(16) != joint("pelvis")] += (40, 0, 30)  # 50 mm: right at 50, 55, ..., 150
    area = keypoints_3d.auc_3d(prediction, target)
    assert area.value == pytest.approx(100 * 21 / 31)
    assert "31 thresholds from 0 to 150 mm" in area.protocol
    assert keypoints_3d.pck_3d(prediction, target, threshold=49.9).value == 0
    assert keypoints_3d.pck_3d(prediction, target, threshold=50).value == 100


def test_pck_goes_by_the_pelvis_over_fourteen_joints():
    target = persons()
    assert keypoints_3d.pck_3d(target + 1000, target).value == 100
    prediction = target.copy()
    prediction[:, joint("thorax")] += 1000  # none of the 14
    prediction[0, joint("l_wrist")] = np.nan
    result = keypoints_3d.pck_3d(prediction, target, actions=["Sports", "Sitting", "Sitting", "Sports"])
    assert result.value == pytest.approx(100 * 55 / 56)
    assert result.rows["wrist"] == pytest.approx(100 * 7 / 8)
    assert result.rows["Sports"] == pytest.approx(100 * 27 / 28)
    assert "thorax" not in result.per_joint
    prediction[0, joint("pelvis")] = np.inf  # nothing of this person can be compared
    assert keypoints_3d.pck_3d(prediction, target).value == pytest.approx(75)


def test_pck_masks_joints_without_a_label():
    target, visibility = persons(), np.ones((4, 16))
    visibility[:, joint("head_top")] = visibility[3, joint("pelvis")] = 0
    result = keypoints_3d.pck_3d(target, target, visibility)
    assert (result.value, result.count, result.details["persons_left_out"]) == (100.0, 3 * 13, 1)
    assert "head" not in result.rows


# ---------------------------------------------------------------------------------------------------- published code


@pytest.fixture(scope="module")
def published(shared):
    safetensors = pytest.importorskip("safetensors.torch")
    path = shared / "oracles" / "eval_hg3d.safetensors"
    if not path.is_file():
        pytest.skip("the stored outputs of the published evaluation are absent")
    return safetensors.load_file(path)


def test_the_published_mpjpe_is_reproduced(published):
    joints = keypoints_3d.published_joints(published["input.hm"], published["input.depth"])
    errors = keypoints_3d.joint_errors(joints, published["input.gt_mm"], align="zhou").mean(1)
    torch.testing.assert_close(errors.float(), published["output.mpjpe_per_sample"], rtol=1e-6, atol=1e-4)
    result = keypoints_3d.mpjpe(joints, published["input.gt_mm"], align="zhou")
    assert result.value == pytest.approx(float(published["output.mpjpe_mean"]), abs=1e-4)
    assert "4296.99 mm" in result.protocol


def test_the_published_accuracy_of_heatmaps_with_themselves(published):
    same = heatmaps.heatmap_accuracy(published["input.hm"], published["input.hm"], joints=heatmaps.MPII_MONITOR_JOINTS)
    assert same.value / 100 == float(published["output.accuracy_self"])


def test_the_published_table_is_a_gaussian_of_sigma_1_75_at_the_pixel_above_left(published):
    points, table = published["input.gauss_pts"], published["output.gauss7"]  # (5, 2), (5, 64, 64)
    ours = ops.render_gaussian_heatmaps(points.floor()[:, None], (64, 64), 1.75)[:, 0]
    inside = table > 0  # three pixels up and left, two down and right: the released slice drops the last
    torch.testing.assert_close(ours[inside], table[inside], rtol=0, atol=6e-5)  # the table has four digits
    assert inside.flatten(1).sum(1).tolist() == [36, 9, 16, 30, 36]
    assert float(ours[~inside].max()) < 0.2302


def test_released_quarters_exchange_the_axes_and_call_a_tie_higher():
    planes = torch.zeros(1, 1, 8, 8)
    planes[0, 0, 2, 5] = 1  # x = 5, y = 2
    found = keypoints_3d.published_joints(planes, torch.zeros(1, 1))
    assert found.tolist() == [[[5.75, 2.75, 4.0]]]
    planes[0, 0, 4, 2] = 0.5  # row x - 1, column y: read for x
    planes[0, 0, 5, 1] = 0.5  # row x, column y - 1: read for y
    assert keypoints_3d.published_joints(planes, torch.ones(1, 1)).tolist() == [[[5.25, 2.25, 8.0]]]
    edge = torch.zeros(1, 1, 8, 8)
    edge[0, 0, 0, 3] = 1
    assert keypoints_3d.published_joints(edge, torch.zeros(1, 1))[0, 0, :2].tolist() == [3.5, 0.5]


# -------------------------------------------------------------------------------------------------------- millimetres


def test_scaling_to_a_bone_sum():
    cube = persons() / 1000
    first, second = np.array(MPII_BONES).T
    found = keypoints_3d.scale_to(cube, [4000.0, 4100.0, 4200.0, 4300.0]).numpy()
    sums = np.linalg.norm(found[:, first] - found[:, second], axis=-1).sum(-1)
    np.testing.assert_allclose(sums, [4000, 4100, 4200, 4300])
    assert not keypoints_3d.scale_to(np.zeros((1, 16, 3)), 4000.0).any()


def seen(target: np.ndarray, camera: np.ndarray = CAMERA) -> np.ndarray:
    points = target @ camera.T
    return points[..., :2] / points[..., 2:]


@pytest.mark.parametrize("scale", ["root", "bone_sum"])
def test_back_projection_undoes_the_camera(scale):
    target = persons() + np.array([[200, 0, 0], [0, 100, 800], [-300, 0, -500], [50, 0, -3000]])[:, None]
    points, root = seen(target), target[:, joint("pelvis"), 2]
    if scale == "root":
        pixels = (CAMERA[0, 0] + CAMERA[1, 1]) / 2 / root
    else:
        first, second = np.array(MPII_BONES).T
        shown, across = (
            np.linalg.norm(flat[:, first] - flat[:, second], axis=-1).sum(-1) for flat in (points, target[..., :2])
        )
        pixels = shown / across
    depth = (target[..., 2] - root[:, None]) * pixels[:, None]
    found = keypoints_3d.back_project(points, depth, root, CAMERA, scale=scale)
    np.testing.assert_allclose(found, target, atol=1e-6)
    assert value("root_depth", found, target) < 1e-6


def test_back_projection_of_a_point_has_an_answer():
    points, depth = np.full((1, 16, 2), 500.0), np.zeros((1, 16))
    found = keypoints_3d.back_project(points, depth, [3000.0], CAMERA)
    assert found.isfinite().all()
    assert (found[..., 2] == 3000).all()


# ------------------------------------------------------------------------------------------------------------- errors


def test_errors_say_what_was_found():
    target, broken = persons(), persons()
    broken[1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"prediction: 1 joints are not finite \(first: person 1, r_ankle\)"):
        keypoints_3d.mpjpe(broken, target)
    with pytest.raises(ValueError, match=r"prediction: 1 joints are not finite"):
        keypoints_3d.mpjpe(broken, target, align="similarity")
    with pytest.raises(ValueError, match=r"target: 1 joints are not finite \(first: person 1, r_ankle\)"):
        keypoints_3d.pck_3d(target, broken)
    with pytest.raises(ValueError, match=r"prediction: expected \(4, 16, 3\) as the target has, got \(2, 16, 3\)"):
        keypoints_3d.mpjpe(target[:2], target)
    with pytest.raises(ValueError, match=r"prediction: expected \(N, K, 3\), got \(4, 16, 2\)"):
        keypoints_3d.mpjpe(target[..., :2], target)
    with pytest.raises(ValueError, match=r"target: expected \(N, 16, 3\), got \(4, 14, 3\)"):
        keypoints_3d.mpjpe(target[:, :14], target[:, :14])
    with pytest.raises(ValueError, match="did you mean 'rigid'"):
        keypoints_3d.mpjpe(target, target, align="rigit")
    with pytest.raises(ValueError, match="no labelled joint among 4 persons"):
        keypoints_3d.mpjpe(target, target, np.zeros((4, 16)))
    with pytest.raises(ValueError, match="no labelled joint among 0 persons"):
        keypoints_3d.pck_3d(target[:0], target[:0])
    with pytest.raises(ValueError, match="actions: expected 4 names, one per person, got 3"):
        keypoints_3d.mpjpe(target, target, actions=["a", "b", "c"])
    with pytest.raises(ValueError, match="'actions' needs the actions' names"):
        keypoints_3d.mpjpe(target, target, average="actions")
    with pytest.raises(ValueError, match=r"intrinsics: expected \(4, 3, 3\) or \(3, 3\)"):
        keypoints_3d.back_project(seen(target), target[..., 2], np.ones(4), np.eye(2))
    with pytest.raises(ValueError, match="root_depth: expected mm in front of the camera, least is -1"):
        keypoints_3d.back_project(seen(target), target[..., 2], -np.ones(4), CAMERA)
    with pytest.raises(ValueError, match="positive focal lengths"):
        keypoints_3d.back_project(seen(target), target[..., 2], np.ones(4), np.diag([1000.0, 1000, 0]))
    with pytest.raises(ValueError, match="heatmaps: expected square planes"):
        keypoints_3d.published_joints(torch.zeros(1, 16, 8, 6), torch.zeros(1, 16))
    with pytest.raises(ValueError, match="threshold > 0"):
        keypoints_3d.auc_3d(target, target, step=0)
    for threshold in (np.inf, np.nan):
        with pytest.raises(ValueError, match="3DPCK: expected finite mm"):
            keypoints_3d.pck_3d(target * np.nan, target, threshold=threshold)
    for maximum in (148, 152, np.inf):
        with pytest.raises(ValueError, match="3DPCK"):
            keypoints_3d.auc_3d(target, target, maximum=maximum)
    assert "from 0 to 0.3 mm" in keypoints_3d.auc_3d(target, target, maximum=0.3, step=0.1).protocol


@pytest.mark.parametrize("length", [-4000.0, 0.0, np.nan, np.inf])
def test_a_bone_sum_is_a_length(length):
    target = persons()
    for use in (
        lambda: keypoints_3d.mpjpe(target, target, align="zhou", bone_sum=length),
        lambda: keypoints_3d.joint_errors(target, target, align="zhou", bone_sum=length),
        lambda: keypoints_3d.scale_to(target, length),
        lambda: keypoints_3d.scale_to(target, [4000.0, 4100.0, length, 4200.0]),
        lambda: MPJPEAccumulator("zhou", bone_sum=length),
    ):
        with pytest.raises(ValueError, match=f"bone_sum: expected mm > 0, got {length:g}"):
            use()


def test_zhous_protocol_has_the_released_bone_sum_alone():
    assert keypoints_3d.mpjpe(persons(), persons(), align="zhou").name == "MPJPE (Zhou)"
    other = keypoints_3d.mpjpe(persons(), persons(), align="zhou", bone_sum=4000)
    assert other.name == "MPJPE (bone sum)"
    assert "4000 mm" in other.protocol
