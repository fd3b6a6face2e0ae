"""Descriptors of pairs of joints at the sizes of the published systems."""

from __future__ import annotations

from fastpose import ops
from fastpose.benchmark import baselines
from fastpose.benchmark.cases._case import BACKWARD, DOUBLE, FORWARD, ORDERS, Case, Work, random


def descriptor(batch: int, joints: int, dimensions: int = 3, orders: tuple[str, ...] = ORDERS) -> Case:
    """Return a case of pairwise_descriptor."""
    half = 4.0 * batch * dimensions * joints**2
    every = {
        FORWARD: Work(written=2 * half),
        BACKWARD: Work(read=2 * half, written=2 * half),
        DOUBLE: Work(read=half, written=2 * half),
    }
    return Case(
        "pairwise_descriptor",
        f"({batch}, {joints}, {dimensions})",
        random((batch, joints, dimensions)),
        lambda tensors, **backend: ops.pairwise_descriptor(*tensors, **backend),
        "pairwise_descriptor",
        {"broadcast": baselines.descriptor_broadcast},
        {order: every[order] for order in orders},
        wanting=(0,),
    )


GEOMETRY = (
    descriptor(6, 16),  # a batch of system 002
    descriptor(4096, 16),
    descriptor(4096, 17, 2),
    descriptor(65536, 17, orders=(FORWARD, BACKWARD)),
)
