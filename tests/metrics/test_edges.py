"""Every metric where there is nothing, one thing, or nonsense to measure: a defined value or one sentence.

``METRICS`` holds each public function and accumulator; ``hostile`` inputs go through all of those that take poses, and
``EDGES`` say what is expected of the known ones. Warnings of numpy and torch are errors in the suite.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastpose import metrics
from fastpose.metrics import (
    DetectionScore,
    ImageAccumulator,
    MPJPEAccumulator,
    PCK3DAccumulator,
    PCKAccumulator,
    Result,
    TransferPCKh,
    diversity,
    generative,
    heatmaps,
    image,
    keypoints_2d,
    keypoints_3d,
    lpips,
    oks,
    plausibility,
    protocols,
    reid,
    retrieval,
    study,
    text_separation,
    two_sample,
)
from fastpose.nn import backbones
from fastpose.skeletons import COCO

NAN, INF = math.nan, math.inf
Poses = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Prediction, target and visibility."""


def given(accumulator: Any, *arguments: Any) -> Any:
    accumulator.update(*arguments)
    return accumulator.results() if hasattr(accumulator, "results") else accumulator.result()


def head(poses: Poses) -> np.ndarray:
    return np.full(len(poses[0]), 12.0)


POSES_2D: dict[str, tuple[int, Callable[..., Any]]] = {
    "keypoints_2d.lsp_pck": (14, lambda *p: keypoints_2d.lsp_pck(*p)),
    "keypoints_2d.mpii_pckh": (16, lambda *p: keypoints_2d.mpii_pckh(*p, head_size=head(p))),
    "keypoints_2d.person_pck": (17, lambda *p: keypoints_2d.person_pck(*p, COCO)),
    "keypoints_2d.pck": (5, lambda *p: keypoints_2d.pck(*p, head(p))),
    "keypoints_2d.pck_curve": (14, lambda *p: keypoints_2d.auc(keypoints_2d.pck_curve(protocols.lsp(), *p))),
    "accumulate.PCKAccumulator": (14, lambda *p: given(PCKAccumulator(protocols.lsp()), *p)),
    "pose_transfer.TransferPCKh": (18, lambda p, t, v: given(TransferPCKh(), p, t, None, v)),
    "oks.oks": (17, lambda p, t, v: oks.oks(p, t, v, head((p, t, v)))),
    "oks.coco_oks_ap": (17, lambda p, t, v: average_precision(p, t, v)),
    "two_sample.two_sample_accuracy": (17, lambda p, t, v: two_sample.two_sample_accuracy(p, t)),
    "diversity.diversity": (17, lambda p, t, v: diversity.diversity(t, p)),
    "diversity.mean_distance": (17, lambda p, t, v: diversity.mean_distance(p, pairs=9)),
    "retrieval.retrieval_distances": (17, lambda p, t, v: retrieval.retrieval_distances(p, t, t).results()),
    "heatmaps.heatmap_accuracy": (4, lambda p, t, v: heatmaps.heatmap_accuracy(torch.rand(len(p), 4, 8, 8), t, v)),
}
POSES_3D: dict[str, tuple[int, Callable[..., Any]]] = {
    **{
        f"keypoints_3d.mpjpe {align}": (16, lambda *p, align=align: keypoints_3d.mpjpe(*p, align=align))
        for align in ("none", "root_depth", "root", "rigid", "similarity", "zhou")
    },
    "keypoints_3d.pck_3d": (16, lambda *p: keypoints_3d.pck_3d(*p)),
    "keypoints_3d.auc_3d": (16, lambda *p: keypoints_3d.auc_3d(*p)),
    "accumulate_3d.MPJPEAccumulator": (16, lambda *p: given(MPJPEAccumulator(), *p)),
    "accumulate_3d.PCK3DAccumulator": (16, lambda *p: given(PCK3DAccumulator(), *p)),
    "plausibility.bone_asymmetry": (16, lambda p, t, v: plausibility.bone_asymmetry(p)),
    "plausibility.bone_length_deviation": (
        16,
        lambda p, t, v: plausibility.bone_length_deviation(p, plausibility.Proportions.from_poses(t)),
    ),
    "plausibility.hinge_violations": (16, lambda p, t, v: plausibility.hinge_violations(p)),
    "plausibility.joint_limit_violations": (
        16,
        lambda p, t, v: plausibility.joint_limit_violations(p, plausibility.JointLimits.from_poses(t)),
    ),
}
OTHERS = {  # what takes no pair of poses: EDGES alone hold these
    "generative.GenerativeAccumulator", "generative.FrechetDistance", "generative.InceptionScore", "generative.frechet",
    "image.ImageAccumulator", "lpips.LPIPS", "pose_transfer.DetectionScore", "reid.evaluate", "retrieval.r_precision",
    "retrieval.candidates", "study.score", "text_separation.separation",
}  # fmt: skip
PARTS = {  # what the metrics are made of: lengths, distances, formats, files; no number of a report
    "accumulate_3d.joint_errors", "diversity.Result", "generative.Moments", "generative.inception",
    "heatmaps.heatmap_argmax", "heatmaps.published_keypoints", "image.ImageProtocol", "image.protocols", "image.values",
    "keypoints_2d.Counts", "keypoints_2d.Curve", "keypoints_2d.auc", "keypoints_2d.count", "keypoints_2d.curve",
    "keypoints_2d.grid", "keypoints_2d.head_size", "keypoints_2d.normalised_distances",
    "keypoints_2d.reference_lengths", "keypoints_2d.result", "keypoints_3d.back_project",
    "keypoints_3d.published_joints", "keypoints_3d.scale_to",
    "lpips.protocol", "oks.coco_detections", "oks.coco_ground_truth", "plausibility.JointLimits",
    "plausibility.Proportions", "plausibility.flexion", "pose_transfer.head_box", "pose_transfer.keypoint_mask",
    "pose_transfer.masked", "reid.Labels", "retrieval.Retrieval", "study.Answer", "study.Key", "study.Submission",
    "study.accuracy_of", "study.read", "study.read_all", "study.read_key", "text_separation.Separation",
    "text_separation.separable", "two_sample.Neighbours", "two_sample.accuracy", "two_sample.nearest",
    "two_sample.neighbours", "two_sample.positions",
}  # fmt: skip


