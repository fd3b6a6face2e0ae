"""Every wrong argument gives one sentence that names it; the C++ entry points check for themselves too."""

import math

import pytest
import torch

from fastpose import _native, ops

POINTS, PLANES = torch.zeros(2, 3, 2), torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        (([1.0], (4, 5), 1.0), {}, TypeError, "keypoints: expected a torch.Tensor"),
        ((POINTS[0], (4, 5), 1.0), {}, ValueError, r"keypoints: expected \(B, K, 2\), got \(3, 2\)"),
        ((torch.zeros(2, 3, 3), (4, 5), 1.0), {}, ValueError, "keypoints: expected"),
        ((POINTS.long(), (4, 5), 1.0), {}, TypeError, "keypoints: expected float32"),
        ((POINTS, 4, 1.0), {}, ValueError, r"size: expected \(height, width\)"),
        ((POINTS, (4,), 1.0), {}, ValueError, "size: expected"),
        ((POINTS, (4, 0), 1.0), {}, ValueError, "size: expected"),
        ((POINTS, (4, 5.0), 1.0), {}, ValueError, "size: expected"),
        ((POINTS, (4, 5), 0), {}, ValueError, "sigma: expected a positive finite number"),
        ((POINTS, (4, 5), -1.0), {}, ValueError, "sigma: expected"),
        ((POINTS, (4, 5), math.nan), {}, ValueError, "sigma: expected"),
        ((POINTS, (4, 5), "2"), {}, ValueError, "sigma: expected"),
        ((POINTS, (4, 5), torch.ones(4)), {}, ValueError, r"sigma: expected \(K,\) = \(3\), got \(4,\)"),
        ((POINTS, (4, 5), torch.ones(3, 2)), {}, ValueError, "sigma: expected"),
        ((POINTS, (4, 5), torch.ones(3).long()), {}, TypeError, "sigma: expected float32"),
        ((POINTS, (4, 5), torch.ones(3, device="meta")), {}, ValueError, "sigma: expected device cpu"),
        ((POINTS, (4, 5), 1.0), {"profile": "gausian"}, ValueError, "did you mean 'gaussian'"),
        ((POINTS, (4, 5), 1.0), {"profile": "patch"}, ValueError, "profile: expected one of"),
        ((POINTS, (4, 5), 1.0), {"visibility": [1, 1, 1]}, TypeError, "visibility: expected a torch.Tensor"),
        ((POINTS, (4, 5), 1.0), {"visibility": torch.ones(3)}, ValueError, r"visibility: expected \(B, K\)"),
        ((POINTS, (4, 5), 1.0), {"out": torch.zeros(2, 3, 5, 4)}, ValueError, r"out: expected \(B, K, H, W\)"),
        ((POINTS, (4, 5), 1.0), {"out": PLANES.double()}, TypeError, "out: expected torch.float32"),
        ((POINTS, (4, 5), 1.0), {"out": PLANES[:, :, :1].expand(2, 3, 4, 5)}, ValueError, "do not share memory"),
        ((POINTS, (4, 5), 1.0), {"out": PLANES.clone().requires_grad_()}, ValueError, "no gradient through out="),
        ((POINTS.clone().requires_grad_(), (4, 5), 1.0), {"out": PLANES.clone()}, ValueError, "no gradient through"),
        ((POINTS, (4, 5), 1.0), {"backend": "gpu"}, ValueError, "unknown backend 'gpu'"),
    ],
)
def test_rendering(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.render_gaussian_heatmaps(*arguments, **options)


@pytest.mark.parametrize(
    ("depth", "error", "sentence"),
    [
        (torch.zeros(3), ValueError, r"depth: expected \(B, K\)"),
        (torch.zeros(2, 3).double(), TypeError, "depth: expected torch.float32"),
        (torch.zeros(2, 3).long(), TypeError, "depth: expected float32"),
        (1.0, TypeError, "depth: expected a torch.Tensor"),
    ],
)
def test_depth(depth, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.render_depth_maps(POINTS, depth, (4, 5), 1.0)
    with pytest.raises(ValueError, match="did you mean 'patch'"):
        ops.render_depth_maps(POINTS, torch.zeros(2, 3), (4, 5), 1.0, profile="path")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        ((PLANES[0], POINTS, 1.0), {}, ValueError, "prediction: expected"),
        ((PLANES.long(), POINTS, 1.0), {}, TypeError, "prediction: expected float32"),
        ((PLANES, POINTS[:, :2], 1.0), {}, ValueError, "keypoints: expected .* with B and K of prediction"),
        ((PLANES[:, None], POINTS[:1], 1.0), {}, ValueError, "keypoints: expected"),
        ((PLANES[..., :0], POINTS, 1.0), {}, ValueError, "prediction: expected planes of at least one pixel"),
        ((PLANES, POINTS.to("meta"), 1.0), {}, ValueError, "keypoints: expected device cpu"),
        ((PLANES, POINTS, 1.0), {"reduction": "meen"}, ValueError, "reduction: .* did you mean 'mean'"),
        ((PLANES, POINTS, 1.0), {"weight": torch.ones(4)}, ValueError, r"weight: expected \(K,\)"),
        ((PLANES, POINTS, 1.0), {"weight": torch.ones(2, 2, 3)}, ValueError, r"weight: expected \(B, S, K\)"),
        ((PLANES, POINTS, 1.0), {"weight": torch.ones(3, requires_grad=True)}, ValueError, "pass weight.detach"),
        ((PLANES, POINTS, 1.0), {"weight": torch.ones(3).long()}, TypeError, "weight: expected float32"),
        ((PLANES, POINTS, 1.0), {"profile": "gaus"}, ValueError, "did you mean 'gaussian'"),
    ],
)
def test_loss(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.heatmap_mse_loss(*arguments, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "sentence"),
    [
        ((PLANES[0],), {}, ValueError, r"heatmaps: expected \(B, K, H, W\), got \(3, 4, 5\)"),
        ((PLANES.int(),), {}, TypeError, "heatmaps: expected float32"),
        ((PLANES[:, :, :0],), {}, ValueError, "at least one pixel"),
        ((PLANES, "quater"), {}, ValueError, "did you mean 'quarter'"),
        ((PLANES, "dark"), {"kernel": 4}, ValueError, "kernel: expected an odd number"),
        ((PLANES, "dark"), {"kernel": 11.0}, ValueError, "kernel: expected an odd number"),
        ((PLANES, "dark"), {"kernel": -1}, ValueError, "kernel: expected an odd number"),
        ((PLANES, "softargmax"), {"beta": 0.0}, ValueError, "beta: expected a positive"),
        ((PLANES, "dark"), {"max_step": -1.0}, ValueError, "max_step: expected a positive"),
    ],
)
def test_decoding(arguments, options, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.decode_heatmaps(*arguments, **options)


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        ([(0, 3)], "pairs: expected joints from 0 to 2"),
        ([(-1, 0)], "pairs: expected joints from 0 to 2"),
        ([(0, 1), (1, 2)], "every joint at most once"),
        ([(1, 1)], "every joint at most once"),
        ([(0, 1, 2)], r"pairs: expected \(left, right\)"),
    ],
)
def test_pairs(pairs, sentence):
    with pytest.raises(ValueError, match=sentence):
        ops.flip_average(PLANES, PLANES, pairs)


