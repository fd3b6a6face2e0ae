"""System 001: published sizes, the order of a block's steps, where codes join, inputs and outputs."""

from functools import partial

import pytest
import torch
from layouts import Layouts
from torch import nn

from fastpose import models, ops
from fastpose.nn.nonlocal_block import NonLocalBlock

G, BLOCK, D = "pona.generator", "pona.block", "pona.discriminator"
FUSIONS = ("head", "middle", "tail", "none")
GENERATORS = {
    "instance": (12_268_934, 23_299_145, 34_329_356, 45_359_567, 56_389_778),
    "batch": (12_275_654, 23_311_497, 34_347_340, 45_383_183, 56_419_026),
}
DISCRIMINATORS = {
    ("instance", 6): 3_928_384,
    ("instance", 21): 3_975_424,
    ("batch", 6): 3_930_368,
    ("batch", 21): 3_977_408,
}


def counted(name, **options):
    with torch.device("meta"):
        return models.count_parameters(models.create(name, **options))


@pytest.mark.parametrize("norm", GENERATORS)
@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5])
def test_published_parameter_counts_of_generators_to_the_unit(norm, blocks):
    assert counted(G, norm=norm, blocks=blocks) == GENERATORS[norm][blocks - 1]


@pytest.mark.parametrize(("norm", "channels"), DISCRIMINATORS)
def test_published_parameter_counts_of_discriminators_to_the_unit(norm, channels):
    assert counted(D, norm=norm, in_channels=channels) == DISCRIMINATORS[norm, channels]
    assert counted(D, norm=norm, in_channels=channels, spectral_norm=False) == DISCRIMINATORS[norm, channels]


def test_defaults_are_the_published_deepfashion_model():
    assert counted(G) == 34_329_356
    assert counted(D) == 3_928_384


def test_parameter_counts_of_a_block_follow_from_its_convolutions():
    conv = {(i, o): 9 * i * o + o for i in (256, 512) for o in (256, 512)}
    guided, joined, alone = 82_241, 328_322, 82_242  # cross-modal; self-attention on 512 channels, on 256
    image = 4 * conv[256, 256]
    pose = {
        "head": 3 * conv[512, 512] + conv[512, 256] + joined,
        "middle": 2 * conv[256, 256] + conv[512, 512] + conv[512, 256] + joined,
        "tail": 3 * conv[256, 256] + conv[512, 256] + joined,
        "none": 4 * conv[256, 256] + alone,
    }
    assert {fusion: counted(BLOCK, fusion=fusion) for fusion in FUSIONS} == {
        fusion: count + image + guided for fusion, count in pose.items()
    }
    assert counted(BLOCK) - counted(BLOCK, cross_attention=False) == guided
    assert counted(BLOCK) - counted(BLOCK, self_attention=False) == joined
    assert counted(BLOCK) - counted(BLOCK, self_attention_beta=False) == 1


def loud(network):
    """The network in evaluation mode with attention that shows."""
    for module in network.modules():
        if isinstance(module, NonLocalBlock):
            nn.init.constant_(module.gamma, 0.7)
            if module.beta is not None:
                nn.init.constant_(module.beta, -0.2)
    return network.eval()


@pytest.fixture
def codes():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 16, 4, 6, dtype=torch.float64, generator=generator) for _ in range(2)]


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, channels, 16, 24, generator=generator) for channels in (3, 36)]


def attended(block, x, guide, kept=1.0):
    """gamma * attention + kept * x, the map written out."""
    query, key, value = block.query(guide).flatten(2), block.key(guide).flatten(2), block.value(x).flatten(2)
    weights = torch.softmax(query.mT @ key, dim=-1)  # (B, N looking, N looked at)
    return 0.7 * (value @ weights.mT).view_as(x) + kept * x


