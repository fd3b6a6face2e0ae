"""Key-point mask, PCKh of re-detected joints and detection score; the pose maps of the published evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastpose import ops
from fastpose.metrics import DetectionScore, TransferPCKh
from fastpose.metrics.pose_transfer import MASK_LIMBS, head_box, keypoint_mask, masked
from fastpose.skeletons import OPENPOSE


@pytest.fixture(scope="module")
def oracle(shared):
    """Inputs and outputs of the published evaluation, points as (x, y)."""
    path = shared / "oracles" / "eval_pose_transfer.safetensors"
    if not path.is_file():
        pytest.skip("the oracle of the published evaluation is absent")
    stored = load_file(path)
    for which in ("kp", "kp_pred"):
        points = stored[f"input.{which}_yx"][None]
        stored[which], stored[f"{which}_known"] = points.flip(-1), (points != -1).all(-1)
    return stored


def scene(count=5, seed=3):
    """Return points (B, 18, 2) and visibility (B, 18)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(5, 60, (count, 18, 2)), (rng.random((count, 18)) > 0.2).astype(float)


# -------------------------------------------------------------------------------------------------------------- mask


def test_the_published_mask(oracle):
    mask = keypoint_mask(oracle["kp"], oracle["kp_known"], (128, 64))
    assert torch.equal(mask[0].float(), oracle["output.mask"])


def drawn(points, known, size):
    """The mask of one person, drawn by scikit-image."""
    draw = pytest.importorskip("skimage.draw", reason="scikit-image is not installed")
    morphology = pytest.importorskip("skimage.morphology")
    mask = np.zeros(size, dtype=bool)
    for start, end in MASK_LIMBS:
        along = points[start] - points[end]
        if not (known[start] and known[end] and np.any(along)):
            continue
        across = 4 * np.array([-along[1], along[0]]) / np.linalg.norm(along)
        corners = np.stack([points[start] + across, points[start] - across, points[end] - across, points[end] + across])
        mask[draw.polygon(corners[:, 1], corners[:, 0], shape=size)] = True
    for x, y in points[known]:
        mask[draw.disk((y, x), 4, shape=size)] = True
    square = np.ones((5, 5), dtype=bool)
    return morphology.erosion(morphology.dilation(mask, square), square)


@pytest.mark.parametrize("grid", [None, 1, 8])
@pytest.mark.parametrize("size", [(48, 24), (31, 50)])
def test_the_mask_equals_scikit_image_to_the_pixel(grid, size):
    rng = np.random.default_rng(7)
    points = rng.uniform(-8, 1.1 * np.array(size[::-1]), (20, 18, 2))  # some lie outside
    points = points if grid is None else np.round(points / grid) * grid  # on edges of rectangles, or upon each other
    known = rng.random((20, 18)) > 0.3
    masks = keypoint_mask(points, known, size)
    for mask, person, seen in zip(masks, points, known, strict=True):
        np.testing.assert_array_equal(mask.numpy(), drawn(person, seen, size))


def test_one_joint_is_a_disc_and_none_is_nothing():
    points, known = torch.zeros(3, 18, 2), torch.zeros(3, 18)
    points[:, 4], known[0, 4] = torch.tensor([10.0, 7.0]), 1
    known[1, 4], points[1, 4, 0] = 1, torch.nan
    mask = keypoint_mask(points, known, (16, 20))
    assert mask[1:].sum() == 0
    rows, columns = mask[0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 7, 13)  # nearer than 4


def test_a_limb_is_nine_pixels_wide():
    points, known = torch.zeros(1, 18, 2), torch.zeros(1, 18)
    for joint, x in (("r_hip", 10.0), ("r_knee", 40.0)):
        points[0, OPENPOSE.index(joint)], known[0, OPENPOSE.index(joint)] = torch.tensor([x, 20.0]), 1
    mask = keypoint_mask(points, known, (40, 50))[0]
    assert mask[:, 25].nonzero().flatten().tolist() == list(range(16, 25))