def test_flip_average():
    with pytest.raises(ValueError, match=r"flipped: expected \(B, K, H, W\)"):
        ops.flip_average(PLANES, PLANES[..., :4], [])
    with pytest.raises(TypeError, match=r"flipped: expected torch\.float32"):
        ops.flip_average(PLANES, PLANES.double(), [])


def test_promise_28_extension_checks_before_it_touches_memory():
    native = _native.module().cpu
    sigma, total, partials = torch.ones(2, 3), torch.zeros(()), torch.zeros(2, 3, dtype=torch.float64)
    visible = torch.ones(2, 3, dtype=torch.bool)
    render = (POINTS, sigma, None, visible, "gaussian", PLANES, 1)
    loss = (PLANES[:, None], POINTS, sigma, visible, None, "gaussian", 1.0, partials, total, 1)
    decode = (PLANES, "argmax", [1.0], 1.0, torch.zeros(2, 3, 2), torch.zeros(2, 3), 1)
    soft = (PLANES, 1.0, torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2, 3), 1)
    flip = (PLANES, PLANES, [0, 1, 2], PLANES.clone(), 1)
    wrong = {
        "heatmap_render": (render, [POINTS[:1], None, POINTS.double(), POINTS.half(), POINTS.to("meta")], 0),
        "heatmap_mse_loss": (loss, [PLANES, None, PLANES[:, None, :2], PLANES[:, None].to("meta")], 0),
        "heatmap_decode": (decode, [PLANES[:1], PLANES[0], PLANES[..., :0], PLANES.long(), None], 0),
        "softargmax": (soft, [torch.zeros(2, 3), torch.zeros(2, 2, 3).transpose(1, 2), None], 2),
        "flip_average": (flip, [[0, 1], [0, 1, 3], [0, 1, -1]], 2),
    }
    for name, (arguments, replacements, position) in wrong.items():
        getattr(native, name)(*arguments)
        for replacement in replacements:
            changed = list(arguments)
            changed[position] = replacement
            with pytest.raises(ValueError, match="expected"):
                getattr(native, name)(*changed)
    for name, position, value in (("heatmap_render", 4, "gauss"), ("heatmap_decode", 1, "darc")):
        changed = list(wrong[name][0])
        changed[position] = value
        with pytest.raises(ValueError, match="expected"):
            getattr(native, name)(*changed)
    with pytest.raises(ValueError, match="taps: expected an odd number"):
        native.heatmap_decode(PLANES, "dark", [0.5, 0.5], 1.0, *decode[4:])


