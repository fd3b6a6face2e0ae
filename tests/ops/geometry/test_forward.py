"""The pairwise descriptor: its definition, and the kernel against the reference."""

import pytest
import torch
from comparing import assert_close

from fastpose import _native, ops

SHAPES = [(1, 1, 3), (2, 3, 2), (3, 8, 3), (2, 16, 3), (2, 17, 3), (70, 5, 2), (1, 35, 3), (0, 4, 3), (2, 0, 3)]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_channels_are_differences_and_their_squares(shape, backend):
    joints = torch.randn(shape, dtype=torch.float64)
    descriptor = ops.pairwise_descriptor(joints, backend=backend)
    batch, points, dimensions = shape
    assert descriptor.shape == (batch, 2 * dimensions, points, points)
    first, second = descriptor.split(dimensions, dim=1)
    for i in range(points):
        for j in range(points):
            assert torch.equal(first[:, :, i, j], joints[:, i] - joints[:, j])
    assert torch.equal(second, first.square())
    assert torch.equal(first, -first.transpose(2, 3))
    assert torch.equal(second, second.transpose(2, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_round_once(dtype):
    joints = torch.randn(3, 17, 3).to(dtype)
    found = ops.pairwise_descriptor(joints, backend="cpu")
    assert found.dtype == dtype
    assert torch.equal(found, ops.pairwise_descriptor(joints.float(), backend="reference").to(dtype))


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level):
    widest = _native.build_info()["widest_simd"]
    if ["baseline", "avx2", "avx512"].index(level) > ["baseline", "avx2", "avx512"].index(str(widest)):
        pytest.skip(f"this machine's widest instruction set is {widest}")
    joints = torch.randn(3, 17, 3)
    before = _native.build_info()["simd"]
    _native.module().set_simd(level)
    try:
        assert_close(
            ops.pairwise_descriptor(joints, backend="cpu"), ops.pairwise_descriptor(joints, backend="reference")
        )
    finally:
        _native.module().set_simd(before)
