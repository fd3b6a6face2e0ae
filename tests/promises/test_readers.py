"""Every file reader on damaged files: finite data of the right shape, or one sentence with the file's name."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import mutations
import numpy as np
import pytest
import reader_files

from fastpose.data import hdf5, matlab, npz_files, unpacking

CASES, TREES, MANY = 60, 40, 1000
"""Damaged files of every format; JSON files with a value of another kind; files that a process of its own reads."""
OF_LIBRARIES = [name for name in reader_files.FILES if ".mat" in name or ".h5" in name]
TREELIKE = [
    *("MPII .json", "COCO", "COCO for captions", "captions", "key points of predict", "key points of OpenPose"),
]


def try_damage(name: str, folder: Path, cases: int) -> None:
    """Read damaged copies of a good file of a format."""
    path, read = reader_files.FILES[name](folder)
    good = path.read_bytes()
    assert not isinstance(mutations.sentences(lambda: read(path), path, "good"), str)
    first = zlib.crc32(name.encode())
    for seed in range(first, first + cases):
        path.write_bytes(mutations.mutated(good, seed))
        mutations.sentences(lambda: read(path), path, seed, named=(path.parent,))


@pytest.mark.parametrize("name", reader_files.FILES)
def test_promise_21_a_damaged_file_is_data_or_one_sentence(name: str, tmp_path: Path) -> None:
    try_damage(name, tmp_path, CASES)


@pytest.mark.slow
def test_promise_21_no_damaged_file_ends_the_process(tmp_path: Path) -> None:
    """The readers of MATLAB's files and of HDF5 are compiled: what they do wrong, no exception tells."""
    code = f"import sys, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_readers as tests\n"
    for number, name in enumerate(OF_LIBRARIES):
        (tmp_path / str(number)).mkdir()
        code += f"tests.try_damage({name!r}, pathlib.Path({str(tmp_path / str(number))!r}), {MANY})\n"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", TREELIKE)
def test_promise_21_json_of_other_values_is_data_or_one_sentence(name: str, tmp_path: Path) -> None:
    path, read = reader_files.FILES[name](tmp_path)
    good = json.loads(path.read_text())
    for seed in range(TREES):
        path.write_text(json.dumps(mutations.mutated_tree(good, seed)))
        mutations.sentences(lambda: read(path), path, seed, named=(path.parent,))


# --------------------------------------------------------------------------------------------------------------- MATLAB


def structure(path: Path) -> bytes:
    """Return a MATLAB file of a structure in a structure, with a text."""
    from scipy.io import savemat

    savemat(path, {"a": {"name": "photo.jpg", "inner": {"x": np.arange(3.0)}}, "other": np.eye(2)})
    return path.read_bytes()


def int32s(*numbers: int) -> bytes:
    """Return numbers as they stand in a MATLAB file: tags, flags and sides."""
    return struct.pack(f"<{len(numbers)}i", *numbers)


def with_sides(before: tuple[int, int], after: tuple[int, int]) -> Callable[[bytes], bytes]:
    """Return what gives the first array of some sides others."""
    return lambda data: data.replace(int32s(5, 8, *before), int32s(5, 8, *after), 1)


def variable(flags: int, content: bytes) -> bytes:
    """Return a variable of MATLAB's, whole."""
    body = int32s(6, 8, flags, 0) + content
    return int32s(14, len(body)) + body


def text(letters: bytes) -> bytes:
    return int32s(1, len(letters)) + letters + bytes(-len(letters) % 8)


def nested(levels: int) -> bytes:
    """Return a MATLAB file of structures in structures."""
    from scipy.io import savemat

    content: object = np.eye(2)
    for _ in range(levels):
        content = {"x": content}
    savemat(file := io.BytesIO(), {"a": content})
    return file.getvalue()


