"""Weights of others: whatever a file holds, nothing of it runs, and it takes no more memory than it has."""

from __future__ import annotations

import functools
import io
import os
import pickle
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import pytest
import torch
from safetensors.torch import save

from fastpose._torch_files import OLD
from fastpose.models import pickles
from fastpose.nn import backbones
from fastpose.training import checkpoint

CASES, MEMORY = 150, 1 << 30
"""Damaged files of every format; bytes that a reader may take beyond those of torch itself."""
STATE = {"layer.weight": torch.arange(12.0).view(3, 4), "layer.bias": torch.ones(3), "count": torch.tensor(3)}


def torch_file(zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save({"state_dict": STATE, "epoch": 3}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


FORMATS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip": (".pth", lambda: torch_file(True)),
    "before zip": (".pt", lambda: torch_file(False)),
    "safetensors": (".safetensors", lambda: save(STATE)),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "import": checkpoint.load_foreign,
    "judges": lambda path: backbones.read("vgg16", path),
    "whole networks": pickles.read_module_pickle,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", FORMATS)
def test_promise_6_damaged_weights_of_others_are_tensors_or_one_sentence(
    tmp_path: Path, form: str, reader: str
) -> None:
    suffix, make = FORMATS[form]
    path, good, read = tmp_path / f"theirs{suffix}", make(), READERS[reader]
    first = zlib.crc32(f"{form} {reader}".encode())
    for seed in range(first, first + CASES):
        path.write_bytes(mutations.mutated(good, seed))
        found = mutations.sentences(lambda: read(path), path, seed)
        assert isinstance(found, str) or all(isinstance(value, torch.Tensor) for value in found.values()), seed


class Calls:
    """Calls a function where it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = (function, arguments)

    def __reduce__(self) -> Any:
        return self.how


def laughs() -> bytes:
    """A list of ten lists of ten lists..., each remembered: small in the file, 10^30 things to whoever walks it."""
    layers = b"]q\x00(" + b"K\x01" * 10 + b"e"
    for number in range(1, 31):
        layers += b"]q" + bytes([number]) + b"(" + (b"h" + bytes([number - 1])) * 10 + b"e"
    return b"\x80\x02" + layers + b"."


MARK = "was run"
HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda mark: pickle.dumps({"a": Calls(os.system, f"touch '{mark}'")}),
    "eval": lambda mark: pickle.dumps({"a": Calls(eval, f"open({str(mark)!r}, 'w')")}),
    "a call in a call": lambda mark: pickle.dumps({"a": Calls(getattr, Calls(__import__, "os"), "system")}),
    "a module by name": lambda mark: b"cantigravity\nfly\n.",
    "numbers without end": lambda mark: b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little") + b"\x01.",
    "bytes without end": lambda mark: b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"a.",
    "a frame without end": lambda mark: b"\x80\x04\x95" + (2**62).to_bytes(8, "little") + b"N.",
    "a place without end": lambda mark: b"\x80\x02Nr" + (2**32 - 1).to_bytes(4, "little") + b".",
    "zeros by a call": lambda mark: pickle.dumps({"a": Calls(bytearray, 10**12)}),
    "a storage without end": lambda mark: pickle.dumps({"a": Calls(torch.UntypedStorage, 10**13)}),
    "a tensor without end": lambda mark: pickle.dumps({"a": Calls(torch.empty, 10**13)}),
    "lists of lists": lambda mark: laughs(),
    "deep lists": lambda mark: b"\x80\x02" + b"(" * 200_000 + b"l" * 200_000 + b".",
}


def hostile(name: str, folder: Path) -> list[Path]:
    """Write a hostile pickle as it is, inside a zip file of torch's kind, and as a network of old PyTorch."""
    data, made = HOSTILE[name](folder / MARK), []
    for suffix, content in (
        (".pt", data),
        (".pth", zipped(data)),
        (".tar", pickles.START + data),
        (".old", OLD + 4 * data),
    ):
        made.append(folder / f"theirs{suffix}")
        made[-1].write_bytes(content)
    return made


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member, content in {"data.pkl": data, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{member}", content)
    return stream.getvalue()


def read_all(folder: Path) -> None:
    """Read every hostile file by every reader, in a process that may take little memory."""
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, resource.RLIM_INFINITY))
    for number, name in enumerate(HOSTILE):
        place = folder / str(number)
        place.mkdir()
        for path in hostile(name, place):
            for reader, read in READERS.items():
                found = mutations.sentences(functools.partial(read, path), path, f"{name} by {reader}")
                assert isinstance(found, str), f"{name} by {reader}"
        assert not (place / MARK).exists(), name


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is told by Linux alone")
def test_promise_6_hostile_pickles_run_nothing_and_take_no_memory(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nimport pathlib, test_foreign\n"
    code += f"test_foreign.read_all(pathlib.Path({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_promise_20_packed_zeros_are_no_weights(tmp_path: Path) -> None:
    """Torch reads its zip files unpacked; whatever it makes of a packed one, memory is taken for what is there."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(torch_file(True))) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry) if "data/" not in entry else bytes(1 << 24))
    (tmp_path / "theirs.pth").write_bytes(stream.getvalue())
    found = mutations.sentences(lambda: checkpoint.load_foreign(tmp_path / "theirs.pth"), tmp_path / "theirs.pth", "")
    assert isinstance(found, str)
