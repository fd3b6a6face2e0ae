"""Batch norm over several processes against torch's on all their samples, to the second derivative.

The processes are threads here, and the sum over processes is one over threads: each differentiates on its own.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from fastpose.nn.fused_convolution import FusedConvolution
from fastpose.nn.sync_norm import SyncBatchNorm1d, SyncBatchNorm2d, synchronise

SIZES = [(3, 5), (1, 4, 2)]  # samples of each process; one of a single value does for the sum of all


class Threads:
    """Stands for the group: a thread's rank, and sums in which every thread meets the others."""

    def __init__(self, size: int) -> None:
        self.size, self.own = size, threading.local()
        self.meeting, self.sent = threading.Barrier(size, timeout=60), [torch.zeros(0)] * size

    def all_reduce(self, values: Tensor) -> None:
        self.sent[self.own.rank] = values.clone()
        self.meeting.wait()
        total = torch.stack(self.sent).sum(0)
        self.meeting.wait()
        values.copy_(total)

    def run(self, work: Callable[..., Any]) -> list[Any]:
        def start(rank: int) -> Any:
            self.own.rank = rank
            try:
                return work(rank)
            except BaseException:
                self.meeting.abort()  # the others would wait for this one
                raise

        with ThreadPoolExecutor(self.size) as pool:
            return [future.result() for future in [pool.submit(start, rank) for rank in range(self.size)]]


@pytest.fixture
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Threads:
    threads = Threads(request.param)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: threads.size)
    monkeypatch.setattr(distributed, "get_rank", lambda: threads.own.rank)
    monkeypatch.setattr(distributed, "all_reduce", threads.all_reduce)
    return threads


def layer(kind: type[nn.Module], affine: bool = True, **options: Any) -> Any:
    torch.manual_seed(1)
    norm: Any = kind(3, affine=affine, dtype=torch.float64, **options)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


def derivatives(norm: nn.Module, x: Tensor, share: float) -> list[Tensor]:
    """Outputs, their gradient, and the gradients of a penalty on it; ``share`` is that of the samples in all."""
    x = x.clone().requires_grad_()
    out = norm(x)
    score = (out.sin() * torch.arange(1, 4, dtype=x.dtype).view(1, 3, *[1] * (x.dim() - 2))).flatten(1).sum(1)
    (gradient,) = torch.autograd.grad(score.sum(), x, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean() * share
    return [out, gradient, *torch.autograd.grad(penalty, [x, *norm.parameters()])]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize(("group", "sizes"), [(len(sizes), sizes) for sizes in SIZES], indirect=["group"])
@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (3,)), (nn.BatchNorm1d, (3, 5)), (nn.BatchNorm2d, (3, 2, 4))]
)
def test_promise_10_batch_norm_over_processes_is_that_of_all_samples(
    group: Threads, sizes: tuple[int, ...], kind: type[nn.Module], shape: tuple[int, ...], momentum: Any, affine: bool
) -> None:
    whole = layer(kind, affine, momentum=momentum)
    norms = [copy.deepcopy(whole) for _ in sizes]
    draw = torch.Generator().manual_seed(sum(sizes))
    for _ in range(2):
        x = 3 + 2 * torch.randn(sum(sizes), *shape, dtype=torch.float64, generator=draw)
        expected = derivatives(whole, x, 1.0)
        for norm in norms:
            synchronise(norm)
        work = [(norm, part, len(part) / len(x)) for norm, part in zip(norms, x.split(sizes), strict=True)]
        found = group.run(lambda rank, work=work: derivatives(*work[rank]))
        by_sample = zip(*[one[:3] for one in found], strict=True)
        for together, apart in zip(expected[:3], by_sample, strict=True):
            torch.testing.assert_close(torch.cat(apart), together, rtol=1e-9, atol=1e-9)
        for together, *apart in zip(expected[3:], *[one[3:] for one in found], strict=True):
            torch.testing.assert_close(torch.stack(apart).sum(0), together, rtol=1e-9, atol=1e-9)
    for norm in norms:
        assert list(norm.state_dict()) == list(whole.state_dict())
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-12, atol=1e-12)
    same = [dict(norm.state_dict()) for norm in norms]
    assert all(torch.equal(value, same[0][name]) for other in same for name, value in other.items())


@pytest.mark.parametrize("group", [2], indirect=True)
def test_promise_10_sixteen_bits_keep_wide_statistics(group: Threads) -> None:
    x = 300 + torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(3)
    synchronise(norm)
    parts = x.bfloat16().split(4)
    out = torch.cat(group.run(lambda rank: copy.deepcopy(norm)(parts[rank])))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, nn.BatchNorm2d(3)(x.bfloat16()), rtol=0.01, atol=0.01)


def test_alone_and_in_evaluation_it_is_torchs() -> None:
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    plain, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    synchronise(other)
    assert torch.equal(plain(x), other(x))
    assert torch.equal(plain.eval()(x), other.eval()(x))


def test_all_batch_norms_of_a_network_are_converted_in_place() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3)))
    before = {name: id(value) for name, value in network.named_parameters()}
    synchronise(network)
    assert {name: id(value) for name, value in network.named_parameters()} == before
    kinds = {type(module) for module in network.modules()}
    assert {SyncBatchNorm1d, SyncBatchNorm2d} <= kinds
    assert not {nn.BatchNorm1d, nn.BatchNorm2d} & kinds


def test_inference_folds_it_like_torchs() -> None:
    norm = nn.BatchNorm2d(3).eval()
    synchronise(norm)
    assert FusedConvolution(nn.Conv2d(2, 3, 1)).append(norm)
