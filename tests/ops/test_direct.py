"""Whole calls in one step: taken for ordinary tensors without a gradient, with the same results, and for no others."""

import functools
import warnings

import pytest
import torch
from comparing import assert_close
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fastpose import _native, ops
from fastpose.ops.attention import functional as attention_functions
from fastpose.ops.geometry import functional as geometry
from fastpose.ops.heatmap import functional as heatmap

if _native.missing():
    pytest.skip(_native.missing(), allow_module_level=True)

PAIRS = ((0, 1),)


def points(dtype=torch.float32) -> torch.Tensor:
    return torch.tensor([[[3.0, 4.0], [6.2, 2.7], [40.0, 1.0]]], dtype=dtype)


def numbers(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def quantized(*shape: int) -> torch.Tensor:
    with warnings.catch_warnings(action="ignore"):  # torch means to remove them
        return torch.quantize_per_tensor(torch.ones(shape), 0.1, 0, torch.qint8)


def endless(*shape: int) -> torch.Tensor:
    return torch.ones(1).expand(shape)


def attention(maps, *, residual=False, size=(3, 5)):
    tensors = [numbers(2, 4, *size), numbers(2, 4, 2, 3), numbers(2, 6, 2, 3)]
    return [maps(tensor) for tensor in [*tensors, numbers(2, 6, *size), numbers(1)][: 5 if residual else 3]]


def calls(change=lambda tensor: tensor):
    """A call of every operation, by name; ``change`` is applied to its tensors."""
    planes, joints = change(numbers(1, 3, 9, 7)), change(points())
    visible, weight = torch.tensor([[True, False, True]]), numbers(3)
    return {
        "attention": lambda: ops.nonlocal_attention(*attention(change)),
        "residual": lambda: ops.nonlocal_attention_residual(*attention(change, residual=True)),
        "heatmaps": lambda: ops.render_gaussian_heatmaps(joints, (9, 7), 1.5, visibility=visible),
        "depth maps": lambda: ops.render_depth_maps(joints, change(numbers(1, 3)), (9, 7), numbers(3).abs()),
        "loss": lambda: ops.heatmap_mse_loss(planes, joints, 2, weight=weight, visibility=visible),
        "summed loss": lambda: ops.heatmap_mse_loss(planes[:, None], joints, numbers(1, 3).abs(), reduction="sum"),
        "argmax": lambda: ops.decode_heatmaps(planes),
        "dark": lambda: ops.decode_heatmaps(planes, "dark", max_step=1),
        "softargmax": lambda: ops.decode_heatmaps(planes, "softargmax", beta=3),
        "flip": lambda: ops.flip_average(planes, change(numbers(1, 3, 9, 7) + 1), PAIRS),
        "descriptor": lambda: ops.pairwise_descriptor(joints),
    }


NAMES = list(calls())
OPERATIONS = (
    attention_functions.OPERATION,
    attention_functions.RESIDUAL,
    *heatmap.OPERATIONS,
    geometry.OPERATION,
)


class Special(torch.Tensor):
    pass


class SeesFunctions(TorchFunctionMode):
    def __torch_function__(self, function, types, arguments=(), keywords=None):
        return function(*arguments, **(keywords or {}))


class SeesOperators(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        return function(*arguments, **(keywords or {}))


@pytest.fixture
def served(monkeypatch):
    """For each call so far, whether it was served in one step."""
    found = []

    def watched(function, *arguments):
        result = function(*arguments)
        found.append(result is not None)
        return result

    for operation in OPERATIONS:
        monkeypatch.setattr(operation, "_direct", functools.partial(watched, operation._direct))
    return found


def the_long_way(call, monkeypatch):
    with monkeypatch.context() as patch:
        for operation in OPERATIONS:
            patch.setattr(operation, "_direct", lambda *arguments: None)
        return call()


def assert_same(found, expected):
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    for one, other in pairs:
        assert torch.equal(one, other)
        assert (one.dtype, one.stride(), one.requires_grad) == (other.dtype, other.stride(), other.requires_grad)


CHANGES = {
    "float32": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "strided": lambda x: torch.cat((x, x), dim=-1)[..., ::2] if x.dim() == 3 else torch.cat((x, x), dim=0)[: len(x)],
    "parameter": lambda x: torch.nn.Parameter(x.clone(), requires_grad=False),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", NAMES)
def test_ordinary_calls_take_one_step_and_give_the_same(served, monkeypatch, name, change):
    call = calls(CHANGES[change])[name]
    found = call()
    assert served == [True]
    assert_same(found, the_long_way(call, monkeypatch))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("depth maps", "loss", "summed loss")])
def test_double_precision_is_served(served, monkeypatch, name):
    call = calls(torch.Tensor.double)[name]
    found = call()
    assert served == [True]
    assert_same(found, the_long_way(call, monkeypatch))


@pytest.mark.parametrize("name", ["loss", "argmax", "flip", "descriptor"])
def test_16_bits_are_served_where_the_kernels_read_them(served, monkeypatch, name):
    call = calls(lambda x: x.bfloat16() if x.dim() == 4 or name == "descriptor" else x)[name]
    found = call()
    assert served == [True]
    assert_same(found, the_long_way(call, monkeypatch))


@pytest.mark.parametrize("name", ["attention", "residual", "depth maps", "dark", "softargmax", "flip", "descriptor"])
def test_an_empty_batch_is_served(served, monkeypatch, name):
    call = calls(lambda x: x[:0] if x.dim() > 1 else x)[name]
    found = call()
    assert served == [True]
    assert_same(found, the_long_way(call, monkeypatch))
    assert ops.heatmap_mse_loss(torch.ones(0, 3, 4, 4), points()[:0], 1.0) == 0


@pytest.mark.parametrize("shape", [(4,), (1,), (1, 1), (0,), (2, 3, 4)], ids=str)
def test_positions_in_any_number_of_axes(served, monkeypatch, shape):
    def call():
        return ops.nonlocal_attention(*attention(lambda x: x, size=shape))

    found = call()
    assert served == [True]
    assert_same(found, the_long_way(call, monkeypatch))


def test_sums_with_a_residual_of_another_layout(served, monkeypatch):
    query, key, value, residual, gamma = attention(lambda x: x, residual=True)
    turned = residual.to(memory_format=torch.channels_last)
    for given in (turned, residual[..., :1].expand_as(residual)):
        found = ops.nonlocal_attention_residual(query, key, value, given, gamma)
        assert served.pop()
        long = the_long_way(
            lambda given=given: ops.nonlocal_attention_residual(query, key, value, given, gamma), monkeypatch
        )
        assert_same(found, long)
    assert torch.equal(residual, turned)  # nobody wrote there


@pytest.mark.parametrize("name", NAMES)
def test_without_grad_mode_a_gradient_is_not_wanted(served, name):
    call = calls(lambda x: x.clone().requires_grad_())[name]
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            call()
    assert served == [True, True]


UNUSUAL = {
    "gradient": lambda x: x.clone().requires_grad_(),
    "class": lambda x: x.as_subclass(Special),
    "sign bit": torch._neg_view,
}


@pytest.mark.parametrize("change", UNUSUAL)
@pytest.mark.parametrize("name", NAMES)
def test_special_tensors_go_the_long_way(served, name, change):
    calls(UNUSUAL[change])[name]()
    assert served == [False]


MODES = {
    "functions": SeesFunctions,
    "operators": SeesOperators,
    "device": lambda: torch.device("cpu"),
    "forward derivative": forward_ad.dual_level,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_where_torch_looks_on_calls_go_the_long_way(served, name, mode):
    call = calls()[name]
    expected = call()
    with MODES[mode]():
        found = call()
    assert served == [True, False]
    for one, other in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
        assert_close(one, other)


def test_transforms_fake_tensors_tracing_and_autocast_go_the_long_way(served):
    maps = torch.randn(2, 3, 4, 5)
    torch.vmap(lambda x: ops.flip_average(x[None], x[None], PAIRS)[0])(maps)
    torch.func.grad(lambda x: ops.flip_average(x, x, PAIRS).sum())(maps)
    with FakeTensorMode() as mode:
        ops.flip_average(mode.from_tensor(maps), mode.from_tensor(maps), PAIRS)
    with torch.autocast("cpu"):
        ops.nonlocal_attention(*attention(lambda x: x))
    assert served == [False] * len(served)
    assert len(served) == 4


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated as a whole
def test_a_traced_call_goes_the_long_way(served):
    torch.jit.trace(ops.pairwise_descriptor, (points(),), check_trace=False)
    assert served == [False]


def test_a_compiler_never_meets_it(served):
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: ops.pairwise_descriptor(x), backend="eager", fullgraph=True)
    found = compiled(points())
    assert served == []
    assert_close(found, ops.pairwise_descriptor(points()))


def test_another_backend_is_not_served(served):
    ops.pairwise_descriptor(points(), backend="reference")
    assert served == []
    ops.pairwise_descriptor(points(), backend="cpu")
    assert served == [True]


def test_what_is_served_is_the_choice_of_the_cpu():
    for operation in (attention_functions.OPERATION, *heatmap.OPERATIONS, geometry.OPERATION):
        assert operation.backend_names[0] == "cpu"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ops.pairwise_descriptor(torch.zeros(1, 3, 4)), "joints: expected .* D = 2 or 3, got"),
        (lambda: ops.pairwise_descriptor(torch.zeros(1, 3, 2).long()), "joints: expected float32, .* got torch.int64"),
        (lambda: ops.pairwise_descriptor(torch.zeros(1, 1, 1, 1, 1, 3, 2)), r"joints: expected \(B, P, D\), got"),
        (lambda: ops.pairwise_descriptor(quantized(1, 3, 2)), "joints: expected float32, .* got torch.qint8"),
        (lambda: ops.pairwise_descriptor(torch.zeros(1, 1, 2).long().expand(1, 2**20, 2)), "joints: expected float32"),
        (lambda: ops.pairwise_descriptor(None), "joints: expected a torch.Tensor"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), True), "sigma: expected a positive finite number"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), float("nan")), "sigma: expected a positive finite"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), 1e300), "sigma: expected .* for torch.float32"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), 10**400), "sigma: expected a positive finite number"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), torch.ones(2)), r"sigma: expected \(K,\) = \(3\)"),
        (lambda: ops.render_gaussian_heatmaps(points(), (9, 7), [1.0]), "sigma: expected a positive finite number"),
        (lambda: ops.render_depth_maps(points(), None, (9, 7), 1.0), "depth: expected a torch.Tensor"),
        (lambda: ops.render_depth_maps(points(), torch.ones(1, 2), (9, 7), 1.0), "depth: expected"),
        (lambda: ops.heatmap_mse_loss(torch.ones(1, 2, 4, 4), points(), 1.0), "keypoints: expected"),
        (
            lambda: ops.heatmap_mse_loss(torch.ones(1, 3, 0, 4), points(), 1.0),
            "prediction: expected planes of at least",
        ),
        (lambda: ops.heatmap_mse_loss(None, points(), 1.0), "prediction: expected a torch.Tensor"),
        (
            lambda: ops.heatmap_mse_loss(torch.ones(1, 3, 4, 4), points(), 1.0, weight=torch.ones(4)),
            "weight: expected",
        ),
        (lambda: ops.decode_heatmaps(torch.ones(3, 4, 4)), "heatmaps: expected"),
        (lambda: ops.decode_heatmaps(quantized(1, 3, 4, 4)), "heatmaps: expected float32"),
        (lambda: ops.heatmap_mse_loss(quantized(1, 3, 4, 4), points(), 1.0), "prediction: expected float32"),
        (lambda: ops.flip_average(quantized(1, 2, 4, 4), quantized(1, 2, 4, 4), PAIRS), "heatmaps: expected float32"),
        (
            lambda: ops.flip_average(endless(1, 2**45, 1), endless(1, 2**45, 1), ()),
            r"heatmaps: expected \(B, K, H, W\)",
        ),
        (lambda: ops.nonlocal_attention(*attention(lambda x: x)[:2], quantized(2, 6, 2, 3)), "value: expected float32"),
        (lambda: ops.nonlocal_attention(*attention(lambda x: x), scale=10**400), "scale: expected a number that"),
        (lambda: ops.decode_heatmaps(torch.ones(1, 3, 0, 4)), "heatmaps: expected planes of at least one pixel"),
        (lambda: ops.flip_average(torch.ones(1, 2, 4, 4), torch.ones(1, 3, 4, 4), PAIRS), "flipped: expected"),
        (lambda: ops.flip_average(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4), ((0, 2),)), "pairs: expected joints"),
        (lambda: ops.flip_average(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4), ((0, 0),)), "pairs: expected every"),
        (lambda: ops.flip_average(torch.ones(1, 2, 4, 4), torch.ones(1, 2, 4, 4), ((0, 1, 2),)), "pairs: expected"),
        (lambda: ops.nonlocal_attention(*attention(lambda x: x)[:2], torch.ones(2, 6, 3, 2)), "value: expected"),
        (lambda: ops.nonlocal_attention(*attention(lambda x: x)[:2], torch.ones(2, 6, 6)), "value: expected"),
        (
            lambda: ops.nonlocal_attention(*attention(lambda x: x)[:2], torch.ones(2, 6, 2, 3).double()),
            "value: expected",
        ),
        (lambda: ops.nonlocal_attention(*attention(lambda x: x)[:2], torch.ones(2, 6, 2, 3, device="meta")), "value: "),
    ],
)
def test_promise_28_mistakes_have_the_sentences_of_the_long_way(served, call, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        call()
    assert served == [False]


def test_promise_28_sizes_that_memory_cannot_hold_are_left_to_the_long_way(served):
    maps = endless(2**31, 1, 2**31), endless(2**31, 1, 0), endless(2**31, 0, 0)
    with pytest.raises(RuntimeError, match=r"overflow|allocate|memory"):
        ops.nonlocal_attention(*maps)
    assert served == [False]


def test_a_weight_with_a_gradient_is_refused_without_grad_mode_too(served):
    with torch.no_grad(), pytest.raises(ValueError, match="weight: expected a constant"):
        ops.heatmap_mse_loss(torch.ones(1, 3, 4, 4), points(), 1.0, weight=torch.ones(3, requires_grad=True))
    assert served == [False]


def test_a_result_can_be_resized_and_shares_nothing():
    joints = points()
    found = ops.pairwise_descriptor(joints)
    found.resize_(100).fill_(1)
    assert torch.equal(joints, points())
