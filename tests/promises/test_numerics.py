"""Values that are not finite go no further, in any of the five systems: faults put into real runs, step by step."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import runs
import torch
from torch import Tensor, nn

from fastpose import losses
from fastpose.metrics.report import Result
from fastpose.training import checkpoint, loop, outcome, snapshot, state_tree
from fastpose.training.phases import NonFiniteError, Update

NAN, INF = math.nan, math.inf
OPTIONS = ("run.workers=0", "run.log_every=1", "run.ema=0.9", "run.clip_norm=1e9")
PENALISED = {"pose3d": ("loss.gan=wgan-gp", "discriminator.norm=none"), "caption": ("loss.critic_steps=1",)}
"""Systems with a gradient penalty, and what makes every step update every network by it."""
BEGINNING = 2  # steps before the first fault of the runs that end by theirs

Fault = Callable[[loop.Job], AbstractContextManager[Any]]


def slow_unless(quick: bool) -> list[pytest.MarkDecorator]:
    return [] if quick else [pytest.mark.slow]


def critics(job: loop.Job) -> list[str]:
    return [name for name in job.trainer.optimizers if name != job.trainer.main_network]


def in_loss(which: str, value: float) -> Fault:
    """Return what makes a loss ``value``: that of the main network ("main"), or of each critic ("critic")."""

    def fault(job: loop.Job) -> AbstractContextManager[Any]:
        original = Update.backward
        spoilt = [job.trainer.main_network] if which == "main" else critics(job)

        def backward(self: Update, name: str, loss: Tensor, **options: Any) -> None:
            original(self, name, loss * value if name in spoilt else loss, **options)

        return mock.patch.object(Update, "backward", backward)

    return fault


def in_penalty(value: float) -> Fault:
    original = losses.gradient_penalty
    return lambda job: mock.patch.object(losses, "gradient_penalty", lambda *a, **o: original(*a, **o) * value)


def in_gradient(which: str, value: float) -> Fault:
    """Return what makes one number of a gradient ``value`` while the loss stays finite."""

    @contextmanager
    def fault(job: loop.Job) -> Iterator[None]:
        names = [job.trainer.main_network] if which == "main" else critics(job)
        parameters = [next(job.trainer.networks[name].parameters()) for name in names]
        hooks = [parameter.register_hook(lambda grad: spoilt(grad, value)) for parameter in parameters]
        yield
        for hook in hooks:
            hook.remove()

    return fault


def in_output(value: float) -> Fault:
    """Return what makes a pixel of what the main network draws ``value``; critics see it too."""

    @contextmanager
    def fault(job: loop.Job) -> Iterator[None]:
        hook = job.main.register_forward_hook(lambda module, given, out: spoilt(out, value))
        yield
        hook.remove()

    return fault


def in_batch(value: float) -> Fault:
    """Return what puts ``value`` into a number of every floating tensor of a batch: key points, depths."""
    original = outcome.to_device

    def moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
        return {k: spoilt(v, value) if is_floating(v) else v for k, v in original(batch, device).items()}

    return lambda job: mock.patch.object(outcome, "to_device", moved)


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def spoilt(values: Any, value: float) -> Any:
    """Return a copy of tensors whose first number is ``value``, differentiable."""
    if not isinstance(values, Tensor):
        return type(values)(spoilt(part, value) for part in values)
    where = torch.zeros(values.shape, dtype=torch.bool)
    where.view(-1)[0] = True
    return torch.where(where, torch.full_like(values, value), values)


def passing(value: float) -> dict[str, Fault]:
    """Return a fault of each kind."""
    return {
        "main loss": in_loss("main", value),
        "critics' losses": in_loss("critic", value),
        "penalty": in_penalty(value),
        "main gradient": in_gradient("main", value),
        "critics' gradients": in_gradient("critic", value),
        "image": in_output(value),
        "batch": in_batch(value),
    }


class Watch:
    """Runs each step with its fault, and looks at everything before and after."""

    def __init__(self, faults: dict[int, tuple[str, Fault]]) -> None:
        self.faults = faults
        self.skipped: dict[int, dict[str, int]] = {}

    def total(self, step: int) -> int:
        """Return how many updates of a step were skipped."""
        return sum(self.skipped[step].values())

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        original = loop.Job._step

        def step(job: loop.Job, batches: Any) -> None:
            number = job.position.step + 1
            what, fault = self.faults.get(number, ("nothing", lambda job: nullcontext()))
            weights, buffers, skipped = parameters_of(job), buffers_of(job), dict(job.update.skipped)
            with fault(job):
                original(job, batches)
            new = {name: count - skipped[name] for name, count in job.update.skipped.items()}
            self.skipped[number] = new
            check_step(f"step {number}, {what}", job, weights, buffers, new)

        with mock.patch.object(loop.Job, "_step", step):
            yield self


def check_step(
    what: str, job: loop.Job, weights: dict[str, list[Tensor]], buffers: dict[str, list[Tensor]], skipped: Any
) -> None:
    """Assert that nothing that is not finite was left, and that skipped updates changed nothing."""
    assert not_finite(snapshot.take(job, [snapshot.take_private(job)])) == [], what
    after = parameters_of(job)
    for name, count in skipped.items():
        if count:
            assert unchanged(weights[name], after[name]), f"{what}: weights of {name}"
    if any(skipped.values()):
        assert all(unchanged(buffers[name], now) for name, now in buffers_of(job).items()), f"{what}: statistics"


def parameters_of(job: loop.Job) -> dict[str, list[Tensor]]:
    return {name: [p.detach().clone() for p in net.parameters()] for name, net in job.trainer.networks.items()}


def buffers_of(job: loop.Job) -> dict[str, list[Tensor]]:
    return {name: [b.clone() for b in net.buffers()] for name, net in job.trainer.networks.items()}


def unchanged(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(before, after, strict=True))


def not_finite(state: Any) -> list[str]:
    """Return where a tree of state holds numbers that are not finite."""
    tensors: dict[str, Tensor] = {}
    tree = state_tree.encode(state, tensors)
    found = [name for name, value in tensors.items() if is_floating(value) and not value.isfinite().all()]
    return found + [word for word in ("NaN", "Infinity") if word in json.dumps(tree)]


def rows_of(run: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


@runs.every_system
@pytest.mark.parametrize(
    "value", [NAN, pytest.param(INF, marks=pytest.mark.slow), pytest.param(-INF, marks=pytest.mark.slow)], ids=str
)
def test_promise_13_a_fault_is_skipped_counted_and_goes_no_further(system: str, value: float, tmp_path: Path) -> None:
    faults = dict(enumerate(passing(value).items(), start=1))  # from the first step on
    steps = len(faults) + 1
    with Watch(faults).watching() as watch:
        result = runs.train(system, tmp_path, *OPTIONS, *PENALISED.get(system, ()), f"run.max_steps={steps}")
    assert result.step == steps
    counted = [row["skipped"] for row in rows_of(result.folder, "train")]
    assert counted == list(itertools.accumulate(watch.total(step) for step in range(1, steps + 1)))
    check_what_was_hit(watch, penalised=system in PENALISED)
    for name in ("best", "last"):
        tensors, _ = checkpoint.load_weights(result.folder / "weights" / f"{name}.safetensors")
        assert all(value.isfinite().all() for value in tensors.values() if is_floating(value))


def check_what_was_hit(watch: Watch, penalised: bool) -> None:
    """Assert that each fault reached the updates that it was meant for, and no other of its step."""
    for step, (what, _) in watch.faults.items():
        hit = {name for name, count in watch.skipped[step].items() if count}
        main, others = {"generator"}, set(watch.skipped[step]) - {"generator"}
        if what == "image":  # the pool of system 001 may show a critic an earlier one
            assert hit >= main, what
        elif what == "penalty":
            assert hit == (others if penalised else set()), what
        elif what != "batch":  # what a joint that is not a number costs is the loss's affair
            assert hit == (main if "main" in what else others), what
    assert watch.total(len(watch.faults) + 1) == 0


class Breaking:
    """A run whose faults stay, from the third step on."""

    def __init__(self, system: str, fault: Fault, folder: Path, *more: str) -> None:
        options = (*OPTIONS, *PENALISED.get(system, ()), "run.skip_nonfinite=2", "run.max_steps=9", *more)
        self.step, original = 0, loop.Job._step

        def step(job: loop.Job, batches: Any) -> None:
            self.step = job.position.step + 1
            with fault(job) if self.step > BEGINNING else nullcontext():
                original(job, batches)

        with mock.patch.object(loop.Job, "_step", step), pytest.raises(NonFiniteError) as error:
            runs.train(system, folder, *options)
        self.message = str(error.value)
        (self.run,) = (folder / system / "tiny").iterdir()


STAYING: dict[str, Fault] = {name: fault for name, fault in passing(NAN).items() if name not in ("batch", "penalty")}
WORDS = {
    "main loss": "updates of 'generator' in a row had a loss that is not finite (loss nan, ",
    "main gradient": "updates of 'generator' in a row had a gradient that is not finite (loss ",
}


@runs.every_system
@pytest.mark.parametrize("what", [pytest.param(name, marks=slow_unless(name == "main loss")) for name in STAYING])
def test_promise_13_a_fault_that_stays_ends_the_run_resumable(system: str, what: str, tmp_path: Path) -> None:
    broken = Breaking(system, STAYING[what], tmp_path)
    assert broken.step == BEGINNING + 2
    assert broken.message.startswith(f"step {BEGINNING + 2}: 2 {WORDS.get(what, 'updates of ')}"), broken.message
    assert re.search(r", \w+( \w+)? -?[\d.]+(e-?\d+)?[,;)]", broken.message) or what != "main gradient"
    assert re.search(r"gradient norm \S+; samples \d+(, \d+)+( and \d+ more)?\); lower", broken.message), broken.message
    state = runs.state_of(broken.run)
    assert state["position"]["step"] == BEGINNING + 2
    assert not_finite(state) == []
    resumed = runs.train(system, tmp_path, "run.max_steps=6", resume=broken.run)
    assert (resumed.step, not_finite(runs.state_of(broken.run))) == (6, [])


def at_once(spoil: Callable[[loop.Job], Tensor], value: float = NAN) -> Fault:
    """Return what makes a number of the run's state not finite before the step."""

    def fault(job: loop.Job) -> AbstractContextManager[Any]:
        with torch.no_grad():
            values = spoil(job)
            values[(0,) * values.dim()] = value
        return nullcontext()

    return fault