@pytest.mark.parametrize("fusion", FUSIONS)
def test_block_follows_its_equations(codes, fusion):
    block = loud(models.create("pona.block.tiny", fusion=fusion)).double()
    image, pose = codes
    first, second, third = block.pose.stages

    def join(pose):
        both = pose if fusion == "none" else torch.cat((image, pose), dim=1)  # the image first
        return attended(block.self_attention, both, both, kept=0.8)

    expected = pose
    for place, stage in (("head", first), ("middle", second), ("tail", third)):
        joins = fusion == place or (fusion == "none" and place == "head")
        expected = join(expected) if joins else expected
        expected = expected + stage.body(expected) if stage is first else stage(expected)
    updated = image
    for step in block.image:
        updated = updated + step.body(updated)
    found_image, found_pose = block(image, pose)
    torch.testing.assert_close(found_pose, expected)
    torch.testing.assert_close(found_image, attended(block.cross_attention, updated, expected))


def test_image_code_ignores_the_poses_without_cross_attention(codes):
    block = loud(models.create("pona.block.tiny", cross_attention=False)).double()
    image, pose = codes
    torch.testing.assert_close(block(image, pose)[0], block(image, -pose)[0], rtol=0, atol=0)
    assert not torch.allclose(block(image, pose)[1], block(image, -pose)[1])


@pytest.mark.parametrize("fusion", FUSIONS)
def test_pose_code_sees_the_image_unless_nothing_joins(codes, fusion):
    block = loud(models.create("pona.block.tiny", fusion=fusion)).double()
    image, pose = codes
    assert torch.equal(block(image, pose)[1], block(-image, pose)[1]) == (fusion == "none")


def test_self_attention_and_its_second_scalar_may_be_left_out(codes):
    assert models.create("pona.block.tiny", self_attention=False).self_attention is None
    plain = models.create("pona.block.tiny", self_attention_beta=False)
    assert plain.self_attention.beta is None
    both = models.create("pona.block.tiny")
    both.load_state_dict(plain.state_dict(), strict=False)  # beta stays 0
    for found, expected in zip(both.double().eval()(*codes), plain.double().eval()(*codes), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_generator_gives_an_image_of_the_same_size(pair, fusion, norm):
    image = models.create("pona.generator.tiny", fusion=fusion, norm=norm)(*pair)
    assert image.shape == (2, 3, 16, 24)
    assert image.abs().max() <= 1


def test_poses_of_other_maps_have_other_channels(pair):
    assert models.create("pona.generator.tiny", pose_channels=2)(pair[0], pair[1][:, :2]).shape == (2, 3, 16, 24)


def test_dropout_stands_between_the_convolutions_of_every_pair():
    network = models.create(G, blocks=1, width=8, dropout=0.25)
    dropouts = [(name, module.p) for name, module in network.named_modules() if isinstance(module, nn.Dropout)]
    places = ("pose.stages.0.body.3", "pose.stages.1.3", "image.0.body.3", "image.1.body.3")
    assert dropouts == [(f"blocks.0.{place}", 0.25) for place in places]


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_first_weights_are_those_of_the_released_code(norm):
    torch.manual_seed(0)
    network = models.create(G, blocks=1, width=16, norm=norm)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            assert abs(module.weight.std().item() / 0.02 - 1) < 0.1
            assert module.bias is None or module.bias.abs().max() > 0  # PyTorch's own
        if isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean().item() - 1) < 0.02
            assert module.weight.std() > 0
            assert not module.bias.any()
        if isinstance(module, NonLocalBlock):
            assert not module.gamma.any()
            assert module.beta is None or not module.beta.any()


def test_convolutions_outside_of_blocks_have_a_bias_where_the_norm_has_none():
    for norm, bias in (("instance", True), ("batch", False)):
        network = models.create("pona.generator.tiny", norm=norm)
        convolutions = [network.image_encoder[1], network.pose_encoder[7], network.decoder[0], network.decoder[3]]
        assert [c.bias is not None for c in convolutions] == [bias] * 4
        assert network.decoder[7].bias is not None
        assert network.blocks[0].image[0].body[0].bias is not None


