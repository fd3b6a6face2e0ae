"""fastpose data encode: the captions of a data set as vectors in a file."""

from __future__ import annotations

import json
import sys
import warnings

import pytest
from vector_files import write_bin, write_vec

from fastpose import training
from fastpose.cli import _print
from fastpose.data import captions, text


def write_coco(root, split, said):
    """Write annotations of one person a photograph, and captions by photograph."""
    folder = root / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    points = [value for joint in range(17) for value in (10 + joint, 20 + 2 * joint, 2)]
    people = [
        {
            "id": image,
            "image_id": image,
            "iscrowd": 0,
            "keypoints": points,
            "num_keypoints": 17,
            "bbox": [9, 19, 20, 40],
        }
        for image in said
    ]
    images = [{"id": image, "file_name": f"{image}.jpg", "width": 90, "height": 90} for image in said]
    told = [{"id": image, "image_id": image, "caption": one} for image, ones in said.items() for one in ones]
    keypoints = {"images": images, "annotations": people}
    (folder / f"person_keypoints_{split}2017.json").write_text(json.dumps(keypoints), encoding="utf-8")
    (folder / f"captions_{split}2017.json").write_text(json.dumps({"annotations": told}), encoding="utf-8")


@pytest.fixture
def coco(tmp_path):
    write_coco(tmp_path / "coco", "train", {1: ["A man", "the dog"], 2: ["a  man", "Fußball"]})
    write_coco(tmp_path / "coco", "val", {3: ["the man"]})
    return write_bin(tmp_path / "words.bin")


def test_captions_of_both_splits_are_written_and_read_back(run, tmp_path, coco):
    code, out, err = run("data", "encode", "coco", "coco", "--encoder", "words.bin", "-o", "said.npz")
    made = text.create(str(coco))
    assert (code, err) == (0, "")
    assert out == (
        f"said.npz: 4 captions, 4 numbers each, of words.bin ({made.fingerprint})\n"
        "train with it: text.encoder=said.npz\n"
    )
    said = text.create(str(tmp_path / "said.npz"))
    assert said.captions == ("a man", "the dog", "fußball", "the man")
    assert abs(said(["A Man", "FUSSBALL".replace("SS", "ß")]) - made(["a man", "fußball"])).max() < 1e-3


def test_one_split_from_files_of_ones_own(run, tmp_path, coco):
    (tmp_path / "more.json").write_text(
        json.dumps({"annotations": [{"id": 1, "image_id": 3, "caption": "a dog"}]}), encoding="utf-8"
    )
    words = ("data", "encode", "coco", "coco", "--encoder", "words.bin", "-o", "said.npz")
    code, out, err = run(*words, "--captions", tmp_path / "more.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--split: expected train or val where files are named" in err
    assert run(*words, "--split", "val", "--captions", tmp_path / "more.json")[0] == 0
    assert text.create(str(tmp_path / "said.npz")).captions == ("a dog",)


def test_files_lie_in_the_working_folder_or_under_root(run, tmp_path, coco):
    words = ("data", "encode", "coco", "coco", "--encoder", "words.bin", "--split", "val", "--captions")
    told = {"coco/more.json": "under root", "coco/both.json": "under root", "both.json": "here"}
    for place, caption in told.items():
        content = {"annotations": [{"id": 1, "image_id": 3, "caption": caption}]}
        (tmp_path / place).write_text(json.dumps(content), encoding="utf-8")
    for name, caption in (("more.json", "under root"), ("both.json", "here")):
        assert run(*words, name, "-o", f"{caption}.npz")[0] == 0
        assert text.create(str(tmp_path / f"{caption}.npz")).captions == (caption,)


def test_the_bundled_captions(run, tmp_path):
    write_vec(tmp_path / "words.vec", ("a", "on"))
    code, _, err = run("data", "encode", "sample", "--encoder", "words.vec", "-o", "said.npz")
    assert code == 0
    assert err.count("\n") == 1
    assert "fastpose: words.vec: no word of " in err
    assert "their vectors are zero" in err
    said = text.create(str(tmp_path / "said.npz"))
    assert len(said(captions.sample("all").captions)) == len(captions.sample("all").captions)
    assert said.fingerprint == text.create(str(tmp_path / "words.vec")).fingerprint


def warn(text: str) -> None:
    """Warn as a module of the package does."""
    warnings.warn_explicit(text, UserWarning, _print.__file__, 1, module="fastpose.data.text")


def test_warnings_are_lines_at_once_and_once_each(capsys):
    with _print.warnings_as_lines():
        for said in ("one", "one", "two"):
            warn(said)
        assert capsys.readouterr().err == "fastpose: one\nfastpose: two\n"
        with pytest.raises(DeprecationWarning):
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="another package's"):
            warnings.warn("another package's", stacklevel=1)
    with pytest.raises(UserWarning):
        warn("after")


def test_what_w_says_of_warnings_holds(capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with _print.warnings_as_lines(), pytest.raises(UserWarning):
        warn("one")


def test_rank_0_alone_tells_warnings(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with _print.warnings_as_lines():
        warn("one")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words", [("train", "caption/tiny"), ("eval", "caption/tiny", "--weights", "w.safetensors"), ("demo", "caption")]
)
def test_what_training_warns_of_is_a_line_even_if_it_fails(run, monkeypatch, words):
    def warn_and_fail(*arguments, **options):
        warn("words.vec: no word of 3 texts is known")
        raise ValueError("no more")

    for verb in ("train", "evaluate"):
        monkeypatch.setattr(training, verb, warn_and_fail)
    assert run(*words) == (2, "", "fastpose: words.vec: no word of 3 texts is known\nfastpose: no more\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("coc", "coco", "--encoder", "words.bin"), "DATASET: expected one of coco, sample, got 'coc'"),
        (("coco", "--encoder", "words.bin"), "ROOT: data set 'coco' needs its folder"),
        (("sample", "coco", "--encoder", "words.bin"), "data set 'sample' is bundled"),
        (("coco", "nowhere", "--encoder", "words.bin"), "ROOT: there is no folder nowhere"),
        (("coco", "coco", "--encoder", ""), 'minilm (pip install "fastpose[text]")'),
        (("coco", "coco", "--encoder", "other.bin"), "other.bin: no such file"),
        (("coco", "coco", "--encoder", "words.bin", "--split", "test"), "--split: expected one of both, train, val"),
        (
            ("coco", "coco", "--encoder", "words.bin", "-o", "said.npy"),
            "--out said.npy: expected a file name that ends",
        ),
        (("coco", "coco", "--encoder", "words.bin", "-o", "words.bin"), "words.bin: exists already; name another file"),
        (("coco", "coco", "--encoder", "words.bin", "-o", "none/a.npz"), "none/a.npz: there is no folder none"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path, coco, words, sentence):
    code, out, err = run("data", "encode", *(words if "-o" in words else (*words, "-o", "said.npz")))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coco", "words.bin"]
