"""The training monitor and the published decoding against stored outputs of the published functions."""

from __future__ import annotations

import pytest
import torch

from fastpose.metrics import heatmaps
from fastpose.metrics.heatmaps import MPII_MONITOR_JOINTS, heatmap_accuracy, heatmap_argmax, published_keypoints


@pytest.fixture(scope="module")
def oracle(shared):
    from safetensors.torch import load_file

    path = shared / "oracles" / "eval_pytorch_pose.safetensors"
    if not path.is_file():
        pytest.skip("the stored outputs of the published evaluation are absent")
    return load_file(path)


def test_argmax_is_the_published_one(oracle):
    cells, found = heatmap_argmax(oracle["input.heatmaps"])
    assert torch.equal(cells + 1, oracle["output.get_preds_one_based"])
    assert torch.equal(found, (oracle["output.get_preds_one_based"] > 0).all(-1))


def test_decoding_and_inverse_crop_are_the_published_ones(oracle):
    points = published_keypoints(oracle["input.heatmaps"], oracle["input.center"], oracle["input.scale"])
    assert torch.equal(points.float(), oracle["output.final_preds"])


def test_monitor_is_the_published_one(oracle):
    result = heatmap_accuracy(
        oracle["input.heatmaps"], oracle["input.accuracy_target_seed2"], joints=MPII_MONITOR_JOINTS
    )
    published = oracle["output.accuracy"]  # the mean, then the joints that have a target
    assert result.value / 100 == pytest.approx(float(published[0]), abs=1e-6)
    assert [value / 100 for value in result.per_joint.values()] == pytest.approx(published[1:].tolist(), abs=1e-6)


def peaks(*cells, size=64):
    planes = torch.zeros(1, len(cells), size, size)
    for joint, (x, y) in enumerate(cells):
        planes[0, joint, y, x] = 1.0
    return planes


def test_monitor_counts_within_half_a_tenth_of_the_width():
    target = peaks((10, 10), (20, 20), (30, 30), (0, 40))
    prediction = peaks((13, 10), (24, 20), (30, 30), (0, 40))  # 3 <= 3.2 < 4; the last target is in column 0
    result = heatmap_accuracy(prediction, target, names=("a", "b", "c", "d"))
    assert result.per_joint == {"a": 100.0, "b": 0.0, "c": 100.0}
    assert result.value == pytest.approx(200 / 3)
    assert result.count == 3
    assert "not PCKh" in result.protocol


def test_monitor_takes_key_points_and_visibility():
    prediction = peaks((13, 10), (24, 20), (30, 30))
    points = torch.tensor([[[10.4, 9.6], [20.0, 20.0], [30.0, 30.0]]])
    result = heatmap_accuracy(prediction, points, torch.tensor([[1, 1, 0]]))
    assert list(result.per_joint.values()) == [100.0, 0.0]
    assert heatmap_accuracy(prediction, heatmap_argmax(prediction)[0]).value == 100.0


def test_monitor_of_nothing_is_zero_of_zero():
    result = heatmap_accuracy(peaks((3, 3)), torch.full((1, 1, 2), float("nan")))
    assert (result.value, result.count, result.per_joint) == (0.0, 0, {})


def test_planes_without_a_peak_have_no_cell():
    planes = torch.zeros(1, 3, 8, 8)
    planes[0, 1] = -1
    planes[0, 2] = float("nan")
    cells, found = heatmap_argmax(planes)
    assert not found.any()
    assert (cells == -1).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_maps_decode(size):
    points = published_keypoints(torch.ones(1, 1, size, size), [[100.0, 100.0]], [1.0])
    assert torch.isfinite(points).all()


def test_errors_name_the_shapes():
    with pytest.raises(ValueError, match=r"heatmaps: expected \(B, K, H, W\), got \(4, 8, 8\)"):
        heatmap_argmax(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match=r"target: expected \(1, 2, 8, 8\), got \(1, 3, 8, 8\)"):
        heatmap_accuracy(torch.zeros(1, 2, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="center and scale"):
        published_keypoints(torch.zeros(2, 3, 8, 8), [[1.0, 2.0]], [1.0])
    assert heatmaps.MPII_MONITOR_JOINTS == (0, 1, 2, 3, 4, 5, 10, 11, 14, 15)
