"""The bodies of the GPU tests on the CPU: they are not broken, and they fail where they should."""

from contextlib import nullcontext

import pytest
import torch
from cuda_autocast import LowerPrecision
from gpu import bodies

from fastpose import ops
from fastpose.nn import spectral_norm


@pytest.mark.parametrize("name", list(bodies.EVERY))
def test_gpu_bodies_run_on_the_cpu(name):
    bodies.check_poisoned("cpu", "cpu", name)
    bodies.check_bit_equal("cpu", "cpu", name)


@pytest.mark.parametrize("layout", ["positions", "channels", "sliced", "strided"])
def test_gpu_body_of_attention_runs_on_the_cpu(layout):
    bodies.check_attention("cpu", "cpu", (2, 3, 5, 7, 9), layout, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpu_bodies_of_heatmaps_and_descriptors_run_on_the_cpu(dtype):
    bodies.check_heatmap("cpu", "cpu", "loss-gaussian-mean", (2, 3, 5, 15), "sliced", dtype)
    bodies.check_descriptor("cpu", "cpu", (3, 17, 2), dtype)
    bodies.check_render("cpu", "cpu", "msra", dtype)
    bodies.check_decode("cpu", "cpu", "dark", "channels_last", dtype)
    bodies.check_decode("cpu", "cpu", "quarter", "strided", dtype)


def test_gpu_body_of_the_training_runs_on_the_cpu():
    bodies.check_training("cpu", "cpu", steps=6)


def test_gpu_body_of_spectral_norm_runs_on_the_cpu_and_notices_sixteen_bits(monkeypatch):
    with LowerPrecision():
        bodies.check_spectral_norm("cpu")
        monkeypatch.setattr(spectral_norm, "_full_precision", lambda device: nullcontext())
        with pytest.raises(AssertionError, match="not close"):
            bodies.check_spectral_norm("cpu")


def test_gpu_body_of_compilation_runs_on_the_cpu():
    bodies.check_compiled("cpu", "cpu", "descriptor")


def test_moved_keeps_numbers_and_strides():
    there = torch.arange(60.0).view(3, 4, 5)[:, 1:3, ::2].requires_grad_()
    here = bodies.moved(there.detach().requires_grad_(), "cpu")
    assert here.stride() == there.stride()
    assert here.is_leaf
    assert here.requires_grad
    assert torch.equal(here, there)


def test_gpu_bodies_notice_a_wrong_second_gradient(monkeypatch):
    right = bodies.Orders.run

    def wrong(orders, backend):
        results = right(orders, backend)
        return [*results[:-1], 0 * results[-1]] if backend == "cpu" else results

    monkeypatch.setattr(bodies.Orders, "run", wrong)
    with pytest.raises(AssertionError, match=r"order 2"):
        bodies.check_poisoned("cpu", "cpu", "attention")


def test_every_operation_has_a_gpu_body():
    covered = {"nonlocal_attention", "render_gaussian_heatmaps", "render_depth_maps", "heatmap_mse_loss"}
    covered |= {"decode_heatmaps", "flip_average", "pairwise_descriptor"}
    assert set(ops.operations()) <= covered
