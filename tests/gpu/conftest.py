"""A GPU for the tests that are marked so; everywhere else they skip and say why."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from fastpose.ops._explain import _OPERATIONS

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic mode wants it before cuBLAS starts


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that torch can use")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu"):  # torch says so of the only setting that all its versions have
            item.add_marker(pytest.mark.filterwarnings("ignore:Please use the new API"))


@pytest.fixture(autouse=True)
def _exact_reference(request: pytest.FixtureRequest) -> Iterator[None]:
    """The reference beside which results stand computes in full precision, convolutions included."""
    if not request.node.get_closest_marker("gpu"):
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield
    torch.cuda.synchronize()
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before[1:]


@pytest.fixture
def need():
    """Skip where this build lacks a backend; a build without nvcc has no "cuda"."""

    def check(operation: str, backend: str) -> None:
        names = _OPERATIONS[operation].backend_names
        if backend not in names:
            pytest.skip(f"{operation} has no backend {backend!r}, only {', '.join(names)}")
        if backend == "cuda":
            from fastpose import _native

            if _native.missing() or str(_native.build_info().get("cuda")) != "True":
                pytest.skip("the extension was built without CUDA")

    return check
