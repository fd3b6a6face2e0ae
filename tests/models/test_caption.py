"""System 004: published sizes and first weights, the caption's way into both networks, two-stage training."""

import pytest
import torch
from layouts import Layouts
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from fastpose import losses, models
from fastpose.models.caption import warm_start
from fastpose.nn.fused_convolution import FusedConvolution
from fastpose.nn.nonlocal_block import NonLocalBlock

G, D = "caption.generator", "caption.discriminator"
SMALL_G, SMALL_D = f"{G}.tiny", f"{D}.tiny"
HALF = (256, 128, 64, 32)
CAPTIONED = {"conditional": True}
ATTENDING = {"conditional": True, "self_attention": True}


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        (G, {}, 3_820_416),
        (G, {"widths": HALF}, 1_222_080),
        (G, CAPTIONED, 4_907_520),
        (G, {"widths": HALF, **CAPTIONED}, 1_784_896),
        (D, {}, 3_040_256),
        (D, {"widths": HALF[::-1]}, 766_464),
        (D, CAPTIONED, 3_144_320),
        (D, {"widths": HALF[::-1], **CAPTIONED}, 837_760),
        (D, {"batch_norm": True, "sigmoid": True}, 3_043_200),
    ],
)
def test_published_parameter_counts_to_the_unit(name, options, parameters):
    with torch.device("meta"):
        assert models.count_parameters(models.create(name, **options)) == parameters


def drawn(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def given(name, options, batch=2, dtype=torch.float32):
    """Inputs of a tiny network."""
    first = (batch, 8) if name == SMALL_G else (batch, 17, 64, 64)
    text = [(batch, 12)] if options.get("conditional") else []
    return drawn(first, *text, dtype=dtype)


def settled(name, **options):
    """A tiny network whose scalars and statistics are as after training."""
    torch.manual_seed(0)
    network = models.create(name, **options)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                fan = module.weight.shape[0] * 4 if isinstance(module, nn.ConvTranspose2d) else module.weight[0].numel()
                nn.init.normal_(module.weight, std=(2 / fan) ** 0.5)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
            if isinstance(module, NonLocalBlock):
                module.gamma.fill_(0.5)
    return network


def test_generator_by_hand():
    network = settled(SMALL_G, **ATTENDING).eval()
    noise, text = given(SMALL_G, CAPTIONED)
    caption = nn.functional.leaky_relu(network.compress[0](text), 0.2)
    x = torch.cat((noise, caption), dim=1).view(2, 12, 1, 1)  # the noise first
    for layer in (network.first, *network.ups):
        x = layer[1](layer[0](x)).clamp(min=0)
    x = torch.tanh(network.last[0](network.attention(x)))
    heatmaps = network(noise, text)
    assert heatmaps.shape == (2, 17, 64, 64)
    assert heatmaps.std() > 0.1
    torch.testing.assert_close(heatmaps, x)


@pytest.mark.parametrize("published", [{"batch_norm": True, "sigmoid": True}, {}])
def test_discriminator_by_hand(published):
    network = settled(SMALL_D, **ATTENDING, **published).eval()
    heatmaps, text = given(SMALL_D, CAPTIONED)

    def rectified(layer, x):
        return nn.functional.leaky_relu(nn.Sequential(*layer[:-1])(x), 0.2)

    x = network.attention(rectified(network.first, heatmaps))
    for layer in network.downs:
        x = rectified(layer, x)
    caption = nn.functional.leaky_relu(network.compress[0](text), 0.2)
    x = torch.cat((x, caption.view(2, 4, 1, 1).repeat(1, 1, 4, 4)), dim=1)  # the heatmaps' features first
    scores = network.last[0](rectified(network.joint, x)).view(2)
    torch.testing.assert_close(network(heatmaps, text), scores.sigmoid() if published else scores)


@pytest.mark.parametrize(("batch_norm", "norms"), [(False, 0), (True, 5)])
def test_batch_norm_follows_every_convolution_of_the_discriminator_but_the_last(batch_norm, norms):
    layers = list(models.create(SMALL_D, batch_norm=batch_norm).modules())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers) == norms
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == 6
    assert not any(isinstance(layer, nn.Sigmoid) for layer in layers)


