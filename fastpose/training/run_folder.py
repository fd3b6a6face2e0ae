"""A run's folder: ``<root>/<recipe>/<name>[-N]/``, never overwritten.

config.yaml        the resolved configuration        metrics.csv, metrics.jsonl   losses and evaluations by step
environment.json   versions and machine              curves.png, samples/*.png    pictures
weights/           best and last, .safetensors       report.html                  one self-contained page
state/             the full resume point             timing.jsonl                 rates, apart from what a seed fixes
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from fastpose import _files
from fastpose.training import config as configuration

_PACKAGES = ("fastpose", "torch", "numpy", "opencv-python", "scipy", "safetensors", "matplotlib", "triton")


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; ``create`` makes a new one, ``open`` finds one to go on with."""

    path: Path

    @classmethod
    def create(cls, recipe: str, root: str | Path = "runs", name: str | None = None) -> RunFolder:
        """Make ``<root>/<recipe>/<name>`` (default name "run"); a name that is taken gets -2, -3, ...

        Raises:
            ValueError: the name would leave the recipe's folder.
            OSError: the folder cannot be made.
        """
        name = name or "run"
        if not re.fullmatch(r"\w[\w.+=, -]*", name):
            raise ValueError(f"run name {name!r}: expected letters, digits, '.', '_' or '-'")
        parent = Path(root).expanduser() / recipe
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path = _files.claim_folder(parent, name)
        except OSError as error:
            raise OSError(f"run folder {parent}: could not be made ({error.strerror}); choose another --out") from error
        run = cls(path)
        run.complete()
        return run

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Return the existing run at ``path`` (the folder, or a file inside it).

        Raises:
            FileNotFoundError: nothing there, or no ``config.yaml`` in it.
        """
        folder = Path(path).expanduser()
        if not folder.exists():
            raise FileNotFoundError(f"run {folder}: no such folder; expected one such as runs/<recipe>/<name>")
        inside = folder.is_file() or folder.name in ("state", "weights", "samples")
        around = [folder, *folder.parents[:2]] if inside else [folder]
        found = next((path for path in around if (path / "config.yaml").is_file()), None)
        if found is None:
            raise FileNotFoundError(f"run {folder}: holds no config.yaml; expected a folder made by fastpose train")
        return cls(found)

    def complete(self) -> None:
        """Make the folders inside that are not there."""
        for inner in (self.weights, self.state, self.samples):
            inner.mkdir(exist_ok=True)

    @property
    def weights(self) -> Path:
        """Folder of ``best.safetensors`` and ``last.safetensors``."""
        return self.path / "weights"

    @property
    def state(self) -> Path:
        """Folder of the resume points."""
        return self.path / "state"

    @property
    def samples(self) -> Path:
        """Folder of pictures."""
        return self.path / "samples"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"

    @property
    def curves(self) -> Path:
        """The curves of ``metrics.csv``."""
        return self.path / "curves.png"

    def write_config(self, recipe: configuration.Recipe) -> None:
        """Write ``config.yaml``: the recipe with every default filled in, itself a recipe file."""
        content = {
            "system": recipe.system,
            "description": recipe.description,
            "paper": dict(recipe.paper),
            "config": configuration.to_dict(recipe.config),
        }
        _files.publish(self.path / "config.yaml", f"# {recipe.name}\n{configuration.to_yaml(content)}")

    def read_config(self) -> tuple[str, dict[str, Any]]:
        """Return the recipe's name and its resolved configuration as nested dicts."""
        path = self.path / "config.yaml"
        text = configuration.read_text(path, str(path))
        content = configuration.read_yaml(text, str(path))
        if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
            raise ValueError(f"{path}: expected the keys system and config, as fastpose train writes them")
        first = text.partition("\n")[0]
        return first.lstrip("# ").strip() if first.startswith("#") else "", content["config"]

    def write_environment(self, device: str, chosen: dict[str, Any]) -> dict[str, Any]:
        """Write and return ``environment.json``; ``chosen`` is what the run decided for this machine."""
        content = environment(device) | chosen
        _files.publish_json(self.path / "environment.json", content)
        return content


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return versions and machine of this process; packages are asked for their version, not imported."""
    import torch

    content: dict[str, Any] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": dict(_versions(_PACKAGES)),
        "cpu_count": os.cpu_count(),
        "cpu_threads": torch.get_num_threads(),
        "device": device,
        "cuda": torch.version.cuda,
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        content["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return content


def code() -> dict[str, str]:
    """Return what the processes of a job must have in common: torch's version, and the sha256 of this package."""
    import torch

    package = Path(__file__).resolve().parents[1]
    sources = sorted(path for path in package.rglob("*") if path.suffix in (".py", ".yaml"))
    digest = hashlib.sha256()
    for path in sources:
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode() + path.read_bytes())
    return {"torch": torch.__version__, "fastpose": digest.hexdigest()[:16]}


def _versions(names: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    for name in names:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, None
