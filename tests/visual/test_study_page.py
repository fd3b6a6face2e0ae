"""Study pages: whole without network, silent about the truth, and a whole run of them in a browser."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest

from fastpose.metrics import study as answers
from fastpose.visual import study
from fastpose.visual.study import encode, masked, write_caption_study, write_study


def picture(seed: int, size: tuple[int, int] = (32, 16)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def pictures(count: int, first: int = 0, size: tuple[int, int] = (32, 16)) -> list[np.ndarray]:
    return [picture(first + index, size) for index in range(count)]


def page(tmp_path, **options):
    given = {"title": "People", "real": pictures(6), "generated": pictures(7, 100), "practice": 2, "images": 4}
    path = tmp_path / "new" / f"study{len(list(tmp_path.glob('new/*')))}.html"
    key = write_study(path, **{**given, **options})
    return key, path.read_text(encoding="utf-8")


def content(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="study">(.*?)</script>', text, re.DOTALL)[1])


def unmasked(found: dict) -> dict:
    """Masking twice gives the text back."""
    return json.loads(masked_bytes(base64.b64decode(found["masked"]), found["mask"]))


def masked_bytes(data: bytes, state: int) -> bytes:
    """The stream as its definition has it, on 32-bit numbers."""
    out = []
    for byte in data:
        for left, right in ((13, 0), (0, 17), (5, 0)):
            state = (state ^ (state << left if left else state >> right)) & 0xFFFFFFFF
        out.append(byte ^ (state & 255))
    return bytes(out)


class Tags(HTMLParser):
    """Collects every attribute that could load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_the_page_loads_nothing(tmp_path):
    _, text = page(tmp_path)
    assert re.findall(r"https?:|//[a-z]+\.", text.replace("data:image", "")) == []
    assert Tags(text).loads == []
    assert "default-src 'none'" in text
    assert "@@" not in text.replace(content(text)["masked"], "")


def test_the_truth_is_neither_in_markup_nor_in_the_order_of_the_pictures(tmp_path):
    key, text = page(tmp_path, real=pictures(40), generated=pictures(40, 100))
    data = re.search(r'id="study">(.*?)</script>', text, re.DOTALL)[1]
    assert not re.search(r"real|generated", data)
    truths = [row["truth"] for row in key.rows]
    assert 10 < truths[:40].count("real") < 30
    assert len({row["image"] for row in key.rows}) == 80


def test_the_key_says_what_the_page_holds(tmp_path):
    key, text = page(tmp_path)
    found = content(text)
    secret = unmasked(found)
    assert secret["pictures"] == [[row["image"], row["truth"]] for row in key.rows]
    assert secret["practice"] == [place for place, row in enumerate(key.rows) if row["practice"]]
    assert sorted(row["index"] for row in key.rows if row["practice"]) == [0, 0, 1, 1]
    assert (found["id"], found["images"], found["exposure"], found["size"]) == (key.study, 4, 5.0, [32, 16])
    given = {"real": pictures(6), "generated": pictures(7, 100)}
    for row, stored in zip(key.rows, found["pictures"], strict=True):
        assert stored == encode([given[row["truth"]][row["index"]]])[0][0]


def test_exposures_share_a_study_and_other_pictures_do_not(tmp_path):
    timed, _ = page(tmp_path)
    free, text = page(tmp_path, exposure=None)
    other, _ = page(tmp_path, real=pictures(6, 50))
    assert timed.study == free.study != other.study
    assert content(text)["exposure"] == "unlimited"


