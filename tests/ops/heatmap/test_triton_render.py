"""Rendering and the fused squared error in Triton against the C++ functions of the same names."""

import math

import pytest
import torch
from comparing import assert_close
from heatmap_cases import LAYOUTS, arrange, joints
from interpreter import DEVICE, DTYPES, on, poisoned, run_both

pytest.importorskip("triton")

from fastpose.ops.heatmap import _triton_kernels as kernels
from fastpose.ops.heatmap import _triton_loss
from fastpose.ops.heatmap._profiles import DEPTH_MAPS

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 15), (1, 2, 16, 64), (1, 2, 17, 65), (1, 1, 33, 130), (2, 2, 15, 63)]  # tile 16 x 64
SMALL = (1, 2, 18, 70)
TYPES = [*((torch.float32, layout) for layout in LAYOUTS), *((dtype, "sliced") for dtype in DTYPES[1:])]
GRADIENT_CASES = [(shape, "gaussian") for shape in SHAPES[1::2]] + [(SMALL, "udp")]
NAN, INFINITY = math.nan, math.inf
ORDER = {"heatmap_render_bwd2": 2, "heatmap_mse_loss_bwd2": 2}
POINTS = ("keypoints", "sigma", "depth")
FACTOR = 0.37


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))).to(dtype)


def joints_of(shape, depth=True):
    """keypoints, sigma, depth, visible in float32."""
    drawn = joints(shape, torch.Generator().manual_seed(math.prod(shape)))
    given = normal(*shape[:2], seed=3) if depth else None
    return drawn["keypoints"].float(), drawn["sigma"].float(), given, drawn["visibility"]


def check(name, arguments, like):
    found, expected = run_both(kernels, name, arguments, like)
    for key, tensor in expected.items():
        assert_close(found[key], tensor, name=f"{name}: {key}", order=ORDER.get(name, 0))
    return found


def planes(shape, dtype=torch.float32, layout="contiguous", seed=0):
    return arrange(normal(*shape, dtype=dtype, seed=seed), layout)


def gradients(given, names=POINTS, prefix="of_"):
    """Outputs for the wanted gradients of the given joints, the others None."""
    wanted = zip(POINTS, given, strict=True)
    return {prefix + name: tensor if name in names and tensor is not None else None for name, tensor in wanted}


# -------------------------------------------------------------------------------------------------------------- render


