"""mAP and CMC of re-identification: by hand, and against the protocol written as a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.metrics import reid
from fastpose.metrics.reid import Labels


def line(*places: float) -> torch.Tensor:
    """Features on a line: the euclidean order of a query at 0 is that of the places."""
    return torch.tensor([[place] for place in places])


def values(results) -> dict[str, float]:
    return {result.name: result.value for result in results}


def one_query(places, identities, cameras, **options):
    """A query at 0 of identity 1 and camera 1."""
    labels = Labels([1], [1]), Labels(identities, cameras)
    return reid.evaluate(line(0), line(*places), *labels, similarity="euclidean", **options)


def test_by_hand():
    # order: right, wrong, right, wrong; precision at the hits 1 and 2/3, before them 1 and 1/2
    results = one_query([1, 2, 3, 4], [1, 2, 1, 3], [2, 2, 2, 2])
    assert values(results) == pytest.approx(
        {"mAP": 100 * (1 + (2 / 3 + 1 / 2) / 2) / 2, "rank-1": 100, "rank-5": 100, "rank-10": 100}
    )
    hits = one_query([1, 2, 3, 4], [1, 2, 1, 3], [2, 2, 2, 2], precision="hits")
    assert hits[0].value == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_junk_is_taken_out_and_distractors_stay():
    # the query's own camera and identity -1 come first and do not count; the distractor 0 does
    results = one_query([1, 2, 3, 4], [1, -1, 0, 1], [1, 3, 1, 2], ranks=(1, 2))
    assert values(results) == pytest.approx({"mAP": 100 * (1 / 2 + 0) / 2, "rank-1": 0, "rank-2": 100})


def test_perfect_and_worst():
    perfect = one_query([1, 2, 3, 4], [1, 1, 2, 3], [2, 3, 2, 2])
    assert set(values(perfect).values()) == {100}
    worst = one_query(range(1, 13), [2] * 11 + [1], [2] * 12)
    assert values(worst) == pytest.approx({"mAP": 100 / 24, "rank-1": 0, "rank-5": 0, "rank-10": 0})


def test_equal_features_gain_nothing():
    identities, cameras = [1, *[2] * 9], [2] * 10
    assert one_query([5] * 10, identities, cameras, precision="hits")[0].value == pytest.approx(10)
    assert one_query([5] * 10, identities, cameras)[1].value == 0


def test_queries_without_another_image_are_left_out():
    labels = Labels([1, 7, -1], [1, 1, 1]), Labels([1, 7, -1], [2, 1, 2])
    results = reid.evaluate(torch.eye(3), torch.eye(3), *labels)
    assert (results[0].count, results[0].details["queries_left_out"]) == (1, 2)
    with pytest.raises(ValueError, match="expected a query with an image of its identity by another camera"):
        reid.evaluate(torch.eye(1), torch.eye(1), Labels([7], [1]), Labels([7], [1]))


def plain(query, gallery, who, others, similarity, ranks):
    """The protocol as loops over an order that is written out."""
    precisions, found = [], dict.fromkeys(ranks, 0)
    for feature, identity, camera in zip(query, who.identities, who.cameras, strict=True):
        if similarity == "cosine":
            scores = gallery @ feature / (np.linalg.norm(gallery, axis=1) * np.linalg.norm(feature))
        else:
            scores = -np.linalg.norm(gallery - feature, axis=1)
        order = [
            int(others.identities[index]) == identity
            for index in np.argsort(-scores)
            if others.identities[index] != -1
            and not (others.identities[index] == identity and others.cameras[index] == camera)
        ]
        if not any(order):
            continue
        hits, area, before = 0, 0.0, 1.0
        for place, right in enumerate(order, start=1):
            hits += right
            area += right * (before + hits / place) / 2 / sum(order)
            before = hits / place
        precisions.append(area)
        for rank in ranks:
            found[rank] += any(order[:rank])
    share = {f"rank-{rank}": 100 * count / len(precisions) for rank, count in found.items()}
    return {"mAP": 100 * float(np.mean(precisions)), **share}


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
def test_against_a_plain_loop_over_several_blocks(similarity, monkeypatch):
    monkeypatch.setattr(reid, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    people = rng.integers(1, 9, 31)
    who = Labels(people, rng.integers(1, 4, 31))
    others = Labels(np.concatenate([rng.integers(-1, 9, 150)]), rng.integers(1, 4, 150))
    centres = rng.normal(size=(10, 6))
    query = centres[people] + rng.normal(size=(31, 6))
    gallery = centres[np.asarray(others.identities)] + rng.normal(size=(150, 6))
    results = reid.evaluate(query, torch.from_numpy(gallery), who, others, similarity=similarity, ranks=(1, 3))
    expected = plain(query, gallery, who, others, similarity, (1, 3))
    assert values(results) == pytest.approx(expected, abs=1e-4)
    assert 5 < expected["mAP"] < 95


def crowd(count: int, seed: int) -> tuple[torch.Tensor, Labels]:
    """Features of eight persons, in the same places whatever the seed."""
    rng, centres = np.random.default_rng(seed), np.random.default_rng(5).normal(size=(9, 16))
    people = rng.integers(1, 9, count)
    features = torch.from_numpy(centres[people] + rng.normal(size=(count, 16))).float()
    return features, Labels(people, rng.integers(1, 4, count))


def test_a_shift_of_all_features_changes_no_distance():
    (query, who), (gallery, others) = crowd(20, 1), crowd(200, 2)
    query, gallery = (torch.round(features * 1024) / 1024 for features in (query, gallery))  # exact after the shift
    near, far = (
        reid.evaluate(query + shift, gallery + shift, who, others, similarity="euclidean") for shift in (0, 1000)
    )
    assert values(far) == values(near)
    assert 5 < near[0].value < 95


@pytest.mark.parametrize("similarity", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1e37, 1e-37])
def test_large_and_small_features_are_compared_as_others_are(similarity, scale):
    (query, who), (gallery, others) = crowd(20, 1), crowd(200, 2)
    plain, scaled = (
        reid.evaluate(query * factor, gallery * factor, who, others, similarity=similarity) for factor in (1, scale)
    )
    assert values(scaled) == pytest.approx(values(plain), abs=1e-6)


def test_features_that_no_number_can_compare_are_refused():
    query, labels = np.full((1, 2), 1e200), (Labels([1], [1]), Labels([1, 2], [2, 2]))
    gallery = np.array([[1e200, 0], [0, 1e200]])
    with pytest.raises(ValueError, match="expected features whose squares are finite"):
        reid.evaluate(query, gallery, *labels, similarity="euclidean")
    assert reid.evaluate(query, gallery, *labels)[0].count == 1


def test_inputs_stay_as_they_are():
    query = torch.full((2, 3), 2.0)
    reid.evaluate(query, query, Labels([1, 2], [1, 1]), Labels([1, 2], [2, 2]))
    assert query.eq(2).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"query": torch.zeros(3)}, ValueError, r"query: expected features \(N, D\), got \(3,\)"),
        ({"gallery": torch.zeros(2, 4)}, ValueError, r"gallery: expected \(G, 3\) as the query has, got \(2, 4\)"),
        ({"gallery": torch.full((2, 3), torch.nan)}, ValueError, "gallery: expected finite features"),
        ({"query": np.array([["a"]])}, TypeError, "features: expected numbers"),
        ({"query_labels": Labels([1], [1, 1])}, ValueError, "query_labels.identities: expected 2 integers"),
        ({"gallery_labels": Labels([1, 2], [1.0, 2.0])}, ValueError, "gallery_labels.cameras: expected 2 integers"),
        ({"similarity": "cosin"}, ValueError, "did you mean 'cosine'"),
        ({"precision": "area"}, ValueError, "precision: expected one of trapezoid, hits"),
        ({"ranks": (0,)}, ValueError, "ranks: expected numbers from 1 on"),
    ],
)
def test_bad_arguments_are_one_sentence(change, error, message):
    given = {"query": torch.eye(2, 3), "gallery": torch.eye(2, 3)}
    given |= {"query_labels": Labels([1, 2], [1, 1]), "gallery_labels": Labels([1, 2], [2, 2])}
    with pytest.raises(error, match=message):
        reid.evaluate(**{**given, **change})
