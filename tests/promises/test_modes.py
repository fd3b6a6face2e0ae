"""Training and evaluation mode of every network of the five systems agree, and evaluation leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import runs
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastpose.training import loop, outcome

TOLERANCE = 2e-4
"""Between the modes, of the largest number of an output: both are float32, summed in another order."""

OPTIONS = ("run.workers=0", "run.max_steps=1")
# Dropout is drawn anew in training mode, and is no matter of batch norm; a batch norm needs a critic that has one.
PLAIN = {
    "pona": ("model.dropout=0", "appearance.dropout=0", "pose.dropout=0"),
    "caption": ("discriminator.norm=batch", "loss.algorithm=gan"),
}


def without_evaluation() -> Any:
    return mock.patch.object(outcome, "evaluate", return_value=[])


class Seen:
    """The networks of a run of one step, and what each was given first."""

    def __init__(self, system: str, folder: Path) -> None:
        self.networks: dict[str, nn.Module] = {}
        self.inputs: dict[str, tuple[Any, ...]] = {}
        original = loop.Job._step

        def step(job: loop.Job, batches: Any) -> None:
            self.networks = job.trainer.networks
            with self._watched():
                original(job, batches)

        with mock.patch.object(loop.Job, "_step", step), without_evaluation():
            runs.train(system, folder, *OPTIONS, *PLAIN.get(system, ()))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        def keep(name: str) -> Any:
            return lambda module, given: self.inputs.setdefault(name, tuple(map(detached, given))) and None

        hooks = [network.register_forward_pre_hook(keep(name)) for name, network in self.networks.items()]
        yield
        for hook in hooks:
            hook.remove()


def detached(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def outputs(network: nn.Module, given: tuple[Any, ...]) -> list[Tensor]:
    """Return the outputs of a network as a list, whatever it returns."""
    with torch.no_grad():
        found = network(*given)
    flat: list[Tensor] = []
    for part in found if isinstance(found, (list, tuple)) else [found]:
        flat += part if isinstance(part, (list, tuple)) else [part]
    return [part for part in flat if isinstance(part, Tensor)]


def norms(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def remember_the_batch(norm: _BatchNorm, given: tuple[Tensor, ...], out: Tensor) -> None:
    """Make the running variance that of the batch: torch stores it over n - 1 and normalises by it over n."""
    count = given[0].numel() / given[0].shape[1]
    norm.running_var *= (count - 1) / count  # type: ignore[operator]


def assert_alike(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        difference = float((ours - theirs).abs().max())
        assert difference <= TOLERANCE * max(float(theirs.abs().max()), 1e-3), f"{name}: {difference}"


@runs.every_system
def test_promise_16_training_and_evaluation_mode_agree(system: str, tmp_path: Path) -> None:
    seen = Seen(system, tmp_path)
    assert seen.inputs.keys() == seen.networks.keys()
    for name, network in seen.networks.items():
        given = seen.inputs[name]
        hooks = [norm.register_forward_hook(remember_the_batch) for norm in norms(network)]
        for norm in norms(network):
            norm.momentum = 1.0
        trained = outputs(network.train(), given)
        for hook in hooks:
            hook.remove()
        state = {key: value.clone() for key, value in network.state_dict().items()}
        evaluated = outputs(network.eval(), given)
        assert_alike(f"{name}: modes", evaluated, trained)
        again = outputs(network, given)
        assert all(map(torch.equal, evaluated, again)), name
        assert all(value.equal(state[key]) for key, value in network.state_dict().items()), f"{name} keeps something"
        check_each_alone(name, network, given, evaluated)


def check_each_alone(name: str, network: nn.Module, given: tuple[Any, ...], together: list[Tensor]) -> None:
    """Assert that an item's output does not depend on those beside it, nor on their order."""
    count = len(given[0])
    for index in range(count):
        alone = outputs(network, tuple(part[index : index + 1] if isinstance(part, Tensor) else part for part in given))
        assert_alike(f"{name}: item {index}", alone, [out[index : index + 1] for out in together])
    turned = outputs(network, tuple(part.flip(0) if isinstance(part, Tensor) else part for part in given))
    assert_alike(f"{name}: turned round", turned, [out.flip(0) for out in together])


@runs.every_system
def test_promise_16_a_batch_of_one_trains_or_is_refused_in_a_sentence(system: str, tmp_path: Path) -> None:
    try:
        with without_evaluation():
            result = runs.train(system, tmp_path, *OPTIONS, "run.batch_size=1")
    except ValueError as error:
        sentence = str(error)
    else:
        assert result.step == 1
        return
    assert "run.batch_size" in sentence, sentence
    assert "\n" not in sentence