def test_all_parameters_of_the_networks_learn(pair):
    generator, critic = models.create("pona.generator.tiny"), models.create("pona.discriminator.tiny")
    loud(generator).train()
    image = generator(*pair)
    critic(torch.cat((image, pair[0]), dim=1)).square().mean().backward()
    named = [*generator.named_parameters(), *critic.named_parameters()]
    assert [name for name, parameter in named if parameter.grad is None] == []


def test_without_cross_attention_the_pose_path_rests(pair):
    network = loud(models.create("pona.generator.tiny", cross_attention=False)).train()
    paths = [
        network.pose_encoder,
        *(one.pose for one in network.blocks),
        *(one.self_attention for one in network.blocks),
    ]
    ran = []
    for path in paths:
        path.register_forward_hook(lambda *_: ran.append(1))
    network(*pair).square().mean().backward()
    assert not ran
    idle = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    resting = ("pose_encoder", *(f"blocks.{block}.{part}" for block in (0, 1) for part in ("pose", "self_attention")))
    assert idle == {name for name, _ in network.named_parameters() if name.startswith(tuple(f"{r}." for r in resting))}


def test_without_cross_attention_the_published_size_counts_what_rests():
    with torch.device("meta"):
        network = models.create(G, norm="batch", cross_attention=False)
    resting = [
        network.pose_encoder,
        *(one.pose for one in network.blocks),
        *(one.self_attention for one in network.blocks),
    ]
    assert models.count_parameters(network) == GENERATORS["batch"][2] - 3 * 82_241
    assert sum(models.count_parameters(part) for part in resting) == 26_256_134


