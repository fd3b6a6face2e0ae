"""The documents say what is so: code blocks run, links and names resolve, every cited measurement has its file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from fastpose.training import config as configuration

PROJECT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    PROJECT / "README.md",
    PROJECT / "CHANGELOG.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "SECURITY.md",
    *sorted((PROJECT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
RECIPE = re.compile(r"\b(?:sagan|pona|pose3d|multiscale|caption)/[a-z0-9]+(?:-[a-z0-9]+)*(?![\w/-]|\.\w)")


def named(path: Path) -> str:
    return path.name


def executable_blocks(path: Path) -> list[tuple[int, str]]:
    """Return (line, source) of each python block of a document."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start(1)), match.group(1)) for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if executable_blocks(path)], ids=named)
def test_code_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {}
    for line, source in executable_blocks(path):
        # Blank lines in front keep the document's own line numbers in a failure's traceback.
        exec(compile("\n" * line + source, str(path), "exec"), namespace)
    assert list(tmp_path.iterdir()) == []


def test_conventions_page_has_its_claims():
    assert len(executable_blocks(PROJECT / "docs" / "conventions.md")) >= 12


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_links_resolve(path):
    targets = [match.group(1) for match in LINK.finditer(path.read_text(encoding="utf-8"))]
    local = [target for target in targets if not re.match(r"https?://|mailto:", target)]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_named_recipes_exist(path):
    known = set(configuration.list_recipes())
    text = path.read_text(encoding="utf-8")
    named_recipes = {match.group(0) for match in RECIPE.finditer(text)}
    assert named_recipes - known == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_cited_measurements_have_their_file(path):
    text = path.read_text(encoding="utf-8")
    cited = set(re.findall(r"benchmarks/results/[\w./-]*\w", text))
    assert {name for name in cited if not (PROJECT / name).exists()} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_every_printed_speed_stands_beside_the_file_it_comes_from(path):
    """A paragraph with a measured time, ratio or throughput names its file under benchmarks/results."""
    unit = re.compile(
        r"\b\d[\d.,]*\s?(?:ms|us|µs|GFLOP/s|TFLOP/s|images/s|GB/s)\b|\d\s?(?:[x×]|times)\s(?:as fast|faster|naive)"
    )
    paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="utf-8"))
    unsupported = [text for text in paragraphs if unit.search(text) and "benchmarks/results/" not in text]
    assert unsupported == []


def test_named_commands_exist():
    from typer.main import get_command

    from fastpose.cli import app

    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    used = set(re.findall(r"(?:^|`|\$ |-m |&& )fastpose ([a-z-]+)\b", text, re.MULTILINE))
    assert used - known == set()
    assert {"doctor", "demo", "train", "eval", "predict", "recipes"} <= used


def test_readme_shows_the_two_commands_exactly():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert "pip install -c constraints.txt . && fastpose demo" in text
    assert 'pip install -c constraints.txt ".[test]" && pytest' in text
