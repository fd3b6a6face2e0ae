"""Joints in the crop's cube from heatmaps and depths, and back."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fastpose import ops
from fastpose.nn.coordinates import cube, heatmap_pixels, joints_3d

BOTH = ["softargmax", "straight_through"]


def planes(points, size=(16, 32), sigma=1.5):
    return ops.render_gaussian_heatmaps(torch.as_tensor(points, dtype=torch.float64), size, sigma)


@pytest.mark.parametrize("method", BOTH)
def test_a_joint_of_the_truth_comes_back_from_its_heatmap(method):
    points = torch.tensor([[[9.0, 4.0], [20.0, 11.0]]], dtype=torch.float64)  # (1, 2, 2)
    depth = torch.tensor([[0.5, -0.25]], dtype=torch.float64)
    found = joints_3d(planes(points), depth, method=method, temperature=0.01)
    torch.testing.assert_close(found, cube(points, depth, (16, 32)), atol=1e-6, rtol=0)


def test_the_cube_spans_the_crop():
    corners = torch.tensor([[[0.0, 0.0], [32.0, 16.0], [16.0, 8.0]]])
    joints = cube(corners, torch.tensor([[0.0, 1.0, -1.0]]), (16, 32))
    assert joints.tolist() == [[[-1, -1, 0], [1, 1, 1], [0, 0, -1]]]
    torch.testing.assert_close(heatmap_pixels(joints, (16, 32)), corners)


def pixel(heatmaps, **options):
    """Where the soft maximum is, in pixels (B, K, 2)."""
    joints = joints_3d(heatmaps, torch.zeros(heatmaps.shape[:2], dtype=heatmaps.dtype), **options)
    return heatmap_pixels(joints, heatmaps.shape[2:])


@pytest.mark.parametrize("height", [1.0, 0.5, 0.3, 0.2, 0.05])
@pytest.mark.parametrize("sigma", [1.0, 1.75])
def test_an_unsure_joint_stands_where_it_is_found(height, sigma):
    """At the paper's size, on an empty plane: not between its peak and the middle."""
    points = torch.stack((12 + torch.arange(11, dtype=torch.float64) / 10, torch.full((11,), 50.4).double()), -1)
    found = pixel(height * planes(points[None], (64, 64), sigma))
    assert (found - points).abs().max() < (0.16 if sigma == 1 else 0.02)


def test_a_second_maximum_elsewhere_has_no_part():
    first, second = planes([[[12.0, 50.0]]], (64, 64)), planes([[[50.0, 12.0]]], (64, 64))
    torch.testing.assert_close(pixel(0.4 * first + 0.39 * second), pixel(first))


@pytest.mark.parametrize("height", [0.0, -1.0, 1e-12])
def test_planes_without_a_peak_give_a_place_in_the_plane_and_finite_gradients(height):
    heatmaps = torch.full((1, 2, 8, 8), height)
    heatmaps[0, 0, 2, 5] += 1e-3
    heatmaps.requires_grad_()
    found = pixel(heatmaps)
    assert ((found >= 0) & (found <= 7)).all()
    (slope,) = torch.autograd.grad(found.sum(), heatmaps)
    assert torch.isfinite(slope).all()


def test_straight_through_stands_on_the_pixel_exactly():
    heatmaps = torch.rand(3, 4, 16, 32)
    pixels, _ = ops.decode_heatmaps(heatmaps, method="argmax")
    depth = torch.zeros(3, 4)
    assert torch.equal(joints_3d(heatmaps, depth, method="straight_through"), cube(pixels, depth, (16, 32)))


def test_straight_through_has_the_derivatives_of_the_soft_one():
    heatmaps, depth = torch.rand(1, 2, 4, 6, dtype=torch.float64), torch.rand(1, 2, dtype=torch.float64)
    weight = torch.rand(1, 2, 3, dtype=torch.float64)
    slopes = []
    for method in BOTH:
        x = heatmaps.clone().requires_grad_()
        (slope,) = torch.autograd.grad((joints_3d(x, depth, method=method) * weight).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(slope.square().sum(), x)
        slopes.append((slope.detach(), second))
    torch.testing.assert_close(*slopes)
    assert slopes[0][0].abs().max() > 1e-3


def test_the_soft_one_is_differentiable_twice_in_heatmaps_and_depth():
    shapes = ((2, 2, 9, 10), (2, 2))  # larger than the window in which the soft maximum looks
    inputs = tuple(torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    call = lambda heatmaps, depth: joints_3d(heatmaps, depth, temperature=0.5)  # noqa: E731
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


def test_a_higher_temperature_looks_farther():
    heatmaps = planes([[[1.0, 4.0]]], (16, 16))
    near, far = (pixel(heatmaps, temperature=t)[0, 0, 0].item() for t in (0.01, 1.0))
    assert near == pytest.approx(1, abs=1e-6)
    assert near + 0.1 < far < 4  # toward where the window is not cut by the border


@pytest.mark.parametrize("method", BOTH)
def test_sixteen_bits_give_float32(method):
    found = joints_3d(torch.rand(1, 2, 8, 8).bfloat16(), torch.rand(1, 2).bfloat16(), method=method)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("shapes", "options", "sentence"),
    [
        (((2, 3, 8, 8), (2, 4)), {}, r"depth: expected \(B, K\) = \(2, 3\), got \(2, 4\)"),
        (((3, 8, 8), (3,)), {}, r"heatmaps: expected \(B, K, H, W\), got \(3, 8, 8\)"),
        (((2, 3, 8, 8), (2, 3)), {"method": "softmax"}, "method: .* did you mean 'softargmax'"),
        (((2, 3, 8, 8), (2, 3)), {"temperature": 0.0}, "temperature: expected a positive finite number, got 0.0"),
    ],
)
def test_bad_arguments_get_one_sentence(shapes, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        joints_3d(*(torch.rand(shape) for shape in shapes), **options)


def test_bad_key_points_joints_and_sizes_get_one_sentence():
    with pytest.raises(ValueError, match=r"keypoints: expected \(B, K, 2\)"):
        cube(torch.zeros(1, 2, 3), torch.zeros(1, 2), (8, 8))
    with pytest.raises(TypeError, match=r"keypoints: expected a torch\.Tensor"):
        cube([[0.0, 0.0]], torch.zeros(1, 2), (8, 8))
    with pytest.raises(ValueError, match=r"joints: expected \(B, K, 3\)"):
        heatmap_pixels(torch.zeros(1, 2, 2), (8, 8))
    with pytest.raises(ValueError, match=r"size: expected \(H, W\) of at least 1 x 1, got \(0, 8\)"):
        cube(torch.zeros(1, 2, 2), torch.zeros(1, 2), (0, 8))