def public() -> set[str]:
    """Return the functions and classes of all modules of the metrics but those of protocols and reports."""
    modules = [getattr(metrics, name) for name in metrics.__all__ if inspect.ismodule(getattr(metrics, name))]
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in modules
        if module not in (metrics.protocols, metrics.report)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


def test_promise_16_every_metric_has_its_edges() -> None:
    tried = {name.partition(" ")[0] for name in (*POSES_2D, *POSES_3D)} | OTHERS
    assert public() == tried | (PARTS & public())
    assert {name.partition(":")[0] for name, *_ in EDGES} >= OTHERS


# ------------------------------------------------------------------------------------------------------ hostile poses


def average_precision(prediction: np.ndarray, target: np.ndarray, visibility: np.ndarray) -> Result:
    ids = range(len(target))
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (len(target), 1))
    truth = oks.coco_ground_truth(target, 2 * visibility, np.full(len(target), 900.0), boxes, ids)
    return oks.coco_oks_ap(oks.coco_detections(prediction, np.ones(prediction.shape[:2]), ids), truth)


def plain(joints: int, axes: int) -> Poses:
    rng = np.random.default_rng(16)
    target = rng.uniform(1, 60, (6, joints, axes))
    return target + rng.normal(0, 2, target.shape), target, np.ones((6, joints))


