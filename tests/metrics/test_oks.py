"""Object key-point similarity and COCO's average precision."""

from __future__ import annotations

import builtins
import copy
import json
import math
import tarfile

import numpy as np
import pytest

from fastpose.metrics.oks import coco_detections, coco_ground_truth, coco_oks_ap, oks
from fastpose.skeletons import COCO

RNG = np.random.default_rng(5)


def scene(number=4):
    points = RNG.uniform(50, 250, (number, 17, 2))
    visibility = np.full((number, 17), 2)
    visibility[:, :3] = 0
    boxes = np.array([[40.0, 40.0, 220.0, 220.0]] * number)
    return points, visibility, np.full(number, 20000.0), boxes, list(range(1, number + 1))


def test_oks_is_one_at_the_target_and_zero_far_away():
    points, visibility, area, _, _ = scene()
    assert oks(points, points, visibility, area).tolist() == [1.0] * 4
    assert oks(points + 1e5, points, visibility, area).tolist() == [0.0] * 4
    assert oks(points * np.nan, points, visibility, area).tolist() == [0.0] * 4


def test_oks_of_one_joint_is_the_published_formula():
    visibility = np.zeros((1, 17))
    visibility[0, 5] = 1
    target = np.zeros((1, 17, 2))
    value = oks(target + (3, 4), target, visibility, [400.0])
    assert value.item() == pytest.approx(math.exp(-25 / (2 * 400 * (2 * 0.079) ** 2)))


def test_oks_refuses_persons_without_labels_or_area():
    points, visibility, area, _, _ = scene()
    visibility[2] = 0
    with pytest.raises(ValueError, match=r"1 persons have no labelled joint \(first: index 2\)"):
        oks(points, points, visibility, area)
    with pytest.raises(ValueError, match="positive areas"):
        oks(points, points, np.ones((4, 17)), area * 0)


def test_average_precision_of_perfect_worst_and_no_predictions():
    pytest.importorskip("faster_coco_eval", reason="the eval extra is not installed")
    points, visibility, area, boxes, images = scene()
    truth = coco_ground_truth(points, visibility, area, boxes, images)
    before = copy.deepcopy(truth)
    scores = np.ones((4, 17))
    perfect = coco_oks_ap(coco_detections(points, scores, images), truth)
    assert perfect.value == pytest.approx(100.0)
    assert (perfect.count, perfect.details["images"]) == (4, 4)
    assert "APm" not in perfect.details["rows"]  # nobody is of medium size
    assert coco_oks_ap(coco_detections(points + 1e4, scores, images), truth).value == 0.0
    assert coco_oks_ap(coco_detections(points * np.nan, scores * np.nan, images), truth).value == 0.0
    assert coco_oks_ap([], truth).value == 0.0
    assert coco_oks_ap(coco_detections(points[:1], scores[:1], images[:1]), truth, image_ids=[1]).value == (
        pytest.approx(100.0)
    )
    assert truth == before
    assert json.loads(perfect.as_json())["name"] == "OKS-AP"


def test_average_precision_without_persons_is_an_error():
    pytest.importorskip("faster_coco_eval", reason="the eval extra is not installed")
    points, visibility, area, boxes, images = scene()
    truth = coco_ground_truth(points, visibility * 0, area, boxes, images)
    with pytest.raises(ValueError, match="no person with labelled joints on 4 images"):
        coco_oks_ap([], truth)


def test_coco_annotation_as_its_own_prediction(shared, tmp_path):
    pytest.importorskip("faster_coco_eval", reason="the eval extra is not installed")
    archive = shared / "data" / "coco2017" / "annotations.tar.gz"
    if not archive.is_file():
        pytest.skip("the COCO annotations are absent")
    with tarfile.open(archive) as tar:
        member = "annotations/person_keypoints_val2017_withimages.json"
        stream = tar.extractfile(member)
        assert stream is not None
        path = tmp_path / "persons.json"
        path.write_bytes(stream.read())
    persons = [row for row in json.loads(path.read_text())["annotations"] if row["num_keypoints"]]
    flat = np.array([row["keypoints"] for row in persons], dtype=float).reshape(-1, 17, 3)
    images = [row["image_id"] for row in persons]
    detections = coco_detections(flat[..., :2], (flat[..., 2] > 0) * 1.0, images)
    result = coco_oks_ap(detections, path)
    assert result.value > 99  # above 20 persons an image the evaluator drops some
    assert result.count == sum(not row["iscrowd"] for row in persons)
    shifted = coco_detections(flat[..., :2] + 6, (flat[..., 2] > 0) * 1.0, images)
    assert 20 < coco_oks_ap(shifted, path).value < 95


def test_a_missing_extra_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("faster_coco_eval"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "fastpose\[eval\]"'):
        coco_oks_ap([], {})


def test_detections_check_their_shapes():
    with pytest.raises(ValueError, match=r"expected \(2, 17\) and 2, got \(2, 16\) and 2"):
        coco_detections(np.zeros((2, 17, 2)), np.zeros((2, 16)), [1, 2])
    assert len(COCO) == len(COCO.sigmas)