def test_block_has_right_derivatives():
    torch.manual_seed(0)
    block = loud(models.create(BLOCK, channels=8)).double()
    inputs = [torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    scalars = [block.self_attention.gamma, block.self_attention.beta, block.cross_attention.gamma]

    def both(image_code, pose_code, *_):
        return block(image_code, pose_code)

    assert torch.autograd.gradcheck(both, (*inputs, *scalars))


def test_fast_attention_and_the_reference_give_one_network(pair, monkeypatch):
    network = loud(models.create("pona.generator.tiny")).double()

    def image_and_gradients():
        network.zero_grad()
        image = network(*(tensor.double() for tensor in pair))
        image.square().sum().backward()
        return [image, *(parameter.grad.clone() for parameter in network.parameters())]

    fast = image_and_gradients()
    reference = partial(ops.nonlocal_attention_residual, backend="reference")
    monkeypatch.setattr(ops, "nonlocal_attention_residual", reference)
    for found, expected in zip(fast, image_and_gradients(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("training", [False, True])
def test_channels_last_runs_through_without_a_copy(pair, norm, training):
    network = loud(models.create("pona.generator.tiny", norm=norm, dropout=0.0)).train(training)
    expected = network(*pair)
    network.to(memory_format=torch.channels_last)
    inputs = [tensor.contiguous(memory_format=torch.channels_last) for tensor in pair]
    with torch.no_grad(), Layouts() as layouts:
        found = network(*inputs)
    assert layouts.copies == []
    assert layouts.others == []
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_channels_last_reaches_the_attention_as_it_is(codes, monkeypatch):
    seen = []
    op = ops.nonlocal_attention_residual
    monkeypatch.setattr(
        ops, "nonlocal_attention_residual", lambda *args: seen.extend([*args[:4], op(*args)]) or seen[-1]
    )
    block = models.create("pona.block.tiny").double().to(memory_format=torch.channels_last)
    block(*(code.contiguous(memory_format=torch.channels_last) for code in codes))
    assert len(seen) == 10  # query, key, value, residual and output of two attentions
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in seen)


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_generator_compiles_in_one_graph_with_the_same_result(pair, norm):
    network = loud(models.create("pona.generator.tiny", blocks=1, norm=norm))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = compiled(*pair)
    image.sum().backward()
    torch.testing.assert_close(image, network(*pair))


def test_autocast_trains_in_sixteen_bits(pair):
    generator, critic = loud(models.create("pona.generator.tiny")), models.create("pona.discriminator.tiny")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = generator(*pair)
        score = critic(torch.cat((image, pair[0]), dim=1))
    assert score.dtype == torch.bfloat16
    score.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in [*generator.parameters(), *critic.parameters()])


# --------------------------------------------------------------------------------------------------- discriminators


@pytest.mark.parametrize(("size", "scores"), [((32, 16), (8, 4)), ((30, 17), (8, 5)), ((5, 5), (2, 2))])
def test_discriminator_scores_a_quarter_of_the_size(size, scores):
    assert models.create("pona.discriminator.tiny")(torch.randn(2, 6, *size)).shape == (2, 32, *scores)


def test_sigmoid_makes_probabilities():
    maps = torch.randn(2, 6, 16, 16)
    raw = models.create("pona.discriminator.tiny", width=16).eval()
    squashed = models.create("pona.discriminator.tiny", width=16, sigmoid=True).eval()
    squashed.load_state_dict(raw.state_dict())
    assert raw(maps).min() < 0
    torch.testing.assert_close(squashed(maps), torch.sigmoid(raw(maps)))


def test_rectifiers_of_code_and_paper():
    for activation, kind in (("relu", nn.ReLU), ("leaky_relu", nn.LeakyReLU)):
        network = models.create(D, width=8, blocks=2, activation=activation)
        rectifiers = [module for module in network.modules() if isinstance(module, nn.ReLU | nn.LeakyReLU)]
        assert len(rectifiers) == 5
        assert all(isinstance(module, kind) for module in rectifiers)
    assert rectifiers[0].negative_slope == 0.2


def test_self_attention_stands_behind_every_residual_block():
    layers = models.create(D, width=8, blocks=2, self_attention=True).layers[10:]
    assert [isinstance(layer, NonLocalBlock) for layer in layers] == [False, True, False, True]
    assert all(layer.beta is None for layer in layers[1::2])


@pytest.mark.parametrize("self_attention", [False, True])
def test_spectral_norm_holds_every_convolution_at_one(self_attention):
    network = models.create(D, width=8, blocks=1, self_attention=self_attention)
    maps = torch.randn(1, 6, 8, 8)
    for _ in range(30):
        network(maps)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 5 + 3 * self_attention
    for convolution in convolutions:
        assert abs(torch.linalg.matrix_norm(convolution.weight.flatten(1), 2).item() - 1) < 0.02


def test_spectral_norm_may_be_left_out():
    network = models.create("pona.discriminator.tiny", spectral_norm=False)
    assert "layers.1.weight" in network.state_dict()


def test_discriminator_in_channels_last_keeps_the_order():
    network = models.create("pona.discriminator.tiny", self_attention=True).eval().to(memory_format=torch.channels_last)
    maps = torch.randn(2, 6, 16, 16).contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), Layouts() as layouts:
        network(maps)
    assert [shape for shape in layouts.copies if shape[0] == 2 and len(shape) == 4] == []


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (G, {"blocks": 0}, "blocks: expected at least 1, got 0"),
        (G, {"width": 9}, "width: expected an even number, got 9"),
        (G, {"width": 0}, "width: expected at least 1, got 0"),
        (G, {"pose_channels": 0}, "pose_channels: expected at least 1, got 0"),
        (G, {"norm": "instanse"}, "norm: .*got 'instanse'; did you mean 'instance'"),
        (G, {"fusion": "heads"}, "fusion: .*got 'heads'; did you mean 'head'"),
        (G, {"dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0"),
        (BLOCK, {"channels": 12}, "channels: expected a multiple of 8, got 12"),
        (D, {"norm": "group"}, "norm: expected one of instance, batch, got 'group'"),
        (D, {"activation": "leaky"}, "activation: .* did you mean 'leaky_relu'"),
        (D, {"in_channels": 0}, "in_channels: expected at least 1, got 0"),
        (D, {"dropout": -0.1}, "dropout: expected a probability"),
    ],
)
def test_bad_options_get_one_sentence(name, options, sentence):
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        models.create(name, **options)


