"""`import fastpose` is light, silent and needs no network: a fresh interpreter shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastpose

HEAVY = ("cv2", "triton", "matplotlib", "scipy", "h5py", "PIL", "yaml", "typer", "rich", "onnx", "tensorboard")
NO_NETWORK = (
    "import socket\n"
    "def refuse(*args, **kwargs):\n"
    "    raise AssertionError('the network was asked')\n"
    "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
)


def run(code: str, cwd: Path) -> str:
    """Run code in a fresh interpreter where every warning is an error, and return what it prints."""
    # The package under test, installed or a checkout, and nothing from the working directory.
    environment = {**os.environ, "PYTHONPATH": str(Path(fastpose.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", NO_NETWORK + code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def loaded_after(statement: str, cwd: Path) -> set[str]:
    printed = run(f"{statement}\nimport sys\nprint(*sys.modules)", cwd)
    return {name.split(".")[0] for name in printed.split()}


def test_promise_22_import_fastpose_loads_nothing_heavy(tmp_path):
    loaded = loaded_after("import fastpose", tmp_path)
    assert loaded.isdisjoint((*HEAVY, "torch"))


@pytest.mark.parametrize(
    ("rooms", "allowed"),
    [
        (("ops", "nn", "losses", "models", "data", "metrics", "visual", "skeletons"), set()),
        (("training",), {"yaml"}),
    ],
    ids=["libraries", "training"],
)
def test_promise_22_rooms_load_no_heavy_package_until_it_is_needed(tmp_path, rooms, allowed):
    loaded = loaded_after("import fastpose\n" + "\n".join(f"fastpose.{room}" for room in rooms), tmp_path)
    assert loaded & set(HEAVY) <= allowed


def test_promise_22_what_computes_costs_little_over_torch(tmp_path):
    rooms = "\n".join(f"import fastpose.{room}" for room in ("ops", "nn", "losses", "models", "metrics"))
    assert loaded_after(rooms, tmp_path) - loaded_after("import torch", tmp_path) == {"fastpose"}


def test_promise_22_the_command_line_starts_without_torch(tmp_path):
    loaded = loaded_after("from fastpose.cli import main\nassert main(['--help']) == 0", tmp_path)
    assert loaded.isdisjoint({"torch", "cv2", "matplotlib", "scipy", "triton"})


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fastpose' has no attribute 'opps'"):
        fastpose.opps  # noqa: B018


def test_dir_lists_the_rooms_before_they_are_loaded(tmp_path):
    printed = run("import fastpose\nprint(*dir(fastpose))", tmp_path)
    assert {"__version__", "ops", "models", "data", "metrics", "visual", "training"} <= set(printed.split())
