"""Decoding's Triton kernels in the interpreter against the C++ kernels."""

import math
from functools import partial

import pytest
import torch
from comparing import assert_close
from heatmap_cases import arrange
from interpreter import DEVICE, DTYPES, native, on

pytest.importorskip("triton")

from fastpose.ops.heatmap import _triton_kernels as kernels
from fastpose.ops.heatmap._profiles import blur_weights

NAN, INF = math.nan, math.inf
METHODS = ("argmax", "quarter", "dark", "dark_udp")
LAYOUTS = ("contiguous", "channels_last", "sliced", "strided")
# (B, K, H, W): one pixel, a row, less than a block of 1024 pixels, exactly one, a block and a part, a column of blocks.
SHAPES = [(1, 1, 1, 1), (1, 2, 1, 9), (2, 3, 7, 17), (1, 2, 32, 32), (1, 1, 33, 40), (1, 1, 1100, 2)]
WALKS = [*((shape, torch.float32, "contiguous") for shape in SHAPES),
         *(((2, 3, 12, 11), dtype, layout) for dtype in DTYPES for layout in LAYOUTS)]  # fmt: skip


def poisoned(*shape, dtype=torch.float32, layout="contiguous"):
    return arrange(torch.full(shape, NAN, dtype=dtype), layout)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def memory(tensor):
    """The tensor with what lies around it, where the kernel ran on the CPU."""
    return tensor if tensor._base is None or DEVICE != "cpu" else tensor._base


def compare(name, inputs, outputs, check=assert_close):
    """Check what both kernels leave in the outputs that ``outputs()`` makes anew."""
    found, expected = outputs(), outputs()
    on_device = [on(tensor, DEVICE) for tensor in found]
    getattr(kernels, name)(*(on(value, DEVICE) for value in inputs), *on_device, 0)
    native(name)(*inputs, *expected, 1)
    for number, (mine, theirs) in enumerate(zip(on_device, expected, strict=True)):
        check(memory(mine).cpu(), memory(theirs), name=f"{name} {number}")


def check_equal(found, expected, name):
    assert torch.equal(found.nan_to_num(-7), expected.nan_to_num(-7)), name


def compare_decoded(heatmaps, method, kernel=11, max_step=INF):
    """Equal scores, and coordinates within 1e-4 pixels (without a Newton step: equal)."""

    def check(found, expected, name):
        if method.startswith("dark") and found.dim() == 3:
            assert torch.allclose(found, expected, rtol=0, atol=1e-4), name
        else:
            check_equal(found, expected, name)

    def outputs():
        return poisoned(*heatmaps.shape[:2], 2), poisoned(*heatmaps.shape[:2])

    compare("heatmap_decode", (heatmaps, method, blur_weights(kernel), max_step), outputs, check)


# -------------------------------------------------------------------------------------------------------------- decode


def bells(centres, height, width, sigma=1.5, noise=0.0):
    """(1, K, H, W) bells about (x, y)."""
    x, y = torch.arange(width), torch.arange(height)[:, None]
    planes = [torch.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b in centres]
    heatmaps = torch.stack(planes)[None]
    return heatmaps + noise * normal(*heatmaps.shape)


@pytest.mark.parametrize(("shape", "dtype", "layout"), WALKS)
@pytest.mark.parametrize("method", ["argmax", "quarter"])
def test_peaks_of_noise(method, shape, dtype, layout):
    compare_decoded(arrange(normal(*shape).to(dtype), layout), method)


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [*((dtype, "strided") for dtype in DTYPES), *((torch.float32, layout) for layout in LAYOUTS[:3])],
)
@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_refined_peaks_of_bells(method, dtype, layout):
    heatmaps = bells([(5.3, 6.2), (10.4, 4.7)], 14, 16).to(dtype)
    compare_decoded(arrange(heatmaps, layout), method)


@pytest.mark.parametrize("kernel", [1, 3, 5, 17])
@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_blurs_of_every_width(method, kernel):
    compare_decoded(bells([(5.3, 6.2), (2.6, 3.1)], 13, 12, noise=0.02), method, kernel)


@pytest.mark.parametrize("method", METHODS)
def test_peaks_at_every_distance_from_the_border(method):
    corners = [(x, y) for x, y in ((0.2, 6.1), (1.3, 1.4), (2.2, 9.8), (8.8, 0.1), (8.1, 8.9), (6.7, 10.2), (7.9, 4.6))]
    compare_decoded(bells(corners, 11, 10), method)


@pytest.mark.parametrize(("method", "scale"), [("dark", 3e-10), ("dark_udp", 3e-3), ("dark_udp", 130.0)])
def test_a_clamp_depends_on_the_blurred_maximum(method, scale):
    """A sharp peak whose neighbours lie about the clamp, and a lower, wide bell that outlasts the blur."""
    heatmaps = bells([(5.3, 6.4)], 18, 70, sigma=1.0) + 0.8 * bells([(66.0, 10.0)], 18, 70, sigma=3.0)
    compare_decoded(heatmaps * scale, method, kernel=5)


@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_a_negative_ground_reaches_the_lower_clamp(method):
    compare_decoded(bells([(5.3, 6.4), (9.2, 7.6)], 14, 15, sigma=0.8) - 0.3, method, kernel=5)