def test_pictures_get_one_format_size_and_shape():
    import cv2

    wide = np.zeros((64, 64, 3), np.uint8)
    wide[:, 16:48] = (200, 30, 60)  # the middle half is what a narrow picture shows
    stored, size = encode([wide, picture(1, (40, 20))])
    assert size == (40, 20)
    decoded = [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in stored]
    assert [image.shape for image in decoded] == [(40, 20, 3)] * 2
    assert np.abs(decoded[0].astype(int) - (60, 30, 200)).max() <= 4
    heads = [base64.b64decode(one)[:160] for one in stored]
    assert heads[0] == heads[1]  # the same tables: nothing tells where a picture comes from
    assert encode([np.zeros((2000, 1000, 3), np.uint8)])[1] == (study.MOST_PIXELS, study.MOST_PIXELS // 2)


def test_titles_and_captions_cannot_break_the_page(tmp_path):
    title = '</script><b>@@STUDY@@ & "x"'
    _, text = page(tmp_path, title=title)
    assert content(text)["title"] == title
    assert f"<title>{html.escape(title)}</title>" in text
    assert text.count("</script>") == 2


def test_masking_can_be_undone():
    assert masked_bytes(base64.b64decode(masked({"a": [1, "é"]}, 77)), 77) == json.dumps({"a": [1, "é"]}).encode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 5}, "images: expected an even number"),
        ({"images": 0}, "images: expected an even number"),
        ({"practice": -1}, "practice: expected 0 or more"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
        ({"exposure": 0.0}, "exposure: expected a positive number"),
        ({"exposure": float("nan")}, "exposure: expected a positive number"),
        ({"practice": 5}, "real: expected at least 7 pictures"),
        ({"generated": pictures(2)}, "generated: expected at least 4 pictures"),
    ],
)
def test_bad_settings_are_one_sentence(tmp_path, options, message):
    with pytest.raises(ValueError, match=message) as error:
        page(tmp_path, **options)
    assert "\n" not in str(error.value)


def test_pictures_must_be_rgb_bytes(tmp_path):
    with pytest.raises(TypeError, match="pictures: expected uint8"):
        page(tmp_path, real=[np.zeros((4, 4, 3))] * 6)
    for shape in ((4,), (0, 4, 3), (4, 4, 2)):
        with pytest.raises(ValueError, match=r"pictures: expected an RGB image \(H, W, 3\), got"):
            page(tmp_path, real=[np.zeros(shape, np.uint8)] * 6)


def test_pictures_are_read_one_by_one_after_their_sizes(tmp_path):
    reads = []

    def unread(seed: int) -> study.Unread:
        return study.Unread((32, 16), lambda: reads.append(seed) or picture(seed))

    key, text = page(tmp_path, real=[unread(index) for index in range(6)])
    assert sorted(reads) == list(range(6))
    other, same = page(tmp_path)
    assert (key, text) == (other, same)


def test_no_page_is_overwritten(tmp_path):
    path, item = tmp_path / "a.html", ("a person", picture(0), picture(1))
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"a\.html: exists"):
        write_study(path, title="t", real=pictures(2), generated=pictures(2), practice=0, images=4)
    with pytest.raises(FileExistsError, match=r"a\.html: exists"):
        write_caption_study(path, title="t", items=[item], questions=1)
    assert path.read_text() == "mine"


def test_a_caption_study_needs_enough_items_with_captions(tmp_path):
    item = ("a person", picture(0), picture(1))
    with pytest.raises(ValueError, match="questions: expected 1 to 2"):
        write_caption_study(tmp_path / "a.html", title="t", items=[item, item], questions=3)
    with pytest.raises(ValueError, match="item 1 has an empty caption"):
        write_caption_study(tmp_path / "a.html", title="t", items=[item, (" ", *item[1:])], questions=1)


# ------------------------------------------------------------------------------------------------- in a browser

DRIVER = """<script>(() => {
  const keys = KEYS; let at = 0;
  const shown = (node) => !node.hidden && !node.closest("section").hidden;
  const notes = { tops: [], feedback: [] };
  const add = (list, value) => { if (!list.includes(value)) list.push(value); };
  window.notes = notes;
  window.write = () => { document.body.dataset.notes = JSON.stringify(notes); };
  const look = () => {
    if (shown(document.getElementById("choices"))) {
      add(notes.tops, Math.round(document.getElementById("choices").getBoundingClientRect().top));
    }
    if (shown(document.getElementById("next"))) add(notes.feedback, document.querySelectorAll("#stage img").length);
    write();
  };
  const turn = setInterval(() => {
    if (!document.getElementById("end").hidden) clearInterval(turn); // or it would take minutes of the budget
    look();
    for (const id of ["begin", "next", "go"]) {
      const button = document.getElementById(id);
      if (shown(button)) { button.click(); return; }
    }
    const button = document.querySelector("#choices button:not(:disabled)");
    if (!button || !shown(button)) return;
    if (WAIT && document.querySelector("#stage img")) return;
    const key = keys[at++ % keys.length];
    if (key === "click") button.click();
    else document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  }, 50);
})();</script></body>"""


