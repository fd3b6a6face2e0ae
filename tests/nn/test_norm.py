"""Instance norm against PyTorch's, in both memory orders, and the norms by name."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from fastpose.nn.norm import InstanceNorm, needs_bias, norm_layer

ORDERS = [torch.contiguous_format, torch.channels_last]


def maps(dtype=torch.float64, size=(2, 6, 5, 7), shift=0.0):
    return (torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + shift).to(dtype)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [(2, 6, 5, 7), (1, 6, 5, 7), (1, 1, 3, 3), (3, 4, 1, 9), (2, 4, 1, 1)])
def test_instance_norm_is_pytorchs_in_the_order_of_its_input(order, size):
    x = maps(size=size).contiguous(memory_format=order)
    out = InstanceNorm(size[1])(x)
    expected = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=order)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_a_mean_far_from_zero_does_not_cancel(order, batch):
    x = maps(torch.float32, (batch, 4, 64, 48), shift=300.0).contiguous(memory_format=order)
    exact = functional.instance_norm(x.double())
    torch.testing.assert_close(InstanceNorm(4)(x).double(), exact, rtol=0, atol=2e-3)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("order", ORDERS)
def test_instance_norm_has_right_first_and_second_derivatives(order, batch):
    x = maps(size=(batch, 2, 2, 3)).contiguous(memory_format=order).requires_grad_()
    assert torch.autograd.gradcheck(InstanceNorm(2), x)
    assert torch.autograd.gradgradcheck(InstanceNorm(2), x)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_instance_norm_keeps_its_dtype_and_sums_in_float32(order, dtype):
    x = maps(dtype, (2, 4, 48, 64)).contiguous(memory_format=order)
    out = InstanceNorm(4)(x)
    assert out.dtype == dtype
    exact = functional.instance_norm(x.double())
    tolerance = 4 * torch.finfo(dtype).eps * exact.abs().max().item()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=tolerance)


def test_instance_norm_has_no_state_and_forgets_the_mode():
    norm, x = InstanceNorm(6), maps()
    assert not norm.state_dict()
    torch.testing.assert_close(norm.train()(x), norm.eval()(x), rtol=0, atol=0)


def test_norms_by_name_and_who_needs_a_bias():
    assert isinstance(norm_layer("instance", 3), InstanceNorm)
    batch = norm_layer("batch", 3)
    assert isinstance(batch, nn.BatchNorm2d)
    assert (batch.num_features, batch.eps, batch.momentum) == (3, 1e-5, 0.1)
    assert (needs_bias("instance"), needs_bias("batch")) == (True, False)
    with pytest.raises(ValueError, match=r"norm: .*got 'batsh'; did you mean 'batch'"):
        norm_layer("batsh", 3)
