"""The full state of a run as one nest of values, and back: what a resume point holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fastpose import _files
from fastpose.training import checkpoint, distributed, optimizers, randomness, state_tree
from fastpose.training.phases import are_finite

if TYPE_CHECKING:
    from fastpose.training.loop import Job


def take_private(job: Job) -> dict[str, Any]:
    """Return what each process has of its own: random state, the sums of its log, and the trainer's state.

    The latter only where it is not that of the leader, which is part of ``take`` already: image pools are large.
    """
    own = {"random": randomness.capture(), "window": job.window.state_dict()}
    if not job.place.several:
        return own
    state = job.trainer.state()
    mine = _hash(state)
    return own if mine == distributed.share(mine, job.place) else {**own, "trainer": state}


def take(job: Job, private: list[dict[str, Any]]) -> dict[str, Any]:
    """Return everything that the next step depends on; ``private`` holds each process's own, by rank."""
    trainer = job.trainer
    return {
        "networks": _states(trainer.networks),
        "optimizers": _states(trainer.optimizers),
        "schedulers": _states(trainer.schedulers),
        "ema": None if job.ema is None else job.ema.state_dict(),
        "trainer": trainer.state(),
        "update": job.update.state_dict(),
        "processes": private,
        "position": asdict(job.position),
        "best": job.best.record,
        "rows": job.logbook.rows,
    }


def not_finite(job: Job) -> list[str]:
    """Return which parts of what ``take`` returns hold values that are not finite."""
    trainer = job.trainer
    parts: dict[str, Any] = {f"weights of {name!r}": network.state_dict() for name, network in trainer.networks.items()}
    for name, optimizer in trainer.optimizers.items():
        parts[f"averages of the optimizer {name!r}"] = optimizer.state_dict()["state"]
    parts["averaged weights"] = None if job.ema is None else job.ema.average.state_dict()
    parts["the trainer's numbers"] = trainer.state()
    return [what for what, state in parts.items() if not are_finite(state)]


def put_back(job: Job, state: Mapping[str, Any], source: Path, manifest: Mapping[str, Any], config: Any) -> None:
    """Give a job the state that ``take`` returned.

    Args:
        job: built from the same recipe.
        state: of the resume point.
        source, manifest, config: its file, its manifest and the configuration in use, for messages.

    Raises:
        ValueError: a network, optimizer or schedule does not fit, or something is missing; one sentence.
    """
    try:
        _put_back(job, state, source, manifest, config)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, RuntimeError, OverflowError) as error:
        if str(source) in str(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(
            f"checkpoint {source}: its state lacks or misnames something ({reason}); restore it"
        ) from error


def check_place(state: Mapping[str, Any], source: Path) -> None:
    """Raise ``ValueError`` unless a state tells where its run stood: epoch, steps, rows of the log, the best so far."""
    position, best = state.get("position"), state.get("best")
    told = position if isinstance(position, dict) else {}
    numbers = [told.get("epoch"), told.get("in_epoch"), told.get("step"), state.get("rows")]
    told_best = best if isinstance(best, dict) else {}
    known = best is None or (isinstance(told_best.get("value"), float | int) and type(told_best.get("step")) is int)
    if len(told) != 3 or not known or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(
            f"checkpoint {source}: its state does not tell where the run stood (epoch, steps, rows of the log and the "
            "best so far); restore it"
        )


def _put_back(job: Job, state: Mapping[str, Any], source: Path, manifest: Mapping[str, Any], config: Any) -> None:
    trainer = job.trainer
    for name, network in trainer.networks.items():
        saved = state["networks"].get(name, {})
        checkpoint.load_into(network, saved, source=source, manifest=manifest, config=config)
    _load_all(trainer.optimizers, state["optimizers"], f"checkpoint {source}: optimizers")
    for optimizer in trainer.optimizers.values():
        optimizers.lay_out(optimizer)
    _load_all(trainer.schedulers, state["schedulers"], f"checkpoint {source}: schedulers")
    if job.ema is not None:
        # Switched on only now: the average starts from the weights as they are.
        job.ema.load_state_dict(state["ema"] or {"average": job.main.state_dict(), "updates": 0})
    known = state["processes"][job.place.rank] if job.place.rank < len(state["processes"]) else {}
    trainer.load_state(known.get("trainer", state["trainer"]))
    job.update.load_state_dict(state["update"])
    job.position = type(job.position)(**state["position"])
    job.best.record = state["best"]
    if known:
        job.window.load_state_dict(known["window"], job.place.device)
        randomness.restore(known["random"])


def _hash(state: Any) -> str:
    tensors: dict[str, Tensor] = {}
    tree = state_tree.encode(state, tensors)
    return _files.sha256((json.dumps(tree) + checkpoint.hash_tensors(tensors)).encode())


def _states(owners: Mapping[str, Any]) -> dict[str, Any]:
    return {name: dict(owner.state_dict()) for name, owner in owners.items()}


def _load_all(owners: Mapping[str, Any], states: Mapping[str, Any], what: str) -> None:
    for name, owner in owners.items():
        if name not in states:
            raise ValueError(f"{what}: {name!r} is missing, found {', '.join(states) or 'none'}")
        try:
            owner.load_state_dict(states[name])
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(f"{what}: the state of {name!r} does not fit ({error})") from None