@pytest.mark.parametrize("max_step", [0.05, 0.35])
@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_long_steps_are_not_taken(method, max_step):
    compare_decoded(bells([(5.3, 6.4), (6.02, 6.01), (4.5, 5.0)], 12, 12), method, 3, max_step)


def edge_planes():
    """Planes that a peak search can get wrong, (1, K, 9, 8)."""
    planes = bells([(3.4, 4.2)] * 11, 9, 8)
    planes[0, 0] = 0.0
    planes[0, 1] = NAN
    planes[0, 2] = torch.tensor([INF, -INF]).repeat(36).view(9, 8)
    planes[0, 3] = -2.5
    planes[0, 4, 4, 3] = INF
    planes[0, 5, 3, 2:5] = NAN
    planes[0, 6, 4, 4] = planes[0, 6].max()  # two equal peaks
    planes[0, 7] = 1.0  # all equal
    planes[0, 8] = torch.finfo(torch.float32).min
    planes[0, 9, 5, 3] = -INF
    planes[0, 10] *= -1  # the peak is in a corner, and negative
    return planes


@pytest.mark.parametrize("layout", ["contiguous", "sliced"])
@pytest.mark.parametrize("method", METHODS)
def test_peaks_among_numbers_that_are_not_finite(method, layout):
    compare_decoded(arrange(edge_planes(), layout), method, kernel=3)


@pytest.mark.parametrize("first", [0, 121, 575, 1599])
def test_ties_go_to_the_first_in_row_major_order(first):
    """In the same lane of the next block of 1024 pixels, in another lane of it, and in the last pixel."""
    heatmaps = torch.zeros(1, 1, 40, 40)
    for later in (0, 7, 1016, 1024):
        heatmaps.view(-1)[min(first + later, 1599)] = 4.0
    points, scores = poisoned(1, 1, 2).to(DEVICE), poisoned(1, 1).to(DEVICE)
    kernels.heatmap_decode(on(heatmaps, DEVICE), "argmax", [1.0], INF, points, scores, 0)
    assert points.flatten().tolist() == [first % 40, first // 40]
    assert scores.item() == 4


def test_large_planes():
    """Programs of eight warps with 2048 pixels at once."""
    heatmaps = normal(1, 1, 150, 130)
    compare_decoded(heatmaps, "quarter")
    compare_soft(heatmaps, 5.0)


# ---------------------------------------------------------------------------------------------------------- softargmax


def compare_soft(heatmaps, beta, layout="contiguous"):
    """Soft-argmax and its two derivatives, from the same saved results."""
    shape, dtype = tuple(heatmaps.shape), heatmaps.dtype
    joints = shape[:2]

    def results():
        return poisoned(*joints, 2), poisoned(*joints), poisoned(*joints)

    def gradient():
        return poisoned(*shape, dtype=dtype, layout=layout)

    compare("softargmax", (heatmaps, beta), results)
    saved = results()
    native("softargmax")(heatmaps, beta, *saved, 1)
    given = normal(*joints, 2, 2)[..., 1]  # no unit stride
    compare("softargmax_bwd", (heatmaps, beta, *saved, given), lambda: (gradient(),), partial(assert_close, order=1))
    cotangent = arrange(normal(*shape, seed=1).to(dtype), layout)
    inputs = heatmaps, beta, *saved, given, cotangent
    compare("softargmax_bwd2", inputs, lambda: (gradient(), poisoned(*joints, 2)), partial(assert_close, order=2))


@pytest.mark.parametrize(("shape", "dtype", "layout"), WALKS)
def test_softargmax_of_noise(shape, dtype, layout):
    compare_soft(arrange(normal(*shape).to(dtype), layout), 3.0, layout)


@pytest.mark.parametrize("beta", [0.1, 25.0, 400.0])
def test_softargmax_among_numbers_that_are_not_finite(beta):
    compare_soft(edge_planes(), beta)


# -------------------------------------------------------------------------------------------------------- flip average


@pytest.mark.parametrize(("shape", "dtype", "layout"), WALKS)
@pytest.mark.parametrize("operands", ["both", "direct", "mirrored"])
def test_flip_average(operands, shape, dtype, layout):
    direct = arrange(normal(*shape).to(dtype), layout) if operands != "mirrored" else None
    mirrored = arrange(normal(*shape, seed=1).to(dtype), layout) if operands != "direct" else None
    partner = [(2, 0, 1)[k] if shape[1] == 3 else shape[1] - 1 - k for k in range(shape[1])]
    cut = dtype == torch.bfloat16  # by the interpreter, where the compiled kernel rounds
    check = assert_close if cut else check_equal
    out = partial(poisoned, *shape, dtype=dtype, layout=layout)
    compare("flip_average", (direct, mirrored, partner), lambda: (out(),), check)


# --------------------------------------------------------------------------------------------------------------- empty


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5)])
def test_nothing_to_do(shape):
    planes, points, scores = poisoned(*shape), poisoned(*shape[:2], 2), poisoned(*shape[:2])
    for method in METHODS:
        kernels.heatmap_decode(planes, method, blur_weights(3), INF, points, scores, 0)
    kernels.softargmax(planes, 3.0, points, scores, scores, 0)
    kernels.softargmax_bwd(planes, 3.0, points, scores, scores, points, planes, 0)
    kernels.softargmax_bwd2(planes, 3.0, points, scores, scores, points, planes, planes, points, 0)
    kernels.flip_average(planes, planes, list(range(shape[1])), planes, 0)
