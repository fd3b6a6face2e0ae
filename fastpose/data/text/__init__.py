"""Texts as vectors: the encoders that captions go through, by name or file.

Every encoder gives float32 vectors (N, T), not scaled; system 004 multiplies fastText's by 30 before its networks see
them. ``create`` finds one; ``save_vectors`` keeps the vectors of a data set's captions in a file that needs no encoder.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastpose._checks import nearest
from fastpose.data.text.encoder import TextEncoder
from fastpose.data.text.precomputed import Precomputed, key, save_vectors

__all__ = ["NAMES", "Precomputed", "TextEncoder", "create", "key", "save_vectors"]

NAMES = ("minilm", "sample")
"""Encoders that need no file of the user's."""
SUFFIXES = (".bin", ".npz", ".vec")
"""Files that hold an encoder's vectors."""


def create(spec: str, *, lower: bool = True, device: str = "cpu") -> TextEncoder:
    """Return the encoder that ``spec`` names: "minilm", "sample", or a file .vec, .bin (both fastText's) or .npz.

    "minilm" is the sentence-transformer all-MiniLM-L6-v2 (384 numbers) of the ``text`` extra; "sample" the bundled
    vectors of the bundled captions, which minilm made; .npz the vectors that ``save_vectors`` or
    ``fastpose data encode`` wrote.

    Args:
        spec: a name or a path (``~`` is the home folder).
        lower: whether fastText sees the texts in lower case, as its published vectors of English are trained; the
            others do not tell case apart.
        device: where minilm computes.

    Raises:
        ValueError: no such encoder, or a file that is none; the sentence says what to install or pass.
        FileNotFoundError: no such file.
        ImportError: minilm without the ``text`` extra.
    """
    if not isinstance(spec, str):
        raise TypeError(f"text.encoder: expected a name or a path as text, got {type(spec).__name__}")
    if spec == "minilm":
        from fastpose.data.text.minilm import MiniLM

        return MiniLM(device=device)
    if spec == "sample":
        from fastpose.data import sample

        return Precomputed(sample.FOLDER / "caption_vectors.npz")
    return _of_file(_path(spec), lower)


def _path(spec: str) -> Path:
    """Return the path of a file with vectors; ``ValueError`` for what is neither a name nor such a file."""
    ways = 'minilm (pip install "fastpose[text]"), sample, or a file .vec, .bin or .npz'
    if not spec:
        raise ValueError(f"text.encoder: captions need a text encoder; pass {ways}")
    path = Path(spec).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"text.encoder: unknown encoder {spec!r}" + (nearest(spec, NAMES) or f"; expected {ways}"))
    if not os.path.isfile(path):  # also of names that are too long for any file
        raise FileNotFoundError(f"text.encoder: {path}: no such file; pass {ways}")
    return path


def _of_file(path: Path, lower: bool) -> TextEncoder:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return Precomputed(path)
    if suffix == ".bin":
        from fastpose.data.text.fasttext import FastText

        return FastText(path, lower=lower)
    from fastpose.data.text.word_vectors import WordVectors

    return WordVectors(path, lower=lower)
