"""The page of promises: each has its section, what was tried, what is not promised, and tests that carry its number."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
NUMBERS = range(1, 29)


def sections() -> dict[int, str]:
    """Return the text under each numbered heading, in the order of the page."""
    parts = re.split(r"^### (\d+)\. ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {int(number): text for number, text in zip(parts[::2], parts[1::2], strict=True)}


def numbers_of_tests() -> list[int]:
    """Return the number in the name of every test of a promise."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("test_*.py"))]
    names = [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [int(found.group(1)) for name in names if (found := re.match(r"test_promise_(\d+)_\w", name))]


def test_every_promise_has_its_section_in_order() -> None:
    assert list(sections()) == list(NUMBERS)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_promise_says_what_was_tried_and_what_is_not_promised(number: int) -> None:
    paragraphs = sections()[number].split("\n\n")
    assert any(paragraph.startswith("Tried: ") for paragraph in paragraphs)
    assert any(paragraph.startswith("Not promised: ") for paragraph in paragraphs)


def test_every_promise_has_tests_and_every_test_a_promise() -> None:
    assert sorted(set(numbers_of_tests())) == list(NUMBERS)