def hostile(joints: int, axes: int) -> Iterator[tuple[str, Poses]]:
    """Yield poses of which little or nothing can be measured."""
    poses = prediction, target, visibility = plain(joints, axes)
    one = np.zeros_like(target)
    one[0, 0, 0] = 1
    line = np.zeros_like(target)
    line[..., 0] = np.arange(joints)
    yield "plain", poses
    yield "no visible joint", (prediction, target, 0 * visibility)
    yield "one visible joint", (prediction, target, visibility * (np.arange(joints) == 3))
    yield "visibility that is no number", (prediction, target, NAN * visibility)
    yield "one sample", (prediction[:1], target[:1], visibility[:1])
    yield "two samples", (prediction[:2], target[:2], visibility[:2])
    yield "no sample", (prediction[:0], target[:0], visibility[:0])
    for bad in (NAN, INF, -INF):
        yield f"every prediction {bad}", (np.full_like(prediction, bad), target, visibility)
        yield f"one prediction {bad}", (np.where(one, bad, prediction), target, visibility)
        yield f"every target {bad}", (prediction, np.full_like(target, bad), visibility)
        yield f"one target {bad}", (prediction, np.where(one, bad, target), visibility)
        yield f"a hidden target {bad}", (prediction, np.where(one, bad, target), visibility * (one.sum(-1) == 0))
    for far in (1e6, 1e30, 1e200, -1e200):
        yield f"predictions at {far}", (prediction + far, target, visibility)
        yield f"predictions times {far}", (prediction * far, target, visibility)
        yield f"both times {far}", (prediction * far, target * far, visibility)
    yield "both times 1e-300", (prediction * 1e-300, target * 1e-300, visibility)
    yield "predictions at one point", (0 * prediction, target, visibility)
    yield "targets at one point", (prediction, 0 * target, visibility)
    yield "both at one point", (0 * prediction, 0 * target, visibility)
    yield "predictions on a line", (line, target, visibility)
    yield "targets on a line", (prediction, line, visibility)
    yield "both on a line", (line, 2 * line, visibility)
    yield "duplicates", (prediction[[0, 0, 0]], target[[0, 0, 0]], visibility[:3])
    yield "predictions that are the targets", (target, target, visibility)


def check_sound(what: str, results: Any) -> None:
    """Assert that no number is NaN or infinite, unless nothing was counted and the result says so."""
    for result in results if isinstance(results, (list, tuple)) else [results]:
        if not isinstance(result, Result):
            assert torch.as_tensor(result).isfinite().all(), f"{what}: {result}"
            continue
        assert math.isfinite(result.value), f"{what}: {result.name} is {result.value}, n={result.count}"
        assert result.count > 0 or result.value == 0, f"{what}: {result.name} of nothing"
        assert all(math.isfinite(value) for value in result.per_joint.values()), f"{what}: {result.per_joint}"
        assert f"n={result.count}" in result.line()


@pytest.mark.parametrize("name", [*POSES_2D, *POSES_3D])
def test_promise_16_hostile_poses_give_a_value_or_a_sentence(name: str) -> None:
    if "coco_oks_ap" in name:
        pytest.importorskip("faster_coco_eval", reason="the eval extra is not installed")
    axes = 2 if name in POSES_2D else 3
    joints, measure = (POSES_2D | POSES_3D)[name]
    for what, poses in hostile(joints, axes):
        before = [part.copy() for part in poses]
        sentence, found = "", None
        try:
            found = measure(*poses)
        except ValueError as error:
            sentence = str(error)
        for part, kept in zip(poses, before, strict=True):
            np.testing.assert_array_equal(part, kept)
        if found is None:
            assert sentence, f"{name}, {what}"
            assert "\n" not in sentence, f"{name}, {what}: {sentence}"
            assert what != "plain", sentence
        else:
            check_sound(f"{name}, {what}", found)


# --------------------------------------------------------------------------------------------------------- known edges