def played(tmp_path, name: str, keys: list[str], wait: bool = False, before: str = "", after: str = "") -> dict:
    """Play a copy of a page in a browser without a window and return what it would save.

    ``before`` and ``after`` are scripts that run ahead of the page's own and behind it; under "notes" stands what
    the driver has seen.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for found in map(shutil.which, names) if found), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    driver = DRIVER.replace("KEYS", json.dumps(keys)).replace("WAIT", json.dumps(wait))
    driver = driver.replace("</body>", f"<script>{after}</script></body>")
    copy = tmp_path / "copy.html"
    text = (tmp_path / name).read_text(encoding="utf-8").replace("</body>", driver)
    copy.write_text(text.replace("<main>", f"<script>{before}</script><main>"), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    # time is virtual: it runs on while pictures are decoded, so the budget is far more than the run needs
    command += ["--virtual-time-budget=10000000", "--dump-dom", copy.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    saved = re.search(r"<textarea[^>]*>(.*?)</textarea>", dom, re.DOTALL)[1]
    notes = json.loads(html.unescape(re.search(r'data-notes="(.*?)"', dom)[1]))
    return {**json.loads(html.unescape(saved)), "notes": notes}


@pytest.mark.slow
def test_a_whole_run_gives_answers_that_can_be_scored(tmp_path):
    key = write_study(
        tmp_path / "a.html", title="t", real=pictures(8), generated=pictures(8, 100), practice=2, images=10, seed=3
    )
    saved = played(tmp_path, "a.html", ["r", "g", "click"])
    truth = {row["image"]: row["truth"] for row in key.rows}
    practice = {row["image"] for row in key.rows if row["practice"]}
    rows = saved.pop("answers")
    assert [row["truth"] for row in rows] == [truth[row["image"]] for row in rows]
    assert sorted(row["truth"] for row in rows) == ["generated"] * 5 + ["real"] * 5
    assert len({row["image"] for row in rows} - practice) == 10
    # four keys went to the practice; the first button is "Real"
    assert [row["answer"] for row in rows] == (["real", "generated", "real"] * 5)[4:14]
    assert all(isinstance(row["milliseconds"], int) and row["milliseconds"] >= 0 for row in rows)
    assert (saved["study"], saved["seed"], saved["exposure"]) == (key.study, 3, 5)
    assert saved["practice"]["count"] == 4
    (tmp_path / "a.json").write_text(json.dumps({**saved, "answers": rows}))
    scored = answers.score([answers.read(tmp_path / "a.json")])
    wrong = sum(row["answer"] != row["truth"] for row in rows)
    assert scored[-1].value == pytest.approx(100 - 10 * wrong)


@pytest.mark.slow
def test_a_timed_picture_goes_and_can_still_be_answered(tmp_path):
    write_study(
        tmp_path / "a.html", title="t", real=pictures(2), generated=pictures(2, 9), practice=0, images=4, exposure=2.0
    )
    saved = played(tmp_path, "a.html", ["g"], wait=True)
    assert [row["answer"] for row in saved["answers"]] == ["generated"] * 4
    assert all(2000 <= row["milliseconds"] < 3000 for row in saved["answers"])
    assert len({played(tmp_path, "a.html", ["g"])["draw"], saved["draw"]}) == 2


@pytest.mark.slow
def test_the_buttons_stay_and_the_feedback_stands_beside_the_picture(tmp_path):
    write_study(
        tmp_path / "a.html", title="t", real=pictures(4), generated=pictures(4, 9), practice=2, images=4, exposure=0.5
    )
    notes = played(tmp_path, "a.html", ["g"], wait=True)["notes"]
    assert notes["feedback"] == [1]  # although the time was over
    assert len(notes["tops"]) == 1
    assert notes["tops"][0] > 100
    items = [(f"caption {index} <b>", picture(index), picture(100 + index)) for index in range(6)]
    write_caption_study(tmp_path / "c.html", title="t", items=items, questions=6)
    assert len(played(tmp_path, "c.html", ["1"])["notes"]["tops"]) == 1


WARNED = """
const warned = () => {
  const event = new Event("beforeunload", { cancelable: true });
  window.dispatchEvent(event);
  return event.defaultPrevented;
};
const kept = () => Object.keys(sessionStorage).length;
const step = (name) => { notes[name] = [warned(), kept()]; write(); };
const press = (id) => document.getElementById(id).click();
setTimeout(() => step("early"), 10);
const ended = setInterval(async () => {
  if (document.getElementById("end").hidden) return;
  clearInterval(ended);
  step("end");
  END
}, 20);
"""


@pytest.mark.slow
def test_the_page_warns_until_the_answers_are_in_hand(tmp_path):
    write_study(tmp_path / "a.html", title="t", real=pictures(2), generated=pictures(2, 9), practice=0, images=4)
    clicks = 'press("save"); step("clicked"); press("saved"); step("saved");'
    notes = played(tmp_path, "a.html", ["g"], after=WARNED.replace("END", clicks))["notes"]
    assert [notes[name] for name in ("early", "end", "clicked", "saved")] == [
        [False, 0],
        [True, 1],
        [True, 1],
        [False, 0],
    ]
    copies = """let works = false;
  document.execCommand = () => false;
  const writeText = async () => { if (!works) throw new Error(); };
  Object.defineProperty(navigator, "clipboard", { value: { writeText } });
  press("copy"); await null; await null; await null; step("refused");
  works = true; press("copy"); await null; await null; await null; step("copied");"""
    notes = played(tmp_path, "a.html", ["g"], after=WARNED.replace("END", copies))["notes"]
    assert (notes["refused"], notes["copied"]) == ([True, 1], [False, 0])


@pytest.mark.slow
def test_a_reload_goes_on_where_it_was(tmp_path):
    write_study(
        tmp_path / "a.html", title="t", real=pictures(8), generated=pictures(8, 100), practice=2, images=8, seed=3
    )
    note = WARNED.replace("END", "notes.kept = { ...sessionStorage }; write();")
    first = played(tmp_path, "a.html", ["r"], after=note)
    ((place, kept),) = first["notes"]["kept"].items()
    state = json.loads(kept)
    assert (state["test"], state["submission"]) == (first["answers"], first["submission"])
    assert (len(state["practice"]), first["resumed"]) == (4, 0)
    rest = {**state, "test": state["test"][:3]}
    refill = f"sessionStorage.setItem({json.dumps(place)}, {json.dumps(json.dumps(rest))});"
    again = played(tmp_path, "a.html", ["g"], before=refill)
    assert (again["draw"], again["submission"]) == (first["draw"], first["submission"])
    assert again["answers"][:3] == first["answers"][:3]
    assert [row["image"] for row in again["answers"]] == [row["image"] for row in first["answers"]]
    assert [row["answer"] for row in again["answers"][3:]] == ["generated"] * 5
    assert (again["practice"], again["resumed"]) == (first["practice"], 1)
    early = {**state, "practice": state["practice"][:1], "test": []}
    refill = f"sessionStorage.setItem({json.dumps(place)}, {json.dumps(json.dumps(early))});"
    begun = played(tmp_path, "a.html", ["g"], before=refill)
    assert (begun["practice"]["count"], len(begun["answers"]), begun["resumed"]) == (4, 8, 1)
    whole = f"sessionStorage.setItem({json.dumps(place)}, {json.dumps(kept)});"
    ended = played(tmp_path, "a.html", ["g"], before=whole)
    assert (ended["answers"], ended["resumed"]) == (first["answers"], 0)


@pytest.mark.slow
def test_a_browser_without_storage_runs_the_page(tmp_path):
    write_study(tmp_path / "a.html", title="t", real=pictures(2), generated=pictures(2, 9), practice=0, images=4)
    refused = 'Object.defineProperty(window, "sessionStorage", { get() { throw new Error("refused"); } });'
    assert len(played(tmp_path, "a.html", ["g"], before=refused)["answers"]) == 4


@pytest.mark.slow
def test_a_caption_study_runs_and_mixes_the_sides(tmp_path):
    items = [(f"caption {index} <b>", picture(index), picture(100 + index)) for index in range(24)]
    key = write_caption_study(tmp_path / "c.html", title="t", items=items, questions=20)
    saved = played(tmp_path, "c.html", ["ArrowLeft", "2"])
    rows = saved["answers"]
    assert [row["answer"] for row in rows] == ["left", "right"] * 10
    assert 0 < [row["truth"] for row in rows].count("left") < 20
    assert {row["image"] for row in rows} <= {row["image"] for row in key.rows}
    (tmp_path / "c.json").write_text(json.dumps(saved))
    right = sum(row["answer"] == row["truth"] for row in rows)
    assert answers.score([answers.read(tmp_path / "c.json")])[0].value == pytest.approx(5 * right)
