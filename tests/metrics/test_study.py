"""Scores of user studies: by hand, against the published row, and what is not an answer file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fastpose.metrics import study

REAL, GENERATED = "real", "generated"


def content(pairs, *, submission="a", exposure=5, kind="pictures", **changes) -> dict:
    """A saved file whose answers are (truth, answer) pairs."""
    rows = [
        {"image": f"{number:03d}", "truth": truth, "answer": answer, "milliseconds": 100 * (number + 1)}
        for number, (truth, answer) in enumerate(pairs)
    ]
    head = {"format": "fastpose-study", "version": 2, "study": "s1", "kind": kind, "title": "t", "seed": 0, "draw": 7}
    rest = {"submission": submission, "exposure": exposure, "images": len(rows), "answers": rows}
    return {**head, **rest, **changes}


def save(tmp_path: Path, name: str, value) -> Path:
    path = tmp_path / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def answered(real_wrong: int, generated_wrong: int, each: int = 10) -> list[tuple[str, str]]:
    real = [(REAL, GENERATED)] * real_wrong + [(REAL, REAL)] * (each - real_wrong)
    return real + [(GENERATED, REAL)] * generated_wrong + [(GENERATED, GENERATED)] * (each - generated_wrong)


def scored(tmp_path, *contents):
    return study.score([study.read(save(tmp_path, f"{number}.json", one)) for number, one in enumerate(contents)])


def test_rates_by_hand(tmp_path):
    first, second = content(answered(2, 5)), content(answered(4, 6), submission="b")
    r2g, g2r, accuracy = scored(tmp_path, first, second)
    assert [result.name for result in (r2g, g2r, accuracy)] == ["R2G (5 s)", "G2R (5 s)", "accuracy (5 s)"]
    assert (r2g.value, g2r.value, accuracy.value) == pytest.approx((30, 55, 57.5))
    assert (r2g.count, g2r.count, accuracy.count) == (20, 20, 40)
    assert accuracy.details == {"submissions": 2, "pooled": pytest.approx(57.5), "milliseconds": 1050}
    assert "exposure 5 s" in accuracy.protocol


def test_each_submission_weighs_the_same(tmp_path):
    short, long = content(answered(1, 0, each=1)), content(answered(0, 0, each=9), submission="b")
    r2g = scored(tmp_path, short, long)[0]
    assert r2g.value == 50
    assert r2g.details["pooled"] == pytest.approx(10)


@pytest.mark.parametrize(("wrong", "accuracy"), [(0, 100), (10, 0), (5, 50)])
def test_perfect_worst_and_guessing(tmp_path, wrong, accuracy):
    assert scored(tmp_path, content(answered(wrong, wrong)))[-1].value == accuracy


@pytest.mark.parametrize("shown", ["5 s", "unlimited"])
def test_the_published_rows_follow_the_same_rule(shown):
    row = study.PUBLISHED
    derived = study.accuracy_of(row[f"R2G ({shown})"], row[f"G2R ({shown})"])
    assert derived == pytest.approx(row[f"accuracy ({shown})"], abs=0.0051)


def test_61_submissions_with_the_published_rates(tmp_path):
    """158 of 610 real and 331 of 610 generated pictures give table 2's 25.90, 54.26 and 59.92."""
    shares = [(158 * (n + 1) // 61 - 158 * n // 61, 331 * (n + 1) // 61 - 331 * n // 61) for n in range(61)]
    files = [content(answered(*pair), submission=str(number)) for number, pair in enumerate(shares)]
    values = [round(result.value, 2) for result in scored(tmp_path, *files)]
    assert values == [25.90, 54.26, 59.92]


def test_exposures_are_scored_apart(tmp_path):
    free = content(answered(3, 3), submission="b", exposure="unlimited")
    brief = content(answered(1, 1), submission="c", exposure=1)
    results = scored(tmp_path, free, content(answered(0, 0)), brief)
    values = {result.name: result.value for result in results}
    assert list(values)[::3] == ["R2G (1 s)", "R2G (5 s)", "R2G (unlimited)"]
    assert (values["R2G (1 s)"], values["R2G (5 s)"], values["R2G (unlimited)"]) == pytest.approx((10, 0, 30))


def test_captions(tmp_path):
    rows = [("left", "left"), ("right", "right"), ("left", "right"), ("right", "left")]
    first = content(rows, kind="caption", exposure="unlimited")
    second = content([("left", "left")] * 4, kind="caption", exposure="unlimited", submission="b")
    (result,) = scored(tmp_path, first, second)
    assert (result.value, result.count, result.details["submissions"]) == (75, 8, 2)
    assert "system 004" in result.protocol


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"format": "fastpose-study", "ver', "expected JSON"),
        ("[]", "found another file"),
        ({"format": "other"}, "found another file"),
        (content(answered(1, 1), version=9), "expected a page of version 2, found 9"),
        (content([]), "expected at least one, got none"),
        (content(answered(1, 1), kind="films"), "kind: expected one of pictures, caption"),
        (content(answered(1, 1), exposure=0), "exposure: expected seconds or 'unlimited', got 0"),
        (content(answered(1, 1), exposure=10**400), "exposure: expected seconds or 'unlimited', got 1000"),
        (content(answered(1, 1), images=10**400), "answers: expected 1000"),
        (content([(REAL, REAL)], images=20), "answers: expected 20, as many as the page asks for, got 1"),
        (content([(REAL, REAL)], images=True), "answers: expected True, as many"),
        (content([(REAL, REAL)] * 2 + [(GENERATED, REAL)]), "as many real pictures as generated ones, got 2 and 1"),
        (content([("real", "maybe")]), "answer: expected one of real, generated, got 'maybe'"),
        (content([("left", "left")]), "truth: expected one of real, generated"),
        (content(answered(1, 1), submission=""), "submission: expected text"),
        (content(answered(1, 1), answers=[1]), "the file is damaged"),
        (content(answered(1, 1), answers=content(answered(1, 1))["answers"] * 2), "a picture occurs twice"),
        ({key: value for key, value in content(answered(1, 1)).items() if key != "answers"}, "lacks 'answers'"),
        ({key: value for key, value in content(answered(1, 1)).items() if key != "images"}, "lacks 'images'"),
    ],
)
def test_files_that_are_no_answers_are_one_sentence(tmp_path, value, message):
    path = save(tmp_path, "bad.json", value)
    with pytest.raises(ValueError, match=r"^answers .*bad\.json: ") as error:
        study.read(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 200


@pytest.mark.parametrize("value", [-1, "1", None, True, 10**400])
def test_milliseconds_must_be_a_number(tmp_path, value):
    rows = content(answered(1, 1))
    rows["answers"][0]["milliseconds"] = value
    with pytest.raises(ValueError, match="milliseconds: expected 0 or more"):
        study.read(save(tmp_path, "a.json", rows))


def test_bad_files_stop_the_reading_or_are_counted(tmp_path):
    good = save(tmp_path, "a.json", content(answered(1, 1)))
    twice = save(tmp_path, "b.json", content(answered(1, 1)))
    other = save(tmp_path, "c.json", content(answered(1, 1), study="s2", submission="c"))
    broken = save(tmp_path, "d.json", "{")
    huge = save(tmp_path, "e.json", content(answered(1, 1), submission="e", exposure=10**400))
    alone = save(tmp_path, "f.json", content([(REAL, REAL)], submission="f", images=20))
    for bad, message in (
        (twice, "occurs twice"),
        (other, "of study s2"),
        (broken, "damaged"),
        (huge, r"e\.json"),
        (tmp_path, "no such"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            study.read_all([good, bad])
    found, left_out = study.read_all([good, twice, other, broken, huge, alone, tmp_path / "none.json"], skip=True)
    assert len(found) == 1
    assert len(left_out) == 6
    assert study.score(found)[0].count == 10
    with pytest.raises(ValueError, match=r"found none \(files left out: 1\)"):
        study.read_all([broken], skip=True)


def lying(**changes) -> dict:
    """A submission that calls the first picture, a real one, generated, and the last, a generated one, real."""
    told = content(answered(1, 1), **changes)
    told["answers"][0]["truth"], told["answers"][-1]["truth"] = GENERATED, REAL
    return told


def test_files_must_agree_about_the_truth(tmp_path):
    good = save(tmp_path, "a.json", content(answered(1, 1)))
    other = save(tmp_path, "b.json", lying(submission="b"))
    with pytest.raises(ValueError, match=r"b\.json: calls picture 000 generated, an earlier file real; pass the key"):
        study.read_all([good, other])
    found, left_out = study.read_all([good, other], skip=True)
    assert ([one.submission for one in found], len(left_out)) == (["a"], 1)
    # which side a caption's picture stands on is drawn for each participant
    sides = [content([(side, "left")], kind="caption", submission=side) for side in ("left", "right")]
    assert len(study.read_all([save(tmp_path, f"{n}.json", one) for n, one in enumerate(sides)])[0]) == 2


def key_of(told: dict, **changes) -> dict:
    rows = [{"image": row["image"], "truth": row["truth"], "index": 0, "practice": False} for row in told["answers"]]
    return {"study": told["study"], "rows": [*rows, {"image": "p", "truth": REAL, "practice": True}], **changes}


def test_the_key_decides(tmp_path):
    good, other = content(answered(1, 1)), lying(submission="b")
    key = study.read_key(save(tmp_path, "s.key.json", key_of(good)))
    assert (key.study, key.kind, len(key.truths)) == ("s1", "pictures", 20)
    paths = [save(tmp_path, "b.json", other), save(tmp_path, "a.json", good)]
    found, left_out = study.read_all(paths, key=key, skip=True)  # the first file is the wrong one
    assert [one.submission for one in found] == ["a"]
    assert "b.json: calls picture 000 generated, the key real" in left_out[0]
    strange = content(answered(1, 1), submission="c")
    strange["answers"][3]["image"] = "p"
    with pytest.raises(ValueError, match=r"c\.json: 'p' is not in the key's test"):
        study.read_all([save(tmp_path, "c.json", strange)], key=key)
    with pytest.raises(ValueError, match=r"d\.json: of study s2, the key is of s1"):
        study.read_all([save(tmp_path, "d.json", {**good, "study": "s2"})], key=key)


def test_a_key_of_captions(tmp_path):
    told = content([("left", "left"), ("right", "left")], kind="caption")
    rows = [{"image": row["image"], "truth": "caption", "practice": False} for row in told["answers"]]
    key = study.read_key(save(tmp_path, "c.key.json", {"study": "s1", "rows": rows}))
    assert key.kind == "caption"
    assert len(study.read_all([save(tmp_path, "a.json", told)], key=key)[0]) == 1


@pytest.mark.parametrize(
    "value", ["{", [], {"rows": []}, key_of(content([("left", "left")])), {"study": "s", "rows": 1}]
)
def test_what_is_no_key_is_one_sentence(tmp_path, value):
    with pytest.raises(ValueError, match=r"^key .*k\.json: expected"):
        study.read_key(save(tmp_path, "k.json", value))
    with pytest.raises(FileNotFoundError, match="no such file"):
        study.read_key(tmp_path / "none.json")


def test_scores_need_submissions_of_one_kind_with_both_truths(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        study.score([])
    pictures = study.read(save(tmp_path, "a.json", content(answered(1, 1))))
    captions = study.read(save(tmp_path, "b.json", content([("left", "left")], kind="caption")))
    with pytest.raises(ValueError, match="one kind of study"):
        study.score([pictures, captions])
    half = dataclasses.replace(pictures, answers=pictures.answers[:10])
    with pytest.raises(ValueError, match="expected generated pictures among its answers"):
        study.score([half])