def test_masks_of_many_are_those_of_each():
    points, known = scene(40)
    masks = keypoint_mask(points, known, (64, 64))
    assert masks.shape == (40, 64, 64)
    alone = [keypoint_mask(points[i : i + 1], known[i : i + 1], (64, 64)) for i in range(40)]
    assert torch.equal(masks, torch.cat(alone))
    assert keypoint_mask(points[:0], None, (64, 64)).shape == (0, 64, 64)


def test_masked_images_are_black_outside_the_limbs():
    points, known = scene(2)
    images = torch.full((2, 3, 64, 64), 9, dtype=torch.uint8)
    shown = masked(images, points, known)
    assert torch.equal(shown[:, 1] == 9, keypoint_mask(points, known, (64, 64)))
    assert (images == 9).all()
    with pytest.raises(ValueError, match="keypoints: expected 2 persons, one per image, got 1"):
        masked(images, points[:1], known[:1])


def test_mask_arguments_are_checked():
    points, known = scene()
    with pytest.raises(ValueError, match=r"keypoints: expected \(N, 18, 2\), got \(5, 17, 2\)"):
        keypoint_mask(points[:, :17], known, (8, 8))
    with pytest.raises(ValueError, match=r"visibility: expected \(5, 18\)"):
        keypoint_mask(points, known[:2], (8, 8))
    with pytest.raises(ValueError, match=r"size: expected positive \(H, W\), got \(0, 8\)"):
        keypoint_mask(points, known, (0, 8))


# -------------------------------------------------------------------------------------------------------------- PCKh


def test_published_counts(oracle):
    size, present = head_box(oracle["kp"].double(), oracle["kp_known"])
    assert present.tolist() == [True]
    assert torch.equal(size[0].float(), oracle["output.pckh_head_wh"])
    score = TransferPCKh()
    score.update(oracle["kp_pred"], oracle["kp"], oracle["kp_pred_known"], oracle["kp_known"])
    result = score.result()
    assert result.details["right"] == oracle["output.pckh_correct"].item()
    assert result.count == oracle["output.pckh_valid"].item()
    assert result.value == pytest.approx(12 / 16)


def test_a_perfect_and_a_worst_prediction():
    target, known = scene()
    for prediction, value in ((target, 1.0), (target + 1000, 0.0), (target * np.nan, 0.0)):
        score = TransferPCKh()
        score.update(prediction, target, None, known)
        result = score.result()
        assert result.value == value
        assert set(result.per_joint.values()) == {value}
    score = TransferPCKh()
    score.update(target, target, known * 0, known)  # nothing was found
    assert score.result().value == 0.0


def test_each_axis_has_its_own_limit_and_the_limit_itself_is_wrong():
    target, known = np.zeros((1, 18, 2)), np.zeros((1, 18))
    target[0, 0], target[0, 1], target[0, 4] = (10, 10), (14, 30), (40, 40)  # the head box is 4 x 20
    known[0, [0, 1, 4]] = 1
    for shift, value in (((1.9, 9.9), 1.0), ((2.0, 0.0), 0.0), ((0.0, 10.0), 0.0), ((-1.9, -9.9), 1.0)):
        score = TransferPCKh()
        score.update(target + shift, target, None, known)
        assert score.result().value == value


def test_images_without_a_head_are_left_out_and_images_are_pooled():
    target, known = np.full((2, 18, 2), 5.0), np.zeros((2, 18))
    target[:, 14] += (8, 8)
    known[0, [0, 14, 3, 4, 5]] = 1  # nose and eye
    known[1, [0, 3, 4, 5]] = 1  # the nose alone
    prediction = target.copy()
    prediction[0, 3] += 100
    score = TransferPCKh()
    score.update(prediction, target, None, known)
    result = score.result()
    assert (result.value, result.count) == (4 / 5, 5)
    assert result.details == {"right": 4, "images": 2, "left_out": 1}
    assert "|dx| < 0.5" in result.protocol
    alone = TransferPCKh()
    alone.update(prediction[1:], target[1:], None, known[1:])
    with pytest.raises(ValueError, match="no known joint with a head box among 1 images"):
        alone.result()


