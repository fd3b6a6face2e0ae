"""The descriptor's Triton kernels in the interpreter against the C++ kernels."""

import math
from functools import partial

import pytest
import torch
from comparing import assert_close
from interpreter import DEVICE, DTYPES, native, on

pytest.importorskip("triton")

from fastpose.ops.geometry import _triton_kernels as kernels

# (B, P, D): one point; less than a tile's row; around its 32 columns; rows of more than one program.
SHAPES = [(1, 1, 3), (3, 2, 2), (2, 17, 3), (1, 32, 2), (1, 33, 3), (20, 5, 3)]
LAYOUTS = ("contiguous", "batch_last", "sliced")


def arrange(tensor, layout):
    """The same numbers in another memory layout; sevens lie around a slice."""
    if layout == "batch_last":
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "sliced":
        room = torch.full([size + 3 for size in tensor.shape], 7.0, dtype=tensor.dtype)
        view = room[tuple(slice(1, size + 1) for size in tensor.shape)]
        view.copy_(tensor)
        return view
    return tensor.contiguous()


def poisoned(shape, dtype, layout="contiguous"):
    return arrange(torch.full(shape, math.nan, dtype=dtype), layout)


def memory(tensor):
    """The tensor with what lies around it, where the kernel ran on the CPU."""
    return tensor if tensor._base is None or DEVICE != "cpu" else tensor._base


def inputs_of(shape, dtype, layout):
    """Joints, the gradient of the descriptor and the cotangent of the joints' gradient, all of one dtype."""
    batch, points, dimensions = shape
    generator = torch.Generator().manual_seed(sum(shape))
    joints, cotangent = (arrange(torch.randn(shape, generator=generator).to(dtype), layout) for _ in range(2))
    gradient = torch.randn(batch, 2 * dimensions, points, points, generator=generator).to(dtype)
    return joints, arrange(gradient, layout), cotangent


def compare(name, inputs, outputs, order):
    """Compare what both kernels leave in the outputs that ``outputs()`` makes anew."""
    found, expected = outputs(), outputs()
    on_device = [on(tensor, DEVICE) for tensor in found]
    getattr(kernels, name)(*(on(tensor, DEVICE) for tensor in inputs), *on_device, 0)
    native(name)(*inputs, *expected, 1)
    for number, (mine, theirs) in enumerate(zip(on_device, expected, strict=True)):
        assert_close(memory(mine).cpu(), memory(theirs), name=f"{name} {number}", order=order)


@pytest.mark.parametrize(
    ("shape", "dtype", "layout"),
    [
        *((shape, torch.float32, "contiguous") for shape in SHAPES),
        *(((3, 7, 3), dtype, layout) for dtype in DTYPES for layout in LAYOUTS),
    ],
)
def test_three_orders(shape, dtype, layout):
    joints, gradient, cotangent = inputs_of(shape, dtype, layout)
    of_joints = partial(poisoned, shape, dtype, layout)
    of_pairs = partial(poisoned, gradient.shape, dtype, layout)
    compare("descriptor_fwd", (joints,), lambda: (of_pairs(),), 0)
    compare("descriptor_bwd", (joints, gradient), lambda: (of_joints(),), 1)
    compare("descriptor_bwd2", (joints, gradient, cotangent), lambda: (of_joints(), of_pairs()), 2)


def test_float16_descriptors_are_rounded_once_to_nearest_even():
    """Not asked of bfloat16: the interpreter cuts what the compiled kernel rounds."""
    joints, *_ = inputs_of((4, 9, 3), torch.float16, "contiguous")
    out = poisoned((4, 6, 9, 9), torch.float16).to(DEVICE)
    kernels.descriptor_fwd(on(joints, DEVICE), out, 0)
    differences = (joints[:, :, None].float() - joints[:, None].float()).movedim(3, 1)
    assert torch.equal(out.cpu(), torch.cat((differences, differences.square()), 1).half())


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)])
def test_nothing_to_do(shape):
    joints, gradient, cotangent = inputs_of(shape, torch.float32, "contiguous")
    kernels.descriptor_fwd(joints, torch.empty_like(gradient), 0)
    kernels.descriptor_bwd(joints, gradient, torch.empty_like(joints), 0)
    kernels.descriptor_bwd2(joints, gradient, cotangent, torch.empty_like(joints), torch.empty_like(gradient), 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_joints_spread_to_their_pairs_alone(bad):
    joints, *_ = inputs_of((2, 6, 3), torch.float32, "contiguous")
    joints[0, 4, 1] = bad
    compare("descriptor_fwd", (joints,), lambda: (poisoned((2, 6, 6, 6), torch.float32),), 0)