@pytest.mark.parametrize(
    ("image", "poses", "sentence"),
    [
        (
            (1, 3, 18, 24),
            (1, 36, 18, 24),
            "image: expected height and width divisible by 4, got 18 x 24; pad or resize image and poses to 20 x 24",
        ),
        ((1, 3, 0, 24), (1, 36, 0, 24), "image: expected height and width divisible by 4, got 0 x 24"),
        ((1, 4, 16, 24), (1, 36, 16, 24), r"image: expected \(B, 3, H, W\) = "),
        ((3, 16, 24), (1, 36, 16, 24), r"image: expected \(B, 3, H, W\) = .*, got \(3, 16, 24\)"),
        (
            (1, 3, 16, 24),
            (1, 18, 16, 24),
            r"poses: expected \(B, 36, H, W\) = \(1, 36, 16, 24\), got \(1, 18, 16, 24\)",
        ),
        ((1, 3, 16, 24), (2, 36, 16, 24), r"poses: expected \(B, 36, H, W\) = \(1, 36, 16, 24\), got"),
        ((2, 3, 4, 4), (2, 36, 4, 4), "image: expected height or width above 4 for the instance norm, got 4 x 4"),
        ((1, 3, 16, 24), (1, 36, 16, 20), r"poses: expected \(B, 36, H, W\) = \(1, 36, 16, 24\), got"),
    ],
)
def test_generator_refuses_inputs_of_other_shapes(image, poses, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.create("pona.generator.tiny")(torch.zeros(image), torch.zeros(poses))


def test_the_smallest_image_of_batch_norms():
    network = models.create("pona.generator.tiny", norm="batch")
    one, two = ([torch.randn(batch, channels, 4, 4) for channels in (3, 36)] for batch in (1, 2))
    with pytest.raises(ValueError, match="image: expected height or width above 4, or two in a batch, to train"):
        network(*one)
    assert network(*two).shape == (2, 3, 4, 4)
    assert network.eval()(*one).shape == (1, 3, 4, 4)
    wide = [torch.randn(1, channels, 4, 8) for channels in (3, 36)]
    for norm in ("instance", "batch"):
        assert models.create("pona.generator.tiny", norm=norm)(*wide).shape == (1, 3, 4, 8)


def test_bytes_are_refused():
    with pytest.raises(TypeError, match=r"image: expected float32, float64, bfloat16 or float16, got torch.uint8"):
        models.create("pona.generator.tiny")(torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.zeros(1, 36, 16, 16))


def test_block_refuses_codes_of_other_shapes():
    block = models.create("pona.block.tiny")
    with pytest.raises(ValueError, match=r"image_code: expected \(B, 16, h, w\)"):
        block(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 4, 4))
    with pytest.raises(ValueError, match=r"pose_code: expected .* = \(1, 16, 4, 4\), got \(1, 16, 4, 5\)"):
        block(torch.zeros(1, 16, 4, 4), torch.zeros(1, 16, 4, 5))
    with pytest.raises(
        ValueError, match="image_code: expected height or width above 1 for the instance norm, got 1 x 1"
    ):
        block(torch.zeros(1, 16, 1, 1), torch.zeros(1, 16, 1, 1))


def test_discriminator_refuses_maps_of_other_shapes():
    critic = models.create("pona.discriminator.tiny")
    with pytest.raises(ValueError, match=r"maps: expected \(B, 6, H, W\)"):
        critic(torch.zeros(1, 21, 16, 16))
    with pytest.raises(ValueError, match="maps: expected height and width of at least 5, got 16 x 4"):
        critic(torch.zeros(1, 6, 16, 4))
