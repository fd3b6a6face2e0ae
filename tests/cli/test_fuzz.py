"""Random command lines and broken files: success, or one line and exit code 2; no traceback, nothing left behind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

LINES = 200
VERBS = (
    *("doctor", "train", "eval", "predict", "try-on", "augment", "study", "data", "import", "export", "bench"),
    *("recipes", "compose", "", "Train", "--", "-x"),
)
WORDS = (
    "sagan/tiny",
    "sagan/ours-c",
    "sagan/ours-d",
    "pona/full",
    "pona/tiny",
    "caption/tiny",
    "market",
    "make",
    "score",
    "../../etc/passwd",
    "list",
    "check",
    "show",
    "copy",
    "lspet",
    "sample",
    "hourglass",
    "pona.generator",
    "sagan.generator",
    "missing.safetensors",
    "missing.jpg",
    "größe ü.jpg",
    "",
    " ",
    "-",
    "--",
    "-o",
    "--out",
    "--weights",
    "--resume",
    "--pose",
    "--person",
    "--caption-weights",
    "--count",
    "--seed",
    "--encoder",
    "--interpolate",
    "--keypoints",
    "--letters",
    "--explain",
    "--parts",
    "--reference",
    "--portion",
    "--name",
    "--device",
    "--help",
    "--no-such-option",
    "key=value",
    "model.stacks=-1",
    "model.stacks=1e999",
    "run.epochs=nan",
    "data.root=\x00",
    "=",
    "model=",
    "💃=🕺",
    "A" * 5000,
)
# Would begin real work if the words happened to be right.
SPOILED = {"train": "model.no_such_key=1", "bench": "no_such_operation"}


def command_line(generator: random.Random) -> list[str]:
    verb = generator.choice(VERBS)
    words = [generator.choice(WORDS) for _ in range(generator.randrange(5))]
    spoil = [SPOILED[verb]] if verb in SPOILED else []
    return [verb, *words, *spoil]


@pytest.mark.parametrize("chunk", range(4))
def test_random_command_lines(run, tmp_path, chunk):
    generator = random.Random(chunk)
    for _ in range(LINES // 4):
        words = command_line(generator)
        code, out, err = run(*words)
        assert code in (0, 2), words
        if code == 2:
            assert err.startswith("fastpose: "), words
            assert err.count("\n") == 1, words
        assert "Traceback" not in out + err, words
        left = [path for path in tmp_path.iterdir() if "copy" not in words]
        assert left == [], words


def malformed(good: Path) -> dict[str, Callable[[], bytes]]:
    """Return eight broken versions of a weights file, by what is wrong with them."""
    data = good.read_bytes()
    size = int.from_bytes(data[:8], "little")

    def header(change: Callable[[dict], None]) -> bytes:
        content = json.loads(data[8 : 8 + size])
        change(content)
        text = json.dumps(content).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    def first_tensor(content: dict) -> dict:
        return next(value for key, value in content.items() if key != "__metadata__")

    return {
        "empty": lambda: b"",
        "truncated": lambda: data[: len(data) // 2],
        "flipped": lambda: data[:-7] + bytes([data[-7] ^ 1]) + data[-6:],
        "huge header": lambda: (2**60).to_bytes(8, "little") + data[8:],
        "wrong shape": lambda: header(lambda content: first_tensor(content).update(shape=[1, 2, 3])),
        "no metadata": lambda: header(lambda content: content.pop("__metadata__")),
        "text": lambda: b"this is not a checkpoint",
        "pickle": lambda: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
    }


@pytest.mark.parametrize(
    "fault", ["empty", "flipped", "huge header", "no metadata", "pickle", "text", "truncated", "wrong shape"]
)
@pytest.mark.parametrize("verb", ["eval", "predict", "export", "import"])
def test_malformed_weights(run, weights, photo, tmp_path, fault, verb):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(malformed(weights)[fault]())
    words = {
        "eval": ["eval", "sagan/tiny", "--weights", broken],
        "predict": ["predict", photo, "--weights", broken, "-o", "drawn"],
        "export": ["export", "sagan/tiny", "--weights", broken, "-o", "model.pt2"],
        "import": ["import", "sagan.generator", broken, "-o", "new.safetensors"],
    }[verb]
    code, _, err = run(*words)
    assert code == 2
    assert err.startswith("fastpose: ")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.safetensors"]


def test_weights_of_other_kinds(run, photo, tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "plain.pth")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("plain.pth", "folder.safetensors", photo):
        code, _, err = run("eval", "sagan/tiny", "--weights", name)
        assert code == 2
        assert err.startswith("fastpose: checkpoint ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.jpg", b""),
        ("text.png", b"no image at all"),
        ("half.jpg", None),
        ("notes.txt", b"hello"),
    ],
)
def test_unreadable_photographs_are_named(run, weights, photo, tmp_path, name, content):
    data = photo.read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 3] if content is None else content)
    code, _, err = run("predict", name, "--weights", weights, "-o", "drawn")
    assert code == 2
    assert name in err
    assert err.count("\n") == 1