def numbers(count: int, width: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def inception(splits: int, logits: Tensor) -> Result:
    return given(generative.InceptionScore(splits), logits)


def distance(one: Tensor, other: Tensor) -> Result:
    return given(generative.FrechetDistance(), one, other)


def grey(value: int, count: int = 2) -> Tensor:
    return torch.full((count, 3, 32, 32), value, dtype=torch.uint8)


def pictures(name: str, one: Tensor, other: Tensor, *joints: Any) -> Result:
    return given(ImageAccumulator(image.protocols(name)), one, other, *joints)[0]


def perceptual(one: Tensor, other: Tensor) -> Result:
    torch.manual_seed(0)
    trunk = backbones.create("squeezenet1_1").eval()
    heads = [torch.ones(1, width, 1, 1) for width in (64, 128, 256, 384, 384, 512, 512)]
    judge = lpips.LPIPS("squeeze", trunk)
    for head, weight in zip(judge.heads, heads, strict=True):
        head.data = weight.view_as(head)
    return judge(one.float() / 127.5 - 1, other.float() / 127.5 - 1).detach()


def looked(images: Tensor) -> tuple[Tensor, Tensor]:
    flat = images.float().flatten(1)[:, :6]
    return flat, flat


def found(query: Tensor, gallery: Tensor, *labels: Any) -> list[Result]:
    return reid.evaluate(query, gallery, reid.Labels(*labels[:2]), reid.Labels(*labels[2:]))


def choices(count: int, **options: Any) -> Tensor:
    return retrieval.candidates(range(count), range(count), range(count), **options)


def precision(similarity: float) -> list[Result]:
    return retrieval.r_precision(lambda poses, texts: torch.full(texts.shape, similarity), choices(20))


def submission(*answers: tuple[str, str], kind: str = "pictures") -> study.Submission:
    rows = tuple(study.Answer(f"{n}.png", truth, answer, 5.0) for n, (truth, answer) in enumerate(answers))
    return study.Submission("s", kind, None, "one", rows)


def separated(vectors: Tensor, images: list[int]) -> Result:
    return text_separation.separation(vectors, images, pairs=50).result()


HIDDEN = (torch.zeros(2, 18, 2), torch.zeros(2, 18))
ONE, SAME = [1] * 3, [1] * 5
QUERY, GALLERY = numbers(3), numbers(5, seed=1)

EDGES: list[tuple[str, Callable[[], Any], float | str]] = [
    ("generative.InceptionScore: none", lambda: generative.InceptionScore().result(), "each of 10 splits, got 0"),
    ("generative.InceptionScore: fewer than splits", lambda: inception(10, numbers(9)), "each of 10 splits, got 9"),
    ("generative.InceptionScore: one image", lambda: inception(1, numbers(1)), 1.0),
    ("generative.InceptionScore: identical images", lambda: inception(2, numbers(1).expand(6, 6)), 1.0),
    ("generative.InceptionScore: one class", lambda: inception(2, numbers(6, 1)), 1.0),
    ("generative.InceptionScore: sure of another class each", lambda: inception(1, 1e30 * torch.eye(6)), 6.0),
    ("generative.InceptionScore: NaN", lambda: inception(2, numbers(6) * NAN), "logits: expected finite values"),
    ("generative.InceptionScore: infinite", lambda: inception(2, numbers(6) * INF), "logits: expected finite values"),
    ("generative.FrechetDistance: none", lambda: generative.FrechetDistance().result(), "at least 2 images .* got 0"),
    ("generative.FrechetDistance: one", lambda: distance(numbers(1), numbers(1)), "at least 2 images .* got 1"),
    ("generative.FrechetDistance: identical sets", lambda: distance(numbers(9), numbers(9)), 0.0),
    ("generative.FrechetDistance: constant", lambda: distance(numbers(1).expand(5, 6), numbers(1).expand(4, 6)), 0.0),
    ("generative.FrechetDistance: two constants", lambda: distance(torch.ones(5, 6), torch.zeros(5, 6)), 6.0),
    ("generative.FrechetDistance: NaN", lambda: distance(numbers(5) * NAN, numbers(5)), "expected finite values"),
    ("generative.frechet: NaN", lambda: generative.frechet(*[torch.full((1, 1), NAN).double()] * 4), "finite means"),
    ("generative.frechet: points", lambda: generative.frechet(*[torch.zeros(2), torch.zeros(2, 2)] * 2), 0.0),
    ("generative.GenerativeAccumulator: none", lambda: generative.GenerativeAccumulator(looked).results(), "got 0"),
    (
        "generative.GenerativeAccumulator: black images",
        lambda: given(generative.GenerativeAccumulator(looked, splits=1), grey(0), grey(0))[1],
        0.0,
    ),
    ("image.ImageAccumulator: none", lambda: ImageAccumulator(image.protocols("L1")).results(), "0 images; call"),
    *(
        (f"image.ImageAccumulator: {name} of {what}", lambda name=name, pair=pair: pictures(name, *pair), value)
        for name, values in {
            "SSIM (PATN)": (1.0, 1.0, 0.0), "SSIM (7x7)": (1.0, 1.0, 1e-4), "L1": (0.0, 0.0, 2.0),
            "PSNR": (83.00502, 83.00502, 0.0),
        }.items()
        for (what, pair), value in zip(
            {
                "black ones": (grey(0), grey(0)), "equal grey ones": (grey(7), grey(7)),
                "white and black": (grey(255), grey(0)),
            }.items(),
            values,
            strict=True,
        )
    ),
    ("image.ImageAccumulator: no joint", lambda: pictures("mask-SSIM", grey(0), grey(0), *HIDDEN), "2 images; none"),
    ("image.ImageAccumulator: one pixel", lambda: pictures("SSIM (7x7)", *[grey(0)[..., :1, :1]] * 2), "at least 7"),
    ("lpips.LPIPS: black images", lambda: perceptual(grey(0), grey(0)).max(), 0.0),
    ("lpips.LPIPS: equal grey images", lambda: perceptual(grey(9), grey(9)).max(), 0.0),
    ("pose_transfer.DetectionScore: none", lambda: DetectionScore(lambda images: []).result(), "call update"),
    ("pose_transfer.DetectionScore: nobody", lambda: given(DetectionScore(lambda images: [[], []]), grey(0)), 0.0),
    ("reid.evaluate: one identity", lambda: found(QUERY, GALLERY, ONE, [0] * 3, SAME, SAME), 100.0),
    ("reid.evaluate: one camera", lambda: found(QUERY, GALLERY, ONE, [0] * 3, SAME, [0] * 5), "by another camera"),
    ("reid.evaluate: all distractors", lambda: found(QUERY, GALLERY, ONE, [0] * 3, [-1] * 5, SAME), "by another cam"),
    ("reid.evaluate: a query without match", lambda: found(QUERY, GALLERY, [1, 1, 9], [0] * 3, SAME, SAME), 100.0),
    ("reid.evaluate: features of length 0", lambda: found(0 * QUERY, GALLERY, ONE, [0] * 3, SAME, SAME), 100.0),
    ("reid.evaluate: NaN", lambda: found(NAN * QUERY, GALLERY, ONE, [0] * 3, SAME, SAME), "expected finite features"),
    ("reid.evaluate: no query", lambda: found(QUERY[:0], GALLERY, [], [], SAME, SAME), r"query: .* got \(0, 6\)"),
    ("reid.evaluate: no gallery", lambda: found(QUERY, GALLERY[:0], ONE, ONE, [], []), r"gallery: .* got \(0, 6\)"),
    ("retrieval.candidates: nine captions", lambda: choices(9), "number: expected at most 9"),
    ("retrieval.candidates: one choice", lambda: choices(9, number=1), "number: expected 2 or more"),
    ("retrieval.candidates: one text", lambda: choices(20, texts=["a"] * 20), "number: expected at most 1"),
    ("retrieval.r_precision: all alike", lambda: precision(1.0), 0.0),  # a tie is no success
    ("retrieval.r_precision: all infinite", lambda: precision(INF), 0.0),
    ("retrieval.r_precision: NaN", lambda: precision(NAN), "similarity: expected numbers, got NaN"),
    ("study.score: none", lambda: study.score([]), "got none"),
    ("study.score: no picture", lambda: study.score([submission()]), "expected real pictures"),
    ("study.score: no caption", lambda: study.score([submission(kind="caption")]), "expected answers, found none"),
    ("study.score: one kind", lambda: study.score([submission(("real", "real"))]), "expected generated pictures"),
    ("study.score: all wrong", lambda: study.score([submission(("real", "generated"), ("generated", "real"))]), 100.0),
    ("text_separation.separation: one photograph", lambda: separated(numbers(8), [0] * 8), "two or more photographs"),
    ("text_separation.separation: one caption each", lambda: separated(numbers(8), [*range(8)]), "two captions"),
    ("text_separation.separation: one vector", lambda: separated(torch.ones(8, 5), [0, 0, 1, 1, 2, 2, 3, 3]), 50.0),
    ("text_separation.separation: no vector", lambda: separated(torch.zeros(4, 5), [0, 0, 1, 1]), 50.0),
    ("text_separation.separation: NaN", lambda: separated(NAN * numbers(4), [0, 0, 1, 1]), "expected finite values"),
    ("oks.oks: no area", lambda: oks.oks(*plain(17, 2), np.zeros(6)), "area: expected positive areas, least is 0"),
    ("oks.oks: area NaN", lambda: oks.oks(*plain(17, 2), np.full(6, NAN)), "area: expected positive areas"),
    (
        "keypoints_2d.mpii_pckh: no head",
        lambda: keypoints_2d.mpii_pckh(*plain(16, 2), head_size=np.zeros(6)),
        "6 of 6 persons have no positive reference length",
    ),
    ("keypoints_2d.lsp_pck: no torso", lambda: keypoints_2d.lsp_pck(plain(14, 2)[0], np.ones((6, 14, 2))), "positive"),
    ("two_sample.two_sample_accuracy: ties", lambda: two_sample.two_sample_accuracy(*[plain(17, 2)[1]] * 2), 0.0),
    (
        "two_sample.two_sample_accuracy: far",
        lambda: two_sample.two_sample_accuracy(*(1e18 * poses for poses in plain(17, 2)[:2])),
        "expected positions of up to",
    ),
    ("diversity.mean_distance: one pose", lambda: diversity.mean_distance(plain(17, 2)[0][:1]), "2 or more"),
    ("diversity.mean_distance: pose of all", lambda: diversity.mean_distance(plain(17, 2)[0][[0] * 5]), 0.0),
    ("keypoints_3d.mpjpe: points", lambda: keypoints_3d.mpjpe(*[np.zeros((3, 16, 3))] * 2, align="similarity"), 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "measure", "expected"), EDGES, ids=[name for name, *_ in EDGES])
def test_promise_16_a_known_edge_has_its_value_or_sentence(
    name: str, measure: Callable[[], Any], expected: float | str
) -> None:
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected) as error:
            measure()
        assert "\n" not in str(error.value)
        return
    results = measure()
    first = results[0] if isinstance(results, list) else results
    check_sound(name, results)
    value = first.value if isinstance(first, Result) else float(first)
    assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_promise_16_a_report_of_nothing_says_so() -> None:
    nothing = Result("x", "a protocol", NAN, 0)
    assert nothing.line().startswith("x - (n=0)")
    assert nothing.as_dict()["value"] is None
    assert "nan" not in metrics.report.table([nothing]).lower()
