"""The CUDA kernels' own sources, run on the CPU (tests/emulation): against the reference and against the CPU kernels.

What this cannot see: races between threads of a warp that an ordered emulation hides, speed.
"""

import math
import os
import shutil
import subprocess

import pytest
import torch
from comparing import assert_close, assert_no_missing_gradient
from emulated import CSRC, STANDIN, emulated_cuda, emulated_extension  # noqa: F401  fixtures
from heatmap_cases import CASES, LAYOUTS, SHAPES, arrange, clamped_beside_the_step, tensors_of, three_orders

from fastpose import _native, ops

pytestmark = pytest.mark.usefixtures("emulated_cuda")

NAN, INF = math.nan, math.inf
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
METHODS = ("argmax", "quarter", "dark", "dark_udp", "softargmax")
PROFILES = ("gaussian", "gaussian_rounded", "msra", "udp", "wide", "binary")


def same(run, *, order=0, scale=0.0):
    """Check ``run("cuda")``, a dict or tuple of tensors, against the CPU kernels and the reference; return it."""
    found = run("cuda")
    for other in ("cpu", "reference"):
        expected = run(other)
        keys = expected if isinstance(expected, dict) else range(len(expected))
        for key in keys:
            name = f"{key}, against {other}"
            assert_close(found[key], expected[key], name=name, order=2 if "second" in name else order, scale=scale)
    return found


def test_the_emulation_serves_cpu_tensors():
    assert _native.build_info()["cuda"] == "emulated"
    assert ops.explain("pairwise_descriptor", torch.zeros(1, 2, 2)).chosen == "cpu"


ACCESSES = {
    "load": "load<8>(data).bits.x",
    "__ldcs": "__ldcs(reinterpret_cast<const uint4*>(data)).x",
    "write": "(write(data, Pack<float, 8>{}), 0)",
    "read_shared": "read_shared<4>(reinterpret_cast<const float*>(data)).at[0]",
    "write_shared": "(write_shared(reinterpret_cast<float*>(data), Pack<float, 4>{}), 0)",
}


@pytest.fixture(scope="session")
def accesses(emulated_extension, tmp_path_factory):  # noqa: F811  skips where nothing can be compiled
    """A program that accesses 16 bytes at an offset: its arguments are the access's number and the offset."""
    folder = tmp_path_factory.mktemp("accesses")
    cases = "\n".join(f"    if (which == {i}) sum += {text};" for i, text in enumerate(ACCESSES.values()))
    (folder / "accesses.cpp").write_text(f"""
#include <cstdio>
#include <cstdlib>
#include "common/cuda_blocks.h"
#include "common/cuda_launch.h"
using namespace fastpose;
alignas(16) char memory[64];
void touch(int which, int offset) {{
    BFloat16* data = reinterpret_cast<BFloat16*>(memory + offset);
    double sum = 0;
{cases}
    memory[63] = static_cast<char>(sum);
}}
int main(int, char** given) {{
    try {{
        launch(CudaPlace{{}}, touch, 1, 1, std::atoi(given[1]), std::atoi(given[2]));
    }} catch (const std::logic_error& error) {{
        std::puts(error.what());
    }}
}}
""")
    compiler = os.environ.get("CXX") or next(name for name in ("c++", "g++") if shutil.which(name))
    command = [*compiler.split(), "-std=c++20", f"-I{CSRC}", f"-I{STANDIN}", "accesses.cpp", "-o", "accesses"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "accesses"


@pytest.mark.parametrize("which", range(len(ACCESSES)), ids=list(ACCESSES))
def test_accesses_off_their_boundary_are_errors(accesses, which):
    said = [subprocess.check_output([accesses, str(which), str(offset)], text=True) for offset in (16, 4)]
    assert said == ["", "emulated kernel: 16 bytes are accessed at an address that is not a multiple of that\n"]


# ------------------------------------------------------------------------------------------- three orders of heatmaps


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_three_orders_equal_the_reference(name, shape, layout):
    case = CASES[name]
    tensors = tensors_of(case, shape, layout=layout)
    found, ours = three_orders(case, tensors, "cuda"), three_orders(case, tensors, "cpu")
    expected = three_orders(case, tensors, "reference")
    assert set(found) == set(ours)
    for key, gradient in found.items():
        order = 2 if key.startswith("second") else 0
        assert_close(gradient, ours[key], name=f"{key}, against cpu", order=order)
        if key in expected:  # the reference leaves out second derivatives that do not exist
            assert_close(gradient, expected[key], name=key, order=order)
            if shape != SHAPES[0]:
                assert_no_missing_gradient(gradient, expected[key], name=key)
        assert gradient.stride() == ours[key].stride(), key


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES[1:])
@pytest.mark.parametrize("name", CASES)
def test_three_orders_in_narrow_types(name, dtype, layout):
    """Against float64 at the same rounded inputs: at most twice the CPU kernels' error, plus a few roundings."""
    case = CASES[name]
    tensors = tensors_of(case, (2, 3, 12, 20), dtype, layout)
    wide = {key: t.detach().double().requires_grad_() if t.requires_grad else t for key, t in tensors.items()}
    exact = three_orders(case, wide, "reference")
    theirs, found = three_orders(case, tensors, "cpu"), three_orders(case, tensors, "cuda")
    for key, true in exact.items():
        assert found[key].dtype == theirs[key].dtype, key
        allowed = 2 * (theirs[key].double() - true).abs().max() + 20 * torch.finfo(dtype).eps * true.abs().max()
        assert (found[key].double() - true).abs().max() <= allowed, key


