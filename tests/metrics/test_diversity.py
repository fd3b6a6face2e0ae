"""Diversity: a set like the real one, a collapsed one, and what the real set itself has."""

from __future__ import annotations

import pytest
import torch

from fastpose.metrics import diversity, two_sample


def poses(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 64, (count, 17, 2), generator=torch.Generator().manual_seed(seed)).float()


def rows(results) -> dict[str, tuple[float, float]]:
    """Value and the real set's, by the last word of the name."""
    return {result.name.removeprefix("diversity "): (result.value, result.details["real"]) for result in results}


def test_a_set_like_the_real_one():
    found = rows(diversity.diversity(poses(200, 1), poses(200, 2)))
    for own, real in found.values():
        assert own == pytest.approx(real, rel=0.15)
    assert found["duplicates"] == (0, 0)


def test_a_collapsed_set():
    real, fake = poses(50, 1), poses(1, 2).repeat(50, 1, 1)
    found = rows(diversity.diversity(real, fake, two_sample.neighbours(real, fake)))
    assert found["distance"][0] == 0
    assert found["coverage"][0] == 100 / 50  # all are nearest to one and the same real pose
    assert found["duplicates"] == (100, 0)
    assert found["distance"][1] > 300


def test_coverage_and_duplicates_by_hand():
    real = torch.tensor([0.0, 10, 20, 90]).view(4, 1, 1).repeat(1, 1, 2)
    fake = torch.tensor([1.0, 2, 50, 91]).view(4, 1, 1).repeat(1, 1, 2)
    found = rows(diversity.diversity(real, fake, duplicate=2.0))
    assert found["coverage"] == (75, 75)  # 0, 20 and 90; to another real one: 10, 0, 10, 20
    assert found["duplicates"] == (50, 0)
    assert rows(diversity.diversity(real, fake, duplicate=1.0))["duplicates"] == (0, 0)


def test_mean_distance_over_all_pairs_and_over_some():
    many = poses(120, 3)
    distances = torch.linalg.vector_norm(many[:, None] - many[None], dim=-1).sum(-1)
    mean = distances.sum().item() / (120 * 119)
    assert diversity.mean_distance(many) == pytest.approx(mean)
    some = diversity.mean_distance(many, pairs=5000, seed=4)
    assert some == pytest.approx(mean, rel=0.02)
    assert some != pytest.approx(mean, rel=1e-9)
    assert some == diversity.mean_distance(many, pairs=5000, seed=4) != diversity.mean_distance(many, pairs=5000)


def test_mean_distance_is_per_pose():
    two = torch.zeros(2, 17, 2)
    two[1] = torch.tensor([3.0, 4.0])
    assert diversity.mean_distance(two) == 17 * 5


@pytest.mark.parametrize(
    ("real", "fake", "options", "message"),
    [
        (poses(3, 1), poses(4, 1), {}, "fake: expected 3 poses"),
        (poses(1, 1), poses(1, 1), {}, "expected 2 or more poses"),
        (poses(3, 1), poses(3, 1), {"duplicate": -1.0}, "duplicate: expected pixels, 0 or more, got -1"),
    ],
)
def test_bad_sets_are_refused(real, fake, options, message):
    with pytest.raises(ValueError, match=message):
        diversity.diversity(real, fake, **options)


def test_mean_distance_needs_two_poses():
    with pytest.raises(ValueError, match="poses: expected 2 or more"):
        diversity.mean_distance(poses(1, 0))