def an_average(job: loop.Job) -> Tensor:
    """Return the square average of a generator's parameter: where it is infinite, no step moves the weight again."""
    (state, *_) = job.trainer.optimizers[job.trainer.main_network].state.values()
    return next(value for name, value in state.items() if name in ("exp_avg_sq", "square_avg"))


def a_statistic(job: loop.Job) -> Tensor:
    """Return the running mean of a batch norm of the main network, or another of its buffers."""
    found = [buffer for name, buffer in job.main.named_buffers() if is_floating(buffer)]
    return found[0] if found else next(job.main.parameters()).detach()


RUINED: dict[str, tuple[Fault, str]] = {
    "weight": (at_once(lambda job: next(job.main.parameters()).detach()), "weights of 'generator'"),
    "statistic": (at_once(a_statistic), "weights of 'generator'"),
    "optimizer": (at_once(an_average, INF), "averages of the optimizer 'generator'"),
    "average": (at_once(lambda job: next(job.ema.average.parameters())), "averaged weights"),  # type: ignore[union-attr]
}


@runs.every_system
@pytest.mark.parametrize("part", [pytest.param(name, marks=slow_unless(name == "optimizer")) for name in RUINED])
def test_promise_13_a_state_that_is_ruined_is_never_saved(system: str, part: str, tmp_path: Path) -> None:
    fault, words = RUINED[part]
    broken = Breaking(system, fault, tmp_path, "run.checkpoint_steps=1")
    pattern = rf"step \d: ({words}) are not finite and were not saved; .* resume from the earlier state"
    assert re.fullmatch(pattern, broken.message), broken.message
    state = runs.state_of(broken.run)
    assert state["position"]["step"] == BEGINNING
    assert not_finite(state) == []
    resumed = runs.train(system, tmp_path, "run.max_steps=4", resume=broken.run)
    assert (resumed.step, not_finite(runs.state_of(broken.run))) == (4, [])


