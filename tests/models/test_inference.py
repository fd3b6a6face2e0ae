"""Copies for inference against the networks they were made from."""

import copy
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fastpose import models
from fastpose.models.inference import MergedSum, Sum, for_inference
from fastpose.nn import fused_convolution
from fastpose.nn.fused_convolution import FusedConvolution, _Winograd
from fastpose.nn.hourglass import Merge
from fastpose.nn.nonlocal_block import NonLocalBlock
from fastpose.nn.residual import Residual, ResidualSum

PONA, MULTISCALE = "pona.generator", "multiscale.generator"
PONA_ROWS = [
    {},
    {"norm": "batch"},
    {"fusion": "middle"},
    {"fusion": "tail", "norm": "batch"},
    {"fusion": "none"},
    {"cross_attention": False},
    {"self_attention": False, "norm": "batch"},
    {"self_attention_beta": False},
    {"pose_channels": 32, "dropout": 0.0},
]
MULTISCALE_ROWS = [
    {},
    {"gates": (1,)},
    {"gates": (2,), "pose_channels": 2},
    {"fusion": "sum"},
    {"fusion": "cat", "image_channels": 1},
]
TINY = [
    *((PONA, {"blocks": 2, "width": 8, **row}) for row in PONA_ROWS),
    *((MULTISCALE, {"width": 8, "levels": 2, **row}) for row in MULTISCALE_ROWS),
]
WIDE = [
    *((PONA, {"blocks": 1, "width": 16, **row}) for row in PONA_ROWS),
    *(
        (MULTISCALE, {"width": 16, "levels": 3, **row, **({"gates": (3, 1)} if not row else {})})
        for row in MULTISCALE_ROWS
    ),
]


def settled(name, options):
    """A network in evaluation mode with scalars and statistics as after training, and maps of unit size."""
    torch.manual_seed(0)
    network = models.create(name, **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.momentum = None
            if isinstance(module, NonLocalBlock):
                module.gamma.fill_(0.5)
                if module.beta is not None:
                    module.beta.fill_(-0.3)
        network.train()(*inputs(options, 2, 32, 48))
    return network.eval()


def inputs(options, batch, height, width):
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, options.get("image_channels", 3), height, width, generator=generator) * 2 - 1
    poses = torch.rand(batch, options.get("pose_channels", 36), height, width, generator=generator)
    return image, (poses > 0.98).float()


def assert_equal(network, fast, given):
    with torch.no_grad():
        wanted = network(*given)
    found = fast(*given)
    assert found.dtype == wanted.dtype
    assert found.is_contiguous()
    assert not found.requires_grad
    assert wanted.std() > 0.1  # of images that are all grey every copy would be right
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), TINY, ids=str)
def test_every_ablation_gives_the_same_image(name, options):
    network = settled(name, options)
    fast = for_inference(network)
    for size in ((1, 32, 48), (3, 20, 12), (2, 64, 8)):  # another size needs no other copy
        given = inputs(options, *size)
        assert_equal(network, fast, given)
        assert_equal(network, fast, [tensor.contiguous(memory_format=torch.channels_last) for tensor in given])