WITHOUT_FIELDS = variable(2, int32s(5, 8, 1000, 1000) + text(b"other") + int32s(5, 4, 8, 0) + text(b""))
OPAQUE = variable(17, text(b"other") + text(b"MCOS") + text(b"string") + variable(13, int32s(5, 8, 1, 0) + text(b"")))
TEXT = (16).to_bytes(4, "little") + (9).to_bytes(4, "little")  # the tag of the nine letters of photo.jpg
FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "text of an unknown type": (lambda data: data.replace(TEXT, b"\x63\0\0\0" + TEXT[4:]), "element of type 99"),
    "text longer than the file": (lambda data: data.replace(TEXT, TEXT[:4] + b"\0\0\0\x10"), "268,435,456 bytes"),
    "a text of more letters than it has": (with_sides((1, 9), (1, 90)), "90 letters has 9 bytes"),
    "more numbers than it has": (with_sides((2, 2), (2, 3)), "6 numbers has 32 bytes"),
    "more structures than it has": (with_sides((1, 1), (1000, 1000)), "ends within a tag"),
    "structures without fields": (lambda data: data + WITHOUT_FIELDS, "1,000,000 structures without fields"),
    "deep structures": (lambda data: nested(matlab.DEEPEST + 2), f"more than {matlab.DEEPEST} deep"),
    "complex numbers": (lambda data: data.replace(int32s(6, 8, 6, 0), int32s(6, 8, 0x806, 0)), "complex numbers"),
    "a string of MATLAB's own": (lambda data: data[:128] + OPAQUE, "array of class 17"),
    "damaged flags": (lambda data: data.replace(int32s(6, 8, 2, 0), int32s(6, 9, 2, 0), 1), "flags are damaged"),
    "cut": (lambda data: data[:-9], "before its variables do"),
    "not MATLAB": (lambda data: b"\x89HDF" + bytes(200), "does not begin"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_promise_21_scipy_is_given_no_untrue_tag(fault: str, tmp_path: Path) -> None:
    """The first of these ends the process in SciPy 1.17."""
    path = tmp_path / "a.mat"
    good, (spoil, sentence) = structure(path), FAULTS[fault]
    path.write_bytes(spoil(good))
    assert path.read_bytes() != good
    with pytest.raises(ValueError, match=rf"a\.mat: not a readable MATLAB file \(.*{sentence}"):
        matlab.load(path, ["a", "other"])


def test_promise_21_only_the_wanted_variables_of_matlab_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(structure(path).replace(TEXT, b"\x63\0\0\0" + TEXT[4:]))
    assert list(matlab.load(path, ["other", "none"])) == ["other"]


def neighbours() -> dict[str, bytes]:
    """Return variables that nobody asks for, none of which fastpose reads."""
    from scipy.io import savemat
    from scipy.sparse import csc_array

    made = {"own string": OPAQUE, "no fields": WITHOUT_FIELDS}
    unread = {"complex": np.ones(3) * 1j, "sparse": csc_array(np.eye(4)), "ten sides": np.ones([2] * 10)}
    for name, content in unread.items():
        savemat(file := io.BytesIO(), {"z": content})
        made[name] = file.getvalue()[128:]
        savemat(file := io.BytesIO(), {"z": content}, do_compression=True)
        made[f"{name}, packed"] = file.getvalue()[128:]
    return made


def test_promise_21_any_variable_may_stand_beside_the_wanted_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    good = structure(path)
    for name, other in neighbours().items():
        for data in (good + other, good[:128] + other + good[128:]):
            path.write_bytes(data)
            assert list(matlab.load(path, ["a"])) == ["a"], name


def test_promise_20_a_matlab_file_of_packed_zeros_is_refused(tmp_path: Path) -> None:
    from scipy.io import savemat

    path = tmp_path / "a.mat"
    savemat(path, {"a": np.zeros(unpacking.SMALL // 8 + 8)}, do_compression=True)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="out of proportion"):
        matlab.load(path, ["a"])


# ----------------------------------------------------------------------------------------------------------------- HDF5


def odd_hdf5(path: Path) -> None:
    """Write arrays that lie elsewhere, have no fixed size, or announce more than there is."""
    import h5py

    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["x"] = np.ones(3)
    (path.parent / "raw").write_bytes(bytes(24))
    with h5py.File(path, "w") as file:
        file["good"] = np.arange(3.0)
        file["soft"] = h5py.SoftLink("/good")
        file["external link"] = h5py.ExternalLink("other.h5", "x")
        file.create_dataset("external bytes", (3,), "f8", external=[(str(path.parent / "raw"), 0, 24)])
        file.create_dataset("texts", data=["a", "bb"], dtype=h5py.string_dtype())
        file.create_dataset("references", data=[file["good"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("huge", (10**12,), "f8", chunks=(10,))
        file.create_dataset("huge chunk", (10,), "f8", chunks=(10**8,), maxshape=(None,))
        file.create_dataset("long", data=np.ones(2, np.longdouble))
        file.create_group("group")
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
        file.create_virtual_dataset("virtual", layout)


def test_promise_20_hdf5_is_read_from_the_file_itself_alone(tmp_path: Path) -> None:
    odd_hdf5(tmp_path / "a.h5")
    with hdf5.opened(tmp_path / "a.h5") as file:
        assert file["good"].tolist() == [0.0, 1.0, 2.0]
        assert "virtual" in file
        assert len(file) == 11
        for name in set(file) - {"good"}:
            with pytest.raises(ValueError, match=rf"a\.h5: {name}: (expected|announces)"):
                file[name]
        with pytest.raises(KeyError):
            file["absent"]


# ----------------------------------------------------------------------------------------------------------------- .npz


def write_npz(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in members.items():
            archive.writestr(name, content)


def npy(shape: str, content: bytes = b"", dtype: str = "<f8") -> bytes:
    """Return an array's file whose header tells what it likes."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + content


BOMBS: dict[str, tuple[bytes, str]] = {
    "more elements than bytes": (npy("(1000000000000,)"), "another number"),
    "sides below zero": (npy("(-1, -8)", bytes(64)), "another number"),
    "packed zeros": (npy(f"({unpacking.SMALL // 8},)", bytes(unpacking.SMALL)), "out of proportion"),
    "objects": (npy("(1,)", b"cos\nsystem\n", "|O"), "it holds object"),
    "a long header": (npy("(" + "1, " * 4000 + ")"), "cannot be read"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_promise_20_an_archive_of_arrays_takes_no_more_memory_than_it_shows(bomb: str, tmp_path: Path) -> None:
    content, sentence = BOMBS[bomb]
    write_npz(tmp_path / "a.npz", {"a.npy": content, "../../b.npy": npy("(1,)", bytes(8))})
    with npz_files.opened(tmp_path / "a.npz") as arrays:
        with pytest.raises(ValueError, match=rf"a\.npz: array a cannot be read \(.*{sentence}|{sentence}"):
            arrays["a"]
        assert arrays["../../b"].tolist() == [0.0]  # members are read, never written anywhere
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_promise_20_archives_of_too_many_arrays_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz_files, "_MEMBERS", 3)
    write_npz(tmp_path / "a.npz", {f"{number}.npy": b"" for number in range(4)})
    with pytest.raises(ValueError, match="at most 3 arrays, found 4"), npz_files.opened(tmp_path / "a.npz"):
        pass


def test_promise_21_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.mat"):
        matlab.load(tmp_path / "absent.mat", ["a"])
    with pytest.raises(FileNotFoundError, match=r"absent\.h5"), hdf5.opened(tmp_path / "absent.h5"):
        pass
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"), npz_files.opened(tmp_path / "absent.npz"):
        pass
