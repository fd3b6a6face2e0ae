"""Bad photographs, dying workers and bad annotations in runs of the systems."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import bad_images
import caption_files
import pytest
import runs
import tiny_market
from pair_files import both_ways, write_tables
from torch.utils.data import get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fastpose.data import findings, loading, sample
from fastpose.data.check import _LAYOUTS, check
from fastpose.training import outcome

PHOTOGRAPHIC = ("sagan", "pona", "pose3d", "multiscale")
"""Systems that read photographs; the fifth, caption, learns from arrays."""

BAD = ("a third of a JPEG", "empty", "decompression bomb", "a pipe")
"""What a training set of the tests has among its photographs."""

photographic = pytest.mark.parametrize("system", PHOTOGRAPHIC)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled sample that the systems read in its place."""
    copy = tmp_path / "sample"
    shutil.copytree(sample.FOLDER, copy)
    monkeypatch.setattr(sample, "FOLDER", copy)
    return copy


def spoil(folder: Path, split: str, names: tuple[str, ...] = BAD) -> list[Path]:
    """Put kinds of bad files in place of the first photographs of a split; return their paths."""
    photos = list(dict.fromkeys(entry.image for entry in sample.read(folder, split)))[: len(names)]
    for photo, name in zip(photos, names, strict=True):
        bad_images.KINDS[name].write(photo, bad_images.photograph())
    return photos


@photographic
def test_promise_17_a_run_names_path_and_index(folder, tmp_path, system):
    photos = {entry.image for entry in sample.read(folder, "train")}
    for photo in photos:
        photo.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^sample(-pairs)? (person|pair) \d+: image .*: the file is empty") as caught:
        runs.train(system, tmp_path / "runs", "run.max_steps=1")
    assert any(str(photo) in str(caught.value) for photo in photos)


@photographic
@pytest.mark.slow
def test_promise_17_a_run_that_skips_resumes_exactly(folder, tmp_path, caplog, system):
    """Whole without workers; in two parts, the first with two workers."""
    options = ("data.on_error=skip", "data.skip_limit=1000")
    spoil(folder, "train", BAD * 8)
    whole = runs.train(system, tmp_path / "whole", "run.max_steps=7", *options)
    assert any("takes its place" in record.message for record in caplog.records)  # bad photographs were met
    part = runs.train(system, tmp_path / "part", "run.max_steps=4", "run.workers=2", *options)
    resumed = runs.train(system, tmp_path / "part", "run.max_steps=7", "run.workers=0", resume=part.folder)
    assert runs.state_hash(resumed.folder) == runs.state_hash(whole.folder), runs.differing(
        runs.state_of(resumed.folder), runs.state_of(whole.folder)
    )


@photographic
def test_promise_17_more_bad_photographs_than_the_limit_end_a_run(folder, tmp_path, system):
    for photo in {entry.image for entry in sample.read(folder, "train")}:
        photo.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"3 unreadable images, more than the limit of 2; last: sample.* the file is empty"
    ):
        runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip", "data.skip_limit=2")


def test_promise_17_a_run_that_ended_at_a_bad_photograph_goes_on_without_it(folder, tmp_path):
    part = runs.train("sagan", tmp_path, "run.max_steps=1", "data.on_error=raise")
    spoil(folder, "train", ("empty",) * 40)
    with pytest.raises(ValueError, match="the file is empty"):
        runs.train("sagan", tmp_path, "run.max_steps=3", resume=part.folder)
    done = runs.train(
        "sagan", tmp_path, "run.max_steps=3", "data.on_error=skip", "data.skip_limit=60", resume=part.folder
    )
    assert done.step == 3


