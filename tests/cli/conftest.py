"""A command line in this process, and one tiny run that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastpose import cli


@pytest.fixture
def run(capsys, tmp_path, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Run words after `fastpose` in an empty folder; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The run folder of `fastpose train sagan/tiny`."""
    out = tmp_path_factory.mktemp("runs")
    assert cli.main(["train", "sagan/tiny", "--out", str(out), "--name", "first"]) == 0
    return out / "sagan" / "tiny" / "first"


@pytest.fixture(scope="session")
def weights(trained) -> Path:
    """Weights of the tiny run."""
    return trained / "weights" / "last.safetensors"


@pytest.fixture(scope="session")
def photo() -> Path:
    """One bundled photograph."""
    from fastpose.data import sample

    return sorted((sample.FOLDER / "images").glob("*.jpg"))[0]