def test_batches_and_merges_of_pckh_equal_one_pass():
    target, known = scene(9)
    prediction = target + np.random.default_rng(0).normal(0, 12, target.shape)
    whole, first, second = TransferPCKh(), TransferPCKh(), TransferPCKh()
    whole.update(prediction, target, None, known)
    for start in range(0, 9, 2):
        part = (first, second)[start % 4 // 2]
        part.update(prediction[start : start + 2], target[start : start + 2], None, known[start : start + 2])
    first.merge(second)
    assert first.result() == whole.result()
    assert 0 < whole.result().value < 1


def test_pckh_arguments_are_checked_and_left_alone():
    target, known = scene()
    before = target.copy(), known.copy()
    score = TransferPCKh()
    score.update(target, target, known, known)
    with pytest.raises(ValueError, match=r"prediction: expected \(5, 18, 2\) as the target has, got \(4, 18, 2\)"):
        score.update(target[:4], target, None, known)
    with pytest.raises(ValueError, match=r"visibility: expected \(5, 18\)"):
        score.update(target, target, None, known[:, :3])
    with pytest.raises(ValueError, match=r"target: expected \(N, 18, 2\)"):
        score.update(target, target[..., 0])
    np.testing.assert_array_equal(target, before[0])
    np.testing.assert_array_equal(known, before[1])
    assert score.result().details["images"] == 5
    score.reset()
    with pytest.raises(ValueError, match="among 0 images"):
        score.result()


# --------------------------------------------------------------------------------------------------- detection score


def brightest(images):
    """A detector that is as sure of a person as the first pixel is bright, twice, and sees none in black images."""
    levels = images[:, 0, 0, 0].float() / 255
    return [[level / 2, level] if level else [] for level in levels.tolist()]


def gray(*levels):
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)


def test_the_detection_score_is_the_mean_of_the_surest():
    score = DetectionScore(brightest, "the brightness")
    score.update(gray(255, 0))
    score.update(gray(51))
    result = score.result()
    assert (result.name, result.count) == ("DS", 3)
    assert result.value == pytest.approx(1.2 / 3, abs=1e-7)
    assert "by the brightness" in result.protocol
    other = DetectionScore(brightest, "the brightness")
    other.update(gray(0, 0, 0))
    score.merge(other)
    assert (score.result().count, score.result().value) == (6, pytest.approx(0.2, abs=1e-7))


@pytest.mark.parametrize(("level", "value"), [(255, 1.0), (0, 0.0)])
def test_detection_scores_at_their_ends(level, value):
    score = DetectionScore(lambda images: [torch.tensor([level / 255])] * len(images))
    score.update(gray(level, level))
    assert score.result().value == value


def test_detectors_are_held_to_their_word():
    with pytest.raises(ValueError, match="no image was judged"):
        DetectionScore(brightest).result()
    with pytest.raises(ValueError, match="detector: expected 2 lists of confidences, one per image, got 1"):
        DetectionScore(lambda images: [[0.5]]).update(gray(1, 2))
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"detector: expected confidences in \[0, 1\]"):
            DetectionScore(lambda images, wrong=wrong: [[wrong]]).update(gray(1))
    with pytest.raises(TypeError, match="images: expected uint8 images"):
        DetectionScore(brightest).update(gray(1).float())
    with pytest.raises(ValueError, match="merge: expected"):
        DetectionScore(brightest, "a").merge(DetectionScore(brightest, "b"))


# --------------------------------------------------------------------------------------------------------- pose maps


@pytest.mark.parametrize(
    ("profile", "key"), [("gaussian_rounded", "posemap_float_sigma6"), ("binary", "posemap_uint8_bug")]
)
def test_pose_maps_are_the_published_ones(oracle, profile, key):
    known = oracle["kp_known"].float()
    maps = ops.render_gaussian_heatmaps(oracle["kp"], size=(128, 64), sigma=6.0, visibility=known, profile=profile)
    torch.testing.assert_close(maps[0].permute(1, 2, 0), oracle[f"output.{key}"], rtol=1e-5, atol=1e-7)