@pytest.mark.parametrize("name", ["cot_prediction", "grad_prediction"])
def test_all_planes_of_a_call_have_one_rank(name):
    """(B, K, H, W) beside (B, S, K, H, W) has no stacks to address."""
    native = _native.module().cpu
    prediction, stacked, number = PLANES[:, None].repeat(1, 2, 1, 1, 1), torch.zeros(2, 2, 3, 4, 5), torch.ones(())
    joints = (POINTS, torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), None, "gaussian", 1.0, number)
    planes = {"cot_prediction": stacked, "grad_prediction": stacked.clone(), name: PLANES.clone()}
    with pytest.raises(ValueError, match=rf"{name}: expected \(2, 2, 3, 4, 5\), got \(2, 3, 4, 5\)"):
        native.heatmap_mse_loss_bwd2(
            prediction, *joints, planes["cot_prediction"], None, None, planes["grad_prediction"], None, None,
            torch.zeros(2, 3, dtype=torch.float64), number.clone(), 1,
        )  # fmt: skip
    if name == "grad_prediction":
        with pytest.raises(ValueError, match=rf"{name}: expected \(2, 2, 3, 4, 5\), got"):
            native.heatmap_mse_loss_bwd(prediction, *joints, PLANES.clone(), None, None, 1)
    with pytest.raises(ValueError, match=r"direct: expected \(2, 3, 4, 5\), got \(2, 1, 3, 4, 5\)"):
        native.flip_average(PLANES[:, None], PLANES, [0, 1, 2], PLANES.clone(), 1)


def test_explain_names_the_backend():
    assert ops.explain("render_gaussian_heatmaps", POINTS).chosen == "cpu"
    assert ops.explain("decode_heatmaps", PLANES.to("meta")).chosen == "reference"
