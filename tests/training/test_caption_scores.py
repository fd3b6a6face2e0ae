"""Scores of generated poses on made-up people: three ways of standing, each with words of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.data.captions import CaptionedPoses
from fastpose.metrics import text_separation, two_sample
from fastpose.training import caption_matcher, caption_scores
from fastpose.training.caption_scores import CaptionScoreConfig, CaptionScorer

KINDS = 12
NAMES = (
    "1-NN accuracy",
    "1-NN real",
    "1-NN generated",
    "1-NN off 50 %",
    "diversity distance",
    "diversity coverage",
    "diversity duplicates",
)
SPOKEN = ("R-precision@1 of 5", "caption separation")
DISTANCES = ("NN distance real", "NN distance generated", "NN distance gap")


def bodies(kinds: np.ndarray, seed: int) -> np.ndarray:
    """Return poses (N, 17, 2), each near the one that its kind has."""
    means = np.random.default_rng(7).uniform(4, 60, (KINDS, 17, 2))
    return means[kinds] + np.random.default_rng(seed).normal(0, 2.0, (len(kinds), 17, 2))


def people(count: int, seed: int, captions: int = 2, first_image: int = 0, silent: int = 0) -> CaptionedPoses:
    """Return poses of kinds in turn, each alone on a photograph with captions that tell its kind; some without."""
    kinds = np.arange(count) % KINDS
    images = first_image + np.arange(count)
    number = np.where(np.arange(count) < count - silent, captions, 0)
    return CaptionedPoses(
        name="made-up",
        split="train",
        keypoints=bodies(kinds, seed).astype(np.float32),
        visibility=np.full((count, 17), 2, np.uint8),
        boxes=np.tile([0.0, 0, 64, 64], (count, 1)),
        image_ids=images,
        person_ids=images,
        captions=tuple(f"{kind}" for kind, own in zip(kinds, number, strict=True) for _ in range(own)),
        caption_image=np.repeat(images, number),
        first=np.cumsum(number) - number,
        count=number,
    )


def vectors(source: CaptionedPoses) -> torch.Tensor:
    """Return a vector for each caption: its kind, and something of its own."""
    kinds = torch.tensor([int(caption) for caption in source.captions])
    draw = torch.Generator().manual_seed(len(kinds))
    return torch.nn.functional.one_hot(kinds, KINDS) + 0.1 * torch.randn(len(kinds), KINDS, generator=draw)


def obedient(table, count, seed):
    """Make poses of the kind that the vector says, or of any."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(KINDS, size=count) if table is None else table.argmax(1).numpy()
    points = torch.from_numpy(bodies(kinds, seed + 1000)).float().clamp(0, 63).round()
    return points, torch.ones(count, 17, dtype=torch.bool)


def deaf(table, count, seed):
    """Make poses of any kind, whatever the vector says."""
    return obedient(None, count, seed)


def stuck(table, count, seed):
    """Make one pose alone."""
    return torch.full((count, 17, 2), 20.0), torch.ones(count, 17)


