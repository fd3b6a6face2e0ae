"""Readers of word vectors: fastText's binary model as the original library reads it, and its text; damage refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from vector_files import WORDS, bin_bytes, matrix, write_bin, write_vec

from fastpose.data import text
from fastpose.data.text.words import WordIndex

# What the original library (0.9.2) says of the files that write_bin writes, to six decimals.
NGRAMS, SHORT, NONE = {}, {"minn": 1, "maxn": 2}, {"minn": 0, "maxn": 0, "bucket": 0}
ORIGINAL_WORDS = [
    (NGRAMS, "man", [-0.06694, 0.13817, 0.031335, -0.146245]),
    (NGRAMS, "mann", [-0.039391, -0.176123, 0.084776, 0.154277]),
    (NGRAMS, "写真", [-0.387472, 0.497452, 0.259284, -0.564266]),
    (NGRAMS, "naïve", [-0.083301, 0.147428, 0.04531, -0.159104]),
    (NGRAMS, "a", [-0.00019, -0.000341, 0.000278, 0.000269]),
    (NGRAMS, "</s>", [0.0, 0.991665, -0.255541, -0.925815]),
    (NGRAMS, "fußball", [0.379165, 0.157947, -0.419866, -0.049752]),
    (SHORT, "man", [0.000984, 0.019975, -0.006132, -0.018395]),
    (SHORT, "写真", [-0.109553, 0.604005, -0.046093, -0.592128]),
    (SHORT, "naïve", [-0.267172, 0.18689, 0.219013, -0.243328]),
    (SHORT, "a", [0.360209, 0.218725, -0.416572, -0.111379]),
    (NONE, "日本", [0.529083, -0.909667, -0.294672, 0.9856]),
    (NONE, "mann", [0.0, 0.0, 0.0, 0.0]),
]
ORIGINAL_SENTENCES = [
    (NGRAMS, "a man the dog", [-0.284617, 0.294979, 0.208613, -0.348747]),
    (NGRAMS, "Ein Mann spielt fußball", [0.197523, -0.053429, -0.183755, 0.100781]),
    (NGRAMS, "日本 写真 naïve", [-0.10091, 0.222525, 0.043568, -0.233752]),
    (NGRAMS, "</s> man </s>", [-0.104102, 0.693763, -0.074673, -0.67452]),
    (NGRAMS, "a\tdog  x", [-0.246229, 0.210719, 0.191941, -0.260193]),
    (SHORT, "Ein Mann spielt fußball", [0.121336, 0.044442, -0.132788, -0.010224]),
    (NONE, "Ein Mann spielt fußball", [0.586882, -0.390891, -0.486154, 0.516167]),
    (NONE, "日本 写真 naïve", [0.359524, -0.61814, -0.200236, 0.669739]),
]


@pytest.mark.parametrize(("header", "word", "expected"), ORIGINAL_WORDS)
def test_words_are_those_of_the_original_library(tmp_path, header, word, expected):
    encoder = text.create(str(write_bin(tmp_path / "a.bin", **header)))
    assert np.abs(encoder.word_vector(word) - expected).max() < 1e-6


@pytest.mark.parametrize(("header", "sentence", "expected"), ORIGINAL_SENTENCES)
def test_sentences_are_those_of_the_original_library(tmp_path, header, sentence, expected):
    encoder = text.create(str(write_bin(tmp_path / "a.bin", **header)), lower=False)
    vectors = encoder([sentence, "the dog", sentence.replace(" ", "\n")])
    assert vectors.dtype == np.float32
    assert np.abs(vectors[[0, 2]] - expected).max() < 1e-6
    assert np.array_equal(encoder([sentence])[0], vectors[0])


def test_lower_case_is_an_option_and_part_of_the_fingerprint(tmp_path):
    path = str(write_bin(tmp_path / "a.bin"))
    lower, cased = text.create(path), text.create(path, lower=False)
    assert np.array_equal(lower(["A Man"]), cased(["a man"]))
    assert not np.array_equal(lower(["A Man"]), cased(["A Man"]))
    assert lower.fingerprint != cased.fingerprint
    assert lower.fingerprint == text.create(path).fingerprint
    assert lower.name == "a.bin"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("header", [True, False])
def test_text_is_read_with_and_without_its_first_line_and_byte_order_mark(tmp_path, header, mark):
    path = write_vec(tmp_path / "a.vec", header=header)
    path.write_bytes(mark + path.read_bytes())
    encoder = text.create(str(path))
    rows = matrix(len(WORDS), 4)
    assert encoder.size == 4
    assert np.array_equal(encoder.word_vector("</s>"), rows[0])
    assert np.array_equal(encoder.word_vector("日本"), rows[5])
    assert encoder.word_vector("mann") is None
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.abs(encoder(["Man xyzzy dog", "the"]) - [(units[2] + units[3]) / 2, units[6]]).max() < 1e-6


def test_text_and_binary_agree_where_there_are_no_ngrams(tmp_path):
    binary = text.create(str(write_bin(tmp_path / "a.bin", **NONE)))
    words = text.create(str(write_vec(tmp_path / "a.vec")))
    assert np.array_equal(binary(["a man", "the dog fußball q"]), words(["a man", "the dog fußball q"]))
    assert binary.fingerprint != words.fingerprint


def test_texts_without_a_known_word_are_zero_and_told_once(tmp_path):
    encoder = text.create(str(write_vec(tmp_path / "a.vec")))
    with pytest.warns(UserWarning, match="a.vec: no word of 2 of 3 texts is known, such as 'xyzzy'; their") as caught:
        vectors = encoder(["xyzzy", "man", ""])
    assert len(caught) == 1
    assert not vectors[[0, 2]].any()


def test_words_with_spaces_inside_are_no_other_words(tmp_path):
    (tmp_path / "a.vec").write_text("a b 1 2\na 3 4\r\na 5 6", encoding="utf-8")
    with pytest.raises(ValueError, match="expected lines of a word and its numbers"):
        text.create(str(tmp_path / "a.vec"))
    (tmp_path / "a.vec").write_text("3 2\na b 1 2\na 3 4\r\na 5 6", encoding="utf-8")
    assert text.create(str(tmp_path / "a.vec")).word_vector("a").tolist() == [3, 4]


def test_words_of_one_sum_are_told_apart(tmp_path):
    pair = ("plumless", "buckeroo")  # of one CRC-32
    index = WordIndex()
    for place, word in enumerate(pair):
        index.add(word.encode(), place)
    assert index.candidates(b"buckeroo") == [(0, 0), (1, 1)]
    for encoder in (
        text.create(str(write_vec(tmp_path / "a.vec", pair))),
        text.create(str(write_bin(tmp_path / "a.bin", pair, **NONE))),
    ):
        assert [encoder.word_vector(word).tolist() for word in pair] == matrix(2, 4).tolist()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "expected lines of a word and its numbers"),
        ("0 4\n", "expected lines of a word and its numbers"),
        ("a b c\n", "expected lines of a word and its numbers"),
        ("9 2\na 1 2\n", "expected 9 words, found 1"),
        ("1 2\na\t1\t2\n", "expected a word and its numbers on each line, not so at byte 4"),
        ("2 1\na 1\n" + "x" * (1 << 20), "found one of over a megabyte"),
        ("1 99999999999\n" + "a 1\n", "expected lines of a word and its numbers"),
        ("2 2\nb 1 2\na 1\n", "'a': expected 2 numbers, found others"),
        ("2 2\nb 1 2\na 1 x\n", "'a': expected 2 numbers, found others"),
        ("1 2\na 1 x\n", "expected lines of a word and its numbers"),
        ("1 2\na 1 2 3\n", "expected lines of a word and its numbers"),
        ("x 4\na 1 2 3 4\n", "expected lines of a word and its numbers"),
        ("b 1 2\na 1\n", "expected lines of a word and its numbers"),
        ("1 2\na 1 nan\n", "the vector of 'a' is not finite"),
        ("1 2\na 1 1e99\n", "the vector of 'a' is not finite"),
    ],
)
def test_malformed_text_is_refused(tmp_path, content, sentence):
    (tmp_path / "a.vec").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=sentence) as caught:
        text.create(str(tmp_path / "a.vec"))(["a"])
    assert "\n" not in str(caught.value)


def with_byte(place, value):
    content = bytearray(bin_bytes())
    content[place] = value
    return bytes(content)


COUNTS, SHAPE = 64, 64 + 28 + sum(len(word.encode()) + 10 for word in WORDS)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a fastText model, found 0 bytes"),
        (b"\x80\x04" * 50, "not a fastText model; expected a .bin"),
        (bin_bytes(version=13), "fastText format 13; expected 11 or 12"),
        (bin_bytes(model=3), "a fastText classifier; expected word vectors"),
        (bin_bytes()[:8] + struct.pack("<i", -1) + bin_bytes()[12:], "damaged header .vectors of -1"),
        (with_byte(8 + 3, 0x7F), "damaged input matrix: expected 57 rows"),
        (bin_bytes(maxn=1000), "damaged header .* n-grams of 2 to 1000"),
        (bin_bytes(bucket=0), "damaged header .* 0 buckets"),
        (with_byte(COUNTS + 3, 0x7F), "damaged dictionary"),
        (with_byte(COUNTS + 27, 0), "a pruned fastText model"),
        (with_byte(SHAPE, 1), "a quantised fastText model"),
        (with_byte(SHAPE + 1 + 7, 1), "damaged input matrix"),
        (bin_bytes()[: COUNTS + 20], "ends before its words"),
        (bin_bytes()[: SHAPE + 5], "ends before its words"),
        (bin_bytes()[: SHAPE + 500], "ends before its words"),
        (bin_bytes()[:COUNTS] + struct.pack("<3i2q", 3, 3, 0, 9, -1) + b"a" * 40, "ends before its words"),
    ],
)
def test_malformed_models_are_refused(tmp_path, content, sentence):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as caught:
        text.create(str(tmp_path / "a.bin"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def outcome(path):
    """Return the shape of the vectors of two texts, or the sentence that a file is refused with."""
    try:
        return str(text.create(str(path))(["a man", "naïve"]).shape)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [".bin", ".vec"])
@pytest.mark.filterwarnings("ignore:.* is known, such as")
def test_damage_anywhere_is_one_sentence(tmp_path, suffix):
    path = (write_bin if suffix == ".bin" else write_vec)(tmp_path / f"a{suffix}")
    whole, random = path.read_bytes(), np.random.default_rng(1)
    head = min(len(whole), SHAPE + 20)
    broken = [whole[:length] for length in range(0, head, 7)]
    for _ in range(150):
        content = bytearray(whole)
        for place in random.integers(0, head, 2):
            content[place] = random.integers(256)
        broken.append(bytes(content))
    broken += [random.bytes(300) for _ in range(10)]
    for content in broken:
        path.write_bytes(content)
        said = outcome(path)
        assert said.startswith(("(2, ", str(path), path.name))
        assert "\n" not in said