@pytest.mark.parametrize("name", [SMALL_G, SMALL_D])
def test_self_attention_looks_over_maps_of_32_pixels_and_begins_with_nothing(name):
    torch.manual_seed(0)
    network = models.create(name, **ATTENDING).eval()
    inputs = given(name, CAPTIONED)
    rows = models.attention_maps(network, inputs, [(3, 5)])
    assert {key: tuple(row.shape) for key, row in rows.items()} == {"attention": (2, 1, 32, 32)}
    without = models.create(name, **CAPTIONED).eval()
    without.load_state_dict(
        {key: tensor for key, tensor in network.state_dict().items() if not key.startswith("attention.")}
    )
    assert torch.equal(network(*inputs), without(*inputs))


@pytest.mark.parametrize("init", ["paper", "released"])
@pytest.mark.parametrize("name", [G, D])
def test_first_weights_are_the_published_ones(name, init):
    torch.manual_seed(0)
    options = {"batch_norm": True} if name == D else {}
    widths = (64, 64, 64, 32)
    for module in models.create(name, widths=widths, text_size=96, init=init, **CAPTIONED, **options).modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert module.bias is None
            assert abs(module.weight.std().item() / 0.02 - 1) < 0.15
        elif isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean().item() - 1) < 0.02
            assert abs(module.weight.std().item() / 0.02 - 1) < 0.5
            assert (module.bias.std() > 0.01) == (init == "released")
            assert module.bias.any() == (init == "released")
        elif isinstance(module, nn.Linear):
            assert abs(module.weight.std().item() * (96 / 2) ** 0.5 - 1) < 0.05
            assert 0.01 < module.bias.std() < 0.03


@pytest.mark.parametrize(
    ("name", "key", "inputs", "part"),
    [
        (D, "downs.0.0.weight", 64 * 16, 1),  # as wide as He et al. ask
        (G, "ups.0.0.weight", 64 * 4, 1 / 2),  # a stride of 2: an output sees 4 of the kernel's 16 places
        (G, "first.0.weight", 128, 1 / 4),  # from 1 x 1: one of them
    ],
)
def test_scaled_first_weights_are_what_the_docstring_says(name, key, inputs, part):
    torch.manual_seed(0)
    weight = models.create(name, widths=(64, 64, 64, 32), init="scaled").state_dict()[key]
    asked = (2 / (1 + 0.2**2) / inputs) ** 0.5
    assert weight.std().item() == pytest.approx(part * asked, rel=0.05)


@pytest.mark.parametrize("options", [{}, CAPTIONED, ATTENDING], ids=str)
@pytest.mark.parametrize("name", [SMALL_G, SMALL_D])
def test_one_sample_alone_is_what_it_is_in_a_batch_and_no_parameter_is_idle(name, options):
    network = settled(name, **options).eval()
    inputs = given(name, options)
    both = network(*inputs)
    torch.testing.assert_close(network(*(tensor[:1] for tensor in inputs)), both[:1], rtol=1e-5, atol=1e-6)
    both.square().mean().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    if options:
        assert not torch.allclose(network(inputs[0], -inputs[1]), both)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "norms"), [(SMALL_G, {}), (SMALL_D, {"batch_norm": True})])