def values(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


@pytest.fixture(scope="module")
def scorer():
    config = CaptionScoreConfig(samples=120, r_precision=5)
    found = CaptionScorer(people(240, 1), people(48, 2, first_image=500), config, vectors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caption_matcher, "STEPS", 60)
        found.matcher()
    return found


@pytest.fixture(scope="module")
def evaluations(scorer):
    return {make.__name__: scorer.evaluate(make) for make in (obedient, deaf, stuck)}


# ------------------------------------------------------------------------------------------------------------ measures


def test_results_have_their_names_and_a_sentence_each(evaluations):
    for evaluation in evaluations.values():
        assert tuple(result.name for result in evaluation.results) == (*NAMES, *DISTANCES, *SPOKEN)
        assert all(len(result.protocol) > 40 and "\n" not in result.protocol for result in evaluation.results)
        assert len({result.protocol for result in evaluation.results}) == len(evaluation.results)


def test_poses_of_the_same_distribution(evaluations):
    found = values(evaluations["obedient"].results)
    assert found["1-NN off 50 %"] < 12
    assert abs(found["NN distance gap"]) < 6
    assert found["diversity duplicates"] == 0


def test_one_pose_alone(evaluations):
    found = values(evaluations["stuck"].results)
    assert found["1-NN generated"] == 100
    assert found["NN distance gap"] > 100
    assert found["diversity distance"] == 0
    assert found["diversity coverage"] < 1
    assert found["diversity duplicates"] == 100


def test_who_listens_is_found_by_the_caption(evaluations):
    own, others = (evaluations[name].results[-2] for name in ("obedient", "deaf"))
    assert own.details == {"chance": 20, "real": own.details["real"]}
    assert own.details["real"] > 60
    assert own.value > 60
    assert others.value < 45


def test_the_same_every_time_and_without_a_trace(scorer, evaluations):
    before = torch.get_rng_state()
    assert values(scorer.evaluate(obedient).results) == values(evaluations["obedient"].results)
    assert torch.equal(torch.get_rng_state(), before)


def test_real_poses_are_seen_as_their_maps_show_them(scorer):
    points, present = scorer._real.seen
    assert present.all()
    assert points.eq(points.round()).all()
    assert points.min() >= 0
    assert points.max() <= 63


def test_by_heart_is_no_success():
    train = people(100, 1)
    config = CaptionScoreConfig(samples=0, retrieval=False)
    points, present = CaptionScorer(train, None, config)._real.seen

    def parrot(table, count, seed):
        return points[:count], present[:count]

    assert values(caption_scores.score(parrot, train, None, config))["1-NN accuracy"] == 0


def test_without_captions_and_without_validation():
    train = people(100, 1, captions=0)
    asked = []

    def counted(table, count, seed):
        asked.append((table, count, seed))
        return obedient(table, count, seed)

    whole = caption_scores.score(counted, train, people(24, 2), CaptionScoreConfig(samples=0))
    assert tuple(values(whole)) == (*NAMES, *DISTANCES)
    assert asked == [(None, 100, asked[0][2])]
    assert tuple(values(caption_scores.score(obedient, train, None, CaptionScoreConfig()))) == NAMES


def test_poses_are_asked_for_in_blocks_with_seeds_of_their_own(monkeypatch):
    monkeypatch.setattr(caption_scores, "BLOCK", 30)
    asked = []

    def counted(table, count, seed):
        asked.append((tuple(table.shape), count, seed))
        return obedient(table, count, seed)

    config = CaptionScoreConfig(samples=70, retrieval=False, r_precision=0)
    caption_scores.score(counted, people(80, 1, silent=20), None, config, vectors)  # 60 have a caption
    assert [each[:2] for each in asked] == [((30, KINDS), 30)] * 2
    assert len({seed for _, _, seed in asked}) == 2


def test_each_pose_is_made_for_a_caption_of_its_own_photograph(scorer):
    own, poses = scorer.train, scorer._real
    assert (own.caption_image[poses.caption] == own.image_ids[poses.rows]).all()
    assert len(set((poses.caption - own.first[poses.rows]).tolist())) == 2  # not always the first


def test_what_generates_something_else_is_told(scorer):
    with pytest.raises(ValueError, match="generate: expected 120 poses as points"):
        scorer.evaluate(lambda table, count, seed: (torch.zeros(3, 17, 2), torch.ones(3, 17)))
    with pytest.raises(ValueError, match="finite positions"):
        scorer.evaluate(lambda table, count, seed: (torch.full((count, 17, 2), torch.nan), torch.ones(count, 17)))


@pytest.mark.parametrize(
    ("train", "validation", "change", "captioned", "message"),
    [
        (1, None, {}, False, "test: expected 2 or more training poses to compare with, got 1"),
        (
            9,
            None,
            {"monitor": "NN distance generated"},
            False,
            "test.monitor: .* needs validation poses, and",
        ),
        (
            9,
            4,
            {"monitor": "R-precision@1 of 10"},
            False,
            "test.monitor: .* needs captions, and model",
        ),
        (9, 4, {}, True, "test.r_precision: expected at most 7, as so many captions are of other photographs"),
        (
            9,
            0,
            {},
            True,
            "test.retrieval, test.r_precision: expected validation poses with captions, found none",
        ),
        (9, 0, {"r_precision": 0}, True, "test.retrieval, .* found none among 3"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(train, validation, change, captioned, message):
    def unwanted(source):
        raise AssertionError("vectors cost time, and are not needed to say so")

    unseen = None if validation is None else people(validation + 3, 2, first_image=500, silent=3)
    with pytest.raises(ValueError, match=f"^{message}"):
        CaptionScorer(people(train, 1), unseen, CaptionScoreConfig(**change), unwanted if captioned else None)


def test_a_scorer_is_made_without_drawing_maps_or_asking_for_vectors(monkeypatch):
    monkeypatch.setattr(caption_scores, "_seen", None)
    CaptionScorer(people(20, 1), people(12, 2, first_image=500), CaptionScoreConfig(), lambda source: None)
    silent = people(3, 2, captions=0, first_image=500)  # nothing is asked of them
    CaptionScorer(people(20, 1), silent, CaptionScoreConfig(retrieval=False, r_precision=0), lambda source: None)


def test_no_wrong_caption_has_the_words_of_the_own_photograph(scorer):
    said = scorer._unseen.source.captions
    assert all(said[row[0]] not in {said[other] for other in row[1:]} for row in scorer._choices.tolist())


# ----------------------------------------------------------------------------------------------------- pictures, config


def test_histograms(scorer, evaluations):
    separation = scorer.separation()
    assert separation.result().value > 90
    pictures = caption_scores.pictures(evaluations["deaf"], separation)
    assert set(pictures) == {"nearest_distances", "caption_distances"}
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pictures.values())
    assert caption_scores.pictures(evaluations["deaf"]._replace(retrieval=None)) == {}
    assert CaptionScorer(people(10, 1), None, CaptionScoreConfig()).separation() is None
    once = CaptionScorer(people(10, 1, captions=1), None, CaptionScoreConfig(), vectors)
    assert once.separation() is None  # no photograph has two captions


def test_what_tells_the_best_weights():
    assert caption_scores.monitor(CaptionScoreConfig()) == ("1-NN off 50 %", "min")
    config = CaptionScoreConfig(r_precision=7, monitor="R-precision@1 of 7")
    assert caption_scores.monitor(config) == ("R-precision@1 of 7", "max")
    with pytest.raises(ValueError, match=r"test\.monitor: 'R-precision@1 of 7' needs captions"):
        caption_scores.monitor(config, captioned=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 1}, "test.samples: expected 2 or more poses, or 0 for all, got 1"),
        ({"samples": -3}, "test.samples: expected"),
        ({"threshold": 1.5}, "test.threshold: expected a height from 0 to 1, got 1.5"),
        ({"r_precision": 1}, "test.r_precision: expected 2 or more captions"),
        ({"seed": -1}, "test.seed: expected 0 or more, got -1"),
        ({"monitor": "1-NN of 50 %"}, "test.monitor: expected one of .*; did you mean '1-NN off 50 %'"),
        ({"monitor": "NN distance generated", "retrieval": False}, "test.monitor: expected one of"),
    ],
)
def test_bad_sections_are_one_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        CaptionScoreConfig(**change)