@pytest.mark.parametrize("profile", DEPTH_MAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_render(shape, profile):
    given = joints_of(shape, depth=profile in ("patch", "constant", "udp"))
    check("heatmap_render", lambda outputs: (*given, profile, outputs["out"]), {"out": planes(shape)})


@pytest.mark.parametrize(("dtype", "layout"), TYPES, ids=str)
def test_dtypes_and_layouts(dtype, layout):
    given, grad = joints_of(SMALL), planes(SMALL, dtype, layout)
    check("heatmap_render", lambda outputs: (*given, "gaussian", outputs["out"]), {"out": grad})
    like = gradients(given[:3])
    check("heatmap_render_bwd", lambda outputs: (*given, "gaussian", grad, *outputs.values()), like)
    moves = [normal(*tensor.shape, seed=5) for tensor in given[:3]]
    like["of_grad"] = planes(SMALL, dtype, layout)
    check("heatmap_render_bwd2", lambda outputs: (*given, "gaussian", grad, *moves, *outputs.values()), like)


@pytest.mark.parametrize("names", [POINTS, ("keypoints",), ("sigma",), ("depth",)], ids=str)
@pytest.mark.parametrize(("shape", "profile"), GRADIENT_CASES, ids=str)
def test_gradients_of_render(shape, profile, names):
    given, grad = joints_of(shape), planes(shape)
    like = gradients(given[:3], names)
    check("heatmap_render_bwd", lambda outputs: (*given, profile, grad, *outputs.values()), like)
    moves = [normal(*t.shape, seed=5) if n in names else None for n, t in zip(POINTS, given[:3], strict=True)]
    like = gradients(given[:3]) | {"of_grad": grad}
    check("heatmap_render_bwd2", lambda outputs: (*given, profile, grad, *moves, *outputs.values()), like)


def test_gradients_without_depth_and_mask():
    keypoints, sigma, _, _ = joints_of(SMALL)
    given, grad = (keypoints, sigma, None, None), planes(SMALL)
    like = gradients(given[:3])
    check("heatmap_render_bwd", lambda outputs: (*given, "wide", grad, *outputs.values()), like)
    moves = (normal(*keypoints.shape), normal(*sigma.shape), None)
    like["of_grad"] = grad
    check("heatmap_render_bwd2", lambda outputs: (*given, "wide", grad, *moves, *outputs.values()), like)


def test_joints_of_any_strides():
    shape = (2, 3, 6, 9)
    keypoints, _, depth, visible = joints_of(shape)
    given = (
        keypoints.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        torch.tensor(1.5).expand(2, 3),
        torch.stack((depth, depth), -1)[..., 1],
        visible[:1].expand(2, 3),
    )
    grad = planes(shape)
    like = gradients((given[0], depth.t().contiguous().t(), given[2]))
    check("heatmap_render", lambda outputs: (*given, "gaussian", outputs["out"]), {"out": grad})
    check("heatmap_render_bwd", lambda outputs: (*given, "gaussian", grad, *outputs.values()), like)
    moves = (given[0], given[1], given[2])
    like["of_grad"] = grad
    check("heatmap_render_bwd2", lambda outputs: (*given, "gaussian", grad, *moves, *outputs.values()), like)


# --------------------------------------------------------------------------------------------------------------- edges

WIDTH, HEIGHT = 11, 9
EDGES = [
    *((x, 4.0, 1.0) for x in (-0.5, -0.7, -1.5, 0.5, 1.5, 2.4999, 10.5, 11.2)),  # nearest pixel: toward zero
    *((x, 4.0, 1.25) for x in (-4.75, -4.7501, -4.7499, 14.75, 14.7501, 14.7499, -5.25, -5.26)),  # touches or not
    *((3.0, y, 1.0) for y in (-4.0, -4.001, 11.999, 12.0, -4.5, -4.51, -4.6)),
    *((5.3, 4.6, sigma) for sigma in (0.1, 1 / 3, 5 / 3, 0.5, 30.0)),  # whole pixels of the window
    *((x, 4.0, 1.0) for x in (NAN, INFINITY, -INFINITY, 1e30, -1e30, 3e9, -3e9)),
    *((5.0, 4.0, sigma) for sigma in (0.0, -1.0, NAN, INFINITY, 1e30, 1e18, 1e-30)),
    *((x, 4.0, 2e9) for x in (3e9, -3e9)),  # a window beyond the integers
]


def edge_joints():
    numbers = torch.tensor(EDGES)
    return numbers[None, :, :2], numbers[None, :, 2], None, None


@pytest.mark.parametrize("profile", DEPTH_MAPS)
def test_edges_of_the_footprint(profile):
    given, shape = edge_joints(), (1, len(EDGES), HEIGHT, WIDTH)
    found = check("heatmap_render", lambda outputs: (*given, profile, outputs["out"]), {"out": planes(shape)})
    assert torch.isfinite(found["out"]).all()
    grad = planes(shape)
    check("heatmap_render_bwd", lambda outputs: (*given, profile, grad, *outputs.values()), gradients(given[:3]))


def absent_joints():
    """Joints that are absent for each of the reasons."""
    keypoints = torch.tensor([[[3.0, 3.0], [NAN, 2.0], [3.0, 3.0], [40.0, 3.0], [3.0, 3.0]]])
    depth = torch.tensor([[2.0, 2.0, NAN, 2.0, 2.0]])
    return keypoints, torch.tensor([[1.0, 1, 1, 1, -1]]), depth, torch.tensor([[False, True, True, True, True]])


@pytest.mark.parametrize("value", [NAN, INFINITY])
def test_an_absent_joint_gives_zeros_whatever_arrives(value):
    given, shape = absent_joints(), (1, 5, 6, 7)
    like = gradients(given[:3]) | {"of_grad": planes(shape)}
    outputs = {key: on(poisoned(tensor), DEVICE) for key, tensor in like.items()}
    grad, moves = torch.full(shape, value), [torch.full_like(tensor, value) for tensor in given[:3]]
    arguments = [on(tensor, DEVICE) for tensor in (*given, "gaussian", grad)]
    kernels.heatmap_render_bwd(*arguments, *list(outputs.values())[:3], 0)
    assert all((tensor == 0).all() for tensor in list(outputs.values())[:3])
    kernels.heatmap_render_bwd2(*arguments, *[on(move, DEVICE) for move in moves], *outputs.values(), 0)
    assert all((tensor == 0).all() for tensor in outputs.values())


# ---------------------------------------------------------------------------------------------------------------- loss


def loss_of(shape, stacks=2, weighted=True, dtype=torch.float32, layout="contiguous", zero=True):
    """Arguments up to the profile's: prediction, keypoints, sigma, visible, weight."""
    keypoints, sigma, _, visible = joints_of(shape)
    prediction = planes((shape[0], stacks, *shape[1:]), dtype, layout)
    weight = normal(shape[0], stacks, shape[1], seed=9).abs() if weighted else None
    if weighted and zero:
        weight[:, 0, -1] = 0
    return prediction, keypoints, sigma, visible, weight


def check_loss(given, profile, names=("prediction", "keypoints", "sigma")):
    """All three functions; ``names``: the wanted first gradients and the given cotangents."""
    prediction, keypoints, sigma = given[:3]
    partials = torch.empty(keypoints.shape[:2], dtype=torch.float64)
    scratch = on(partials, DEVICE)
    given = (*given, profile, FACTOR)
    check("heatmap_mse_loss", lambda outputs: (*given, scratch, *outputs.values()), {"total": torch.ones(())})
    total, leaves = torch.tensor(0.7), {"prediction": prediction, "keypoints": keypoints, "sigma": sigma}
    like = {key: tensor if key in names else None for key, tensor in leaves.items()}
    check("heatmap_mse_loss_bwd", lambda outputs: (*given, total, *outputs.values()), like)
    moves = [arranged_like(tensor) if key in names else None for key, tensor in leaves.items()]
    like = leaves | {"total": total}
    return check(
        "heatmap_mse_loss_bwd2",
        lambda outputs: (*given, total, *moves, *list(outputs.values())[:3], scratch, outputs["total"]),
        like,
    )


def arranged_like(tensor):
    """Other numbers in the tensor's shape, dtype and strides."""
    return poisoned(tensor).copy_(normal(*tensor.shape, seed=7))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss(shape):
    check_loss(loss_of(shape), "gaussian")


@pytest.mark.parametrize("profile", ["wide", "msra", "udp", "binary", "gaussian_rounded"])
def test_profiles_of_the_loss(profile):
    check_loss(loss_of(SMALL), profile)


@pytest.mark.parametrize(("dtype", "layout"), TYPES, ids=str)
def test_dtypes_and_layouts_of_the_loss(dtype, layout):
    check_loss(loss_of(SMALL, dtype=dtype, layout=layout), "gaussian")


@pytest.mark.parametrize("names", [("prediction",), ("keypoints",), ("sigma",), ()], ids=str)
def test_wanted_gradients_of_the_loss(names):
    check_loss(loss_of(SMALL, stacks=1, weighted=False), "gaussian", names)


def test_edges_of_the_loss():
    shape = (1, len(EDGES), HEIGHT, WIDTH)
    keypoints, sigma, _, _ = edge_joints()
    check_loss((planes((1, 1, *shape[1:])), keypoints, sigma, None, None), "udp")


def test_a_plane_of_weight_zero_is_not_read():
    given = loss_of(SMALL)
    given[0][:, 0, -1] = NAN
    found = check_loss(given, "gaussian")
    assert (found["prediction"][:, 0, -1] == 0).all()
    infinite = on(torch.tensor(INFINITY), DEVICE)
    gradient = on(poisoned(given[0]), DEVICE)
    kernels.heatmap_mse_loss_bwd(*[on(t, DEVICE) for t in given], "gaussian", 1.0, infinite, gradient, None, None, 0)
    assert (gradient[:, 0, -1] == 0).all()


def test_the_loss_of_an_absent_joint_has_no_gradient_in_it():
    keypoints, sigma, _, _ = absent_joints()
    keypoints, sigma = keypoints[:, 3:], sigma[:, 3:]
    prediction = planes((1, 1, 2, 6, 7))
    prediction[..., 0, 0] = NAN
    points, width = poisoned(keypoints), poisoned(sigma)
    kernels.heatmap_mse_loss_bwd(
        *[on(t, DEVICE) for t in (prediction, keypoints, sigma)], None, None, "gaussian", 1.0,
        on(torch.ones(()), DEVICE), None, points := on(points, DEVICE), width := on(width, DEVICE), 0,
    )  # fmt: skip
    assert (points == 0).all()
    assert (width == 0).all()


def test_nothing_to_add_up_is_zero():
    given = loss_of((0, 3, 4, 5), zero=False)
    check_loss(given, "gaussian")
    check_loss(loss_of((2, 3, 4, 5), stacks=0, zero=False), "gaussian")
    render = joints_of((2, 0, 4, 5))
    check("heatmap_render", lambda outputs: (*render, "gaussian", outputs["out"]), {"out": planes((2, 0, 4, 5))})


def test_the_partial_sums_are_one_per_joint():
    given = [on(tensor, DEVICE) for tensor in loss_of(SMALL)]
    total, partials = on(torch.zeros(()), DEVICE), on(torch.full((1, 2), NAN, dtype=torch.float64), DEVICE)
    kernels.heatmap_mse_loss(*given, "gaussian", 0.25, partials, total, 0)
    assert float(total) == pytest.approx(0.25 * float(partials.sum()), rel=1e-6)


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 5000])
def test_the_sum_of_any_number_of_joints(count):
    partials, total = on(torch.arange(count, dtype=torch.float64)[None], DEVICE), on(torch.tensor(NAN), DEVICE)
    _triton_loss._sum(partials, 0.5, total)
    assert float(total) == count * (count - 1) / 4
