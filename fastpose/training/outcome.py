"""What a run leaves behind besides its state: evaluations, ``best`` and ``last`` weights, pictures, the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastpose import _checks, _files
from fastpose.training import checkpoint, randomness, resume_point
from fastpose.training import config as configuration
from fastpose.training.config import Recipe, RunConfig
from fastpose.training.phases import NonFiniteError, is_finite
from fastpose.training.run_folder import RunFolder
from fastpose.training.signals import StopRequest

_BEST = ("best.safetensors", "best.json")
_STATE = "resume point"  # what a report calls the state that it is of; those of earlier versions do not name it


class Interrupted(Exception):
    """A signal arrived between two batches of an evaluation."""


class OnDevice:
    """A loader whose batches arrive on the device; all else (``dataset``, ``batch_size``) is the loader's own.

    It raises ``Interrupted`` when a signal has come in, since an evaluation may take longer than a scheduler waits.
    """

    def __init__(self, loader: Any, device: torch.device, stop: StopRequest) -> None:
        self.loader, self.device, self.stop = loader, device, stop

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in self.loader:
            if self.stop.signal:
                raise Interrupted
            yield to_device(batch, self.device)

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Return a batch with its tensors on ``device``; other values stay."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def evaluate(trainer: Any, network: nn.Module, loader: Any) -> list[Any]:
    """Return the trainer's results for ``network`` in evaluation mode, leaving mode and random state as they were."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad(), randomness.preserved():
            return list(trainer.evaluate(network, loader))
    finally:
        network.train(training)


class Best:
    """Keeps track of the best value of the trainer's ``monitor``; a value that is not finite never counts."""

    def __init__(self, monitor: str, mode: str = "max") -> None:
        _checks.choice("monitor_mode", mode, ("max", "min"))
        self.monitor, self.mode = monitor, mode
        self.record: dict[str, Any] | None = None

    def improves(self, results: Sequence[Any], step: int, epoch: int) -> bool:
        """Take note of an evaluation and return whether it is the best so far.

        Raises:
            ValueError: no result is called ``monitor``.
        """
        values = {result.name: float(result.value) for result in results}
        if self.monitor not in values:
            raise ValueError(_checks.unknown("monitor", self.monitor, values))
        value = values[self.monitor]
        if not math.isfinite(value) or (self.record is not None and not self._better(value, self.record["value"])):
            return False
        self.record = {"name": self.monitor, "value": value, "step": step, "epoch": epoch}
        return True

    def _better(self, value: float, other: float) -> bool:
        return value > other if self.mode == "max" else value < other


def publish_weights(run: RunFolder, which: str, network: nn.Module, recipe: Recipe, about: Mapping[str, Any]) -> Path:
    """Publish ``weights/<which>.safetensors``; raises ``NonFiniteError`` for weights that are not finite."""
    path = run.weights / f"{which}.safetensors"
    if not is_finite(network):
        raise NonFiniteError(f"checkpoint {path}: not written, the weights hold values that are not finite")
    metadata = {"recipe": recipe.name, "system": recipe.system, "config": configuration.to_dict(recipe.config)}
    checkpoint.save_weights(path, network, {**metadata, **about})
    return path


def keep_best(run: RunFolder) -> None:
    """Keep a copy of ``weights/best``, which the weights of a pause are about to replace; see ``put_best_back``."""
    _move_best(run.weights, run.state)


def put_best_back(run: RunFolder, record: Mapping[str, Any] | None) -> None:
    """Undo what an evaluation at a pause published, which a run without that pause does not have.

    Args:
        run: the folder to go on in.
        record: the best evaluation that its resume point knows of.
    """
    kept, current = (_step(folder / "best.safetensors") for folder in (run.state, run.weights))
    if record is not None and kept == record["step"] != current:
        _move_best(run.state, run.weights)
    for name in _BEST:
        (run.state / name).unlink(missing_ok=True)


def _move_best(source: Path, target: Path) -> None:
    for name in _BEST:
        if (source / name).is_file():
            _files.publish(target / name, (source / name).read_bytes())


def _step(path: Path) -> int | None:
    """Return the step that a weights file is of; None without a file that says so."""
    try:
        return checkpoint.read_about(path).get("step")
    except (ValueError, OSError):
        return None


def write_pictures(trainer: Any, network: nn.Module, dataset: Any, run: RunFolder) -> list[tuple[str, Path]]:
    """Write the trainer's sample pictures; return (caption, path) pairs."""
    from fastpose.visual import grids

    training = network.training
    network.eval()
    try:
        with torch.no_grad(), randomness.preserved():
            pictures = trainer.samples(network, dataset)
    finally:
        network.train(training)
    pairs = [(name, run.samples / f"{name}.png") for name in pictures]
    for name, path in pairs:
        grids.save_image(path, pictures[name])
    return pairs


def write_report(
    run: RunFolder,
    recipe: Recipe,
    environment: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[tuple[str, Path]],
    summary: str,
) -> Path:
    """Write ``curves.png`` and ``report.html``, of the newest resume point; ``rows`` are results as dicts."""
    from fastpose.visual import curves, report

    drawn = []
    with suppress(ValueError, FileNotFoundError):  # nothing finite was logged
        drawn = [curves.plot_curves(run.path / "metrics.csv", run.curves)]
    report.write_report(
        run.report,
        title=f"{recipe.name}: {run.path.name}",
        config=configuration.to_dict(recipe.config),
        environment={**environment, _STATE: resume_point.saves(run.state)[-1].stem},
        results=[{**row, "paper_value": _paper(recipe, row)} for row in rows],
        curves=drawn,
        pictures=pictures,
        summary=summary,
    )
    return run.report


def check_unfinished(run: RunFolder, position: Mapping[str, int], settings: RunConfig) -> None:
    """Refuse to go on with a run that has come to its end and has written its report.

    Raises:
        ValueError: with the setting that lets it go on.
    """
    if not _is_written(run):
        return  # it was killed while it wrote its outcome
    if position["epoch"] >= settings.epochs:
        raise ValueError(f"run {run.path}: is finished ({settings.epochs} epochs); set a larger run.epochs to go on")
    if settings.max_steps and position["step"] >= settings.max_steps:
        raise ValueError(f"run {run.path}: stopped at run.max_steps={settings.max_steps}; set a larger one to go on")


def _is_written(run: RunFolder) -> bool:
    """Return whether the report is of the newest resume point and not of an earlier pause; times a copy may change."""
    if not run.report.is_file():
        return False
    report = run.report.read_text(encoding="utf-8", errors="replace")
    return _STATE not in report or any(path.stem in report for path in resume_point.saves(run.state)[-1:])


def as_row(result: Any) -> dict[str, Any]:
    """Return a result as JSON values."""
    return dict(result.as_dict())


def _paper(recipe: Recipe, row: Mapping[str, Any]) -> float | None:
    return recipe.paper.get(str(row.get("protocol")), recipe.paper.get(str(row.get("name"))))
