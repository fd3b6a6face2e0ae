"""The command line as a whole: stopped at any moment, on a full disk, in odd folders and environments."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shlex
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import command_lines
import pytest
import runs
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

    if path.name == ".lock":  # of a run, for as long as the folder is there
        return True
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


WORKING, INPUTS, ELSEWHERE = "größe ü e\u0301 💃 -- ~", "-a\n'b\" $c %s {d} *?", "ä" * 100
OUT = os.fsdecode(b"caf\xe9 \xff")  # no UTF-8


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Refuse every connection but those between the processes of this machine."""
    for name in ("connect", "connect_ex"):
        usual = getattr(socket.socket, name)

        def checked(self: socket.socket, address: object, usual: Callable[..., object] = usual) -> object:
            assert self.family == socket.AF_UNIX, f"the network was asked: {address}"
            return usual(self, address)

        monkeypatch.setattr(socket.socket, name, checked)


def _used(material: command_lines.Material, system: str, weights: Path, out: str) -> list[str]:
    """Return the line of ``command_lines`` that uses weights of a system, with these."""
    words = command_lines.writing(material, out)[f"predict {system}"]
    return [str(weights) if word == material / f"{system}.safetensors" else word for word in words]


@pytest.mark.slow
@pytest.mark.usefixtures("no_network")
@runs.every_system
def test_promise_24_odd_folders_take_a_run_from_training_to_use(system, tmp_path, monkeypatch):
    base, elsewhere = tmp_path / WORKING, tmp_path / ELSEWHERE
    elsewhere.mkdir()
    material = command_lines.make(base / INPUTS)
    monkeypatch.chdir(base)
    train = ["train", f"{system}/tiny", *runs.SYSTEMS[system], "run.device=cpu", "run.workers=1", "run.max_steps=1"]
    with runs.without_pictures():
        assert run([*train, "--out", OUT]) == (0, "")
        folder = base / OUT / system / "tiny" / "run"
        monkeypatch.chdir(elsewhere)
        assert run(["train", f"{system}/tiny", "run.max_steps=2", "--resume", str(folder)]) == (0, "")
    weights = folder / "weights" / "last.safetensors"
    assert run(["eval", f"{system}/tiny", "--weights", str(weights), "-o", str(base / "scores")]) == (0, "")
    assert run(_used(material, system, weights, str(base / "drawn"))) == (0, "")
    if system in ("caption", "multiscale"):  # the others take long, and go the same way
        assert run(["export", f"{system}/tiny", "--weights", str(weights), "-o", str(base / "m.pt2")]) == (0, "")
    assert broken(base / OUT) == broken(base / "drawn") == list(elsewhere.iterdir()) == []


@pytest.mark.slow
def test_promise_24_relative_paths_are_found_from_another_folder(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    command_lines.make(here)
    there.mkdir()
    monkeypatch.chdir(here)
    places = {"reid": "data.root=market", "caption": "text.encoder=words.vec"}
    short = ["run.device=cpu", "run.workers=0", "run.max_steps=1"]
    with runs.without_pictures():
        for system, place in places.items():
            code, err = run(["train", f"{system}/tiny", place, *short, "--out", "runs"])
            assert code == 0, err
            (folder,) = (here / "runs" / system / "tiny").iterdir()
            assert f": {here / place.partition('=')[2]}\n" in (folder / "config.yaml").read_text()
            monkeypatch.chdir(there)
            relative = os.path.relpath(folder)
            code, err = run(["train", f"{system}/tiny", "run.max_steps=2", "--resume", relative])
            assert code == 0, err
            code, err = run(["eval", f"{system}/tiny", "--weights", f"{relative}/weights/last.safetensors"])
            assert code == 0, err
            monkeypatch.chdir(here)
    assert list(there.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a folder in which not even root may write")
def test_promise_24_a_working_folder_that_is_read_only(material, tmp_path, monkeypatch):
    monkeypatch.chdir("/proc/self/fd")
    assert run(command_lines.writing(material, str(tmp_path / "out"))["predict sagan"]) == (0, "")
    for verb in ("predict sagan", "train sagan", "study make", "data render", "import", "recipes copy"):
        code, err = run(command_lines.writing(material, "out")[verb])
        assert (code, len(err.splitlines()), "out" in err) == (2, 1, True), (verb, err)


# ---- processes -------------------------------------------------------------------------------------------------


def process(words: list[str], folder: Path, *python: str, shell: str = "", **changed: str | None) -> tuple[int, str]:
    """Run a real process in ``folder``, through a shell's redirections; return its exit code and stderr."""
    environment = {key: value for key, value in (runs.environment() | changed).items() if value is not None}
    command = shlex.join([sys.executable, *python, *([] if "-c" in python else ["-m", "fastpose"]), *words])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} {shell}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stderr.decode("utf-8", "surrogateescape")


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None},
    "a home that cannot be written": {"HOME": "/proc"},
    "no folder of temporary files": {"TMPDIR": "/nonexistent"},
    "no UTF-8": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "another encoding": {"PYTHONIOENCODING": "latin-1"},
    "a dumb terminal": {"TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1"},
    "a safe path": {"PYTHONSAFEPATH": "1"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_promise_22_any_environment_does(name, tmp_path):
    material = command_lines.make(tmp_path / WORKING)
    words = command_lines.writing(material, str(tmp_path / WORKING / "out"))["predict sagan"]
    assert process(words, tmp_path, "-W", "error", **ENVIRONMENTS[name]) == (0, "")
    assert any((tmp_path / WORKING / "out").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["<&- >&-", "2>&-", "2>/dev/full"])
def test_promise_22_any_stream_may_be_closed(shell, material, tmp_path):
    words = command_lines.writing(material, str(tmp_path / "out"))["train sagan"]
    assert process(words, tmp_path, "-O", shell=shell)[0] == 0
    assert any(tmp_path.rglob("report.html"))
    assert process(["eval", "x"], tmp_path, shell=shell)[0] == 2


@pytest.mark.parametrize(
    ("words", "shell", "code"), [(["--help"], "| head -c 1 >&2", 0), (["--version"], ">/dev/full", 2)]
)
def test_promise_22_a_reader_that_leaves_and_a_full_stdout_are_no_traceback(words, shell, code, tmp_path):
    found, err = process(words, tmp_path, shell=shell)
    assert found == code or (found == 1 and "head" in shell)  # as for any program whose reader has left
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 1


AT_IMPORT = """
import os, signal, sys
seen = 0
def hear(event, arguments):
    global seen
    seen += event == "import"
    if event == "import" and seen == {moment}:
        os.kill(os.getpid(), signal.{sent})
from fastpose.__main__ import main
sys.addaudithook(hear)
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_promise_23_a_signal_while_everything_is_imported(sent, material, tmp_path):
    generator = random.Random(SEED)
    words = command_lines.writing(material, str(tmp_path / "out"))["predict sagan"]
    for moment in sorted(generator.sample(range(1, 1500), 4)):
        code, err = process(words, tmp_path, "-c", AT_IMPORT.format(moment=moment, sent=sent))
        assert code in (128 + signal.Signals[sent], -signal.Signals[sent]), (moment, code, err)
        assert len(err.splitlines()) <= 1, (moment, err)
        assert broken(tmp_path) == []
