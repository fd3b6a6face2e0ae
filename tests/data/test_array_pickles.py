"""Pickles of arrays: every protocol is read, and nothing but numbers and containers is ever built."""

from __future__ import annotations

import pickle
import pickletools

import numpy as np
import pytest

from fastpose.data import array_pickles

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


def _write(folder, content, protocol=3):
    path = folder / "a.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_every_protocol(tmp_path, protocol):
    told = {
        ("S1", "a"): {"R": np.arange(6.0).reshape(2, 3), "w": 1000, "name": "camera1", "k": [None, True, 1.5]},
        "b": (np.asfortranarray(np.arange(6).reshape(2, 3)), np.float32(2.5), np.array([True, False])),
        "c": np.arange(4, dtype=">i2"),
        "d": np.zeros((0, 3)),
    }
    content = array_pickles.read(_write(tmp_path, told, protocol))
    assert list(content) == list(told)
    assert np.array_equal(content["S1", "a"]["R"], told["S1", "a"]["R"])
    assert (content["S1", "a"]["w"], content["S1", "a"]["name"], content["S1", "a"]["k"]) == (
        1000,
        "camera1",
        [None, True, 1.5],
    )
    assert np.array_equal(content["b"][0], [[0, 1, 2], [3, 4, 5]])
    assert content["b"][1] == 2.5
    assert content["b"][2].tolist() == [True, False]
    assert content["c"].tolist() == [0, 1, 2, 3]
    assert content["d"].shape == (0, 3)


def test_the_published_cameras(shared):
    path = shared / "data" / "h36m_sample" / "mmpose_tests_h36m" / "cameras.pkl"
    cameras = array_pickles.read(path)
    assert len(cameras) == 44
    assert np.allclose(cameras["S9", "55011271"]["f"].ravel(), [1149.67569987, 1147.59161667])
    assert {type(array) for array in (cameras["S9", "55011271"][key] for key in "RTfc")} == {np.ndarray}


class _Calls:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": _Calls(print, "executed")}, r"names builtins\.print"),
        ({"a": _Calls(eval, "print(1)")}, r"names builtins\.eval"),
        ({"a": _Calls(np.load, "x")}, r"names numpy\.load"),
        ({"a": np.array([{}], dtype=object)}, "has an array of 'O8', expected numbers"),
        ({"a": np.array(["x"])}, "expected numbers"),
        ({"a": np.zeros(2, dtype=[("x", "f8")])}, "expected numbers"),
        ({"a": {1, 2}}, "set"),
        ({"a": 1j}, "names builtins.complex"),
        ([1, 2], "expected a dictionary of arrays, got list"),
        (b"", "not a pickle of numpy arrays alone"),
        (b"junk", "not a pickle of numpy arrays alone"),
        (b"cos\nsystem\n(S'true'\ntR.", r"names os\.system"),
        (b"cnumpy\ndtype\n.", "holds a type"),
        (b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR.", "holds a _Type"),
        (b"cnumpy.core.multiarray\n_reconstruct\n}S'x'\nI1\nsb.", "missing"),
    ],
)
def test_anything_else_is_refused(tmp_path, capsys, content, words):
    with pytest.raises(ValueError, match=words) as error:
        array_pickles.read(_write(tmp_path, content))
    assert str(error.value).startswith(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1
    assert capsys.readouterr().out == ""


def test_a_container_that_holds_itself_is_refused(tmp_path):
    content = {}
    content["a"] = content
    with pytest.raises(ValueError, match="recursion"):
        array_pickles.read(_write(tmp_path, content))


def test_an_array_of_another_length_than_its_bytes_is_refused(tmp_path):
    told = pickle.dumps({"a": np.arange(3.0)}, protocol=3)
    at = next(place for code, value, place in pickletools.genops(told) if code.name == "BININT1" and value == 3)
    with pytest.raises(ValueError, match="cannot reshape"):
        array_pickles.read(_write(tmp_path, told[: at + 1] + b"\x09" + told[at + 2 :]))
