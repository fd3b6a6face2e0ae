"""What the answers of a user study say: R2G, G2R and accuracy (system 003, section 4.2), captions (system 004)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from fastpose._checks import choice
from fastpose.metrics.report import Result

FORMAT, VERSIONS = "fastpose-study", (2,)
CHOICES = {"pictures": ("real", "generated"), "caption": ("left", "right")}

PUBLISHED = {
    "R2G (5 s)": 25.90,
    "G2R (5 s)": 54.26,
    "accuracy (5 s)": 59.92,
    "R2G (unlimited)": 30.37,
    "G2R (unlimited)": 46.30,
    "accuracy (unlimited)": 61.67,
}
"""Table 2 of system 003: 61 individuals, 20 of 240 pictures each."""


@dataclass(frozen=True)
class Answer:
    """One picture or question: its identifier, the truth, what was answered, and after how many milliseconds."""

    image: str
    truth: str
    answer: str
    milliseconds: float


@dataclass(frozen=True)
class Submission:
    """What one participant handed in.

    Attributes:
        study: identifier of the study; the timed and the untimed page of one set share it.
        kind: "pictures" (real or generated) or "caption" (which of two pictures fits).
        exposure: seconds that a picture was shown, or None for no limit.
        submission: identifier of this submission; it comes once.
        answers: in the order in which they were given.
    """

    study: str
    kind: str
    exposure: float | None
    submission: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Key:
    """What the key beside a page says: the study, its kind, and the truth of each picture or question of the test."""

    study: str
    kind: str
    truths: Mapping[str, str]


def read(path: str | Path) -> Submission:
    """Return the submission in a file that a study page saved.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not of a study page, of a page of another version, with an answer that the page does not
            know, or with another number of answers than the page asks for.
    """
    content = _read_json("answers", Path(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"answers {path}: expected what a study page saved ('format': '{FORMAT}'), found another file")
    if content.get("version") not in VERSIONS:
        raise ValueError(
            f"answers {path}: expected a page of version {', '.join(map(str, VERSIONS))}, "
            f"found {brief(content.get('version'))}"
        )
    try:
        return _submission(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"answers {path}: the file is damaged ({what}); leave it out") from None


def read_key(path: str | Path) -> Key:
    """Return what a study's identifiers stand for, from the file that was written beside its page.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no such file.
    """
    content = _read_json("key", Path(path))
    try:
        rows = [row for row in content["rows"] if not row["practice"]]
        truths = {_text(row, "image"): _text(row, "truth") for row in rows}
        kind = "caption" if set(truths.values()) == {"caption"} else "pictures"
        if not truths or (kind == "pictures" and not set(truths.values()) <= set(CHOICES[kind])):
            raise ValueError
        return Key(_text(content, "study"), kind, truths)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"key {path}: expected the .key.json file beside the study's page, found another file"
        ) from None


def _read_json(what: str, path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{what} {path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{what} {path}: expected JSON, found something else; the file is damaged") from None


def _submission(content: dict[str, Any]) -> Submission:
    kind, exposure = content["kind"], content["exposure"]
    choice("kind", kind, tuple(CHOICES))
    if exposure != "unlimited" and not (_number(exposure) and exposure > 0):
        raise ValueError(f"exposure: expected seconds or 'unlimited', got {brief(exposure)}")
    answers = tuple(_answer(row, CHOICES[kind]) for row in content["answers"])
    if not answers:
        raise ValueError("answers: expected at least one, got none")
    if len({answer.image for answer in answers}) < len(answers):
        raise ValueError("answers: a picture occurs twice")
    _check_whole(content["images"], kind, answers)
    seconds = None if exposure == "unlimited" else float(exposure)
    return Submission(_text(content, "study"), kind, seconds, _text(content, "submission"), answers)


def _check_whole(asked: object, kind: str, answers: Sequence[Answer]) -> None:
    """Raise unless the answers are as many as the page asks for, and of pictures half of them real."""
    if isinstance(asked, bool) or asked != len(answers):
        raise ValueError(f"answers: expected {brief(asked)}, as many as the page asks for, got {len(answers)}")
    real = sum(answer.truth == "real" for answer in answers)
    if kind == "pictures" and 2 * real != len(answers):
        raise ValueError(
            f"answers: expected as many real pictures as generated ones, got {real} and {len(answers) - real}"
        )


def _answer(row: dict[str, Any], known: Sequence[str]) -> Answer:
    for key in ("truth", "answer"):
        choice(key, row[key], known)
    milliseconds = row["milliseconds"]
    if not (_number(milliseconds) and milliseconds >= 0):
        raise ValueError(f"milliseconds: expected 0 or more, got {brief(milliseconds)}")
    return Answer(_text(row, "image"), row["truth"], row["answer"], float(milliseconds))


def _number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected text, got {brief(value)}")
    return value


def read_all(
    paths: Iterable[str | Path], *, key: Key | None = None, skip: bool = False
) -> tuple[list[Submission], list[str]]:
    """Return the submissions of files, and one sentence per file that was left out.

    Args:
        paths: files of one study.
        key: of the study; every picture must be one of its test's, and its truth the key's. Without it the truth is
            taken from the files, which must agree.
        skip: leave out damaged and foreign files, submissions that occur twice, those of another study than the key's
            or the first, and those that call a picture something else, instead of raising.

    Raises:
        ValueError, FileNotFoundError: the first such file, unless ``skip``; no submission at all.
    """
    found: dict[str, Submission] = {}
    truths = dict(key.truths) if key is not None else {}
    left_out = []
    for path in paths:
        try:
            one = read(path)
            _admit(path, one, found, key)
            _check_truths(path, one, truths, key)
        except (ValueError, OSError) as error:
            if not skip:
                raise
            left_out.append(str(error))
            continue
        found[one.submission] = one
        truths |= {answer.image: answer.truth for answer in one.answers} if key is None else {}
    if not found:
        raise ValueError(f"answers: expected at least one submission, found none (files left out: {len(left_out)})")
    return list(found.values()), left_out


def _admit(path: str | Path, one: Submission, found: dict[str, Submission], key: Key | None) -> None:
    """Raise unless a submission is new and of the study of the key, or of the first one."""
    if one.submission in found:
        raise ValueError(f"answers {path}: submission {one.submission} occurs twice; leave one of the files out")
    first = key or next(iter(found.values()), one)
    if (one.study, one.kind) != (first.study, first.kind):
        other = "the first file" if key is None else "the key"
        raise ValueError(
            f"answers {path}: of study {one.study}, {other} is of {first.study}; score each study by itself"
        )


def _check_truths(path: str | Path, one: Submission, truths: Mapping[str, str], key: Key | None) -> None:
    """Raise where an answer calls a picture something else than ``truths`` do; on which side fits is drawn anew."""
    for answer in one.answers:
        known = truths.get(answer.image)
        if key is not None and known is None:
            raise ValueError(f"answers {path}: {brief(answer.image)} is not in the key's test; leave the file out")
        if one.kind == "caption" or known is None or known == answer.truth:
            continue
        if key is not None:
            raise ValueError(
                f"answers {path}: calls picture {answer.image} {answer.truth}, the key {known}; leave the file out"
            )
        raise ValueError(
            f"answers {path}: calls picture {answer.image} {answer.truth}, an earlier file {known}; pass the key"
        )


def score(submissions: Sequence[Submission]) -> list[Result]:
    """Return the numbers of one study in percent, for each exposure: timed ones first, in ascending order.

    For pictures three results: R2G, the share of real pictures taken for generated; G2R, the share of generated
    pictures taken for real; accuracy, 100 - (R2G + G2R) / 2. Each is the mean of the submissions' own shares. For
    captions one: the share of questions in which the picture that fits was chosen. ``count`` is the number of answers
    behind a value, ``details`` hold submissions, pooled value and median milliseconds.

    Raises:
        ValueError: no submission, more than one kind, or a submission without an answer, or a picture of one kind.
    """
    kinds = {one.kind for one in submissions}
    if len(kinds) != 1:
        raise ValueError(f"submissions: expected those of one kind of study, got {sorted(kinds) or 'none'}")
    exposures = sorted(
        {one.exposure for one in submissions}, key=lambda limit: float("inf") if limit is None else limit
    )
    results = []
    for exposure in exposures:
        group = [one for one in submissions if one.exposure == exposure]
        results += _pictures(group, exposure) if kinds == {"pictures"} else [_captions(group)]
    return results


def _pictures(group: Sequence[Submission], exposure: float | None) -> list[Result]:
    shown = "unlimited" if exposure is None else f"{exposure:g} s"
    tail = f"mean over submissions, exposure {shown}, system 003, section 4.2"
    r2g = _wrong(group, "real", f"R2G ({shown})", f"user study, real pictures taken for generated, {tail}")
    g2r = _wrong(group, "generated", f"G2R ({shown})", f"user study, generated pictures taken for real, {tail}")
    details = {
        "submissions": len(group),
        "pooled": 100 - (r2g.details["pooled"] + g2r.details["pooled"]) / 2,
        "milliseconds": _median(answer.milliseconds for one in group for answer in one.answers),
    }
    accuracy = Result(
        f"accuracy ({shown})",
        f"user study, 100 - (R2G + G2R) / 2, {tail}",
        accuracy_of(r2g.value, g2r.value),
        r2g.count + g2r.count,
        details=details,
    )
    return [r2g, g2r, accuracy]


def accuracy_of(r2g: float, g2r: float) -> float:
    """Return the accuracy in percent that belongs to two rates of confusion in percent, as many pictures of each."""
    return 100 - (r2g + g2r) / 2


def _wrong(group: Sequence[Submission], truth: str, name: str, protocol: str) -> Result:
    """Return how often pictures of one kind were taken for the other."""
    shares, wrong, count = [], 0, 0
    for one in group:
        rows = [answer for answer in one.answers if answer.truth == truth]
        if not rows:
            raise ValueError(f"submission {one.submission}: expected {truth} pictures among its answers, found none")
        missed = sum(answer.answer != truth for answer in rows)
        shares.append(missed / len(rows))
        wrong, count = wrong + missed, count + len(rows)
    details = {"submissions": len(group), "pooled": 100 * wrong / count}
    return Result(name, protocol, 100 * sum(shares) / len(shares), count, details=details)


def _captions(group: Sequence[Submission]) -> Result:
    for one in group:
        if not one.answers:
            raise ValueError(f"submission {one.submission}: expected answers, found none")
    rows = [[answer.answer == answer.truth for answer in one.answers] for one in group]
    count = sum(map(len, rows))
    details = {
        "submissions": len(group),
        "pooled": 100 * sum(map(sum, rows)) / count,
        "milliseconds": _median(answer.milliseconds for one in group for answer in one.answers),
    }
    return Result(
        "caption choice",
        "user study, share of captions for which the fitting one of two pictures was chosen (chance: 50), mean over "
        "submissions, system 004",
        100 * sum(sum(row) / len(row) for row in rows) / len(rows),
        count,
        details=details,
    )


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