@pytest.mark.parametrize("shape", [(1, 2, 70, 33), (1, 1, 3, 600), (1, 1, 520, 2)], ids=str)
@pytest.mark.parametrize("name", ["render-gaussian", "loss-gaussian-mean", "softargmax", "flip"])
def test_planes_of_several_tiles(name, shape):
    case = CASES[name]
    for dtype in (torch.float64, torch.bfloat16):
        tensors = tensors_of(case, shape, dtype)
        found, ours = three_orders(case, tensors, "cuda"), three_orders(case, tensors, "cpu")
        for key, gradient in found.items():
            assert_close(gradient, ours[key], name=key, order=2 if key.startswith("second") else 0)


def test_results_are_deterministic():
    case = CASES["loss-gaussian-mean"]
    tensors = tensors_of(case, (3, 2, 20, 35), torch.float32)
    first, second = three_orders(case, tensors, "cuda"), three_orders(case, tensors, "cuda")
    assert all(torch.equal(first[key], second[key]) for key in first)


# ------------------------------------------------------------------------------------------------------ edges: joints


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_batches(shape):
    keypoints = torch.zeros(*shape, 2, requires_grad=True)
    prediction = torch.zeros(*shape, 4, 5, requires_grad=True)
    heatmaps = ops.render_gaussian_heatmaps(keypoints, (4, 5), 1.0, backend="cuda")
    assert heatmaps.shape == (*shape, 4, 5)
    loss = ops.heatmap_mse_loss(prediction, keypoints, 1.0, backend="cuda")
    assert loss == 0
    gradients = torch.autograd.grad(loss + heatmaps.sum(), (keypoints, prediction))
    assert [gradient.shape for gradient in gradients] == [keypoints.shape, prediction.shape]
    for method in METHODS:
        coordinates, scores = ops.decode_heatmaps(prediction, method, backend="cuda")
        assert coordinates.shape == (*shape, 2)
        assert scores.shape == shape
    assert ops.flip_average(prediction, prediction, [], backend="cuda").shape == prediction.shape
    assert ops.pairwise_descriptor(keypoints, backend="cuda").shape == (shape[0], 4, shape[1], shape[1])


ABSENT = [(NAN, 3.0), (3.0, INF), (-INF, NAN), (1e38, 3.0), (3.0, -1e38), (-40.0, 3.0)]


@pytest.mark.parametrize("profile", PROFILES)
def test_absent_joints_and_useless_sigmas(profile):
    points = torch.tensor([[*ABSENT, (3.0, 3.0), (3.4, 2.6), (-7.0, 4.0), (-7.01, 4.0), (15.9, 4.0), (16.0, 4.0)]])
    for sigma in (1.5, 2.0, torch.tensor([[0.0, -1.0, NAN, INF, 1e-30, 1e30, 1.0, 2.0, 1.0, 2.0, 2.0, 2.0]])):
        same(lambda backend: (ops.render_gaussian_heatmaps(points, (7, 8), sigma, profile=profile, backend=backend),))  # noqa: B023
    planes = same(
        lambda backend: (ops.render_gaussian_heatmaps(points, (10, 10), 2.0, profile=profile, backend=backend),)
    )[0]
    assert not planes[0, : len(ABSENT)].any()


@pytest.mark.parametrize("sigma", [1.3333333, 1.6666666, 2.3333333])
@pytest.mark.parametrize("profile", ["msra", "udp"])
def test_windows_end_at_the_same_pixel(sigma, profile):
    points = torch.tensor([[[30.0, 30.0], [31.4, 29.7], [1.5, 62.5]]])
    found, expected = (
        ops.render_gaussian_heatmaps(points, (64, 64), sigma, profile=profile, backend=backend)
        for backend in ("cuda", "reference")
    )
    assert torch.equal(found > 0, expected > 0)


