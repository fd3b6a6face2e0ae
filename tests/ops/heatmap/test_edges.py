"""Empty, broken and borderline inputs, and the memory that the loss may take."""

import math
import subprocess
import sys

import pytest
import torch
from comparing import assert_close
from heatmap_cases import clamped_beside_the_step

from fastpose import ops

BACKENDS = ("cpu", "reference")
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty_batches(shape, backend):
    keypoints = torch.zeros(*shape, 2, requires_grad=True)
    prediction = torch.zeros(*shape, 4, 5, requires_grad=True)
    heatmaps = ops.render_gaussian_heatmaps(keypoints, (4, 5), 1.0, backend=backend)
    assert heatmaps.shape == (*shape, 4, 5)
    assert ops.render_depth_maps(keypoints, torch.zeros(shape), (4, 5), 1.0, backend=backend).shape == heatmaps.shape
    loss = ops.heatmap_mse_loss(prediction, keypoints, 1.0, backend=backend)
    assert loss == 0
    gradients = torch.autograd.grad(loss + heatmaps.sum(), (keypoints, prediction))
    assert [gradient.shape for gradient in gradients] == [keypoints.shape, prediction.shape]
    for method in ("argmax", "quarter", "dark", "dark_udp", "softargmax"):
        coordinates, scores = ops.decode_heatmaps(prediction, method, backend=backend)
        assert coordinates.shape == (*shape, 2)
        assert scores.shape == shape
    assert ops.flip_average(prediction, prediction, [], backend=backend).shape == prediction.shape


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("profile", ["gaussian", "gaussian_rounded", "msra", "udp", "wide", "binary"])
@pytest.mark.parametrize("point", [(NAN, 3.0), (3.0, INF), (-INF, NAN), (1e38, 3.0), (3.0, -1e38), (-40.0, 3.0)])
def test_joints_that_are_not_there_give_an_all_zero_plane(point, profile, backend):
    keypoints = torch.tensor([[point, (3.0, 3.0)]])
    out = ops.render_gaussian_heatmaps(keypoints, (7, 8), 1.5, profile=profile, backend=backend)
    assert not out[0, 0].any()
    assert out[0, 1, 3, 3] == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_joint_is_drawn_until_three_sigma_and_a_pixel_outside(backend):
    """MMPose draws while mu - 3 sigma < W and mu + 3 sigma + 1 >= 0."""
    xs = torch.tensor([-7.0, -7.01, 15.9, 16.0])
    keypoints = torch.stack((xs, torch.full_like(xs, 4.0)), -1)[None]  # (1, 4, 2)
    planes = ops.render_gaussian_heatmaps(keypoints, (10, 10), 2.0, backend=backend)
    assert [bool(plane.any()) for plane in planes[0]] == [True, False, True, False]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [0.0, -1.0, NAN, INF, 1e-30, 1e30])
def test_useless_sigma_in_a_tensor_gives_an_all_zero_plane(bad, backend):
    keypoints = torch.full((1, 2, 2), 3.0, requires_grad=True)
    sigma = torch.tensor([[bad, 1.0]], requires_grad=True)
    out = ops.render_gaussian_heatmaps(keypoints, (7, 7), sigma, backend=backend)
    assert not out[0, 0].any()
    assert out[0, 1, 3, 3] == 1
    for gradient in torch.autograd.grad(out.square().sum(), (keypoints, sigma)):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_visibility_of_any_type(dtype, backend):
    visibility = torch.tensor([[1, 0, 1]], dtype=dtype)
    out = ops.render_gaussian_heatmaps(torch.ones(1, 3, 2), (3, 3), 1.0, visibility=visibility, backend=backend)
    assert [bool(plane.any()) for plane in out[0]] == [True, False, True]
    negative = ops.render_gaussian_heatmaps(
        torch.ones(1, 2, 2), (3, 3), 1.0, visibility=torch.tensor([[-1.0, NAN]]), backend=backend
    )
    assert not negative.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_that_is_not_finite_leaves_its_plane_empty(backend):
    depth = torch.tensor([[NAN, INF, 2.0]], requires_grad=True)
    out = ops.render_depth_maps(torch.ones(1, 3, 2), depth, (4, 4), 1.0, profile="gaussian", backend=backend)
    assert not out[0, :2].any()
    assert out[0, 2, 1, 1] == 2
    (gradient,) = torch.autograd.grad(out.sum(), depth)
    assert_close(gradient, torch.tensor([[0.0, 0.0, float(out.detach()[0, 2].sum() / 2)]]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["argmax", "quarter", "dark", "dark_udp"])
def test_planes_without_a_peak(method, backend):
    planes = torch.zeros(1, 5, 6, 7)
    planes[0, 1] = NAN
    planes[0, 2] = torch.tensor([INF, -INF] * 21).view(6, 7)
    planes[0, 3] = -2.0
    planes[0, 4] = 3.0
    coordinates, scores = ops.decode_heatmaps(planes, method, kernel=3, backend=backend)
    assert scores.tolist() == [[0.0, 0.0, 0.0, -2.0, 3.0]]
    assert not coordinates[0, :4].any()  # the first pixel, without refinement
    assert coordinates.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_softargmax_of_planes_without_a_peak(backend):
    planes = torch.zeros(1, 3, 6, 7)
    planes[0, 1] = NAN
    planes[0, 2, 4, 5], planes[0, 2, 0, 0], planes[0, 2, 1, 1] = 9.0, NAN, INF
    planes.requires_grad_()
    coordinates, scores = ops.decode_heatmaps(planes, "softargmax", backend=backend)
    assert_close(coordinates, torch.tensor([[[3.0, 2.5], [0.0, 0.0], [5.0, 4.0]]]))
    assert scores.tolist() == [[0.0, 0.0, 9.0]]
    (first,) = torch.autograd.grad(coordinates.square().sum(), planes, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), planes)
    assert first.isfinite().all()
    assert second.isfinite().all()
    assert not first[0, 1].any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(20, 33), (300, 7)])