@photographic
def test_promise_17_an_evaluation_says_what_it_leaves_out(folder, tmp_path, caplog, monkeypatch, system):
    """What is scored is what can be read, each once; never another sample in the place of one that cannot."""
    scored: list[int] = []

    def watch(trainer, network, loader):
        scored.extend(index for batch in loader for index in batch["index"].tolist())
        return evaluate(trainer, network, loader)

    evaluate = outcome.evaluate
    monkeypatch.setattr(outcome, "evaluate", watch)
    runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip")
    everything, scored[:] = sorted(scored), []
    spoil(folder, "val")
    with caplog.at_level(logging.WARNING, "fastpose.data"):
        runs.train(system, tmp_path, "run.max_steps=1", "data.on_error=skip")
    left = sorted(set(everything) - set(scored))
    assert left
    assert len(scored) == len(set(scored))
    assert set(scored) < set(everything)
    said = [record.message for record in caplog.records]
    assert any(f"{len(left)} of {len(everything)} samples are left out of this evaluation" in line for line in said)
    assert sum("takes its place, no score counts it" in line for line in said) >= len(left)


# ------------------------------------------------------------------------------------------------------------ workers


@pytest.fixture
def polled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch look at its workers every fifth of a second, in place of every five."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def fatal(monkeypatch: pytest.MonkeyPatch, end: Callable[[], object]) -> None:
    """Let workers end at the third batch of whatever loads from now on."""
    read, asked = loading._Guarded.__getitem__, []

    def watched(guarded, key):
        asked.append(key)
        if get_worker_info() is not None and len(asked) > 2:
            end()
        return read(guarded, key)

    monkeypatch.setattr(loading._Guarded, "__getitem__", watched)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@runs.every_system
@pytest.mark.timeout(120)
def test_promise_18_a_worker_killed_in_training_is_one_sentence(tmp_path, monkeypatch, polled, system):
    """Nor is its end taken for a bad photograph."""
    fatal(monkeypatch, killed)
    skip = ["data.on_error=skip"] if system in PHOTOGRAPHIC else []
    with pytest.raises(
        ChildProcessError, match=r"^a data worker died \(.*lower workers \(now 2\) or batch_size$"
    ) as caught:
        runs.train(system, tmp_path, "run.max_steps=9", "run.workers=2", *skip)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


