"""System 004's published form: every key maps, outputs, losses and gradients come back, weights show their options."""

import json

import pytest
import torch
from safetensors.torch import load_file

from fastpose import losses, models
from fastpose.models import _formats, _registry, published
from fastpose.models.published import import_published, published_options

G, D = "caption.generator", "caption.discriminator"
ORACLES = {
    "g_small": (G, {}, ["z"]),
    "g2_small": (G, {}, ["z", "text"]),
    "d_bn_sigmoid_small": (D, {"sigmoid": True}, ["x"]),
    "d2_small": (D, {}, ["real", "text"]),
}
NORMS = {"main.0": "first.1", "main.9": "ups.2.1", "main.1": "first.1", "third.0": "joint.1"}
USED = {  # parameters of all keys that are run: full, reduced
    "g": (3_820_416, 1_222_080),
    "g2": (4_907_520, 1_784_896),
    "d": (3_040_256, 766_464),
    "d2": (3_144_320, 837_760),
    "d_gan": (3_043_200, 767_936),
}
SMALL = {
    G: {"text_size": 12, "compress": 4, "noise": 8, "widths": (16, 8, 8, 4), "keypoints": 5},
    D: {"text_size": 12, "compress": 4, "widths": (4, 8, 8, 16), "keypoints": 5},
}
CASES = [(G, {}), (G, {"conditional": True}), (D, {}), (D, {"conditional": True}), (D, {"batch_norm": True})]
NAMES = [f"{name} {options}" for name, options in CASES]


@pytest.fixture
def oracle(shared, request):
    """Network, inputs and all that is stored of one published network."""
    name, options, parts = ORACLES[request.param]
    stored = load_file(shared / "oracles" / f"text2pose_{request.param}.safetensors")
    weights = {key: tensor for key, tensor in stored.items() if not key.startswith(("input.", "output."))}
    inputs = [given(stored, part) for part in parts]
    return import_published(name, weights, **options), inputs, stored


def given(stored, part):
    """An input of theirs; noise and texts are stored as maps of one pixel."""
    tensor = stored[f"input.{part}"]
    return tensor.flatten(1) if tensor.shape[2:] == (1, 1) else tensor


def assert_near(found, expected):
    torch.testing.assert_close(found.view(expected.shape), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("oracle", ORACLES, indirect=True)
def test_imported_weights_reproduce_the_published_outputs(oracle):
    network, inputs, stored = oracle
    with torch.no_grad():
        assert_near(network(*inputs), stored["output.eval"])


@pytest.mark.parametrize("oracle", list(ORACLES)[:3], indirect=True)
def test_batch_statistics_reproduce_the_published_outputs_and_move_as_theirs(oracle):
    network, inputs, stored = oracle
    with torch.no_grad():
        assert_near(network.train()(*inputs), stored["output.train_nodropout"])
    moved = [key.removeprefix("output.train_") for key in stored if key.startswith("output.train_running")]
    assert len(moved) == 4
    for key in moved:
        statistic, norm = key.split(".", 1)
        assert_near(getattr(network.get_submodule(NORMS[norm]), statistic), stored[f"output.train_{key}"])


@pytest.mark.parametrize("oracle", ["d2_small"], indirect=True)
def test_the_conditional_critics_gradients_and_losses_are_the_published_ones(oracle):
    network, _, stored = oracle
    real, fake, text, other = (given(stored, part) for part in ("real", "fake", "text", "text_wrong"))
    share = stored["input.eps"]
    points = [torch.lerp(fake, real, share.view(-1, 1, 1, 1)), text.clone()]
    slopes = torch.autograd.grad(network(*(p.requires_grad_() for p in points)).sum(), points)
    for slope, of in zip(slopes, "xh", strict=True):
        assert_near(slope.flatten(1).norm(dim=1), stored[f"output.grad_norm_{of}"])
    critic = (network(fake, text) + network(real, other) - 2 * network(real, text)).mean()  # alpha = 1
    for name, form, weight, separate in [
        ("lp_code_joint", "lp", 150, False),
        ("lp_paper_separate", "lp", 150, True),
        ("gp_code_joint", "gp", 10, False),
    ]:
        pairs = [real, text], [fake, text]
        penalty = losses.gradient_penalty(network, *pairs, form=form, separate=separate, share=share)
        assert_near(critic + weight * penalty, stored[f"output.lossD_{name}"])


@pytest.mark.parametrize("size", ["full", "reduced"])
@pytest.mark.parametrize("kind", USED)
def test_every_key_of_the_published_sizes_maps_and_shows_the_options(shared, kind, size):
    listed = json.loads((shared / "oracles" / "keys" / f"text2pose_{kind}_{size}.json").read_text())
    name = G if kind.startswith("g") else D
    with torch.device("meta"):
        weights = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in listed["keys"]}
        network = import_published(name, weights)
    assert models.count_parameters(network) == USED[kind][size == "reduced"]
    widths = (512, 256, 128, 64) if size == "full" else (256, 128, 64, 32)
    shown = published_options(name, weights)
    assert shown["widths"] == (widths if name == G else widths[::-1])
    assert shown["conditional"] == kind.endswith("2")
    assert shown.get("batch_norm", False) == (kind == "d_gan")
    assert shown.get("text_size") == (300 if kind.endswith("2") else None)


