"""Histograms of several samples over each other, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastpose.visual import _plots, curves
from fastpose.visual._canvas import Image, as_array


def histogram(samples: Mapping[str, Any], *, title: str = "", xlabel: str = "distance", bins: int = 40) -> Image:
    """Return a picture (H, W, 3) of how often which values occur in each of several samples.

    The samples share their bins, are shown in percent of each, and a line marks each mean, which the legend tells.

    Args:
        samples: values (N,) by label, in the order of the legend.
        title, xlabel: texts.
        bins: of the range of all values.

    Raises:
        ValueError: no sample, one that is empty or not finite, or no bin.
    """
    values = {label: _finite(label, sample) for label, sample in samples.items()}
    if not values:
        raise ValueError("samples: expected at least one, got none")
    if bins < 1:
        raise ValueError(f"bins: expected 1 or more, got {bins}")
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    figure, (axis,) = _plots.panels(1, "")
    for index, (label, sample) in enumerate(values.items()):
        colour = curves.COLOURS[index % len(curves.COLOURS)]
        share = np.full(len(sample), 100 / len(sample))
        name = f"{label}: mean {sample.mean():.4g}"
        axis.hist(sample, edges, weights=share, color=colour, alpha=0.35, lw=0)
        axis.hist(sample, edges, weights=share, color=colour, histtype="step", lw=1.6, label=name)
        axis.axvline(sample.mean(), color=colour, lw=1, ls=(0, (4, 3)))
    axis.set_ylabel("share, %")
    _plots.dress(axis, title, xlabel, legend=True)
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3].copy()


def _finite(label: str, sample: Any) -> np.ndarray:
    values = as_array(sample).astype(np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"samples[{label!r}]: expected finite values (N,), got {values.shape} or some that are not")
    return values
