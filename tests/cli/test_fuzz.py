"""Random command lines and broken files: success, or one line and exit code 2; no traceback, nothing left behind."""

from __future__ import annotations

import inspect
import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, get_type_hints

import command_lines
import pytest
import runs
import torch
from typer.main import get_command

from fastpose import cli, training
from fastpose.training.config import flatten_types

LINES = 200
SEED = 0
SECONDS = 60  # of one line, on a machine ten times slower than the one it takes 2 s on

CACHES = ("HOME/.config", "HOME/.cache", "TMPDIR/torchinductor")
"""What Matplotlib and torch make where they are first used."""


class Hung(BaseException):
    """A command line took too long."""


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> command_lines.Material:
    """Inputs of every verb, and things that are no inputs."""
    return odd(tmp_path_factory.mktemp("grammar") / "größe ü 💃")


def odd(folder: Path) -> command_lines.Material:
    """Write inputs of every verb, and beside them what is none: nothing, noise, text, a loop of links, a pipe."""
    made = command_lines.make(folder)
    for name, content in (("empty", b""), ("noise", bytes(range(256)) * 9), ("text.txt", b"words"), ("bad.yaml", b"{")):
        (made.folder / name).write_bytes(content)
    (made.folder / "loop").symlink_to("loop")
    (made.folder / "own.yaml").write_text("system: sagan\nconfig: {data: sample}\n")
    os.mkfifo(made.folder / "pipe")
    return made


@pytest.fixture
def cheap(monkeypatch, tmp_path) -> Iterator[None]:
    """Leave out what only takes time: the size of demonstrations and measurements, the pictures and reports of runs."""
    make_cheap(monkeypatch, tmp_path)
    with runs.without_pictures():
        yield