# ------------------------------------------------------------------------------------- without reference files


def theirs(name, **options):
    """A small network and its weights under the authors' names; a conditional one's with the layer it does not run."""
    torch.manual_seed(0)
    network = models.create(name, **SMALL[name], **options).eval()
    rules = _formats.FORMATS[name].rules({**_registry.defaults(name), **SMALL[name], **options})
    weights = {published.rename(key, rules): tensor for key, tensor in network.state_dict().items()}
    unused = {G: ("first.weight", (8, 16, 4, 4)), D: ("second.weight", (16, 16, 1, 1))}[name]
    return network, weights | ({unused[0]: torch.zeros(unused[1])} if options.get("conditional") else {})


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_weights_show_all_but_the_sigmoid(name, options):
    network, weights = theirs(name, **options)
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in weights.items()}}
    found = import_published(name, wrapped)
    assert not found.training
    assert found.state_dict().keys() == network.state_dict().keys()
    assert all(torch.equal(found.state_dict()[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_a_cut_file_is_refused_wherever_it_is_cut_that_matters(name, options):
    _, weights = theirs(name, **options)
    idle = {"first.weight", "second.weight"} if options.get("conditional") else set()
    for key in weights:
        rest = {other: tensor for other, tensor in weights.items() if other != key}
        if key in idle or key.endswith("num_batches_tracked"):
            import_published(name, rest)
        else:
            with pytest.raises(ValueError, match=f"^{name}: the state dict does not fit the network, keys: [^\n]*$"):
                import_published(name, rest)


@pytest.mark.parametrize(
    ("name", "options", "wrong", "sentence"),
    [
        (G, {}, {"conditional": True}, "missing .compress.0.weight, compress.0.bias, first2.weight"),
        (
            G,
            {"conditional": True},
            {"conditional": False},
            "unexpected .compress.0.bias, compress.0.weight, first2.wei",
        ),
        (G, {"conditional": True}, {"noise": 12}, "first2.weight .12, 16, 4, 4. instead of .16, 16, 4, 4."),
        (G, {}, {"widths": [16, 8, 8, 8]}, "of another shape .main.8.weight"),
        (D, {"conditional": True}, {"conditional": False}, "unexpected .compress.0.bias, compress.0.weight, second2.w"),
        (D, {"batch_norm": True}, {"batch_norm": False}, "unexpected .main.1.bias"),
        (D, {}, {"batch_norm": True}, "missing .main.1.weight"),
        (D, {}, {"text_size": 9, "conditional": True}, "missing .compress.0.weight, compress.0.bias, second2.w"),
    ],
)
def test_options_that_do_not_fit_get_one_sentence(name, options, wrong, sentence):
    with pytest.raises(ValueError, match=f"^{name}: the state dict does not fit the network, keys: [^\n]*{sentence}"):
        import_published(name, theirs(name, **options)[1], **wrong)


@pytest.mark.parametrize("name", [G, D])
def test_no_published_weights_have_self_attention(name):
    with pytest.raises(ValueError, match=f"^self_attention: expected False for published weights of {name}, got True;"):
        import_published(name, theirs(name)[1], self_attention=True)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        (G, {"compress.0.weight": (2**40, 2**20)}),
        (G, {"first.weight": (2**62,)}),
        (G, {"compress.0.weight": (200, 300), "first2.weight": (100, 512, 4, 4)}),  # more text than inputs
        (G, {"main.2.weight": ()}),
        (D, {f"main.{layer}.weight": (0, 1) for layer in (0, 3, 6, 9)}),
        (D, {"main.0.weight": (2**20, 2**40)}),
    ],
)
def test_sizes_that_few_weights_show_are_refused_in_one_sentence(name, weights):
    weights = {key: torch.zeros(()).expand(shape) for key, shape in weights.items()}
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z"):
        import_published(name, weights)