def test_channels_last_runs_through_without_a_copy(name, norms, training):
    network = settled(name, **ATTENDING, **norms).train(training)
    inputs = given(name, CAPTIONED)
    expected = network(*inputs)
    network.to(memory_format=torch.channels_last)
    if name == SMALL_D:
        inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Layouts() as layouts:
        found = network(*inputs)
    assert layouts.copies == []
    assert [shape for _, shape in layouts.others if shape[2:] != (4, 4)] == []  # there the caption joins
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("options", [CAPTIONED, ATTENDING], ids=str)
def test_a_copy_that_infers_has_folded_the_norms_into_the_transposed_convolutions(options, batch):
    network = settled(SMALL_G, **options).eval()
    fast = models.for_inference(network)
    kinds = [type(module) for module in fast.modules()]
    assert {nn.BatchNorm2d, nn.ReLU, nn.ConvTranspose2d}.isdisjoint(kinds)
    assert kinds.count(FusedConvolution) >= 5
    inputs = given(SMALL_G, CAPTIONED, batch)
    with torch.no_grad():
        wanted = network(*inputs)
    assert wanted.std() > 0.1
    torch.testing.assert_close(fast(*inputs), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", [SMALL_G, SMALL_D])
def test_both_compile_in_one_graph_with_the_same_result(name):
    network = settled(name, **CAPTIONED).eval()
    inputs = given(name, CAPTIONED)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    out = compiled(*inputs)
    out.sum().backward()
    torch.testing.assert_close(out, network(*inputs))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", [SMALL_G, SMALL_D])
def test_both_are_differentiable_twice_in_pose_noise_and_text(name, training):
    options = {"widths": (2, 2, 2, 2), "keypoints": 1, "compress": 2, **ATTENDING}
    network = settled(name, **options).double().train(training)
    first, text = given(name, CAPTIONED, dtype=torch.float64)
    inputs = [(first if name == SMALL_G else first[:, :1]).clone().requires_grad_(), text.requires_grad_()]
    assert gradcheck(network, inputs, fast_mode=True)
    assert gradgradcheck(network, inputs, fast_mode=True)


def test_a_penalty_on_pose_and_text_trains_every_layer_before_the_scores():
    network = settled(SMALL_D, **ATTENDING)
    real, text = given(SMALL_D, CAPTIONED)
    losses.gradient_penalty(network, [real, text], [real.flip(0), text], form="gp", separate=True).backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
    weights = {key: p.grad.abs().max() > 0 for key, p in network.named_parameters() if key.endswith("weight")}
    assert all(weights.values())


def test_autocast_trains_in_sixteen_bits():
    generator, critic = models.create(SMALL_G, **ATTENDING), models.create(SMALL_D, **ATTENDING)
    noise, text = given(SMALL_G, CAPTIONED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = critic(generator(noise, text), text)
    assert scores.dtype == torch.bfloat16
    scores.float().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in [*generator.parameters(), *critic.parameters()])


# ------------------------------------------------------------------------------------------------------- two stages


@pytest.mark.parametrize(
    ("name", "options", "fresh"),
    [
        (SMALL_G, {}, "first.0.weight[8:]"),
        (SMALL_G, {"self_attention": True}, "first.0.weight[8:]"),
        (SMALL_D, {}, "joint.0.weight[:, 16:]"),
        (SMALL_D, {"batch_norm": True}, "joint.0.weight[:, 16:]"),
    ],
)
def test_a_warm_start_changes_all_but_what_sees_the_text(name, options, fresh):
    first = settled(name, **options).eval()
    torch.manual_seed(1)
    second = models.create(name, **options, **CAPTIONED).eval()
    before = {key: tensor.clone() for key, tensor in second.state_dict().items()}
    assert warm_start(second, first.state_dict()) == ["compress.0.weight", "compress.0.bias", fresh]
    key, _, rest = fresh.partition("[")
    last = (slice(None),) * rest.count(",") + (slice(int(rest.strip(":, ]")), None),)
    for unchanged in ("compress.0.weight", "compress.0.bias"):
        assert torch.equal(second.state_dict()[unchanged], before[unchanged])
    assert torch.equal(second.state_dict()[key][last], before[key][last])
    with torch.no_grad():  # a caption that is compressed to nothing changes nothing
        second.compress[0].weight.zero_()
        second.compress[0].bias.zero_()
        inputs = given(name, CAPTIONED)
        torch.testing.assert_close(second(*inputs), first(inputs[0]))
    first.state_dict()[key].zero_()
    assert second.state_dict()[key].any()


def test_a_warm_start_that_does_not_fit_changes_nothing():
    second = models.create(SMALL_G, **CAPTIONED)
    before = {key: tensor.clone() for key, tensor in second.state_dict().items()}
    sentence = "^weights: expected those of an unconditional network with the same options but for conditional, found: "
    for name, options, found in [
        (SMALL_G, {"widths": (8, 8, 8, 4)}, "of another shape first.0.weight, first.1.bias, first.1.running_mean$"),
        (SMALL_G, CAPTIONED, "unexpected compress.0.bias, compress.0.weight; of another shape first.0.weight$"),
        (SMALL_G, {"self_attention": True}, "unexpected attention.gamma, attention.key.bias, attention.key.weight$"),
        (SMALL_D, {}, "missing .*; unexpected .*"),
    ]:
        with pytest.raises(ValueError, match=sentence + found):
            warm_start(second, models.create(name, **options).state_dict())
    with pytest.raises(ValueError, match=r"^network: expected a caption network with conditional=True; it takes no"):
        warm_start(models.create(SMALL_G), before)
    assert all(torch.equal(tensor, before[key]) for key, tensor in second.state_dict().items())


# --------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (G, {"widths": (64, 64, 64)}, "widths: expected 4 numbers of channels, one per size of maps, got 3"),
        (D, {"widths": (64, 0, 64, 64)}, r"widths\[1\]: expected at least 1, got 0"),
        (D, {"widths": 64}, "widths: expected four numbers of channels such as .*, got 64"),
        (G, {"widths": "1234"}, "widths: expected four numbers of channels such as .*, got '1234'"),
        (G, {"noise": 0}, "noise: expected at least 1, got 0"),
        (G, {"compress": -1}, "compress: expected at least 1, got -1"),
        (G, {"text_size": 0}, "text_size: expected at least 1, got 0"),
        (D, {"keypoints": 0}, "keypoints: expected at least 1, got 0"),
        (G, {"init": "thesis"}, "init: expected one of paper, released, scaled, got 'thesis'"),
        (D, {"init": "release"}, "init: .*did you mean 'released'"),
        (G, {"condition": True}, "unknown option of caption.generator: 'condition'; did you mean 'conditional'"),
    ],
)
def test_bad_options_get_one_sentence(name, options, sentence):
    with torch.device("meta"), pytest.raises((ValueError, TypeError), match=f"^{sentence}"):
        models.create(name, **options)