# ------------------------------------------------------------------------------------------------------------- matcher


def fitted(source: CaptionedPoses, **options):
    points, count = torch.from_numpy(source.keypoints), torch.from_numpy(source.count)
    spoken = torch.from_numpy(source.first), count
    images = torch.from_numpy(source.image_ids)
    return caption_matcher.fit(points, torch.ones(points.shape[:2]), vectors(source), spoken, images, **options)


def test_a_matcher_is_a_function_of_its_seed():
    source, before = people(60, 1), torch.get_rng_state()
    first, again, other = (fitted(source, steps=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    table = vectors(source)
    embedded = [matcher.embed_texts(table) for matcher in (first, again, other)]
    assert torch.equal(embedded[0], embedded[1])
    assert not torch.equal(embedded[0], embedded[2])
    assert torch.allclose(embedded[0].norm(dim=1), torch.ones(len(table)))
    assert not any(parameter.requires_grad for parameter in first.parameters())


def test_a_matcher_sees_nothing_of_absent_joints():
    matcher = fitted(people(30, 1), steps=1)
    points, present = torch.rand(4, 17, 2) * 64, torch.rand(4, 17) > 0.5
    elsewhere = torch.where(present[..., None], points, torch.nan)
    assert torch.equal(matcher.embed_poses(points, present), matcher.embed_poses(elsewhere, present))
    there = two_sample.positions(points, present)  # in the middle, and yet there
    assert not torch.allclose(matcher.embed_poses(there, torch.ones(4, 17)), matcher.embed_poses(points, present))


def test_a_matcher_needs_captions():
    with pytest.raises(ValueError, match="captions: expected two or more poses, each with a caption"):
        fitted(people(30, 1, silent=1))
    with pytest.raises(ValueError, match="vectors: expected those of the captions"):
        CaptionScorer(people(10, 1), None, CaptionScoreConfig()).matcher()


def test_separation_is_that_of_the_training_captions(scorer):
    own = text_separation.separation(vectors(scorer.train), scorer.train.caption_image)
    assert torch.equal(scorer.separation().same, own.same)
    assert scorer.separation() is scorer.separation()


def test_separation_is_reported_beside_the_scores(scorer, evaluations):
    assert evaluations["deaf"].results[-1] == scorer.separation().result()
