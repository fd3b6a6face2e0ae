"""Values of the heatmap operations: closed forms, MMPose's codecs, kernels against the reference."""

import math

import pytest
import torch
from comparing import assert_close
from heatmap_cases import LAYOUTS, SHAPES, arrange, joints

from fastpose import _native, ops, skeletons
from fastpose.ops.heatmap._profiles import DEPTH_MAPS, HEATMAPS

BACKENDS = ("cpu", "reference")
SETTINGS = ("64", "48x64", "64s1")
METHODS = ("argmax", "quarter", "dark", "dark_udp", "softargmax")


@pytest.fixture(scope="module")
def codecs(shared):
    from safetensors.torch import load_file

    return load_file(shared / "oracles" / "mmpose_codecs.safetensors")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("profile", "name"), [("msra", "msra"), ("gaussian", "unbiased"), ("udp", "udp")])
@pytest.mark.parametrize("setting", SETTINGS)
def test_targets_are_those_of_mmpose(codecs, setting, profile, name, backend):
    expected = codecs[f"output.{setting}.{name}"]
    found = ops.render_gaussian_heatmaps(
        codecs[f"input.{setting}.keypoints"],
        expected.shape[2:],
        codecs[f"input.{setting}.sigma"].item(),
        visibility=codecs[f"input.{setting}.visible"],
        profile=profile,
        backend=backend,
    )
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("method", "kernel", "name"),
    [
        ("argmax", 11, "argmax"),
        ("quarter", 11, "quarter"),
        ("dark", 11, "dark11"),
        ("dark", 17, "dark17"),
        ("dark_udp", 11, "dark_udp11"),
        ("dark_udp", 17, "dark_udp17"),
    ],
)
@pytest.mark.parametrize("setting", SETTINGS)
def test_decoding_is_that_of_mmpose(codecs, setting, method, kernel, name, backend):
    expected = codecs[f"output.{setting}.{name}"]
    coordinates, scores = ops.decode_heatmaps(
        codecs[f"input.{setting}.prediction"], method, kernel=kernel, backend=backend
    )
    finite = expected.isfinite().all(-1)
    # MMPose blurs in float32: on planes of mere noise, near a singular Hessian, that moves the longest steps.
    length = (expected - codecs[f"output.{setting}.argmax"]).abs().amax(-1).clamp_min(1.0)
    error = (coordinates - expected).abs().amax(-1) / length
    assert finite.any()
    assert error[finite].max() <= 1e-4
    assert torch.equal(scores, codecs[f"output.{setting}.score"])