SCORES = (NAN, 1.0, INF, 3.0, -INF, NAN, 2.0)
"""What seven evaluations find of a monitor whose largest value is the best; the others' have the other sign."""


@runs.every_system
@pytest.mark.parametrize("scores", [SCORES, (NAN, INF, -INF)], ids=["some numbers", "no number"])
def test_promise_14_what_is_not_a_number_is_never_the_best(
    system: str, scores: tuple[float, ...], tmp_path: Path
) -> None:
    best = next((number for number, score in enumerate(scores, start=1) if score == 3.0), None)
    signs: list[int] = []
    left = list(scores)

    def evaluate(trainer: Any, network: nn.Module, loader: Any) -> list[Result]:
        signs.append(1 if getattr(trainer, "monitor_mode", "max") == "max" else -1)
        return [Result(trainer.monitor, "made up", signs[0] * left.pop(0), 1)]

    without_steps = mock.patch.object(loop.Job, "_epoch", return_value="")
    with mock.patch.object(outcome, "evaluate", evaluate), without_steps:
        epochs = (f"run.epochs={len(scores)}", "run.evaluate_every=1")
        result = runs.train(system, tmp_path, *OPTIONS, *epochs)
    weights = result.folder / "weights" / "best.safetensors"
    assert (None if result.best is None else (result.best["epoch"], result.best["value"])) == (
        None if best is None else (best, signs[0] * 3.0)
    )
    assert weights.exists() == (best is not None)
    assert [row["value"] for row in rows_of(result.folder, "evaluation")] == [
        signs[0] * score if math.isfinite(score) else None for score in scores
    ]
    if best is not None:
        assert checkpoint.load_weights(weights)[1]["epoch"] == best
    assert runs.state_of(result.folder)["best"] == result.best
