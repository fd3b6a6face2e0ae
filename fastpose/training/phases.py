"""One update of one network, as a trainer's ``step`` calls it: ``update("discriminator", loss)``.

A trainer writes its order of updates as its paper does; what surrounds each (autocast, loss scaling, accumulation, the
mean over processes, clipping, the guard against values that are not finite, the averaged weights) is here, once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastpose import _checks
from fastpose.training import distributed
from fastpose.training.distributed import World
from fastpose.training.ema import Ema
from fastpose.training.optimizers import lay_out_gradients

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_NAMED = 16  # samples that a message names


class NonFiniteError(ValueError):
    """Too many updates in a row had a loss or gradient that is not finite."""


class Update:
    """Applies optimizer steps for a trainer.

    Gradients reach only the parameters of the named optimizer: a generator's loss may flow through the discriminator
    without leaving gradients in it. Between two updates no parameter holds a gradient.

    Args:
        networks, optimizers: by name; an update names an optimizer.
        precision: "fp32", "bf16" or "fp16" (with loss scaling, one scale per optimizer).
        accumulate: batches per optimizer step; each loss counts ``1 / accumulate``.
        clip_norm: largest norm of an update's gradient; 0 is off.
        limit: updates that are not finite are skipped; so many in a row of one optimizer end the run.
        ema: averaged weights and the network they follow; updated when the optimizer ``main`` stepped.
        place: this process among all.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        *,
        main: str,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_norm: float = 0.0,
        limit: int = 10,
        ema: Ema | None = None,
        place: World | None = None,
    ) -> None:
        self._networks, self._optimizers, self.main = dict(networks), dict(optimizers), main
        self.place = place or World(0, 1, torch.device("cpu"))
        self.accumulate, self.clip_norm, self.limit, self.ema = accumulate, clip_norm, limit, ema
        self._dtype = _AUTOCAST.get(precision)
        kind = self.place.device.type
        self._scalers = {name: torch.amp.GradScaler(kind, enabled=precision == "fp16") for name in optimizers}
        self._parameters = {name: _trained(optimizer) for name, optimizer in optimizers.items()}
        self._losses: dict[str, Tensor] = {}
        self._terms: dict[str, dict[str, Tensor]] = {}
        self.skipped = dict.fromkeys(optimizers, 0)
        self._in_a_row = dict.fromkeys(optimizers, 0)
        self._step, self._last = 0, True
        self._samples: list[Tensor] = []
        self.disturbed = False
        """Whether an update of this step was skipped."""
        self.failure: NonFiniteError | None = None
        """Set when too many were skipped in a row; the engine raises it when the step has ended and is saved."""
        self._stepped: set[str] = set()

    # ---- for trainers ------------------------------------------------------------------------------------------

    def network(self, name: str) -> nn.Module:
        """Return the network to run in a training step."""
        if name not in self._networks:
            raise ValueError(_checks.unknown("network", name, self._networks))
        return self._networks[name]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes and losses: 16-bit where the run asks for it, else nothing."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.place.device.type, self._dtype)

    @property
    def steps_now(self) -> bool:
        """Whether this batch completes an optimizer step (always, without accumulation)."""
        return self._last

    def __call__(
        self, name: str, loss: Tensor, *, terms: Mapping[str, Tensor] | None = None, retain_graph: bool = False
    ) -> bool:
        """Do one update: ``backward``, then ``step``.

        Args:
            name: of the optimizer.
            loss: scalar ().
            terms: parts of the loss, named in the message should they cease to be finite.
            retain_graph: keep the graph for a later loss through the same tensors.

        Returns:
            whether the weights changed (not when skipped, nor before the last batch of an accumulated step).
        """
        self.backward(name, loss, terms=terms, retain_graph=retain_graph)
        return self.step(name)

    def backward(
        self, name: str, loss: Tensor, *, terms: Mapping[str, Tensor] | None = None, retain_graph: bool = False
    ) -> None:
        """Add the gradient of ``loss`` to the parameters of optimizer ``name``; may be called several times per step.

        Raises:
            ValueError: unknown name, a loss that is no scalar or depends on nothing trained.
        """
        parameters = self._known(name)
        if loss.dim() != 0 or not loss.requires_grad:
            found = f"shape {tuple(loss.shape)}" if loss.dim() else "a value that depends on no parameter"
            raise ValueError(f"loss of {name!r}: expected a scalar with gradient, got {found}")
        share = loss / self.accumulate
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        self._scalers[name].scale(share).backward(inputs=wanted, retain_graph=retain_graph)
        self._losses[name] = self._losses[name] + share.detach() if name in self._losses else share.detach()
        known = self._terms.setdefault(name, {})
        for key, value in (terms or {}).items():
            known[key] = known[key] + value.detach() if key in known else value.detach()

    def step(self, name: str) -> bool:
        """Let optimizer ``name`` take its step with the gradients that ``backward`` gathered; see ``__call__``."""
        parameters = self._known(name)
        if not self._last:
            return False
        if name not in self._losses:
            raise ValueError(f"update {name!r}: step without a backward before it")
        loss = distributed.mean_gradients(parameters, self._losses.pop(name), self.place)
        lay_out_gradients(parameters)
        scaler, optimizer = self._scalers[name], self._optimizers[name]
        scaler.unscale_(optimizer)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            raise ValueError(f"loss of {name!r}: reaches no parameter of the optimizer {name!r}")
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool(torch.isfinite(norm.to(loss.device) + loss))  # the one wait for the device per update
        if finite:
            self._clip(parameters, norm)
            scaler.step(optimizer)
            self._stepped.add(name)
        scale = 1.0 if finite else scaler.get_scale()
        if scaler.is_enabled():
            scaler.update()
        optimizer.zero_grad(set_to_none=True)
        overflow = scale > 1.0 and bool(torch.isfinite(loss)) and scaler.get_scale() < scale
        self._count(name, finite, overflow, loss, norm)
        self._terms.pop(name)
        return finite

    # ---- for the engine ----------------------------------------------------------------------------------------

    def begin(self, step: int, samples: Tensor | None, *, last: bool) -> None:
        """Announce a batch: its step and sample indices (for messages), and whether it completes the step."""
        if step != self._step:
            self._samples.clear()
        if samples is not None:
            self._samples.append(samples)
        self._step, self._last = step, last

    def finish(self) -> None:
        """Bring the averaged weights up to the step that ended; weights that are not finite never enter them."""
        if self.ema is not None and self.main in self._stepped and is_finite(self._networks[self.main]):
            self.ema.update(self._networks[self.main])
        self._stepped.clear()
        self.disturbed = False

    def state_dict(self) -> dict[str, Any]:
        """Return counters and loss scales."""
        scalers = {name: scaler.state_dict() for name, scaler in self._scalers.items()}
        return {"skipped": dict(self.skipped), "in_a_row": dict(self._in_a_row), "scalers": scalers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` returned."""
        self.skipped.update(state["skipped"])
        self._in_a_row.update(state["in_a_row"])
        for name, scaler in self._scalers.items():
            if scaler.is_enabled() and state["scalers"].get(name):
                scaler.load_state_dict(state["scalers"][name])

    # ---- inside ------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> list[nn.Parameter]:
        if name not in self._parameters:
            raise ValueError(_checks.unknown("optimizer", name, self._parameters))
        return self._parameters[name]

    def _clip(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        if self.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)

    def _count(self, name: str, finite: bool, overflow: bool, loss: Tensor, norm: Tensor) -> None:
        if finite:
            self._in_a_row[name] = 0
            return
        self.disturbed = True
        self.skipped[name] += 1
        if overflow:  # a scale that is still too large is how fp16 finds its scale; it is no fault of the run
            return
        self._in_a_row[name] += 1
        if self._in_a_row[name] >= self.limit:
            self.failure = NonFiniteError(self._explain(name, float(loss), float(norm)))

    def _explain(self, name: str, loss: float, norm: float) -> str:
        terms = ", ".join(f"{key} {float(value) / self.accumulate:g}" for key, value in self._terms[name].items())
        samples = self._all_samples()
        what = "loss" if not math.isfinite(loss) else "gradient"
        return (
            f"step {self._step}: {self._in_a_row[name]} updates of {name!r} in a row had a {what} that is not finite "
            f"(loss {loss:g}{', ' + terms if terms else ''}, gradient norm {norm:g}; samples {samples}); "
            "lower the learning rate, set run.clip_norm, or look at these samples"
        )

    def _all_samples(self) -> str:
        """Return the samples of the step, of its batches and of all processes, as text."""
        own = [index for samples in self._samples for index in samples.tolist()]
        known = [str(index) for part in distributed.gather(own, self.place) for index in part]
        more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
        return ", ".join(known[:_NAMED]) + more if known else "not known"


def is_finite(network: nn.Module) -> bool:
    """Return whether every parameter and buffer of a network is finite."""
    return are_finite([*network.parameters(), *network.buffers()])


@torch.no_grad()
def are_finite(state: Any) -> bool:
    """Return whether every number in a nest of lists, dicts, tensors and numbers is finite; other values have none."""
    leaves = list(_leaves(state))
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not all(math.isfinite(leaf) for leaf in leaves if isinstance(leaf, float)):
        return False
    totals = [
        torch.stack([norm.float() for norm in torch._foreach_norm([t for t in tensors if t.device == device])]).sum()
        for device in {tensor.device for tensor in tensors}
    ]
    if all(bool(torch.isfinite(total)) for total in totals):
        return True
    # A finite number may have a square that is not.
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _leaves(state: Any) -> Iterator[Any]:
    if isinstance(state, Mapping):
        state = list(state.values())
    if not isinstance(state, list | tuple):
        yield state
        return
    for value in state:
        yield from _leaves(value)


def _trained(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def step_schedule(advance: Callable[[], None]) -> None:
    """Step a schedule without torch's warning about an optimizer that has not stepped: after a resume it is wrong."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
        advance()


class BufferGuard:
    """Keeps the buffers of all networks as they were before a step, to undo what a skipped step wrote into them.

    A forward pass with values that are not finite ruins running statistics for good, even when no weight is updated.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._buffers = [buffer for network in networks.values() for buffer in network.buffers()]
        self._copies = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def remember(self) -> None:
        """Copy the buffers as they are."""
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)

    @torch.no_grad()
    def restore(self) -> None:
        """Write the copies back."""
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._copies)
