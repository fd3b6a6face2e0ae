"""Random state of a process: seeded, captured without pickle, put back, and kept apart where it must not be touched."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), numpy and python."""
    stream = int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0])
    torch.manual_seed(stream % (1 << 63))
    np.random.seed(stream % (1 << 32))  # noqa: NPY002 - the global stream, which libraries may draw from
    random.seed(stream)


def capture() -> dict[str, Any]:
    """Return the random state as tensors and integers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, words, pending = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": [state.clone() for state in torch.cuda.get_rng_state_all()] if _cuda_in_use() else [],
        "numpy": {
            "kind": kind,
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "pending": pending},
    }


def restore(state: dict[str, Any]) -> None:
    """Put back what ``capture`` returned."""
    torch.set_rng_state(state["torch"].cpu().to(torch.uint8))
    if state["cuda"] and _cuda_in_use() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([entry.cpu() for entry in state["cuda"]])
    numpy = state["numpy"]
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))  # noqa: NPY002
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["pending"]))


@contextmanager
def preserved() -> Iterator[None]:
    """Run the body without leaving a trace in the random state: how often a run is evaluated must not change it."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


@contextmanager
def determinism(enabled: bool) -> Iterator[None]:
    """Within the body, choose deterministic algorithms (else let cuDNN look for the fastest); then undo it."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(enabled)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = enabled, not enabled
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