@pytest.mark.parametrize(
    ("file", "name"), [("pona_g_in_b3_ngf8", PONA), ("pona_g_bn_b2_ngf8", PONA), ("roy_g_ngf8", MULTISCALE)]
)
def test_published_outputs_are_reproduced(monkeypatch, shared, file, name):
    monkeypatch.setattr(_Winograd, "CHANNELS", 16)
    monkeypatch.setattr(_Winograd, "TILES", 1)
    stored = load_file(shared / "oracles" / f"{file}.safetensors")
    weights = {key: tensor for key, tensor in stored.items() if not key.startswith(("input.", "output."))}
    found = for_inference(models.import_published(name, weights))(stored["input.image"], stored["input.pose"])
    torch.testing.assert_close(found, stored["output.eval"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_maps_of_one_pixel(batch):
    """Their memory order cannot be told from their strides."""
    options = {"width": 8, "levels": 2}
    network = settled(MULTISCALE, options)
    for dtype in (None, torch.bfloat16):
        found = for_inference(network, dtype=dtype)(*(given := inputs(options, batch, 4, 4)))
        with torch.no_grad():
            torch.testing.assert_close(found, network(*given), rtol=0, atol=1e-4 if dtype is None else 0.1)


@pytest.mark.parametrize(("name", "options"), WIDE, ids=str)
def test_every_ablation_gives_the_same_image_by_tiles(monkeypatch, name, options):
    monkeypatch.setattr(_Winograd, "CHANNELS", 32)
    monkeypatch.setattr(_Winograd, "TILES", 6)
    network = settled(name, options)
    fast = for_inference(network)
    for size in ((1, 72, 56), (2, 32, 48)):
        assert_equal(network, fast, inputs(options, *size))
    ways = {kind for module in fast.modules() if isinstance(module, FusedConvolution) for kind, *_ in module._ways}
    assert _Winograd in ways


@pytest.mark.parametrize("name", [PONA, MULTISCALE])
def test_without_the_packed_operators(monkeypatch, name):
    monkeypatch.setattr(fused_convolution, "packing_works", lambda dtype: False)
    options = dict(TINY[0 if name == PONA else -1][1])
    network = settled(name, options)
    assert_equal(network, for_inference(network), inputs(options, 2, 24, 32))


@pytest.mark.parametrize(("name", "options"), [TINY[0], TINY[1], TINY[len(PONA_ROWS)]], ids=str)
def test_bfloat16_keeps_two_digits(name, options):
    network = settled(name, options)
    given = inputs(options, 2, 32, 48)
    with torch.no_grad():
        difference = for_inference(network, dtype=torch.bfloat16)(*given) - network(*given)
    assert difference.dtype == torch.float32
    assert 1e-5 < difference.square().mean().sqrt() < 0.03


def test_layers_are_folded_and_dropped():
    fast = for_inference(settled(PONA, {"blocks": 1, "width": 8, "norm": "batch"}))
    kinds = {type(module) for module in fast.modules()}
    assert kinds.isdisjoint({nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout})
    assert {FusedConvolution, Sum} <= kinds
    assert not any(module.training for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_sums_of_an_hourglass_are_computed_by_its_convolutions():
    fast = for_inference(models.create("hourglass.tiny"))
    kinds = {type(module) for module in fast.modules()}
    assert kinds.isdisjoint({Merge, Residual})
    assert {MergedSum, Sum} <= kinds


@pytest.mark.parametrize(("name", "options"), [TINY[0], TINY[1], TINY[-1]], ids=str)
def test_neither_changes_the_other(name, options):
    network = settled(name, options).train()
    before = copy.deepcopy(network.state_dict())
    given = inputs(options, 1, 16, 16)
    fast = for_inference(network)
    first = fast(*given)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.mul_(2)
    assert torch.equal(fast(*given), first)
    assert torch.equal(for_inference(fast_source := settled(name, options))(*given), first)
    assert not fast_source.training


def test_inputs_stay_as_they_are():
    options = TINY[0][1]
    given = inputs(options, 1, 16, 16)
    before = [tensor.clone() for tensor in given]
    given[0].requires_grad_()
    assert not for_inference(settled(*TINY[0]))(*given).requires_grad
    assert all(torch.equal(tensor, was) for tensor, was in zip(given, before, strict=True))


@pytest.mark.parametrize(
    "name", ["hourglass.tiny", "sagan.generator.tiny", "pona.block.tiny", "pona.discriminator.tiny"]
)
def test_other_networks_infer_too(name):
    torch.manual_seed(0)
    network = models.create(name).eval()
    shapes = {"pona.block.tiny": [(2, 16, 8, 12)] * 2, "pona.discriminator.tiny": [(2, 6, 24, 16)]}
    given = [torch.randn(shape) for shape in shapes.get(name, [(2, 3, 64, 32)])]
    with torch.no_grad():
        wanted = network(*given)
    found = for_inference(network)(*given)
    assert type(found) is type(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_network_without_known_layers_stays():
    class Halves(nn.Module):
        def forward(self, x):
            return {"half": x / 2}

    x = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(for_inference(Halves())(x)["half"], x / 2)


class Indexed(nn.Module):
    """Takes its Sequential apart: what the convolution is given to compute must not be computed again."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

    def forward(self, x):
        x = self.body[0](x)
        return x - self.body[1](x)


class Asking(nn.Module):
    """Asks a layer for what a rewritten one no longer has."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x).view(len(x), -1) / self.layer.in_channels


def batch_normed():
    """A convolution and a batch norm that shows."""
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.running_var, 2, 3)
    return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), norm)


def twice():
    body = batch_normed()
    return nn.Sequential(body, nn.ReLU(), body)


def twice_inside():
    convolution, norm = batch_normed()
    return ResidualSum(convolution, norm, nn.Sequential(convolution, norm))


def hooked():
    network = batch_normed()
    network[0].register_forward_hook(lambda module, args, output: output + 1)
    return network


@pytest.mark.parametrize("build", [Indexed, Asking, twice, twice_inside, hooked])
def test_networks_that_are_not_known_are_copied_as_they_are(build):
    torch.manual_seed(0)
    network = build().eval()
    fast = for_inference(network)
    x = torch.randn(2, 3, 8, 7)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=0, atol=1e-6)
    assert not any(isinstance(module, FusedConvolution) for module in fast.modules())