@runs.every_system
@pytest.mark.timeout(120)
def test_promise_18_a_worker_killed_in_an_evaluation_is_one_sentence(tmp_path, monkeypatch, polled, system):
    """The state was saved before the evaluation began, so that the run goes on from there."""
    evaluate = outcome.evaluate

    def deadly(trainer, network, loader):
        fatal(monkeypatch, lambda: os._exit(3))
        return evaluate(trainer, network, loader)

    with monkeypatch.context() as patched:
        patched.setattr(outcome, "evaluate", deadly)
        with pytest.raises(ChildProcessError, match=r"^a data worker died"):
            runs.train(system, tmp_path, "run.max_steps=1", "run.workers=1", "run.batch_size=4")
    monkeypatch.undo()
    (run,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    assert runs.state_of(run)["position"]["step"] == 1


@pytest.mark.slow
@runs.every_system
def test_promise_18_the_command_line_says_it_and_ends(tmp_path, system):
    """As the kernel ends a process when memory runs out: the largest worker of the run, at any moment."""
    words = runs.command(system, tmp_path, "run.workers=2", "run.epochs=100000")
    process = subprocess.Popen(
        words,
        env=runs.environment(),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        os.kill(_worker_of(process), signal.SIGKILL)
        _, err = process.communicate(timeout=200)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 2, err
    assert sum(line.startswith("fastpose: a data worker died") for line in err.splitlines()) == 1
    assert "Traceback" not in err


def _worker_of(process: subprocess.Popen[str]) -> int:
    """Wait for a worker of a run and return its process."""
    for _ in range(3000):
        assert process.poll() is None, process.stderr.read()
        found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
        if found.split():
            return int(found.split()[0])
        threading.Event().wait(0.05)
    raise AssertionError("no worker was started")


# -------------------------------------------------------------------------------------------------------- annotations


def coco(root: Path, rows: list[caption_files.Row], images: list[caption_files.Row] | None = None) -> Path:
    """Write a COCO of one photograph in each split."""
    for split in ("train", "val"):
        bad_images.write_jpeg(root / f"{split}2017" / "a.jpg", (100, 120), seed=len(split))
        caption_files.write(root, rows, split=split)
        path = root / "annotations" / f"person_keypoints_{split}2017.json"
        listed = images or [{"id": 1, "file_name": "a.jpg", "height": 100, "width": 120}]
        path.write_text(json.dumps({"images": listed, "annotations": rows}))
    return root


def market(root: Path) -> Path:
    """Write a Market-1501 of two persons in each split, two images each."""
    for split, persons in (("train", (7, 10)), ("test", (1, 3))):
        groups = [tiny_market.names({person: (1, 2)}) for person in persons]
        names, listed = [name for own in groups for name in own], [pair for own in groups for pair in both_ways(own)]
        write_tables(root, "market", split, names, listed, (128, 64))
        for number, name in enumerate(names):
            bad_images.write_jpeg(root / split / name, (128, 64), seed=number + 10 * len(split))
    return root


def first(**changed: object) -> list[caption_files.Row]:
    return [caption_files.person(1, 1, **changed)]


COCO: dict[str, tuple[dict[str, object], str, bool]] = {
    "good": ({"rows": first()}, "coco: ready", True),
    "nobody": ({"rows": []}, "✗ val: 0 persons", False),
    "no joint": ({"rows": first(labelled=0)}, "✗ nobody has a labelled joint: there is nothing to train on", False),
    "NaN": ({"rows": first(keypoints=[math.nan, 1, 2] * 17)}, "✗ 1 persons with NaN or infinite coordinates", False),
    "infinite": ({"rows": first(keypoints=[math.inf, 1, 2] * 17)}, "✗ 1 persons with NaN or infinite", False),
    "beyond float32": ({"rows": first(keypoints=[1e300, 1, 2] * 17)}, "✗ 1 persons with NaN or infinite", False),
    "box of NaN": ({"rows": first(bbox=[math.nan] * 4)}, "✗ 1 persons with NaN or infinite coordinates", False),
    "far away": ({"rows": first(keypoints=[1e30, 1, 2] * 17)}, "! 1 persons with joints out of frame", True),
    "box of nothing": ({"rows": first(bbox=[1, 1, 0, 0])}, "! 1 persons with a box without width or height", True),
    "twice": ({"rows": [*first(), *first()]}, "! 1 persons listed twice: a.jpg (person 1)", True),
    "another label": ({"rows": first(keypoints=[9, 9, 7] * 17)}, "labels of joints: expected 0, 1 or 2", False),
    "another skeleton": ({"rows": first(keypoints=[9, 9, 2] * 16)}, "has 48 key-point numbers; expected 17 x 3", False),
    "no photograph": (
        {"rows": first(), "images": [{"id": 1, "file_name": "b.jpg"}]},
        "photographs missing: b.jpg",
        False,
    ),
    "not listed": ({"rows": [caption_files.person(1, 5)]}, "names image 5, which is not listed", False),
    "another size": (
        {"rows": first(), "images": [{"id": 1, "file_name": "a.jpg", "height": 400, "width": 480}]},
        "✗ 1 photographs of train of another size than annotated: a.jpg (120 x 100, annotated 480 x 400)",
        False,
    ),
}


@pytest.mark.parametrize("case", COCO)
def test_promise_19_a_check_says_what_is_wrong_with_persons(tmp_path, case):
    content, said, ready = COCO[case]
    report = check("coco", coco(tmp_path, **content))
    assert said in "\n".join(report.lines), "\n".join(report.lines)
    assert report.ok == ready


@pytest.mark.parametrize("case", [name for name, (_, said, ready) in COCO.items() if not ready and "size" not in name])
def test_promise_19_what_a_check_refuses_is_refused_before_the_first_step(tmp_path, case):
    root = coco(tmp_path / "coco", **COCO[case][0])
    with pytest.raises((ValueError, FileNotFoundError), match=r"coco|person_keypoints"):
        runs.train("sagan", tmp_path / "runs", "data.name=coco", f"data.root={root}", "run.batch_size=1")
    assert not list(tmp_path.glob("runs/**/metrics.csv"))


@pytest.mark.parametrize(("encoding", "good"), [("utf-8-sig", True), ("utf-16", False), ("utf-32", False)])
def test_promise_19_annotations_in_other_encodings_are_read_or_named(tmp_path, encoding, good):
    coco(tmp_path / "coco", first())
    market(tmp_path / "market")
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.csv")]:
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    for name in ("coco", "market"):
        report = check(name, tmp_path / name)
        assert report.ok == good, report.lines
        assert good or any("✗ train" in line and "train" in line for line in report.lines)


def test_promise_19_a_photograph_without_persons_and_name_is_a_line_of_the_report(tmp_path):
    root = coco(tmp_path / "coco", first())
    path = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    for broken in ({"id": 77}, {"id": 77, "file_name": "../x.jpg"}):
        path.write_text(json.dumps(content | {"images": [*content["images"], broken]}))
        report = check("coco", root)
        assert not report.ok
        assert any(line.startswith(f"  ✗ {path}: ") for line in report.lines), report.lines


def test_promise_19_photographs_in_both_splits_are_named(tmp_path):
    root = coco(tmp_path / "coco", first())
    shutil.copy(root / "train2017" / "a.jpg", root / "val2017" / "a.jpg")
    assert any("copies of the other's: a.jpg and a.jpg" in line for line in check("coco", root).lines)
    row = {"joints_vis": [1] * 16, "joints": [[9, 9]] * 16, "image": "a.jpg", "scale": 0.3, "center": [30.0, 30.0]}
    mpii = tmp_path / "mpii"
    bad_images.write_jpeg(mpii / "images" / "a.jpg")
    (mpii / "annot").mkdir()
    for split in ("train", "valid"):
        (mpii / "annot" / f"{split}.json").write_text(json.dumps([row]))
    report = check("mpii", mpii)
    assert any("✗ 1 photographs in both splits: a.jpg" in line for line in report.lines)
    assert not report.ok


def _without_joints(text: str) -> str:
    return re.sub(r": \[.*?\]: \[.*\]", f": {[-1] * 18}: {[-1] * 18}", text)


NAMES = tiny_market.names({7: (1, 2)})
MARKET: dict[str, tuple[str, Callable[[str], str], str, bool]] = {
    "no joint": ("annotation", _without_joints, "✗ 4 images without any joint", False),
    "NaN": (
        "annotation",
        lambda text: re.sub(r"\[\d+,", "[NaN,", text, count=1),
        "y nan; expected pixels from 0",
        False,
    ),
    "1e400": ("annotation", lambda text: re.sub(r"\[\d+,", "[1e400,", text, count=1), "y inf; expected pixels", False),
    "far away": (
        "annotation",
        lambda text: re.sub(r"\[\d+,", "[9999,", text, count=1),
        "! 1 images with joints out",
        True,
    ),
    "a row twice": ("annotation", lambda text: text + text.splitlines()[1] + "\n", "market: ready", True),
    "two rows": (
        "annotation",
        lambda text: text + re.sub(r"\[\d+,", "[9,", text.splitlines()[1], count=1) + "\n",
        f"{NAMES[0]} has two different rows; leave one of them",
        False,
    ),
    "empty": ("annotation", lambda text: "", "the file is empty", False),
    "no row": ("annotation", lambda text: text.splitlines()[0], "no row below the header", False),
    "17 joints": ("annotation", lambda text: text.replace(", -1]", "]"), "market-annotation-train.csv", False),
    "a pair twice": (
        "pairs",
        lambda text: text + text.splitlines()[1] + "\n",
        "! 1 pairs that repeat an earlier one",
        True,
    ),
    "a pair of one": (
        "pairs",
        lambda text: text + f"{NAMES[0]},{NAMES[0]}\n",
        "! 1 pairs of an image with itself",
        True,
    ),
    "of two persons": (
        "pairs",
        lambda text: text + f"{NAMES[0]},0010_c1s1_000000_01.jpg\n",
        "✗ 1 pairs of two ident",
        False,
    ),
    "no pair": ("pairs", lambda text: text.splitlines()[0], "no pair below the header", False),
    "unknown": (
        "pairs",
        lambda text: text + "0007_c1s1_9_01.jpg,0007_c1s1_8_01.jpg\n",
        "✗ 2 images of the pair list wit",
        False,
    ),
}


@pytest.mark.parametrize("case", MARKET)
@pytest.mark.parametrize("system", ["pona", "multiscale"])
def test_promise_19_a_check_says_what_is_wrong_with_pairs_and_training_refuses_it(tmp_path, system, case):
    file, change, said, ready = MARKET[case]
    path = market(tmp_path / "market") / f"market-{file}-train.csv"
    path.write_text(change(path.read_text()))
    report = check("market", tmp_path / "market")
    assert said in "\n".join(report.lines), "\n".join(report.lines)
    assert report.ok == ready
    if not ready:
        with pytest.raises(ValueError, match="market"):
            runs.train(system, tmp_path / "runs", "data.name=market", f"data.root={tmp_path / 'market'}")
        assert not list(tmp_path.glob("runs/**/metrics.csv"))


def test_promise_19_persons_of_train_in_test_are_refused(tmp_path):
    root = market(tmp_path / "market")
    for file in ("annotation", "pairs"):
        shutil.copy(root / f"market-{file}-train.csv", root / f"market-{file}-test.csv")
    shutil.copytree(root / "train", root / "test", dirs_exist_ok=True)
    report = check("market", root)
    assert not report.ok
    assert any("✗ 2 identities in train and test: 0007, 0010" in line for line in report.lines)
    assert any("copies of test's" in line for line in report.lines)
    with pytest.raises(ValueError, match="2 identities are in both split 'train' and split 'test': 0007, 0010"):
        runs.train("pona", tmp_path / "runs", "data.name=market", f"data.root={root}")


JUNK = (
    b"",
    bytes(100),
    b"text\n",
    b"[]",
    b"{}",
    b"null",
    b'{"images": 5, "annotations": "x"}',
    b"\x89HDF\r\n\x1a\n" + bytes(200),
    b"MATLAB 5.0 MAT-file" + bytes(300),
    b"PK\x03\x04" + bytes(50),
    b"from,to\na",
    b"name:keypoints_y:keypoints_x\na: [1]: [2]",
    "folder",
    "pipe",
)
"""What lies in the place of every file of a data set."""

OTHERS = {
    "market": ("market-annotation-train.csv", "market-pairs-train.csv", "train/a.jpg"),
    "deepfashion": ("fasion-annotation-train.csv", "fasion-pairs-train.csv", "train/a.jpg"),
    "semantic": ("fasion-annotation-train.csv", "fasion-pairs-train.csv", "train/a.jpg", "parts/a.png"),
    "photos": ("keypoints.json", "anna/a.jpg"),
    "fonts": ("a.ttf", "train/b.ttf", "test/c.otf"),
    "mocap": ("a.bvh", "b.amc", "b.asf", "c.npz"),
    "sample-mocap": ("a.bvh",),
    "sample-pairs": ("annotations.json", "images/a.jpg"),
}
SETS = {name: [path for group in layout.groups for path, _ in group] for name, layout in _LAYOUTS.items()} | OTHERS


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SETS)
def test_promise_19_whatever_lies_in_a_folder_a_check_says_that_it_is_not_ready(tmp_path, name):
    """Also of a folder that is not there, and of a file in its place; a pipe is not waited for."""
    (tmp_path / "file").write_bytes(b"x")
    for root in (tmp_path / "nowhere", tmp_path / "file"):
        assert not check(name, root).ok
    for number, junk in enumerate(JUNK):
        for path in SETS[name]:
            place = tmp_path / str(number) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(junk, bytes) and place.suffix:
                place.write_bytes(junk)
            elif junk == "pipe":
                os.mkfifo(place)
            else:
                place.mkdir()
        report = check(name, tmp_path / str(number))
        assert not report.ok, f"{junk!r}: {report.lines}"
        assert report.lines[-1] == f"{name}: not ready, see the crosses above"


def test_promise_19_copies_among_files_of_one_length_take_one_reading_each(tmp_path, monkeypatch):
    splits = [[tmp_path / f"{split}{number:03d}.bmp" for number in range(100)] for split in "ab"]
    for number, path in enumerate(splits[0] + splits[1]):
        path.write_bytes(number.to_bytes(4, "little"))
    splits[1][7].write_bytes(splits[0][9].read_bytes())
    opened: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: (opened.append(path), real(path, *how))[1])
    assert findings.same_content(*splits) == ["a009.bmp and b007.bmp"]
    assert sorted(opened) == splits[0] + splits[1]