def test_ties_go_to_the_first_pixel_in_row_major_order(size, backend):
    planes = torch.zeros(1, 1, *size)
    planes[0, 0, 3, 5] = planes[0, 0, 3, 6] = planes[0, 0, 15, 0] = planes[0, 0, -1, -1] = 2.0
    planes[0, 0, 0, 1], planes[0, 0, 1, 0] = NAN, INF
    coordinates, scores = ops.decode_heatmaps(planes, backend=backend)
    assert coordinates.tolist() == [[[5.0, 3.0]]]
    assert scores.tolist() == [[2.0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_bounds_of_the_quarter_step(backend):
    """MMPose 1.3.2: x moves where 1 < x < W-1 and y > 0, y where 1 < y < H-1 and x > 0; HRNet is stricter."""
    size = (6, 7)
    ramp = torch.arange(42.0).view(size) / 100  # the right and the lower neighbour are higher
    for row in range(6):
        for column in range(7):
            plane = ramp.clone()
            plane[row, column] = 5.0
            coordinates, _ = ops.decode_heatmaps(plane[None, None], "quarter", backend=backend)
            step = (coordinates[0, 0] - torch.tensor([column, row])).tolist()
            assert step[0] == (0.25 if 1 < column < 6 and row > 0 else 0.0)
            assert step[1] == (0.25 if 1 < row < 5 and column > 0 else 0.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dark_steps_that_are_not_taken(backend):
    flat = torch.ones(1, 1, 20, 20)
    flat[0, 0, 10, 10] = 1 + 1e-6  # a Hessian that is as good as singular
    coordinates, _ = ops.decode_heatmaps(flat, "dark", kernel=3, max_step=1.0, backend=backend)
    assert (coordinates - 10).abs().max() <= 1
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, 17, 24, 24, generator=generator)
    free, _ = ops.decode_heatmaps(noise, "dark", kernel=3, backend=backend)
    peak, _ = ops.decode_heatmaps(noise, backend=backend)
    guarded, _ = ops.decode_heatmaps(noise, "dark", kernel=3, max_step=0.5, backend=backend)
    long = ((free - peak).abs() > 0.5).any(-1)
    assert long.any()
    assert torch.equal(guarded[long], peak[long])
    assert torch.equal(guarded[~long], free[~long])


def test_clamped_neighbourhoods_use_the_exact_scale_of_the_whole_plane():
    """Negative surroundings hit the clamp of "dark", weak ones that of "dark_udp": the scale no longer cancels."""
    generator = torch.Generator().manual_seed(2)
    planes = torch.randn(2, 9, 17, 22, dtype=torch.float64, generator=generator) * 0.01 - 0.004
    planes[:, :, 8, 11] = 0.05
    planes[:, :, 2, 3] = 0.04  # the blurred maximum may lie elsewhere than the peak
    planes[:, :, 2, 4] = 0.04
    for method in ("dark", "dark_udp"):
        found, _ = ops.decode_heatmaps(planes, method, kernel=7, backend="cpu")
        expected, _ = ops.decode_heatmaps(planes, method, kernel=7, backend="reference")
        assert (expected - torch.tensor([11.0, 8.0])).any()
        assert_close(found, expected, scale=10.0)


@pytest.mark.parametrize("method", ["dark", "dark_udp"])
def test_pixels_that_the_step_does_not_use_may_be_clamped(method):
    """Then the scale of the whole plane, which differs here, still cancels and need not be found."""
    near, far = (ops.decode_heatmaps(clamped_beside_the_step(h), method, kernel=3, backend="cpu") for h in (0.8, 0.9))
    expected, _ = ops.decode_heatmaps(clamped_beside_the_step(0.9), method, kernel=3, backend="reference")
    assert torch.equal(near[0], far[0])
    assert_close(far[0], expected)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11, 41])
