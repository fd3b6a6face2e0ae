"""What the answers of a user study say: R2G, G2R and accuracy (system 003, section 4.2), captions (system 004)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastpose._checks import choice
from fastpose.metrics.report import Result

FORMAT, VERSIONS = "fastpose-study", (1,)
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


def read(path: str | Path) -> Submission:
    """Return the submission in a file that a study page saved.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not of a study page, of a page of another version, or with an answer that the page does
            not know.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"answers {path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"answers {path}: expected JSON, found something else; the file is damaged") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"answers {path}: expected what a study page saved ('format': '{FORMAT}'), found another file")
    if content.get("version") not in VERSIONS:
        raise ValueError(
            f"answers {path}: expected a page of version {', '.join(map(str, VERSIONS))}, "
            f"found {content.get('version')!r}"
        )
    try:
        return _submission(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"answers {path}: the file is damaged ({what}); leave it out") from None


def _submission(content: dict[str, Any]) -> Submission:
    kind, exposure = content["kind"], content["exposure"]
    choice("kind", kind, tuple(CHOICES))
    if exposure != "unlimited" and not (_number(exposure) and exposure > 0):
        raise ValueError(f"exposure: expected seconds or 'unlimited', got {exposure!r}")
    answers = tuple(_answer(row, CHOICES[kind]) for row in content["answers"])
    if not answers:
        raise ValueError("answers: expected at least one, got none")
    if len({answer.image for answer in answers}) < len(answers):
        raise ValueError("answers: a picture occurs twice")
    seconds = None if exposure == "unlimited" else float(exposure)
    return Submission(_text(content, "study"), kind, seconds, _text(content, "submission"), answers)


def _answer(row: dict[str, Any], known: Sequence[str]) -> Answer:
    for key in ("truth", "answer"):
        choice(key, row[key], known)
    milliseconds = row["milliseconds"]
    if not (_number(milliseconds) and milliseconds >= 0):
        raise ValueError(f"milliseconds: expected 0 or more, got {milliseconds!r}")
    return Answer(_text(row, "image"), row["truth"], row["answer"], float(milliseconds))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(row: dict[str, Any], key: str) -> str:
    value = row[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected text, got {value!r}")
    return value


def read_all(paths: Iterable[str | Path], *, skip: bool = False) -> tuple[list[Submission], list[str]]:
    """Return the submissions of files, and one sentence per file that was left out.

    Args:
        paths: files of one study.
        skip: leave out damaged and foreign files, submissions that occur twice and those of another study than the
            first, instead of raising.

    Raises:
        ValueError, FileNotFoundError: the first such file, unless ``skip``; no submission at all.
    """
    found: dict[str, Submission] = {}
    left_out = []
    for path in paths:
        try:
            one = read(path)
            _admit(path, one, found)
        except (ValueError, OSError) as error:
            if not skip:
                raise
            left_out.append(str(error))
            continue
        found[one.submission] = one
    if not found:
        raise ValueError(f"answers: expected at least one submission, found none ({len(left_out)} files left out)")
    return list(found.values()), left_out


def _admit(path: str | Path, one: Submission, found: dict[str, Submission]) -> None:
    """Raise unless a submission is new and of the study of the first one."""
    if one.submission in found:
        raise ValueError(f"answers {path}: submission {one.submission} occurs twice; leave one of the files out")
    first = next(iter(found.values()), one)
    if (one.study, one.kind) != (first.study, first.kind):
        raise ValueError(
            f"answers {path}: of study {one.study}, the first file is of {first.study}; score each study by itself"
        )


def score(submissions: Sequence[Submission]) -> list[Result]:
    """Return the numbers of one study in percent, for each exposure: timed ones first, in ascending order.

    For pictures three results: R2G, the share of real pictures taken for generated; G2R, the share of generated
    pictures taken for real; accuracy, 100 - (R2G + G2R) / 2. Each is the mean of the submissions' own shares. For
    captions one: the share of questions in which the picture that fits was chosen. ``count`` is the number of answers
    behind a value, ``details`` hold submissions, pooled value and median milliseconds.

    Raises:
        ValueError: no submission, more than one kind, or a submission without a picture of one kind.
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
