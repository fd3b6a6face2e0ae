"""Histograms: what is drawn where, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastpose.visual.curves import COLOURS
from fastpose.visual.histograms import histogram


def inked(picture: np.ndarray, colour: str) -> np.ndarray:
    """Return in which columns of the plot a colour occurs."""
    rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    near = (np.abs(picture.astype(int) - rgb) < 12).all(-1)
    return np.flatnonzero(near[100:].any(0))  # the legend lies above


def test_samples_lie_where_their_values_are():
    rng = np.random.default_rng(0)
    picture = histogram({"low": rng.normal(10, 1, 500), "high": torch.from_numpy(rng.normal(50, 1, 80))}, title="x")
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    low, high = (inked(picture, colour) for colour in COLOURS[:2])
    assert low.min() < picture.shape[1] * 0.25
    assert high.max() > picture.shape[1] * 0.85
    assert np.median(low) < np.median(high)


def test_one_value_alone_is_a_picture():
    assert histogram({"constant": np.zeros(3)}, bins=5).any()


@pytest.mark.parametrize(
    ("samples", "bins", "message"),
    [
        ({}, 5, "samples: expected at least one"),
        ({"a": np.zeros(0)}, 5, r"samples\['a'\]: expected finite values"),
        ({"a": np.zeros((2, 2))}, 5, r"samples\['a'\]: expected finite values"),
        ({"a": np.array([1.0, np.nan])}, 5, r"samples\['a'\]: expected finite values"),
        ({"a": np.zeros(2)}, 0, "bins: expected 1 or more"),
    ],
)
def test_bad_samples_are_one_sentence(samples, bins, message):
    with pytest.raises(ValueError, match=message):
        histogram(samples, bins=bins)
