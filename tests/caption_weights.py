"""Weights of tiny generators of poses, and an encoder that knows every caption."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from drawing_weights import save

FINGERPRINT = "0123456789abcdef"


class Encoder:
    """Vectors of 12 numbers that depend on the text alone."""

    name, size = "toy", 12

    def __init__(self, fingerprint: str = FINGERPRINT, size: int = 12) -> None:
        self.fingerprint, self.size = fingerprint, size

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(0, 0.1, self.size) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.size)


def captioned(folder: Path, *overrides: str, **about: object) -> Path:
    """Write weights of a conditional generator, trained with `Encoder` as it were."""
    own = ("text.encoder=", "text.size=12", f"text.fingerprint={FINGERPRINT}")
    return save(folder, "caption/tiny", *own, *overrides, **about)


def plain(folder: Path, **about: object) -> Path:
    """Write weights of an unconditional generator."""
    (folder / "plain").mkdir()
    return save(folder / "plain", "caption/tiny", "text.encoder=", "model.conditional=no", **about)
