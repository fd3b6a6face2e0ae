"""Pickles of arrays: every protocol is read, and nothing but numbers and containers is ever built."""

from __future__ import annotations

import pickle
import pickletools
import time

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
    with pytest.raises(ValueError, match="the same things over and over"):
        array_pickles.read(_write(tmp_path, content))


def _text(text):
    return b"X" + len(text).to_bytes(4, "little") + text


def _doubled(levels):
    """A pair of a pair of ..., each remembered and taken twice: 5 bytes a level, twice as many leaves."""
    return b"NN\x86q\x00" + b"".join(bytes((*b"h", n, *b"\x86q", n + 1)) for n in range(levels))


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R"
DTYPE = b"cnumpy\ndtype\n(U\x02f8I0\nI1\ntR"
BYTES = b"B" + (80_000).to_bytes(4, "little") + bytes(80_000)
BOMBS = {
    "a key whose hash takes for ever": (b"}" + _doubled(60) + b"Ns", "other keys than short texts"),
    "keys that collide": (b"}(" + b"".join(b"I%d\nN" % (n * (2**61 - 1)) for n in range(9)) + b"u", "other keys than"),
    "a long key": (b"}" + _text(b"a" * 101) + b"Ns", "other keys than short texts"),
    "a long pair of keys": (b"}(" + b"U\x01a" * 200 + b"tNs", "other keys than short texts"),
    "keys of protocol 0": (b"(I1\nNd", "other keys than short texts"),
    "a value that doubles": (b"}U\x01a" + _doubled(60) + b"s", "the same things over and over"),
    "a type that doubles as text": (b"cnumpy\ndtype\n" + _doubled(60) + b"\x85R", "has an array of tuple"),
    "a deep value": (b"}U\x01a" + b"N" + b"\x85" * 5000 + b"s", "recursion"),
    "a deep type": (b"cnumpy\ndtype\nN" + b"\x85" * 5000 + b"\x85R", "has an array of tuple"),
    "as many bytes as a number": (ARRAY + b"(I1\n(I1\nt" + DTYPE + b"\x89J\xff\xff\xff\x7ftb", "array without bytes"),
    "a long bytearray": (b"\x96" + (2**40).to_bytes(8, "little"), "expected 1099511627776 bytes"),
    "a place far away": (b"Np9999999999\n", "remembers things in no order"),
    "a place below none": (b"Np-1\n", "remembers things in no order"),
    "a set": (b"\x8f", "uses EMPTY_SET"),
    "an extension": (b"\x82\x01", "uses EXT1"),
    "one text of bytes made many times": (
        b"c_codecs\nencode\n" + b"q\x00" + _text(b"a" * 80_000) + b"U\x06latin1\x86q\x01R" + b"h\x00h\x01R" * 99,
        "repeats itself over and over",
    ),
    "one row of bytes in many arrays": (
        ARRAY + b"(I1\n(M\x10\x27t" + DTYPE + b"\x89" + BYTES + b"tq\x00b" + (ARRAY + b"h\x00b") * 99,
        "repeats itself over and over",
    ),
    "one long call made many times": (
        b"cnumpy\ndtype\nq\x00(U\x02f8" + b"N" * 9999 + b"tq\x01R" + b"h\x00h\x01R" * 99,
        "repeats itself over and over",
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_little_that_becomes_much_is_refused_at_once(tmp_path, what):
    code, words = BOMBS[what]
    before = time.process_time()
    with pytest.raises(ValueError, match=words) as error:
        array_pickles.read(_write(tmp_path, b"\x80\x05" + code + b"."))
    assert time.process_time() - before < 1
    assert len(str(error.value)) < len(str(tmp_path)) + 400


def test_more_operations_than_any_camera_needs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(array_pickles, "MOST", 1000)
    assert len(array_pickles.read(_write(tmp_path, {f"{n}": n for n in range(200)}))) == 200
    with pytest.raises(ValueError, match="more than 1,000 operations"):
        array_pickles.read(_write(tmp_path, b"}" * 1001 + b"."))


def test_a_message_holds_nothing_that_a_terminal_obeys(tmp_path):
    with pytest.raises(ValueError, match=r"names a\?\[31m b\.c") as error:
        array_pickles.read(_write(tmp_path, b"ca\x1b[31m\x0bb\nc\n."))
    assert str(error.value).isprintable()


def test_an_array_of_another_length_than_its_bytes_is_refused(tmp_path):
    told = pickle.dumps({"a": np.arange(3.0)}, protocol=3)
    at = next(place for code, value, place in pickletools.genops(told) if code.name == "BININT1" and value == 3)
    with pytest.raises(ValueError, match="cannot reshape"):
        array_pickles.read(_write(tmp_path, told[: at + 1] + b"\x09" + told[at + 2 :]))