def closed_form(x, y, sigma, profile, size):
    """One plane by a loop over pixels, from the table of conventions."""
    kind = DEPTH_MAPS[profile]
    nearest = (math.trunc(x + 0.5), math.trunc(y + 0.5))
    centre = nearest if kind.rounded else (x, y)
    plane = torch.zeros(size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            square = (column - centre[0]) ** 2 + (row - centre[1]) ** 2
            reach = math.inf if kind.window is None else kind.window * sigma
            if max(abs(column - nearest[0]), abs(row - nearest[1])) <= reach:
                plane[row, column] = math.exp(-kind.exponent * square / sigma**2)
    return plane


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("profile", DEPTH_MAPS)
@pytest.mark.parametrize(("x", "y", "sigma"), [(3.0, 2.0, 1.0), (3.4, 6.5, 1.3), (-1.2, 7.9, 2.0), (8.6, -0.4, 0.7)])
def test_profiles_are_their_closed_forms(profile, x, y, sigma, backend):
    keypoints = torch.tensor([[[x, y]]], dtype=torch.float64)
    depth = torch.tensor([[-1.5]], dtype=torch.float64)
    expected = closed_form(x, y, sigma, profile, (8, 9))
    maps = ops.render_depth_maps(keypoints, depth, (8, 9), sigma, profile=profile, backend=backend)
    assert_close(maps[0, 0], -1.5 * expected)
    if profile in HEATMAPS:
        found = ops.render_gaussian_heatmaps(keypoints, (8, 9), sigma, profile=profile, backend=backend)
        assert_close(found[0, 0], expected)


def test_default_profiles():
    keypoints, depth = torch.tensor([[[2.0, 3.0]]]), torch.tensor([[0.5]])
    assert_close(
        ops.render_gaussian_heatmaps(keypoints, (6, 6), 1.0)[0, 0], closed_form(2, 3, 1.0, "gaussian", (6, 6)).float()
    )
    maps = ops.render_depth_maps(keypoints, depth, (9, 9), 1.0)[0, 0]
    assert torch.equal(maps[:7, :6], torch.full((7, 6), 0.5))  # the +-3 sigma square about (2, 3)
    assert maps.count_nonzero() == 42


@pytest.mark.parametrize("profile", HEATMAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rendering_equals_the_reference(shape, profile):
    given = joints(shape, torch.Generator().manual_seed(0))

    def render(backend, dtype):
        return ops.render_gaussian_heatmaps(
            given["keypoints"].to(dtype),
            shape[2:],
            given["sigma"].to(dtype),
            visibility=given["visibility"],
            profile=profile,
            backend=backend,
        )

    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        found = render("cpu", dtype)
        assert found.dtype == dtype
        assert_close(found, render("reference", dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_out_is_written_in_place(backend, layout, dtype):
    keypoints = torch.rand(2, 3, 2) * 20
    out = arrange(torch.full((2, 3, 11, 18), 9.0, dtype=dtype), layout)
    expected = ops.render_gaussian_heatmaps(keypoints, (11, 18), 2.0, backend="reference").to(dtype)
    assert ops.render_gaussian_heatmaps(keypoints, (11, 18), 2.0, out=out, backend=backend) is out
    assert_close(out, expected)


def test_out_leaves_its_surroundings_alone():
    room = torch.full((2, 3, 14, 23), 7.0)
    ops.render_gaussian_heatmaps(torch.rand(2, 3, 2), (11, 18), 2.0, out=room[..., 1:-2, 2:-3], backend="cpu")
    room[..., 1:-2, 2:-3] = 7.0
    assert torch.equal(room, torch.full_like(room, 7.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_sigma_per_joint_and_shared(backend):
    keypoints = torch.rand(2, 3, 2) * 9
    widths = torch.tensor([0.5, 1.0, 2.0])
    found = ops.render_gaussian_heatmaps(keypoints, (9, 8), widths, backend=backend)
    for joint, width in enumerate(widths.tolist()):
        single = ops.render_gaussian_heatmaps(keypoints[:, joint : joint + 1], (9, 8), width, backend=backend)
        assert_close(found[:, joint], single[:, 0])
    assert torch.equal(found, ops.render_gaussian_heatmaps(keypoints, (9, 8), widths.expand(2, 3), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stacks", [None, 3])
def test_loss_is_the_mean_squared_error_of_the_rendered_target(stacks, backend):
    given = joints((2, 4, 9, 13), torch.Generator().manual_seed(3))
    keypoints, sigma, visibility = given["keypoints"], given["sigma"], given["visibility"]
    prediction = torch.randn(2, *(() if stacks is None else (stacks,)), 4, 9, 13, dtype=torch.float64)
    target = ops.render_gaussian_heatmaps(keypoints, (9, 13), sigma, visibility=visibility, backend="reference")
    target = (target if stacks is None else target[:, None]).expand_as(prediction)

    def loss(**options):
        return ops.heatmap_mse_loss(prediction, keypoints, sigma, visibility=visibility, backend=backend, **options)

    for reduction in ("mean", "sum", "none"):
        expected = torch.nn.functional.mse_loss(prediction, target, reduction=reduction)
        assert_close(loss(reduction=reduction), expected, name=reduction)
    errors = (prediction - target).square()
    for weight in (torch.rand(4, dtype=torch.float64), torch.rand(2, 4, dtype=torch.float64)):
        spread = weight if weight.dim() == 1 else weight.view(2, *(1,) * (prediction.dim() - 4), 4)
        assert_close(loss(weight=weight), (errors * spread[..., None, None]).mean(), name="weighted")
    if stacks is not None:
        weight = torch.rand(2, stacks, 4, dtype=torch.float64)
        assert_close(loss(weight=weight), (errors * weight[..., None, None]).mean(), name="weight per stack")


def test_weight_of_visibility_leaves_joints_out_and_ignores_what_is_in_them():
    keypoints, visibility = torch.rand(1, 2, 2) * 4, torch.tensor([[2, 0]])
    prediction = torch.rand(1, 2, 4, 4)
    prediction[0, 1] = math.nan
    for backend in BACKENDS:
        leaf = prediction.clone().requires_grad_()
        loss = ops.heatmap_mse_loss(
            leaf, keypoints, 1.0, visibility=visibility, weight=(visibility > 0).float(), backend=backend
        )
        alone = ops.heatmap_mse_loss(prediction[:, :1], keypoints[:, :1], 1.0, reduction="sum", backend=backend)
        assert_close(loss, alone / 32)
        (gradient,) = torch.autograd.grad(loss, leaf)
        assert not gradient[0, 1].any()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_decoding_equals_the_reference(method, shape, layout):
    generator = torch.Generator().manual_seed(5)
    keypoints = torch.rand(*shape[:2], 2, dtype=torch.float64, generator=generator) * max(shape[2:])
    bells = ops.render_gaussian_heatmaps(keypoints, shape[2:], 2.0)
    noisy = bells + 0.05 * torch.randn(bells.shape, dtype=torch.float64, generator=generator)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        heatmaps = arrange(noisy.to(dtype), layout)
        expected, scores = ops.decode_heatmaps(heatmaps, method, kernel=5, max_step=2.0, backend="reference")
        coordinates, found = ops.decode_heatmaps(heatmaps, method, kernel=5, max_step=2.0, backend="cpu")
        assert coordinates.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert torch.equal(found, scores)
        assert_close(coordinates, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_decoding_turns_rendering_back(backend):
    keypoints = 8 + torch.rand(4, 5, 2, dtype=torch.float64) * 40
    heatmaps = ops.render_gaussian_heatmaps(keypoints, (56, 60), 2.0, backend=backend)
    reach = {"argmax": 0.5, "quarter": 0.26, "dark": 1e-3, "dark_udp": 1e-3, "softargmax": 0.1}
    for method, limit in reach.items():
        coordinates, scores = ops.decode_heatmaps(heatmaps, method, backend=backend)
        assert (coordinates - keypoints).abs().max() <= limit, method
        assert (scores - 1).abs().max() <= 0.07


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 16, 5, 15), (1, 16, 4, 32), (0, 16, 3, 3)], ids=str)
def test_flip_average(shape, layout, dtype):
    heatmaps, flipped = (arrange(torch.randn(shape).to(dtype), layout) for _ in range(2))
    partner = list(skeletons.MPII.flip_permutation)
    expected = ((heatmaps.double() + flipped.double().flip(-1)[:, partner]) / 2).to(dtype)
    for backend in BACKENDS:
        found = ops.flip_average(heatmaps, flipped, skeletons.MPII.flip_pairs, backend=backend)
        assert found.dtype == dtype
        assert_close(found, expected)


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set(level):
    widest = _native.build_info()["widest_simd"]
    if ["baseline", "avx2", "avx512"].index(level) > ["baseline", "avx2", "avx512"].index(str(widest)):
        pytest.skip(f"this machine's widest instruction set is {widest}")
    keypoints = torch.rand(2, 3, 2) * 20
    before = _native.build_info()["simd"]
    _native.module().set_simd(level)
    try:
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            results = []
            heatmaps = ops.render_gaussian_heatmaps(keypoints, (19, 21), 1.5, backend="reference").to(dtype)
            for backend in ("cpu", "reference"):
                rendered = ops.render_gaussian_heatmaps(keypoints.to(dtype), (19, 21), 1.5, backend=backend)
                loss = ops.heatmap_mse_loss(heatmaps, keypoints + 1, 2.0, backend=backend)
                decoded = [ops.decode_heatmaps(heatmaps, m, kernel=5, backend=backend)[0] for m in METHODS]
                results.append(
                    [rendered, loss, *decoded, ops.flip_average(heatmaps, heatmaps, [(0, 1)], backend=backend)]
                )
            for ours, theirs in zip(*results, strict=True):
                assert_close(ours, theirs)
    finally:
        _native.module().set_simd(before)


def test_narrow_types_round_to_nearest_even():
    """Every float16 and bfloat16 number survives the kernels, and float32 is rounded as torch rounds it."""
    bits = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(1, 1, 256, 256)
    nothing = torch.full((1, 1, 2), math.nan)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = bits.view(dtype)
        same = ops.flip_average(numbers, numbers.flip(-1).contiguous(), [], backend="cpu")
        doubled = numbers.float() * 2
        fits = doubled.isfinite()
        assert torch.equal(same[fits], numbers[fits])
        assert torch.equal(same.isnan(), numbers.isnan())
        leaf = numbers.nan_to_num(1.0, 1.0, 1.0).requires_grad_()
        third = torch.tensor([1.0 / 3])  # weights make products that are not representable
        ops.heatmap_mse_loss(leaf, nothing, 1.0, weight=third, reduction="sum", backend="cpu").backward()
        expected = (leaf.detach().float() * (2 * third)).to(dtype)
        normal = expected.abs() >= torch.finfo(torch.float32).tiny  # smaller products are flushed to zero
        assert torch.equal(leaf.grad[normal], expected[normal])


def test_threads_do_not_change_the_answer():
    keypoints, prediction = torch.rand(8, 4, 2) * 64, torch.randn(8, 2, 4, 64, 64)
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            leaf = prediction.clone().requires_grad_()
            loss = ops.heatmap_mse_loss(leaf, keypoints, 2.0, backend="cpu")
            loss.backward()
            outputs.append((loss.detach(), leaf.grad, *ops.decode_heatmaps(prediction[:, 0], "dark", backend="cpu")))
    finally:
        torch.set_num_threads(threads)
    for other in outputs[1:]:
        assert all(torch.equal(one, two) for one, two in zip(outputs[0], other, strict=True))
