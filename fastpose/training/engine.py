"""The training loop: it knows steps, epochs, processes, files and signals, and no system.

``launch`` runs a recipe from nothing or from a resume point; ``fit`` is the loop for a trainer that exists already.
A trainer has ``networks``, ``optimizers``, ``schedulers`` (stepped per epoch), ``main_network``, ``monitor`` and
``monitor_mode``, and the methods of :class:`Trainer`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from fastpose import _files
from fastpose.training import checkpoint, distributed, randomness, run_lock, signals
from fastpose.training.config import Recipe, RunConfig, to_dict
from fastpose.training.distributed import World
from fastpose.training.loop import Job
from fastpose.training.phases import Update, is_finite
from fastpose.training.run_folder import RunFolder


class Trainer(Protocol):
    """What the engine asks of a system.

    ``networks[main_network]`` is the network that is evaluated and published; each key of ``optimizers`` is the name of
    an update. ``evaluate`` and ``samples`` run on the leader alone, so they hold no collective operation.

    A trainer may also have ``begin()``, called once before the first step of a new run: it gives the networks weights
    to begin with, and is the place for what a resume, which has its own, should not ask for. And it may have
    ``measured() -> {dotted key: value}``, asked once, on the leader, when weights are first written: what the
    configuration leaves to the training set goes into the manifest of the weights, and `systems.load_network` puts it
    where it says 0. And ``channels_last_on``: the kinds of device, such as "cpu", on which its networks train quicker
    with maps channels last, where ``run.channels_last`` leaves it open.
    """

    networks: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]
    schedulers: dict[str, Any]
    main_network: str
    monitor: str
    monitor_mode: str

    def step(self, batch: dict[str, Tensor], update: Update) -> dict[str, Tensor]:
        """Do one iteration in the order of the paper; return scalars to log."""

    def state(self) -> dict[str, Any]:
        """Return numbers that the next step depends on, besides networks and optimizers."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned."""

    def evaluate(self, network: nn.Module, loader: Any) -> list[Any]:
        """Return results (with ``name``, ``value``, ``as_dict()``)."""

    def samples(self, network: nn.Module, dataset: Any) -> dict[str, Any]:
        """Return pictures by name, uint8 RGB."""

    def train_dataset(self) -> Any:
        """Return the data to train on."""

    def validation_dataset(self) -> Any:
        """Return the data to evaluate on, or None."""


@dataclass(frozen=True)
class FitResult:
    """How a run ended.

    Attributes:
        folder: the run's folder.
        results: the last evaluation (empty without one).
        best: name, value, step and epoch of the best evaluation, or None.
        step, epoch: optimizer steps and whole epochs done.
        stopped: "finished", "max_steps", "max_minutes", "SIGTERM", "SIGINT" or "SIGHUP".
        code: exit code for the process: 0, 143, 130 or 129.
    """

    folder: Path
    results: list[Any] = field(default_factory=list)
    best: dict[str, Any] | None = None
    step: int = 0
    epoch: int = 0
    stopped: str = "finished"
    code: int = 0


def launch(
    recipe: Recipe,
    make_trainer: Callable[[], Trainer],
    *,
    out: str | Path = "runs",
    name: str | None = None,
    resume: str | Path | None = None,
    allow_changes: bool = False,
    progress: bool = True,
    create_loader: Callable[..., Any] | None = None,
) -> FitResult:
    """Train a recipe in a new run folder, or go on with an old one; under ``torchrun`` on several processes.

    Args:
        recipe: its configuration has a section ``run`` (:class:`RunConfig`).
        make_trainer: builds the trainer; called with the random state seeded.
        out, name: where the run folder is made, see :meth:`RunFolder.create`.
        resume: a run folder (its newest resume point) or one resume point ``.../state/save-*.json``.
        allow_changes: go on although configuration or data set differ.
        progress: whether to show anything.
        create_loader: in place of ``data.loading.create_loader``.

    Raises:
        SystemExit: 143, 130 or 129 after SIGTERM, SIGINT or SIGHUP, the state being saved.
        ValueError: bad configuration, a resume point or ``run.start`` that does not fit, a ``run.start`` or updates
            that are not finite, another process that trains in the same folder.
        FileNotFoundError: no file ``run.start``.
    """
    settings: RunConfig = recipe.config.run
    with (
        distributed.world(settings.device, settings.timeout_minutes) as place,
        randomness.determinism(settings.deterministic),
    ):
        with signals.before_the_first_step():
            folder = None if resume is None else RunFolder.open(resume)
            randomness.seed_everything(settings.seed)
            trainer = make_trainer()
            _begin(trainer, recipe, resume)
            job = Job(trainer, recipe, place, create_loader or _default_loader())
        with job.stop:
            # The folder is made when nothing is left that the recipe could have got wrong.
            job.folder = folder or distributed.agreed(lambda: RunFolder.create(recipe.name, out, name), place)
            result = _run(job, resume, allow_changes, progress)
    if result.code:
        raise SystemExit(result.code)
    return result


def fit(
    trainer: Trainer,
    recipe: Recipe,
    run: RunFolder,
    *,
    place: World | None = None,
    resume: str | Path | None = None,
    allow_changes: bool = False,
    progress: bool = True,
    create_loader: Callable[..., Any] | None = None,
) -> FitResult:
    """Train until the epochs are done, a limit is reached or a signal asks to stop; see ``launch`` for the arguments.

    After SIGTERM, SIGINT or SIGHUP the step in flight ends, the state is saved and ``FitResult.code`` is 143, 130 or
    129.
    """
    place = place or World(0, 1, distributed.choose_device(recipe.config.run.device))
    _begin(trainer, recipe, resume)
    job = Job(trainer, recipe, place, create_loader or _default_loader())
    job.folder = run
    with job.stop:
        return _run(job, resume, allow_changes, progress)


def _begin(trainer: Trainer, recipe: Recipe, resume: str | Path | None) -> None:
    """Let the trainer begin and give the main network the weights of ``run.start``; a resume has weights of its own."""
    if resume is not None:
        return
    getattr(trainer, "begin", lambda: None)()
    if not recipe.config.run.start:
        return
    path = Path(recipe.config.run.start).expanduser()
    state, manifest = checkpoint.load_weights(path)
    network = trainer.networks[trainer.main_network]
    checkpoint.load_into(network, state, source=path, manifest=manifest, config=to_dict(recipe.config))
    if not is_finite(network):
        raise ValueError(f"run.start {path}: holds NaN or infinite values; take other weights")


def _run(job: Job, resume: str | Path | None, allow_changes: bool, progress: bool) -> FitResult:
    distributed.compare({"resume": resume is not None}, job.place)
    with ExitStack() as lock:
        distributed.agreed(lambda: _claim(job.folder, lock), job.place)
        if resume is not None:
            job.resume(Path(resume).expanduser(), allow_changes)
        ending = job.run(progress)
    place, position = job.place, job.position
    distributed.barrier(place)  # the leader's pictures may take longer than a collective waits
    results, best = distributed.share((job.results, job.best.record), place)
    return FitResult(job.folder.path, results, best, position.step, position.epoch, ending.reason, ending.code)


def _claim(folder: RunFolder, lock: ExitStack) -> None:
    """Keep others out of a run folder, and clear away what was left there by a process that was killed."""
    lock.enter_context(run_lock.held(folder.path))
    for inside in (folder.path, folder.weights, folder.state, folder.samples):
        _files.sweep(inside)


def _default_loader() -> Callable[..., Any]:
    from fastpose.data import loading

    return loading.create_loader
