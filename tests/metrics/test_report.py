"""Results as lines, JSON and tables."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastpose.metrics import report
from fastpose.metrics.report import Result

RESULT = Result("PCK@0.2", "LSP PCK@0.2, <= 0.2 x torso", 62.5, 280, {"l_knee": 60.0}, {"rows": {"knee": 61.25}})


def test_json_lines_come_back(tmp_path):
    other = Result("AUC", "area", 33.3, 5)
    report.write_jsonl(tmp_path / "a.jsonl", [RESULT])
    report.append_jsonl(tmp_path / "a.jsonl", [other], epoch=3)
    assert report.read_jsonl(tmp_path / "a.jsonl") == [RESULT, other]
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert json.loads(lines[1])["epoch"] == 3
    report.write_jsonl(tmp_path / "a.jsonl", [other])
    assert report.read_jsonl(tmp_path / "a.jsonl") == [other]


def test_json_is_plain_and_strict():
    odd = Result("x", "y", float("nan"), 1, {}, {"a": np.float32(1.5), "b": torch.tensor([1, 2]), "c": (1.0, np.inf)})
    row = json.loads(odd.as_json())
    assert row["value"] is None
    assert row["details"] == {"a": 1.5, "b": [1, 2], "c": [1.0, None]}
    assert "NaN" not in odd.as_json()


def test_a_broken_line_names_what_is_missing():
    with pytest.raises(ValueError, match="protocol, count missing"):
        report.from_json('{"name": "x", "value": 1}')


def test_the_line_carries_the_protocol():
    assert RESULT.line() == "PCK@0.2 62.50 (n=280)  knee 61.2  [LSP PCK@0.2, <= 0.2 x torso]"
    assert Result("m", "p", 1.0, 2, {"a": 1.0}).rows == {"a": 1.0}


def test_the_table_puts_the_paper_beside_the_value():
    text = report.table([RESULT, Result("AUC", "area under the curve", 3.0, 7)], {"PCK@0.2": 94.3})
    lines = text.splitlines()
    assert lines[0].split() == ["metric", "value", "paper", "count", "protocol"]
    assert lines[2].split()[:4] == ["PCK@0.2", "62.50", "94.30", "280"]
    assert lines[2].endswith(RESULT.protocol)
    assert lines[3].split()[:4] == ["AUC", "3.000", "-", "7"]
    assert "knee" in text
    assert report.table([RESULT], {RESULT.protocol: 1.0}).count("1.00") == 1  # the protocol's sentence is a key too
    assert report.table([]) == "no results"
    assert "knee" not in report.table([RESULT], rows=False)


def test_importing_metrics_and_pictures_stays_light():
    code = (
        "import sys, fastpose.metrics, fastpose.visual\n"
        "heavy = {'cv2', 'scipy', 'matplotlib', 'faster_coco_eval', 'triton'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
