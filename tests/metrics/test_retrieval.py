"""Distances of unseen poses to real and generated ones, and captions that a pose is to be told by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.metrics import retrieval


def on_a_line(*places: float) -> torch.Tensor:
    """Poses of one joint at (place, 0)."""
    return torch.tensor([[[place, 0.0]] for place in places]).view(-1, 1, 2)


def values(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


# ----------------------------------------------------------------------------------------------------------- distances


def test_distances_by_hand():
    found = retrieval.retrieval_distances(on_a_line(0, 10), on_a_line(1, 13, 90), on_a_line(-2, 14, 50))
    assert found.real.tolist() == [1, 3]
    assert found.generated.tolist() == [2, 4]
    assert values(found.results()) == {"NN distance real": 2, "NN distance generated": 3, "NN distance gap": 50}
    assert found.results()[0].count == 2


def test_the_same_poses_leave_no_gap_and_far_ones_a_large_one():
    real, unseen = torch.rand(50, 17, 2) * 64, torch.rand(20, 17, 2) * 64
    assert values(retrieval.retrieval_distances(unseen, real, real).results())["NN distance gap"] == 0
    assert values(retrieval.retrieval_distances(unseen, real, real + 500).results())["NN distance gap"] > 500
    assert values(retrieval.retrieval_distances(unseen, unseen, unseen).results())["NN distance gap"] == 0
    assert values(retrieval.retrieval_distances(unseen, unseen, unseen + 1).results())["NN distance gap"] == np.inf


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ((on_a_line(), on_a_line(1), on_a_line(1)), "unseen: expected at least one pose"),
        ((on_a_line(1), on_a_line(), on_a_line()), "real: expected at least one pose"),
        ((on_a_line(1), on_a_line(1), on_a_line(1, 2)), "generated: expected 1 poses, as many as real ones, got 2"),
        ((on_a_line(1), on_a_line(1), on_a_line(torch.nan)), "expected finite positions"),
    ],
)
def test_sets_that_do_not_fit_are_refused(poses, message):
    with pytest.raises(ValueError, match=message):
        retrieval.retrieval_distances(*poses)


# ---------------------------------------------------------------------------------------------------------- candidates


def test_candidates_are_the_own_caption_and_different_ones_of_other_photographs():
    shown = np.repeat([7, 3, 9, 4], [5, 1, 3, 2])  # 11 captions of four photographs
    images, true = np.array([7, 3, 4, 7]), np.array([2, 5, 10, 0])
    rows = retrieval.candidates(images, true, shown, number=5, seed=1)
    assert rows.shape == (4, 5)
    assert rows[:, 0].tolist() == true.tolist()
    for image, row in zip(images, rows[:, 1:].numpy(), strict=True):
        assert len(set(row.tolist())) == 4
        assert image not in shown[row]
    assert torch.equal(rows, retrieval.candidates(images, true, shown, number=5, seed=1))
    assert not torch.equal(rows, retrieval.candidates(images, true, shown, number=5, seed=2))


def test_the_words_of_the_own_photograph_are_no_wrong_choice():
    shown = np.repeat([1, 2, 3, 4], 2)
    texts = ["A cat", "a dog", "A bird", "a CAT", "a fish", "a dog", "a bird", "an owl"]
    given = (np.ones(40, int), np.zeros(40, int), shown)
    rows = retrieval.candidates(*given, texts=texts, number=5)
    assert {tuple(sorted(row)) for row in rows[:, 1:].tolist()} == {(2, 4, 6, 7)}
    fewer = retrieval.candidates(*given, texts=texts, number=3)[:, 1:]
    assert set(fewer.flatten().tolist()) == {2, 4, 6, 7}
    differ = [f"{place}" for place in range(8)]
    assert torch.equal(retrieval.candidates(*given, texts=differ, number=5), retrieval.candidates(*given, number=5))
    with pytest.raises(ValueError, match=r"number: expected at most 5, as so many captions .* in other words"):
        retrieval.candidates(*given, texts=texts, number=6)
    with pytest.raises(ValueError, match="texts: expected 8 captions as caption_images has, got 3"):
        retrieval.candidates(*given, texts=texts[:3])


def test_every_other_caption_is_drawn_as_often():
    shown = np.arange(12) // 2
    rows = retrieval.candidates(np.zeros(2000, int), np.zeros(2000, int), shown, number=3)
    counts = np.bincount(rows[:, 1:].flatten().numpy(), minlength=12)
    assert counts[:2].tolist() == [0, 0]
    assert counts[2:] == pytest.approx(np.full(10, 400), abs=75)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 1}, "number: expected 2 or more captions"),
        ({"number": 4}, "number: expected at most 3, as so many captions"),
        ({"true": [0]}, "true: expected 2 indices"),
        ({"true": [0, 4]}, "true: expected indices of the 4 captions"),
        ({"true": [0, -1]}, "true: expected indices of the 4 captions"),
        ({"images": [0.5, 1.0]}, "images: expected whole numbers"),
    ],
)
def test_candidates_refuse_what_does_not_fit(change, message):
    given = {"images": [0, 1], "true": [0, 2], "caption_images": [0, 0, 1, 1], "number": 3, **change}
    with pytest.raises(ValueError, match=message):
        retrieval.candidates(given["images"], given["true"], given["caption_images"], number=given["number"], seed=0)


# --------------------------------------------------------------------------------------------------------- R-precision


def of_table(table: torch.Tensor):
    """Similarity (n, R) from a table of all poses and captions (N, M)."""
    return lambda poses, captions: table[poses[:, None], captions]


def test_precision_by_hand():
    table = torch.tensor([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.5, 0.1, 0.5]])
    choices = torch.tensor([[0, 1, 2], [1, 0, 2], [0, 1, 2]])  # first; second; as similar as a wrong one: second
    found = retrieval.r_precision(of_table(table), choices, ranks=(1, 2, 3), block=2)
    assert values(found) == pytest.approx(
        {"R-precision@1 of 3": 100 / 3, "R-precision@2 of 3": 100, "R-precision@3 of 3": 100}
    )
    assert [result.details["chance"] for result in found] == pytest.approx([100 / 3, 200 / 3, 100])


def test_perfect_worst_and_chance():
    choices = torch.arange(400).view(40, 10)
    own = torch.zeros(40, 400)
    own[torch.arange(40), choices[:, 0]] = 1
    assert retrieval.r_precision(of_table(own), choices)[0].value == 100
    assert retrieval.r_precision(of_table(-own), choices)[0].value == 0
    assert retrieval.r_precision(of_table(torch.zeros(40, 400)), choices)[0].value == 0  # knows nothing, gains nothing
    noise = torch.rand(2000, 10, generator=torch.Generator().manual_seed(0))
    guessed = retrieval.r_precision(lambda poses, captions: noise[poses], torch.zeros(2000, 10, dtype=torch.long))
    assert guessed[0].value == pytest.approx(10, abs=2)


@pytest.mark.parametrize(
    ("similarity", "choices", "options", "message"),
    [
        (None, torch.zeros(3, dtype=torch.long), {}, "choices: expected whole numbers"),
        (None, torch.zeros(3, 2), {}, "choices: expected whole numbers"),
        (None, torch.zeros(0, 2, dtype=torch.long), {}, "choices: expected whole numbers"),
        (None, torch.zeros(3, 2, dtype=torch.long), {"ranks": (3,)}, "ranks: expected numbers from 1 to 2"),
        (lambda p, c: torch.zeros(1), torch.zeros(3, 2, dtype=torch.long), {}, r"similarity: expected \(3, 2\)"),
        (lambda p, c: c * torch.nan, torch.zeros(3, 2, dtype=torch.long), {}, "similarity: expected numbers, got NaN"),
    ],
)
def test_precision_refuses_what_does_not_fit(similarity, choices, options, message):
    with pytest.raises(ValueError, match=message):
        retrieval.r_precision(similarity, choices, **options)