def make_cheap(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Replace them, and let HOME and the folder of temporary files be in ``folder``."""
    from fastpose.benchmark import cases
    from fastpose.cli import bench, demo

    small = (cases.descriptor(2, 3),)
    monkeypatch.setattr(cases, "quick", lambda: small)
    monkeypatch.setattr(cases, "published", lambda: small)
    monkeypatch.setattr(bench, "_growth", lambda run, names: None)
    monkeypatch.setattr(bench, "_tables", lambda run, groups: None)
    for system in demo.RECIPES:
        monkeypatch.setitem(demo.RECIPES, system, f"{system}/tiny")
    monkeypatch.setitem(demo.FIRST, "caption", "caption/tiny")
    for name in ("HOME", "TMPDIR"):
        (folder / name).mkdir()
        monkeypatch.setenv(name, str(folder / name))
    monkeypatch.setattr(tempfile, "tempdir", None)


class Grammar:
    """Random command lines of what the parser itself knows: a new verb or option is tried as soon as it is there."""

    def __init__(self, seed: int, material: command_lines.Material) -> None:
        self.random = random.Random(seed)
        self.material = material
        self.verbs = dict(leaves(get_command(cli.app)))
        self.files = sorted(str(path) for path in material.folder.iterdir())
        self.working = list(command_lines.quick(material, "out").values())

    def line(self) -> list[str]:
        """Return the words of a line: put together anew, or one that works with a word or two changed."""
        words = self._changed() if self.random.random() < 0.2 else self._new()
        return self._bounded(words)

    def _new(self) -> list[str]:
        names, command = self.random.choice(list(self.verbs.items()))
        hints = get_type_hints(inspect.unwrap(command.callback))
        options, arguments = [], []
        for parameter in command.params:
            wanted = 0.93 if parameter.required else 0.6 if not parameter.opts[0].startswith("-") else 0.2
            for _ in range((self.random.random() < wanted) + (self.random.random() < 0.04)):
                value = self._value(parameter, hints[parameter.name])
                if parameter.opts[0].startswith("-"):
                    options += [self.random.choice(parameter.opts), *value]
                else:
                    arguments += value
        words = [*arguments, *options] if self.random.random() < 0.7 else [*options, *arguments]
        return [*names, *words]

    def _changed(self) -> list[str]:
        words = list(self.random.choice(self.working))
        for _ in range(self.random.choice((1, 1, 2))):
            place = self.random.randrange(1, len(words) + 1)
            change = self.random.choice(("drop", "twice", "other", "other", "add", "swap"))
            if change == "drop":
                words[place : place + 1] = []
            elif change == "twice":
                words[place:place] = words[place : place + 1]
            elif change == "swap":
                words[1:] = self.random.sample(words[1:], len(words) - 1)
            else:
                words[place : place + (change == "other")] = [self._any()]
        return words

    def _bounded(self, words: list[str]) -> list[str]:
        """End a line with what keeps it short, where it would work for long if its words happened to be right."""
        if words[0] == "train":
            return [*words, "run.max_steps=1", "run.workers=0", "run.device=cpu"]
        if words[0] == "demo":
            return [*words, "run.max_steps=1", "run.workers=0"]
        if words[:2] == ["data", "render"]:
            return [*words, "--count", "1", "--size", "32"]
        return words

    def _value(self, parameter: Any, kind: Any) -> list[str]:
        """Return the words of a parameter's value, none for a flag."""
        if getattr(parameter, "is_flag", False):
            return []
        name = parameter.name
        if self.random.random() < 0.12:
            return [self._any()]
        if name == "recipe":
            return [self._recipe()]
        if "weights" in name:
            return [self._weights()]
        if name == "out":
            return [self._out()]
        if name in ("overrides", "arguments", "options", "ops"):
            return [self._word() for _ in range(self.random.randrange(4))]
        if "int" in str(kind):
            return [self.random.choice(("0", "1", "2", "3", "7", *NO_INTEGERS))]
        if "float" in str(kind):
            return [self.random.choice(("0", "0.4", "1", "2.5", *NO_NUMBERS))]
        return [self.random.choice((self._file(), self._file(), self.random.choice(TEXTS)))]

    def _recipe(self) -> str:
        known = training.list_recipes()
        return self.random.choice((*command_lines.RECIPES.values(), self.random.choice(known), self._file()))

    def _weights(self) -> str:
        every = [file for file in self.files if file.endswith(".safetensors")]
        return self.random.choice(every) if self.random.random() < 0.8 else self._file()

    def _file(self) -> str:
        return self.random.choice(self.files)

    def _out(self) -> str:
        ending = self.random.choice(("", "", ".safetensors", ".pt2", ".npz", ".html", ".png", ".yaml", ".txt"))
        return self.random.choice(("new", "new", "new", "a/b/new", *NO_OUTPUTS)) + ending

    def _word(self) -> str:
        """Return a positional word: an override, an input, the name of something, or a caption."""
        kinds = (self._override, self._override, self._recipe, self._file, lambda: self.random.choice(TEXTS))
        return self.random.choice(kinds)()

    def _override(self) -> str:
        system = training.systems.get(self.random.choice(list(command_lines.RECIPES)))
        keys = list(flatten_types(system.config))
        values = ("0", "1", "2", "0.5", "yes", "no", "none", "1,2", "sample", self._file(), *NO_NUMBERS, *TEXTS)
        return f"{self.random.choice(keys)}={self.random.choice(values)}"

    def _any(self) -> str:
        return self.random.choice((*TEXTS, *NO_INTEGERS, *NO_OUTPUTS, self._file(), self._override(), self._out()))


NO_INTEGERS = ("-1", "1.5", "nan", "x", "", "9" * 12, "9" * 30)
NO_NUMBERS = ("-1", "nan", "inf", "-inf", "1e999", "1e-320", "x", "", "9" * 12)
NO_OUTPUTS = ("", ".", "..", "/", "A" * 300, "/proc/x", "/dev/null/x", "\udce9", "new\nline", "-o")
TEXTS = (
    *("", " ", "-", "--", "=", "a=b", "model=", "model.no_such_key=1", "run.epochs=nan", "data.root=\x00", "\x00"),
    *("💃=🕺", "A" * 5000, "a man", "~", "~nobody-of-that-name", "../../etc/passwd", "--no-such-option", "--help"),
    *(
        "sample",
        "coco",
        "market",
        "lsp",
        "train",
        "val",
        "both",
        "cpu",
        "cuda",
        "mm",
        "fp32",
        "bf16",
        "noise",
        "captions",
    ),
    *(
        "captions",
        "minilm",
        "hourglass",
        "sagan.generator",
        "pose3d.generator",
        "nonlocal_attention",
        "top",
        "5,6",
        "unlimited",
    ),
)


def leaves(command: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every verb, as its names from the outermost, with the parser's own description."""
    if names:
        yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*names, name))


