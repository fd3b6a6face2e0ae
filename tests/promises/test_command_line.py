"""The command line as a whole: stopped at any moment, on a full disk, in odd folders and environments."""

from __future__ import annotations

import io
import json
import random
import resource
import signal
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import command_lines
import pytest
import safetensors.torch

from fastpose import cli

SEED = 0
MOMENTS = 3  # of each verb


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> command_lines.Material:
    return command_lines.make(tmp_path_factory.mktemp("inputs"))


VERBS = tuple(command_lines.quick(command_lines.Material(Path("nowhere")), "out"))


class Watch:
    """Acts at the n-th time that the process opens, renames or removes a file, or imports a module."""

    def __init__(self) -> None:
        self.seen, self.wanted, self.act = 0, -1, lambda: None
        sys.addaudithook(self._hear)  # which is for ever, so that one serves all tests

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.wanted < 0 or event not in ("open", "os.rename", "os.remove", "os.mkdir", "import", "os.scandir"):
            return
        if threading.current_thread() is not threading.main_thread():
            return
        self.seen += 1
        if self.seen == self.wanted:
            self.act()

    @contextmanager
    def at(self, wanted: int, act: Callable[[], object]) -> Iterator[None]:
        self.seen, self.wanted, self.act = 0, wanted, act
        try:
            yield
        finally:
            self.wanted = -1


WATCH = Watch()


def run(words: list[str]) -> tuple[int, str]:
    """Run a command line in this process; return its exit code and what it says on stderr, but for the progress."""
    heard = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(heard):
        try:
            code = cli.main(words)
        except SystemExit as ended:
            code = ended.code
    told = [line for line in heard.getvalue().splitlines() if not line.startswith(("epoch ", "step "))]
    return code, "\n".join(told)


def events(lines: Iterator[list[str]]) -> int:
    """Return how often a line that succeeds does something that ``Watch`` hears; the first time it loads modules."""
    for words in lines:
        with WATCH.at(1 << 60, lambda: None):
            code, err = run(words)
        assert code == 0, err
    return WATCH.seen


def broken(folder: Path) -> list[str]:
    """Return the files of a folder that are not whole, or were to be gone by now."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and not _is_whole(path)]


def _is_whole(path: Path) -> bool:
    from PIL import Image

    if path.name.startswith(".") or path.suffix == ".tmp":
        return False
    data = path.read_bytes()
    try:
        if path.suffix in (".png", ".jpg", ".gif"):
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix in (".npz", ".pt2"):
            with zipfile.ZipFile(path) as archive:
                return archive.testzip() is None
        elif path.suffix == ".json":
            json.loads(data)
        elif path.suffix == ".safetensors":
            safetensors.torch.load(data)
        elif path.suffix == ".html":
            return data.rstrip().endswith(b"</html>")
        else:
            return not data or data.endswith(b"\n") or path.suffix in (".mp4", ".csv")
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_promise_23_a_signal_at_any_moment_leaves_nothing_half_written(verb, material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [tmp_path / name for name in ("first", "again", *map(str, range(MOMENTS)))]
    for folder in folders:
        folder.mkdir()
    lines = [command_lines.writing(material, str(folder / "out"))[verb] for folder in folders]
    count = events(iter(lines[:2]))
    generator = random.Random(f"{SEED} {verb}")
    for folder, words in zip(folders[2:], lines[2:], strict=True):
        moment, sent = generator.randrange(1, count + 1), generator.choice((signal.SIGINT, signal.SIGTERM))
        case = f"{verb}: {sent.name} at event {moment} of {count}"
        with WATCH.at(moment, lambda sent=sent: signal.raise_signal(sent)):
            code, err = run(words)
        finished = code == 0 and any(folder.rglob("report.html"))  # the last step was done: a run ends as it would
        assert code == 128 + sent or finished or WATCH.seen < moment, (case, code, err)
        assert len(err.splitlines()) <= 1, (case, err)
        assert "Traceback" not in err, (case, err)
        assert broken(folder) == [], (case, err)
    assert sorted(tmp_path.iterdir()) == sorted(folders)


def _sizes(folder: Path) -> list[int]:
    return sorted({path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.stat().st_size})


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let every file that grows beyond so many bytes meet a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train caption"])
def test_promise_23_a_full_disk_is_one_line_and_leaves_nothing_half_written(verb, material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run(command_lines.writing(material, str(whole / "out"))[verb])[0] == 0
    sizes = _sizes(whole)
    for limit in sorted({0, sizes[0] - 1, sizes[len(sizes) // 2] - 1, sizes[-1] - 1}):
        folder = tmp_path / str(limit)
        folder.mkdir()
        with largest_file(limit):
            code, err = run(command_lines.writing(material, str(folder / "out"))[verb])
        case = f"{verb}, no file above {limit} bytes (whole: {sizes}): {err}"
        assert code == 2, case
        assert all(line.startswith("fastpose: ") for line in err.splitlines()), case
        assert "could not be" in err.splitlines()[-1], case  # with the name of the file
        assert broken(folder) == [], case