def test_depth_that_is_not_finite_leaves_its_plane_empty():
    depth = torch.tensor([[NAN, INF, 2.0]], requires_grad=True)
    out = ops.render_depth_maps(torch.ones(1, 3, 2), depth, (4, 4), 1.0, profile="gaussian", backend="cuda")
    assert not out[0, :2].any()
    assert out[0, 2, 1, 1] == 2
    (gradient,) = torch.autograd.grad(out.sum(), depth)
    assert_close(gradient, torch.tensor([[0.0, 0.0, float(out.detach()[0, 2].sum() / 2)]]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_derivatives_of_absent_joints_are_zero_whatever_arrives(dtype):
    points = torch.tensor([[[NAN, 2.0], [1.0, 1.0]]], dtype=dtype, requires_grad=True)
    sigma = torch.tensor([[1.0, 0.0]], dtype=dtype, requires_grad=True)
    heatmaps = ops.render_gaussian_heatmaps(points, (4, 4), sigma, backend="cuda")
    arriving = torch.full_like(heatmaps, NAN).requires_grad_()
    first = torch.autograd.grad(heatmaps, (points, sigma), arriving, create_graph=True)
    second = torch.autograd.grad(sum(gradient.sum() for gradient in first), (points, sigma))
    for gradient in (*first, *second):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_planes_without_weight_are_not_read():
    prediction = torch.rand(2, 2, 3, 5, 6, dtype=torch.float64)
    prediction[:, 1] = NAN
    weight = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1).expand(2, 2, 3)
    points = torch.rand(2, 3, 2, dtype=torch.float64) * 5

    def run(backend):
        leaf, joints = prediction.clone().requires_grad_(), points.clone().requires_grad_()
        loss = ops.heatmap_mse_loss(leaf, joints, 1.2, weight=weight, reduction="sum", backend=backend)
        first = torch.autograd.grad(loss, (leaf, joints), create_graph=True)
        return loss, *first, *torch.autograd.grad(sum(g.square().sum() for g in first), (leaf, joints))

    found, expected = run("cuda"), run("cpu")
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, order=2)


def test_given_and_expanded_memory():
    """Gradients of sums have stride 0 everywhere, sigmas one per joint, and an ``out`` of another order is filled."""
    points = torch.rand(2, 3, 2) * 8
    out = torch.full((2, 9, 11, 3), 7.0).movedim(-1, 1)
    drawn = ops.render_gaussian_heatmaps(points, (9, 11), torch.tensor([1.0, 2.0, 1.5]), out=out, backend="cuda")
    assert drawn is out
    assert_close(out, ops.render_gaussian_heatmaps(points, (9, 11), torch.tensor([1.0, 2.0, 1.5]), backend="reference"))
    narrow = torch.empty(2, 3, 9, 11, dtype=torch.bfloat16)
    ops.render_gaussian_heatmaps(points, (9, 11), 1.5, out=narrow, backend="cuda")
    assert_close(narrow, ops.render_gaussian_heatmaps(points, (9, 11), 1.5, backend="reference").bfloat16())
    leaf = points.requires_grad_()

    def run(backend):
        heatmaps = ops.render_gaussian_heatmaps(leaf, (9, 11), 1.5, backend=backend)
        return torch.autograd.grad(heatmaps.sum(), leaf) + torch.autograd.grad(
            ops.pairwise_descriptor(leaf, backend=backend).sum(), leaf
        )

    same(run, scale=1.0)