@pytest.mark.parametrize("name", [name for name in models.list() if name.endswith(".tiny")])
def test_our_own_networks_are_known(name):
    fused = sum(isinstance(module, FusedConvolution) for module in for_inference(models.create(name)).modules())
    assert fused or name == "pona.discriminator.tiny"  # spectral norm keeps its convolutions


@pytest.mark.parametrize("again", [copy.deepcopy, lambda fast: pickle.loads(pickle.dumps(fast))])
def test_a_copy_that_has_run_can_be_copied_and_stored(again):
    name, options = TINY[1]
    fast = for_inference(settled(name, options))
    given = inputs(options, 1, 16, 16)
    first = fast(*given)
    other = again(fast)
    assert torch.equal(other(*given), first)
    other.bfloat16()
    assert torch.equal(fast(*given), first)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_copy_that_has_run_can_change_its_type(dtype):
    name, options = TINY[1]
    network = settled(name, options)
    fast = for_inference(network, dtype=dtype)
    given = inputs(options, 1, 16, 16)
    fast(*given)
    with torch.no_grad():
        wanted = network(*given)
    for change in (fast.bfloat16, fast.double, fast.float):  # the digits that the first took away stay away
        found = change()(*given)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.2)


def test_outputs_of_integers_stay():
    class Places(nn.Module):
        def forward(self, x):
            return {"score": x, "place": x.argmax(), "both": [x, "name"]}

    found = for_inference(Places(), dtype=torch.bfloat16)(x := torch.arange(3.0))
    assert found["place"].dtype == torch.int64
    assert found["score"].dtype == found["both"][0].dtype == x.dtype


def test_other_weights_are_refused_in_one_sentence():
    network = models.create("pona.generator.tiny")
    fast = for_inference(network)
    for weights in (network.state_dict(), fast.state_dict()):
        with pytest.raises(ValueError, match=r"state_dict: expected none, .* make another copy") as caught:
            fast.load_state_dict(weights)
        assert "\n" not in str(caught.value)


def test_training_mode_is_refused_in_one_sentence():
    fast = for_inference(models.create("pona.generator.tiny"))
    with pytest.raises(ValueError, match="mode: expected False, got True; train the network") as caught:
        fast.train()
    assert "\n" not in str(caught.value)
    assert fast.eval() is fast
    assert not fast.training


def test_mistakes():
    fast = for_inference(models.create("pona.generator.tiny"))
    with pytest.raises(TypeError, match="network: expected a network"):
        for_inference(fast)
    with pytest.raises(TypeError, match="network: expected a network"):
        for_inference("pona.generator")
    with pytest.raises(ValueError, match=r"dtype: expected None, torch\.float32 or torch\.bfloat16"):
        for_inference(models.create("pona.generator.tiny"), dtype=torch.float16)
    with pytest.raises(ValueError, match="divisible by 4"):
        fast(torch.zeros(1, 3, 18, 16), torch.zeros(1, 36, 18, 16))
    with pytest.raises(TypeError, match="poses"):
        fast(torch.zeros(1, 3, 16, 16), None)