def run_bounded(words: list[str]) -> tuple[int, str, str]:
    """Run a line, which has so many seconds and so much memory beyond what the process has now."""

    def too_long(*_: Any) -> None:
        raise Hung(words)

    # Not capsys: a name that is no text goes to stdout as its bytes.
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    before, limits = signal.signal(signal.SIGALRM, too_long), resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), limits[1]))
    signal.alarm(SECONDS)
    try:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
            code = cli.main(words)
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
    out, err = (stream.buffer.getvalue().decode("utf-8", "surrogateescape") for stream in streams)
    return code, out, err


def fault(code: int, out: str, err: str, before: set[Path], folder: Path) -> str:
    """Return what is wrong with how a line ended, or an empty text."""
    lines = err.splitlines()
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in out + err or "Warning" in err:
        return f"a traceback or a warning: {err[-1000:]}"
    if code == 2 and (not lines or not lines[-1].startswith("fastpose: ")):
        return f"no sentence: {err!r}"
    if code == 2 and any(not line.startswith(("fastpose: ", "epoch ", "step ")) for line in lines):
        return f"more than one line: {err!r}"
    left = sorted(str(path.relative_to(folder)) for path in set(folder.rglob("*")) - before)
    left = [name for name in left if not name.startswith(CACHES)]
    if code == 2 and left:
        return f"left behind: {left[:5]} after {err!r}"
    if any(name.startswith(("HOME/", "TMPDIR/")) or ".tmp" in name for name in left):
        return f"left behind: {left[:5]}"
    return ""


def try_lines(material: command_lines.Material, folder: Path, seed: int, count: int) -> str:
    """Run random lines and return the faults."""
    grammar, faults, codes = Grammar(seed, material), [], []
    inputs = stamp(material.folder)
    for number in range(count):
        words = grammar.line()
        before = set(folder.rglob("*"))
        try:
            code, out, err = run_bounded(words)
            found = fault(code, out, err, before, folder)
        except (Exception, Hung, SystemExit) as error:
            found, code = "".join(traceback.format_exception(error)[-6:]), -1
        codes.append(code)
        if stamp(material.folder) != inputs:
            found += " inputs changed"
            inputs = stamp(material.folder)
        if found:
            faults.append(f"seed {seed} line {number}: fastpose {shlex.join(words)}\n{found}")
        for path in folder.iterdir():
            if path.name not in ("HOME", "TMPDIR"):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert faults or min(codes.count(0), codes.count(2)) > count // 20, codes  # lines that work are among them
    return "\n\n".join(faults)


def stamp(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file of a folder."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("chunk", range(4))
def test_promise_23_random_command_lines_succeed_or_are_one_line(tmp_path, material, monkeypatch, chunk):
    monkeypatch.chdir(tmp_path)
    assert try_lines(material, tmp_path, SEED + chunk, LINES // 4) == ""


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
def test_promise_23_malformed_weights_are_one_line(run, weights, photo, tmp_path, fault, verb):
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


def test_promise_23_weights_of_other_kinds_are_one_line(run, photo, tmp_path):
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
def test_promise_23_unreadable_photographs_are_named(run, weights, photo, tmp_path, name, content):
    data = photo.read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 3] if content is None else content)
    code, _, err = run("predict", name, "--weights", weights, "-o", "drawn")
    assert code == 2
    assert name in err
    assert err.count("\n") == 1