def test_blur_has_the_taps_of_opencv(kernel):
    import cv2

    from fastpose.ops.heatmap._profiles import blur_weights

    assert_close(
        torch.tensor(blur_weights(kernel), dtype=torch.float64),
        torch.from_numpy(cv2.getGaussianKernel(kernel, 0)[:, 0]),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_blur_wider_than_the_plane(backend):
    heatmaps = ops.render_gaussian_heatmaps(torch.tensor([[[4.3, 3.2]]], dtype=torch.float64), (8, 9), 1.0)
    for method in ("dark", "dark_udp"):
        coordinates, _ = ops.decode_heatmaps(heatmaps, method, kernel=41, backend=backend)
        expected, _ = ops.decode_heatmaps(heatmaps, method, kernel=41, backend="reference")
        assert_close(coordinates, expected)


def test_inputs_are_never_changed():
    keypoints, prediction = torch.rand(2, 3, 2), torch.rand(2, 3, 6, 7)
    before = keypoints.clone(), prediction.clone()
    ops.render_gaussian_heatmaps(keypoints, (6, 7), 1.0)
    ops.heatmap_mse_loss(prediction, keypoints, 1.0)
    for method in ("dark", "softargmax"):
        ops.decode_heatmaps(prediction, method)
    ops.flip_average(prediction, prediction, [(0, 1)])
    assert torch.equal(keypoints, before[0])
    assert torch.equal(prediction, before[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_keeps_coordinates_and_losses_in_single_precision(backend):
    keypoints, prediction = torch.rand(2, 3, 2) * 50, torch.rand(2, 3, 60, 50).bfloat16()
    plain = ops.heatmap_mse_loss(prediction, keypoints, 1.0, backend=backend)
    decoded, _ = ops.decode_heatmaps(prediction, "dark", backend=backend)
    heatmaps = ops.render_gaussian_heatmaps(keypoints, (60, 50), 1.0, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ops.heatmap_mse_loss(prediction, keypoints, 1.0, backend=backend), plain)
        assert torch.equal(ops.decode_heatmaps(prediction, "dark", backend=backend)[0], decoded)
        assert torch.equal(ops.render_gaussian_heatmaps(keypoints, (60, 50), 1.0, backend=backend), heatmaps)
    assert plain.dtype == decoded.dtype == heatmaps.dtype == torch.float32
    errors = ops.heatmap_mse_loss(prediction, keypoints, 1.0, reduction="none", backend=backend)
    assert_close(errors, (prediction.float() - heatmaps).square())


def test_gradients_keep_the_memory_order_of_the_prediction():
    prediction = torch.rand(2, 3, 6, 7).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(ops.heatmap_mse_loss(prediction, torch.rand(2, 3, 2), 1.0), prediction)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


MEMORY = """
import resource, torch
from fastpose import ops
keypoints = torch.rand(8, 16, 2) * 128
prediction = torch.rand(8, 4, 16, 128, 128)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(p): return ops.heatmap_mse_loss(p, keypoints[: p.shape[0]], 2.0, backend="cpu")
warm = prediction[:1].clone().requires_grad_(); run(warm).backward()
before = peak(); run(prediction); print(peak() - before)
leaf = prediction.requires_grad_(); before = peak(); run(leaf).backward(); print(peak() - before - 32)
"""


def test_loss_never_stores_its_target():
    """The target would take 8 MB here; forward takes no plane at all, backward the gradient of 32 MB alone."""
    output = subprocess.run([sys.executable, "-P", "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    forward, backward = (float(line) for line in output.split())
    assert forward <= 2.0, f"forward took {forward} MB"
    assert backward <= 2.0, f"backward took {backward} MB beside the gradient"