# ---------------------------------------------------------------------------------------------------- edges: decoding


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [*SHAPES, (1, 1, 300, 7), (1, 1, 2, 2049)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_decoding_equals_the_reference(method, shape, layout):
    generator = torch.Generator().manual_seed(5)
    keypoints = torch.rand(*shape[:2], 2, dtype=torch.float64, generator=generator) * max(shape[2:])
    bells = ops.render_gaussian_heatmaps(keypoints, shape[2:], 2.0, backend="cpu")
    noisy = bells + 0.05 * torch.randn(bells.shape, dtype=torch.float64, generator=generator)
    for dtype in DTYPES:
        heatmaps = arrange(noisy.to(dtype), layout)
        same(lambda backend: ops.decode_heatmaps(heatmaps, method, kernel=5, max_step=2.0, backend=backend))  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("method", METHODS)
def test_planes_without_a_peak(method, dtype):
    planes = torch.zeros(1, 8, 6, 7, dtype=dtype)
    planes[0, 1] = NAN
    planes[0, 2] = torch.tensor([INF, -INF] * 21, dtype=dtype).view(6, 7)
    planes[0, 3], planes[0, 4] = -2.0, 3.0
    planes[0, 5, 4, 5], planes[0, 5, 0, 0], planes[0, 5, 1, 1] = 9.0, NAN, INF
    planes[0, 6] = -INF
    planes[0, 6, 5, 6] = -60000.0
    planes[0, 7] = torch.finfo(dtype).min
    coordinates, scores = same(lambda backend: ops.decode_heatmaps(planes, method, kernel=3, backend=backend))
    assert coordinates.isfinite().all()
    assert scores[0, :4].tolist() == [0.0, 0.0, 0.0, -2.0]


def test_softargmax_of_odd_planes_has_finite_derivatives():
    planes = torch.zeros(1, 4, 6, 7)
    planes[0, 1] = NAN
    planes[0, 2, 4, 5], planes[0, 2, 0, 0], planes[0, 2, 1, 1] = 9.0, NAN, INF
    planes[0, 3] = 1e38
    planes.requires_grad_()

    def run(backend):
        coordinates, _ = ops.decode_heatmaps(planes, "softargmax", backend=backend)
        (first,) = torch.autograd.grad(coordinates.square().sum(), planes, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), planes)
        return coordinates, first, second

    coordinates, first, second = same(run, order=2)
    assert torch.isfinite(torch.cat([t.flatten() for t in (coordinates, first, second)])).all()
    assert not first[0, 1].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(20, 33), (300, 7), (33, 20)])
def test_ties_go_to_the_first_pixel_in_row_major_order(size, dtype):
    for layout in LAYOUTS:
        planes = torch.zeros(1, 1, *size, dtype=dtype)
        planes[0, 0, 3, 5] = planes[0, 0, 3, 6] = planes[0, 0, 15, 0] = planes[0, 0, -1, -1] = 2.0
        planes[0, 0, 0, 1], planes[0, 0, 1, 0] = NAN, INF
        coordinates, scores = ops.decode_heatmaps(arrange(planes, layout), backend="cuda")
        assert coordinates.tolist() == [[[5.0, 3.0]]]
        assert scores.tolist() == [[2.0]]
        flat = arrange(torch.full((1, 1, *size), -1.0, dtype=dtype), layout)
        assert not ops.decode_heatmaps(flat, backend="cuda")[0].any()


def test_bounds_of_the_steps():
    """One plane with its peak at each pixel in turn: quarter's bounds, and dark's at the border."""
    ramp = torch.arange(42.0).view(6, 7) / 100
    planes = ramp.repeat(42, 1, 1)
    planes.view(42, 42).fill_diagonal_(5.0)
    for method in METHODS[:-1]:
        same(lambda backend: ops.decode_heatmaps(planes.view(6, 7, 6, 7), method, kernel=3, backend=backend))  # noqa: B023


def test_steps_of_noise_and_steps_that_are_not_taken():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 17, 24, 24, dtype=torch.float64, generator=generator)
    for method in ("dark", "dark_udp"):
        for max_step in (INF, 0.5):
            same(lambda backend: ops.decode_heatmaps(noise, method, kernel=3, max_step=max_step, backend=backend))  # noqa: B023


def test_clamped_neighbourhoods_use_the_exact_scale_of_the_whole_plane():
    generator = torch.Generator().manual_seed(2)
    planes = torch.randn(2, 9, 17, 22, dtype=torch.float64, generator=generator) * 0.01 - 0.004
    planes[:, :, 8, 11], planes[:, :, 2, 3], planes[:, :, 2, 4] = 0.05, 0.04, 0.04
    for method in ("dark", "dark_udp"):
        same(lambda backend: ops.decode_heatmaps(planes, method, kernel=7, backend=backend), scale=10.0)  # noqa: B023


@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_pixels_that_the_step_does_not_use_may_be_clamped(method):
    near, far = (ops.decode_heatmaps(clamped_beside_the_step(h), method, kernel=3, backend="cuda") for h in (0.8, 0.9))
    assert torch.equal(near[0], far[0])


@pytest.mark.parametrize("kernel", [1, 11, 41, 101])
def test_blur_wider_than_the_plane(kernel):
    points = torch.tensor([[[4.3, 3.2], [0.2, 7.4], [60.0, 3.0]]], dtype=torch.float64)
    heatmaps = ops.render_gaussian_heatmaps(points, (8, 62), 1.0, backend="cpu")
    for method in ("dark", "dark_udp"):
        same(lambda backend: ops.decode_heatmaps(heatmaps, method, kernel=kernel, backend=backend))  # noqa: B023


