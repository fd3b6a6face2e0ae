"""Borderline joints: a single one, none, numbers that are not finite, and threads."""

import math

import pytest
import torch

from fastpose import ops


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_one_joint_is_all_zero(backend):
    joints = torch.tensor([[[1.0, 2.0, 3.0]]], requires_grad=True)
    descriptor = ops.pairwise_descriptor(joints, backend=backend)
    assert not descriptor.any()
    assert not torch.autograd.grad(descriptor.sum(), joints)[0].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_joints_are_not_hidden(bad):
    joints = torch.randn(2, 17, 3)
    joints[0, 4, 1] = bad
    found = ops.pairwise_descriptor(joints, backend="cpu")
    assert torch.equal(found.isfinite(), ops.pairwise_descriptor(joints, backend="reference").isfinite())
    assert found[1].isfinite().all()


def test_input_is_not_changed_and_autocast_changes_nothing():
    joints = torch.randn(2, 5, 3)
    before = joints.clone()
    plain = ops.pairwise_descriptor(joints)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.pairwise_descriptor(joints), plain)
    assert torch.equal(joints, before)


def test_threads_do_not_change_the_answer():
    joints = torch.randn(300, 17, 3, requires_grad=True)
    threads = torch.get_num_threads()
    gradients = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            gradients.append(torch.autograd.grad(ops.pairwise_descriptor(joints).square().sum(), joints)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
