"""fastpose: fused kernels and five published systems for human pose, on PyTorch.

The sub-packages load on first use, so that ``import fastpose`` costs little more than ``import torch``::

    import fastpose
    heatmaps = fastpose.ops.render_gaussian_heatmaps(keypoints, size=(64, 64), sigma=1.0)
"""

from __future__ import annotations

import importlib
from types import ModuleType

from fastpose._version import __version__

_ROOMS = ("ops", "nn", "losses", "models", "data", "metrics", "visual", "training", "skeletons")

__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"fastpose.{name}")
    raise AttributeError(f"module 'fastpose' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