def test_taps_up_to_what_a_kernel_takes_as_arguments(emulated_extension):  # noqa: F811
    planes = torch.rand(1, 2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def decode(place, taps):
        found = torch.zeros(1, 2, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
        place.heatmap_decode(planes, "dark_udp", taps, INF, *found, 1 if place is emulated_extension.cpu else 0)
        return found[0]

    long = [1 / 981] * 981
    assert_close(decode(emulated_extension.cuda, long), decode(emulated_extension.cpu, long), name="coordinates")
    with pytest.raises(ValueError, match="taps: expected at most 981 numbers on a GPU, got 983; decode on the CPU"):
        decode(emulated_extension.cuda, [1 / 983] * 983)
    with pytest.raises(ValueError, match="taps: expected the same numbers in both directions"):
        decode(emulated_extension.cuda, [0.5, 0.25, 0.25])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("joints", [16, 1030])
def test_flip_average_of_many_joints(joints, layout, dtype):
    heatmaps, flipped = (arrange(torch.randn(2, joints, 3, 5).to(dtype), layout) for _ in range(2))
    pairs = [(joint, joint + 1) for joint in range(0, joints - 3, 4)]
    same(lambda backend: (ops.flip_average(heatmaps, flipped, pairs, backend=backend),))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_read_and_rounded_as_torch_does(dtype):
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(1, 1, 256, 256)
    numbers = bits.view(dtype)
    found = ops.flip_average(numbers, numbers.flip(-1).contiguous(), [], backend="cuda")
    fits = (numbers.float() * 2).isfinite()
    assert torch.equal(found[fits], numbers[fits])
    assert torch.equal(found.isnan(), numbers.isnan())


# ---------------------------------------------------------------------------------------------------------- descriptor


def descriptor_orders(joints, backend):
    descriptor = ops.pairwise_descriptor(joints, backend=backend)
    generator = torch.Generator().manual_seed(1)
    grad, cotangent = (
        torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(joints.dtype)
        for tensor in (descriptor, joints)
    )
    grad.requires_grad_()
    (first,) = torch.autograd.grad(descriptor, joints, grad, create_graph=True)
    second = torch.autograd.grad((first * cotangent).sum(), (joints, grad))
    return dict(zip(("out", "dx", "second x", "second grad"), (descriptor, first, *second), strict=True))


DESCRIPTORS = [(2, 3, 2), (2, 16, 3), (2, 17, 3), (70, 9, 3), (1, 1, 3), (0, 4, 3), (2, 0, 2), (1, 40, 3), (1, 133, 2)]


@pytest.mark.parametrize("layout", ["contiguous", "sliced", "transposed"])
@pytest.mark.parametrize("shape", DESCRIPTORS, ids=str)
def test_descriptor(shape, layout):
    joints = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if layout == "sliced":
        joints = torch.cat((joints, joints), 2)[..., : shape[2]]
    if layout == "transposed":
        joints = joints.transpose(1, 2).contiguous().transpose(1, 2)
    for dtype in (torch.float64, torch.float32):
        leaf = joints.to(dtype).requires_grad_()
        same(lambda backend: descriptor_orders(leaf, backend))  # noqa: B023


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4, 17, 3), (3, 16, 2), (2, 33, 3)], ids=str)
def test_descriptor_in_16_bits_equals_the_cpu_kernels(shape, dtype):
    leaf = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    found, expected = descriptor_orders(leaf, "cuda"), descriptor_orders(leaf, "cpu")
    for key, theirs in expected.items():
        assert_close(found[key], theirs, name=key)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_descriptor_does_not_hide_non_finite_joints(bad):
    joints = torch.randn(2, 17, 3)
    joints[0, 4, 1] = bad
    found = ops.pairwise_descriptor(joints, backend="cuda")
    assert torch.equal(found.isfinite(), ops.pairwise_descriptor(joints, backend="reference").isfinite())
    assert found[1].isfinite().all()


@pytest.mark.parametrize("stride", ["channels_last", "strided"])
def test_descriptor_gradients_of_any_layout(stride):
    joints = torch.randn(3, 17, 3, dtype=torch.float64, requires_grad=True)
    grad = arrange(torch.randn(3, 6, 17, 17, dtype=torch.float64), stride)

    def run(backend):
        descriptor = ops.pairwise_descriptor(joints, backend=backend)
        (first,) = torch.autograd.grad(descriptor, joints, grad, create_graph=True)
        return first, *torch.autograd.grad(first.square().sum(), joints)

    same(run, order=2)
