"""Captions as the vectors that the networks of system 004 see: which encoder, and a table of a data set's captions."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastpose.training.caption_config import VECTOR_SIZE, CaptionConfig, TextConfig

if TYPE_CHECKING:
    from fastpose.data.captions import CaptionedPoses
    from fastpose.data.text import TextEncoder

BLOCK = 1024
"""Captions that are encoded at a time."""
PATIENCE = 10.0
"""Seconds after which the first hint comes, and every further one."""

_log = logging.getLogger("fastpose.training")


def create(config: TextConfig) -> TextEncoder:
    """Return the encoder that a section ``text`` names.

    Raises:
        ValueError: none named, or no such one; the sentence says what to install or pass.
        FileNotFoundError: no such file.
        ImportError: an encoder of a package that is not installed.
    """
    from fastpose.data import text

    return text.create(config.encoder, lower=config.lower)


def size(config: TextConfig) -> int:
    """Return the numbers of a vector as the networks are built for it."""
    return config.size or VECTOR_SIZE


def check_encoder(encoder: TextEncoder | None, config: CaptionConfig) -> None:
    """Raise ``ValueError`` unless an encoder gives the vectors that a configuration's networks know.

    Args:
        encoder: of a conditional model, None of an unconditional one.
        config: that of the weights, as `systems.load_network` returns it: it holds the encoder's size and fingerprint.
    """
    known = config.text
    if not config.model.conditional:
        if encoder is not None:
            raise ValueError(f"text encoder: expected none, as the model sees no captions, got {encoder.name}")
        return
    named = f" (text.encoder={known.encoder})" if known.encoder else ""
    if encoder is None:
        raise ValueError(f"text encoder: expected the one of the training{named}, got none; pass it")
    if known.size and encoder.size != known.size:
        raise ValueError(
            f"text encoder: expected vectors of {known.size} numbers, as the model knows{named}, got {encoder.size} of "
            f"{encoder.name}; pass the encoder of the training"
        )
    if known.fingerprint and encoder.fingerprint != known.fingerprint:
        raise ValueError(
            f"text encoder: expected the one of the training{named}, fingerprint {known.fingerprint}, got "
            f"{encoder.name}, fingerprint {encoder.fingerprint}; pass that one"
        )


def completed(config: CaptionConfig, encoder: TextEncoder | None) -> CaptionConfig:
    """Return a configuration that says what its section ``text`` leaves to the encoder: size and fingerprint."""
    if encoder is None:
        return config
    return replace(config, text=replace(config.text, size=encoder.size, fingerprint=encoder.fingerprint))


def encode(encoder: TextEncoder, captions: Sequence[str], config: TextConfig, *, what: str = "captions") -> np.ndarray:
    """Return the vectors (N, T) of N captions as the networks see them, float32, times ``config.scale``.

    Each different caption is encoded once. A line in the log says how far it is where it takes long (``what``).

    Raises:
        ValueError: an encoder that gives something other than finite vectors of its size.
    """
    different, rows = _different(captions)
    vectors = np.empty((len(different), encoder.size), np.float32)
    began = said = time.monotonic()
    for first in range(0, len(different), BLOCK):
        block = different[first : first + BLOCK]
        vectors[first : first + len(block)] = _checked(encoder, block)
        done, now = first + len(block), time.monotonic()
        if now - said > PATIENCE and done < len(different):
            left = (now - began) / done * (len(different) - done)
            _log.warning(
                "%s: %d of %d are vectors, about %d s left; 'fastpose data encode' keeps them in a file for all runs",
                what,
                done,
                len(different),
                left,
            )
            said = now
    return vectors[rows] * np.float32(config.scale)


def _different(captions: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Return the different captions in order of appearance, and for each caption the number of its own."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(caption, len(numbers)) for caption in captions]
    return list(numbers), np.array(rows, np.int64)


def _checked(encoder: TextEncoder, captions: list[str]) -> np.ndarray:
    vectors: Any = encoder(captions)
    expected = (len(captions), encoder.size)
    if getattr(vectors, "shape", None) != expected or not np.isfinite(vectors).all():
        found = getattr(vectors, "shape", type(vectors).__name__)
        raise ValueError(f"text encoder {encoder.name}: expected finite vectors {expected}, got {found}")
    return vectors


class Tables:
    """The vectors (M, T) of the captions of data sets as the networks see them, computed once for each set.

    Args:
        encoder: of the captions.
        config: the section ``text``.
    """

    def __init__(self, encoder: TextEncoder | None, config: TextConfig) -> None:
        self.encoder, self.config = encoder, config
        self._known: dict[str, Tensor] = {}

    def of(self, source: CaptionedPoses, like: Tensor | None = None) -> Tensor:
        """Return the vectors of ``source.captions``; they move to the device and type of ``like`` and stay there."""
        known = self._known.get(source.fingerprint)
        if known is None:
            if self.encoder is None:
                raise ValueError("text encoder: expected one, as these captions are to become vectors, got none")
            what = f"captions of {source.name} {source.split}"
            known = torch.from_numpy(encode(self.encoder, source.captions, self.config, what=what))
        self._known[source.fingerprint] = known if like is None else known.to(like)
        return self._known[source.fingerprint]