@pytest.mark.parametrize(
    ("name", "conditional", "shapes", "sentence"),
    [
        (SMALL_G, True, [(2, 8)], r"text: expected \(B, 12\) for a conditional network, got none; pass the captions'"),
        (SMALL_G, False, [(2, 8), (2, 12)], "text: expected none for an unconditional network, got one; leave it out,"),
        (SMALL_D, True, [(2, 17, 64, 64)], r"text: expected \(B, 12\) for a conditional network, got none"),
        (SMALL_D, False, [(2, 17, 64, 64), (2, 12)], "text: expected none for an unconditional network"),
        (SMALL_G, True, [(2, 8), (2, 300)], r"text: expected \(B, 12\) = \(2, 12\), got \(2, 300\)"),
        (SMALL_G, True, [(2, 8), (1, 12)], r"text: expected \(B, 12\) = \(2, 12\), got \(1, 12\)"),
        (SMALL_D, True, [(2, 17, 64, 64), (3, 12)], r"text: expected \(B, 12\) = \(2, 12\), got \(3, 12\)"),
        (SMALL_G, False, [(2, 8, 1, 1)], r"noise: expected \(B, 8\) = \(any, 8\), got \(2, 8, 1, 1\)"),
        (SMALL_G, False, [(2, 128)], r"noise: expected \(B, 8\) = \(any, 8\), got \(2, 128\)"),
        (SMALL_D, False, [(2, 17, 32, 32)], r"heatmaps: expected \(B, 17, 64, 64\) = .*, got \(2, 17, 32, 32\)"),
        (SMALL_D, False, [(2, 16, 64, 64)], r"heatmaps: expected \(B, 17, 64, 64\) = .*, got \(2, 16, 64, 64\)"),
    ],
)
def test_inputs_that_do_not_fit_get_one_sentence(name, conditional, shapes, sentence):
    network = models.create(name, conditional=conditional)
    with pytest.raises(ValueError, match=f"^{sentence}[^\n]*$"):
        network(*map(torch.zeros, shapes))


def test_inputs_that_are_no_numbers_get_one_sentence():
    network = models.create(SMALL_G, **CAPTIONED)
    with pytest.raises(TypeError, match=r"^text: expected a torch.Tensor \(B, 12\), got str$"):
        network(torch.zeros(1, 8), "a man playing tennis")
    with pytest.raises(TypeError, match=r"^noise: expected float32, .*, got torch.int64$"):
        network(torch.zeros(1, 8, dtype=torch.int64), torch.zeros(1, 12))
