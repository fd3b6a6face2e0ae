"""fastpose study: from folders of pictures to a page, from saved answers to numbers."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from drawing_weights import save

from fastpose.data import text as text_encoders


def folder(path, count, first=0, size=(24, 16)):
    import cv2

    path.mkdir(parents=True)
    for index in range(count):
        image = np.random.default_rng(first + index).integers(0, 256, (*size, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path / f"{path.name}-{index}.png"), image)
    return path


@pytest.fixture
def sets(tmp_path):
    return folder(tmp_path / "photos", 6), folder(tmp_path / "ours", 7, 50)


def make(run, sets, *words):
    options = ("--practice", 1, "--images", 4, "-o", "page.html", *words)
    return run("study", "make", "--real", sets[0], "--generated", sets[1], *options)


def test_make_writes_a_page_and_its_key(run, sets, tmp_path):
    code, out, err = make(run, sets)
    assert (code, err) == (0, "")
    assert "page.html" in out
    assert "page.key.json" in out
    rows = json.loads((tmp_path / "page.key.json").read_text())["rows"]
    assert sorted({row["file"] for row in rows}) == sorted(str(f) for one in sets for f in one.iterdir())
    assert all(("photos" in row["file"]) == (row["truth"] == "real") for row in rows)
    assert not re.search("photos|ours-", (tmp_path / "page.html").read_text())


def test_the_pool_bounds_the_page_and_the_seed_repeats_it(run, sets, tmp_path):
    pages = []
    for number, seed in enumerate((1, 1, 2)):
        assert make(run, sets, "--pool", 3, "--seed", seed, "-o", f"{number}.html")[0] == 0
        pages.append((tmp_path / f"{number}.html").read_text())
    assert pages[0] == pages[1] != pages[2]
    assert len(json.loads((tmp_path / "2.key.json").read_text())["rows"]) == 8


@pytest.mark.parametrize("there", ["page.html", "page.key.json"])
def test_no_page_and_no_key_is_overwritten(run, sets, tmp_path, there):
    (tmp_path / there).write_text("mine")
    items(tmp_path, 2)
    caption = ("study", "make-caption", "--items", "items.json", "--questions", 1, "-o", "page.html")
    for code, _, err in (make(run, sets), run(*caption)):
        assert (code, err.count("\n")) == (2, 1)
        assert f"{there}: exists; name another page" in err
    assert [path.name for path in tmp_path.glob("page.*")] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_one_picture_at_a_time_is_decoded(run, sets, tmp_path, monkeypatch):
    import weakref

    from fastpose.data import images

    alive, most, real = [], [], images.read_image

    class Counted(np.ndarray):
        pass

    def counting(path, **options):
        picture = real(path, **options).view(Counted)
        alive.append(weakref.ref(picture))
        most.append(sum(one() is not None for one in alive))
        return picture

    monkeypatch.setattr(images, "read_image", counting)
    assert make(run, sets)[0] == 0
    assert len(most) == 13  # each once: the sizes come from the headers
    assert max(most) <= 2  # the one before may still be under way


def test_a_turned_photograph_counts_as_it_is_looked_at(run, sets, tmp_path):
    from PIL import Image

    for file in sorted(sets[0].iterdir()):
        with Image.open(file) as picture:
            turned = Image.Exif()
            turned[0x0112] = 6  # to be turned by a quarter
            picture.transpose(Image.Transpose.ROTATE_90).save(file.with_suffix(".jpg"), exif=turned)
        file.unlink()
    code, out, _ = make(run, sets)
    assert (code, "note:" in out) == (0, False)
    assert '"size": [24, 16]' in (tmp_path / "page.html").read_text()


def test_pictures_of_two_sizes_are_noted(run, tmp_path):
    sets = folder(tmp_path / "photos", 4, size=(48, 32)), folder(tmp_path / "ours", 4)
    code, out, _ = make(run, sets, "--exposure", "unlimited")
    assert code == 0
    assert "real pictures are 48 pixels high, generated ones 24" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--exposure", "long"), "--exposure 'long': expected a number of seconds, or unlimited"),
        (("--exposure", "-1"), "exposure: expected a positive number"),
        (("--images", 20), "real: expected at least 11 pictures"),
        (("--images", 3), "images: expected an even number"),
        (("--seed", -1), "--seed: expected 0 or more, got -1"),
    ],
)
def test_make_refuses_in_one_line(run, sets, tmp_path, words, message):
    code, _, err = make(run, sets, *words)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_make_needs_two_folders_of_pictures(run, sets, tmp_path):
    (tmp_path / "empty").mkdir()
    for other, message in (("empty", "no picture in it"), ("gone", "no such folder"), ("photos", "two folders")):
        code, _, err = run("study", "make", "--real", sets[0], "--generated", tmp_path / other, "-o", "a.html")
        assert (code, message in err) == (2, True)
    (sets[1] / "a.png").write_bytes(b"no picture")
    code, _, err = make(run, sets)
    assert (code, "a.png" in err) == (2, True)


def items(tmp_path, count):
    files = sorted(folder(tmp_path / "maps", 2 * count).iterdir())
    rows = [
        {"caption": f"c {n}", "right": f"maps/{files[2 * n].name}", "wrong": f"maps/{files[2 * n + 1].name}"}
        for n in range(count)
    ]
    (tmp_path / "items.json").write_text(json.dumps(rows))
    return rows


def test_make_caption_writes_a_page(run, tmp_path):
    rows = items(tmp_path, 3)
    code, _, err = run("study", "make-caption", "--items", "items.json", "-o", "c.html", "--questions", 2)
    assert (code, err) == (0, "")
    kept = json.loads((tmp_path / "c.key.json").read_text())["rows"]
    assert [row["caption"] for row in kept] == [row["caption"] for row in rows]
    code, _, err = run("study", "make-caption", "--items", "items.json", "-o", "d.html")
    assert (code, "questions: expected 1 to 3" in err) == (2, True)


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "..\\a.png", "a\0.png"])
def test_promise_20_a_list_of_items_names_no_picture_outside_of_its_folder(run, tmp_path, name):
    rows = items(tmp_path, 3)
    (tmp_path / "items.json").write_text(json.dumps([rows[0] | {"wrong": name}, *rows[1:]]))
    code, _, err = run("study", "make-caption", "--items", "items.json", "-o", "c.html", "--questions", 2)
    assert (code, "leaves the folder" in err) == (2, True)


def test_caption_items_are_what_make_caption_reads(run, tmp_path):
    encoder = text_encoders.create("sample")
    weights = save(tmp_path, "caption/tiny", f"text.size={encoder.size}", f"text.fingerprint={encoder.fingerprint}")
    words = ("--weights", weights, "--count", 3, "--seed", 2)
    code, out, err = run("study", "caption-items", *words, "--encoder", "sample", "data.name=sample", "-o", "set")
    assert (code, err) == (0, "")
    command = out.splitlines()[-1].removeprefix("next: fastpose ")
    assert run(*command.split())[0] == 0
    kept = json.loads((tmp_path / "study.key.json").read_text())["rows"]
    rows = json.loads((tmp_path / "set" / "items.json").read_text())
    assert [(row["caption"], row["right"]) for row in kept] == [(row["caption"], row["right"]) for row in rows]
    code, _, err = run("study", "caption-items", *words, "-o", "set")
    assert (code, err.count("\n")) == (2, 1)
    assert "out: expected a new or an empty folder, set has files in it" in err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("{}", "expected a list of captions with two pictures each, got dict"),
        ("[]", "expected a list of captions with two pictures each, got an empty one"),
        ('[{"caption": "a"}]', "row 0 needs the texts"),
        ('[{"caption": "a", "right": "x.png", "wrong": "x.png"}]', "x.png: no such file"),
    ],
)
def test_make_caption_refuses_bad_items(run, tmp_path, text, message):
    (tmp_path / "items.json").write_text(text)
    code, _, err = run("study", "make-caption", "--items", "items.json", "-o", "c.html")
    assert (code, message in err) == (2, True)
    assert err.count("\n") == 1


def answers(submission, wrong):
    truths = [("real", "generated"), ("generated", "real")]
    rows = [
        {"image": str(n), "truth": truth, "answer": other if n < wrong else truth, "milliseconds": 900}
        for n, (truth, other) in enumerate(truths * 2)
    ]
    head = {"format": "fastpose-study", "version": 2, "study": "s", "kind": "pictures", "exposure": 5, "images": 4}
    return json.dumps({**head, "submission": submission, "answers": rows})


def test_score_prints_the_rates_beside_the_papers(run, tmp_path):
    (tmp_path / "in").mkdir()
    for name, wrong in (("a", 0), ("b", 2)):
        (tmp_path / "in" / f"{name}.json").write_text(answers(name, wrong))
    code, out, err = run("study", "score", "in", "-o", "res")
    assert (code, err) == (0, "")
    assert re.search(r"R2G \(5 s\) +25\.00 +25\.90 +4", out)
    assert re.search(r"accuracy \(5 s\) +75\.00 +59\.92 +8", out)
    assert "submissions: 2" in out
    assert len((tmp_path / "res" / "results.jsonl").read_text().splitlines()) == 3


def test_score_refuses_or_counts_files_that_are_no_answers(run, tmp_path):
    (tmp_path / "a.json").write_text(answers("a", 1))
    (tmp_path / "b.json").write_text("{")
    code, _, err = run("study", "score", "a.json", "b.json")
    assert (code, err.count("\n")) == (2, 1)
    assert "b.json" in err
    code, out, _ = run("study", "score", "a.json", "b.json", "--skip-bad")
    assert (code, "left out: 1; first: answers b.json" in out) == (0, True)
    (tmp_path / "none").mkdir()
    code, _, err = run("study", "score", "none")
    assert (code, "no .json file of answers in this folder" in err) == (2, True)


def test_score_compares_with_the_key_that_lies_among_the_answers(run, tmp_path):
    (tmp_path / "in").mkdir()
    rows = [{**row, "practice": False} for row in json.loads(answers("a", 1))["answers"]]
    (tmp_path / "in" / "page.key.json").write_text(json.dumps({"study": "s", "rows": rows}))
    (tmp_path / "in" / "a.json").write_text(answers("a", 1))
    assert run("study", "score", "in")[0] == 0  # the key is no submission
    words = ("study", "score", "in", "--key", "in/page.key.json")
    code, out, err = run(*words)
    assert (code, err, "submissions: 1" in out) == (0, "", True)
    swapped = {"real": "generated", "generated": "real"}
    told = json.loads(answers("b", 1))
    told["answers"] = [{**row, "truth": swapped[row["truth"]]} for row in told["answers"]]
    (tmp_path / "in" / "b.json").write_text(json.dumps(told))
    code, _, err = run(*words)
    assert (code, "b.json: calls picture 0 generated, the key real" in err) == (2, True)
    code, out, _ = run(*words, "--skip-bad")
    assert (code, "left out: 1" in out) == (0, True)
    code, _, err = run("study", "score", "in/a.json", "--key", "in/a.json")
    assert (code, "key in/a.json: expected the .key.json file" in err) == (2, True)
