"""PCK, PCKh, curves and AUC: perfect and worst predictions, the protocols' edges, masks, wrong input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fastpose.metrics import keypoints_2d, protocols
from fastpose.skeletons import COCO, LSP, MPII

RNG = np.random.default_rng(3)


def persons(number: int = 5, joints: int = 14) -> np.ndarray:
    return RNG.uniform(20, 200, (number, joints, 2))


def every_protocol() -> list[tuple]:
    return [
        (protocols.lsp(), None),
        (protocols.lsp(torso="rsho-lhip"), None),
        (protocols.lsp(skeleton="mpii"), None),
        (protocols.mpii(), 30.0),
        (protocols.person(COCO), None),
        (protocols.person(COCO, size="torso"), None),
    ]


@pytest.mark.parametrize(("protocol", "length"), every_protocol())
def test_perfect_is_100_and_worst_is_0_and_auc_likewise(protocol, length):
    target = persons(4, len(protocol.joints))
    far = target + 1e6
    for prediction, expected in ((target, 100.0), (far, 0.0)):
        counts = keypoints_2d.count(protocol, prediction, target, None, length)
        assert keypoints_2d.result(protocol, counts).value == expected
        curve = keypoints_2d.pck_curve(protocol, prediction, target, None, length)
        assert keypoints_2d.auc(curve).value == expected
        assert set(keypoints_2d.auc(curve).per_joint.values()) == {expected}


def test_threshold_is_inclusive_for_lsp_and_exclusive_for_mpii():
    target = np.zeros((1, 14, 2))
    target[0, LSP.index("l_shoulder")] = (30, 40)  # |l_shoulder - r_hip| = 50
    assert keypoints_2d.lsp_pck(target + (10, 0), target).value == 100.0
    assert keypoints_2d.lsp_pck(target + (10.001, 0), target).value == 0.0
    target = persons(1, 16).round()  # so that a distance of 5 is exact
    assert keypoints_2d.mpii_pckh(target + (5, 0), target, None, head_size=[10.0]).value == 0.0
    assert keypoints_2d.mpii_pckh(target + (4.99, 0), target, None, head_size=[10.0]).value == 100.0


def test_the_two_torso_diagonals_differ():
    target = np.zeros((1, 14, 2))
    target[0, LSP.index("l_shoulder")] = (0, 100)
    target[0, LSP.index("r_shoulder")] = (0, 20)
    prediction = target + (10, 0)
    assert keypoints_2d.lsp_pck(prediction, target, torso="lsho-rhip").value == 100.0
    assert keypoints_2d.lsp_pck(prediction, target, torso="rsho-lhip").value == 0.0


def test_torso_either_falls_back_to_the_mirror_diagonal():
    target, visibility = persons(2), np.ones((2, 14))
    visibility[0, LSP.index("r_hip")] = 0
    strict = keypoints_2d.lsp_pck(target, target, visibility)
    either = keypoints_2d.lsp_pck(target, target, visibility, torso="either")
    assert (strict.count, strict.details["persons_left_out"]) == (14, 1)
    assert (either.count, either.details["persons_left_out"]) == (27, 0)


def test_lsp_rows_and_total():
    target = persons(2)
    prediction = target.copy()
    prediction[:, LSP.index("head_top")] += 1e5
    prediction[0, LSP.index("l_wrist")] += 1e5
    result = keypoints_2d.lsp_pck(prediction, target)
    rows = {"head": 50.0, "shoulder": 100.0, "elbow": 100.0, "wrist": 75.0, "hip": 100.0, "knee": 100.0, "ankle": 100.0}
    assert result.rows == rows
    assert result.value == 100.0 * 25 / 28
    assert result.count == 28
    assert result.per_joint["l_wrist"] == 50.0


def test_lsp_counts_every_joint_unless_told_which_are_labelled():
    target, visibility = persons(3), np.ones((3, 14))
    prediction = target.copy()
    prediction[:, LSP.index("l_wrist")] += 1e5
    visibility[:, LSP.index("l_wrist")] = 0
    assert keypoints_2d.lsp_pck(prediction, target).value == pytest.approx(100 * 13 / 14)
    masked = keypoints_2d.lsp_pck(prediction, target, visibility)
    assert masked.value == 100.0
    assert masked.details["joints_without_labels"] == ["l_wrist"]
    assert masked.protocol.endswith("labelled joints only; persons without a labelled torso left out")
    assert "labelled" not in keypoints_2d.lsp_pck(prediction, target).protocol
    assert "l_wrist" not in masked.per_joint


def test_lsp_in_mpii_order_scores_the_same_fourteen_joints():
    names = [{"neck": "upper_neck"}.get(name, name) for name in LSP.joints]
    target, prediction = persons(6), persons(6)
    wide = [np.full((6, 16, 2), 7.0) for _ in range(2)]
    for index, name in enumerate(names):
        wide[0][:, MPII.index(name)], wide[1][:, MPII.index(name)] = prediction[:, index], target[:, index]
    narrow = keypoints_2d.lsp_pck(prediction, target, threshold=0.8)
    other = keypoints_2d.lsp_pck(wide[0], wide[1], threshold=0.8, skeleton="mpii")
    assert 0 < narrow.value < 100
    assert (other.value, other.count, other.rows) == (narrow.value, narrow.count, narrow.rows)


def test_pckh_means_joints_not_samples_and_leaves_pelvis_and_thorax_out():
    target, labelled = persons(4, 16), np.ones((4, 16))
    prediction = target.copy()
    prediction[:, [MPII.index("pelvis"), MPII.index("thorax")]] = np.nan
    assert keypoints_2d.mpii_pckh(prediction, target, labelled, head_size=np.full(4, 20.0)).value == 100.0
    prediction[0, MPII.index("l_wrist")] += 100
    labelled[1:, MPII.index("l_wrist")] = 0  # the joint's only sample is wrong
    result = keypoints_2d.mpii_pckh(prediction, target, labelled, head_size=np.full(4, 20.0))
    assert result.value == pytest.approx(100 * 13 / 14)
    assert result.rows["wrist"] == 50.0
    assert list(result.rows) == ["head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]


def test_head_size_is_0_6_of_the_diagonal():
    box = np.array([[[10.0, 20.0], [13.0, 24.0]]])
    assert keypoints_2d.head_size(box).tolist() == [3.0]
    target = persons(1, 16).round()  # so that a distance of 5 is exact
    by_box = keypoints_2d.mpii_pckh(target + (1.4, 0), target, None, head_box=box)
    assert by_box.value == 100.0
    assert keypoints_2d.mpii_pckh(target + (1.6, 0), target, None, head_box=box).value == 0.0


def test_person_box_is_the_longer_side_of_the_labelled_joints():
    target = np.zeros((2, 17, 2))
    target[:, 1] = (10, 40)
    target[:, 2] = (500, 500)  # not labelled
    visibility = np.zeros((2, 17))
    visibility[0, :2] = 2
    visibility[1, 0] = 1  # one joint has no extent
    lengths = keypoints_2d.reference_lengths(protocols.person(COCO), target, visibility)
    assert lengths[0] == 40
    assert lengths[1].isnan()
    result = keypoints_2d.person_pck(target + (8, 0), target, visibility, COCO)
    assert (result.value, result.count, result.details["persons_left_out"]) == (100.0, 2, 1)
    assert "box" in result.name
    assert "longer side" in result.protocol


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_is_wrong(bad):
    target = persons(1)
    prediction = target.copy()
    prediction[0, 3, 1] = bad
    assert keypoints_2d.lsp_pck(prediction, target).value == pytest.approx(100 * 13 / 14)


def test_tensors_arrays_and_dtypes_agree_and_stay_unchanged():
    target, prediction = persons(5).astype(np.float32), persons(5).astype(np.float32)
    visibility = (RNG.random((5, 14)) > 0.2).astype(np.uint8)
    visibility[:, [2, 9]] = 2
    given = [prediction, target, visibility]
    kept = [value.copy() for value in given]
    by_array = keypoints_2d.lsp_pck(*given, threshold=0.7)
    for value, before in zip(given, kept, strict=True):
        np.testing.assert_array_equal(value, before)
    tensors = [torch.from_numpy(prediction).requires_grad_(), torch.from_numpy(target), torch.from_numpy(visibility)]
    assert keypoints_2d.lsp_pck(*tensors, threshold=0.7) == by_array
    assert 0 < by_array.value < 100


def test_the_curve_rises_and_meets_the_threshold_value():
    target = persons(20)
    prediction = target + RNG.normal(0, 20, target.shape)
    protocol = protocols.lsp()
    curve = keypoints_2d.pck_curve(protocol, prediction, target, maximum=0.5, steps=50)
    assert (curve.values.diff() >= 0).all()
    assert curve.values[20] == pytest.approx(keypoints_2d.lsp_pck(prediction, target).value)
    assert "51 thresholds from 0 to 0.5" in curve.protocol
    area = keypoints_2d.auc(curve)
    assert 0 < area.value < 100
    assert area.count == 20 * 14
    assert "51 thresholds" in area.protocol


def test_auc_of_a_step_is_its_share_of_the_range():
    target = np.zeros((1, 14, 2))
    target[0, LSP.index("l_shoulder")] = (0, 100)
    curve = keypoints_2d.pck_curve(protocols.lsp(), target + (10, 0), target, maximum=0.2, steps=1000)
    assert keypoints_2d.auc(curve).value == pytest.approx(50, abs=0.1)


def test_generic_pck_takes_lengths_and_names():
    target = persons(2, 3)
    result = keypoints_2d.pck(target + (1, 0), target, None, [10.0, 1.0], 0.2, joints=("a", "b", "c"))
    assert result.value == 50.0
    assert result.per_joint == {"a": 50.0, "b": 50.0, "c": 50.0}
    assert keypoints_2d.pck(target + (1, 0), target, None, 5.0, 0.2, inclusive=False).value == 0.0


def test_errors_say_what_was_found():
    target = persons(2)
    with pytest.raises(ValueError, match=r"prediction: expected \(2, 14, 2\) as the target has, got \(1, 14, 2\)"):
        keypoints_2d.lsp_pck(target[:1], target)
    with pytest.raises(ValueError, match=r"target: expected \(N, 14, 2\), got \(2, 16, 2\)"):
        keypoints_2d.lsp_pck(persons(2, 16), persons(2, 16))
    with pytest.raises(ValueError, match=r"visibility: expected \(2, 14\)"):
        keypoints_2d.lsp_pck(target, target, np.ones((2, 13)))
    with pytest.raises(ValueError, match="no labelled joint among 2 persons"):
        keypoints_2d.lsp_pck(target, target, np.zeros((2, 14)))
    with pytest.raises(ValueError, match="no labelled joint among 0 persons"):
        keypoints_2d.lsp_pck(np.zeros((0, 14, 2)), np.zeros((0, 14, 2)))
    with pytest.raises(ValueError, match=r"1 of 2 persons have no positive reference length \(first: index 1"):
        keypoints_2d.mpii_pckh(persons(2, 16), persons(2, 16), None, head_size=[10.0, 0.0])
    with pytest.raises(ValueError, match="no positive reference length"):
        keypoints_2d.lsp_pck(target * 0, target * 0)
    with pytest.raises(ValueError, match="either head_box"):
        keypoints_2d.mpii_pckh(persons(2, 16), persons(2, 16), None)
    with pytest.raises(ValueError, match="did you mean 'lsho-rhip'"):
        keypoints_2d.lsp_pck(target, target, torso="lsho-rhi")
    with pytest.raises(TypeError, match="expected numbers"):
        keypoints_2d.lsp_pck([["a"]], target)
    broken = target.copy()
    broken[1, 0] = np.nan
    with pytest.raises(ValueError, match=r"target: 1 labelled joints are not finite \(first: person 1, r_ankle\)"):
        keypoints_2d.lsp_pck(target, broken)
    with pytest.raises(ValueError, match="reference_length is missing"):
        keypoints_2d.count(protocols.mpii(), persons(1, 16), persons(1, 16))
    with pytest.raises(ValueError, match="maximum > 0"):
        keypoints_2d.grid(0.0)


def test_mpii_validation_predictions_of_an_older_method(shared):
    scipy_io = pytest.importorskip("scipy.io")
    path = shared / "data" / "mpii" / "annot" / "gt_valid.mat"
    if not path.is_file():
        pytest.skip("the MPII validation annotation is absent")
    annotation = scipy_io.loadmat(path)
    prediction, target, box = (
        annotation[key].transpose(2, 0, 1) for key in ("pos_pred_src", "pos_gt_src", "headboxes_src")
    )
    labelled = 1 - annotation["jnt_missing"].T
    result = keypoints_2d.mpii_pckh(prediction, target, labelled, head_box=box)
    # counted apart, with plain numpy and MPII's own order of axes
    size = 0.6 * np.hypot(*(annotation["headboxes_src"][1] - annotation["headboxes_src"][0]))
    gap = np.hypot(*(annotation["pos_pred_src"] - annotation["pos_gt_src"]).transpose(1, 0, 2)) / size
    there = annotation["jnt_missing"] == 0
    joints = 100 * ((gap < 0.5) & there).sum(1) / there.sum(1)
    assert result.value == pytest.approx(np.delete(joints, [6, 7]).mean(), abs=1e-9)
    assert result.value == pytest.approx(81.458, abs=1e-3)
    assert result.rows["head"] == pytest.approx(joints[9])
    assert result.rows["wrist"] == pytest.approx((joints[10] + joints[15]) / 2)
    assert keypoints_2d.mpii_pckh(target, target, labelled, head_box=box).value == 100.0
    json.loads(result.as_json())
