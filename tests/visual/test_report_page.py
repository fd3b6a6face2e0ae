"""The report: whole without network, escaped, numbers beside the paper's, files inlined byte for byte."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from fastpose.visual.grids import save_image
from fastpose.visual.report import write_report

VOID = {"meta", "img", "br", "link", "input"}
RESULT = {
    "name": "PCK@0.2",
    "protocol": "LSP PCK@0.2, <= 0.2 x |l_shoulder - r_hip|",
    "value": 62.25,
    "paper_value": 94.3,
    "count": 2800,
    "details": {"rows": {"head": 80.0, "ankle": 41.5}},
}


class Page(HTMLParser):
    """Collects text, links and sources, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())


def write(tmp_path, **options):
    given = {"title": "sagan/ours-c", "config": {}, "environment": {}, "results": [RESULT], **options}
    path = write_report(tmp_path / "run" / "report.html", **given)
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


@pytest.fixture
def picture(tmp_path):
    return save_image(tmp_path / "a.png", np.full((20, 30, 3), 9, np.uint8))


def test_the_page_is_whole_and_loads_nothing(tmp_path, picture):
    text, page = write(tmp_path, curves=[picture], pictures=[("a picture", picture)], summary="200 steps")
    data = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    assert page.sources == [data, data]
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text


def test_values_stand_beside_the_paper_and_the_protocol(tmp_path):
    words = " ".join(write(tmp_path)[1].words)
    for expected in ("62.25", "94.30", "-32.05", "<= 0.2 x |l_shoulder - r_hip|", "2,800", "head", "41.50"):
        assert expected in words


def test_results_without_a_paper_or_finite_value(tmp_path):
    rows = [{"name": "a", "protocol": "p", "value": float("nan")}, {"name": "b", "protocol": "q", "value": None}]
    words = " ".join(write(tmp_path, results=rows)[1].words)
    assert "nan" not in words
    assert "No evaluation yet" in " ".join(write(tmp_path, results=[])[1].words)


def test_everything_is_escaped(tmp_path, picture):
    evil = '<script>alert("1")</script>'
    text, page = write(
        tmp_path,
        title=evil,
        summary=evil,
        config={evil: {"x": evil}},
        environment={"y": [evil]},
        results=[{**RESULT, "name": evil, "protocol": evil, "details": {"rows": {evil: 1.0}}}],
        pictures=[(evil + '" onload="x', picture)],
    )
    assert "script" not in page.tags
    assert "<script" not in text
    assert 'onload="' not in text


def test_nested_settings_become_dotted_keys(tmp_path):
    words = write(tmp_path, config={"model": {"stacks": 4, "name": "sagan"}, "empty": {}})[1].words
    assert "model.stacks" in words
    assert words[words.index("model.stacks") + 1] == "4"
    assert words[words.index("model.name") + 1] == "sagan"
    assert words[words.index("empty") + 1] == "{}"


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png: no such image"):
        write(tmp_path, curves=[tmp_path / "none.png"])
    with pytest.raises(ValueError, match="expected an image that browsers show"):
        write(tmp_path, pictures=[("x", tmp_path / "a.tiff")])
    with pytest.raises(ValueError, match="protocol, value missing"):
        write(tmp_path, results=[{"name": "a"}])
