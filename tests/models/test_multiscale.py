"""System 003: published sizes, the way of the poses into the image, inputs and outputs."""

import pytest
import torch
from layouts import Layouts
from torch import nn

from fastpose import models

G, D = "multiscale.generator", "multiscale.discriminator"
DEEPEST = 1024 * 512 * 16  # the first transposed convolution, doubled where two codes are concatenated


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        (G, {}, 90_172_928),
        (G, {"pose_channels": 32}, 90_170_624),
        (G, {"pose_channels": 2}, 90_153_344),
        (G, {"gates": (4,)}, 90_172_928),
        (G, {"gates": (1,)}, 90_172_928 - 1_705_472 - 6_818_816 - 27_269_120),
        (G, {"fusion": "sum"}, 90_172_928),
        (G, {"fusion": "cat"}, 90_172_928 + DEEPEST),
        (D, {}, 2_768_705),
    ],
)
def test_published_parameter_counts_to_the_unit(name, options, parameters):
    with torch.device("meta"):
        assert models.count_parameters(models.create(name, **options)) == parameters


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 16, 24, generator=generator) for channels in (3, 36)]


def by_hand(network, image, poses, gates, fusion=None):
    """The decoder's equations (section 3 of the paper), level by level from the deepest."""
    features, guides = network.image_encoder(image), network.pose_encoder(poses)
    x = features[-1]
    if fusion is not None:
        x = x + guides[-1] if fusion == "sum" else torch.cat((x, guides[-1]), dim=1)
    for step, up in enumerate(network.ups):
        level = len(network.ups) - step
        x = up(x * torch.sigmoid(guides[level - 1]) if level in gates else x)
    return torch.tanh(network.last[0](network.residuals(x)))


@pytest.mark.parametrize("gates", [(1, 2, 3), (3,), (1,), {2}, [3, 1]])
def test_poses_gate_the_chosen_levels_and_no_other(pair, gates):
    network = models.create("multiscale.generator.tiny", levels=3, gates=gates).eval()
    torch.testing.assert_close(network(*pair), by_hand(network, *pair, gates))


@pytest.mark.parametrize("fusion", ["sum", "cat"])
@pytest.mark.parametrize("gates", [None, ()])
def test_two_readings_of_a0_join_the_deepest_codes(pair, fusion, gates):
    network = models.create("multiscale.generator.tiny", fusion=fusion, gates=gates).eval()
    assert len(network.gates) == 0
    torch.testing.assert_close(network(*pair), by_hand(network, *pair, (), fusion))


def test_all_levels_are_gated_unless_told_otherwise():
    assert list(models.create("multiscale.generator.tiny").gates) == ["2", "1"]
    with torch.device("meta"):
        assert list(models.create(G).gates) == ["4", "3", "2", "1"]


@pytest.mark.parametrize(
    "options", [{}, {"gates": (1,)}, {"gates": (2,)}, {"fusion": "sum"}, {"fusion": "cat"}], ids=str
)
def test_every_reading_sees_the_poses_and_has_no_idle_parameter(pair, options):
    network = models.create("multiscale.generator.tiny", **options)
    network(*pair).square().mean().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    network.eval()
    assert not torch.allclose(network(*pair), network(pair[0], -pair[1]))


@pytest.mark.parametrize(("channels", "size"), [((3, 32), (16, 16)), ((3, 2), (16, 48)), ((1, 36), (4, 8))])
def test_maps_of_other_applications(channels, size):
    network = models.create("multiscale.generator.tiny", image_channels=channels[0], pose_channels=channels[1])
    image = network(torch.randn(2, channels[0], *size), torch.randn(2, channels[1], *size))
    assert image.shape == (2, channels[0], *size)
    assert image.abs().max() <= 1


def test_no_convolution_of_the_generator_has_a_bias_and_nothing_rectifies_a_sum():
    network = models.create("multiscale.generator.tiny")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert all(convolution.bias is None for convolution in convolutions)
    features = network.image_encoder(torch.randn(1, 3, 16, 16))
    assert all(level.min() < 0 for level in features)


@pytest.mark.parametrize(("name", "options"), [(G, {"levels": 2}), (D, {})])
def test_first_weights_are_those_of_the_released_code(name, options):
    torch.manual_seed(0)
    for module in models.create(name, width=16, **options).modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 500:
            assert abs(module.weight.std().item() / 0.02 - 1) < 0.15
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert abs(module.weight.mean().item() - 1) < 0.02
            assert module.weight.std() > 0
            assert not module.bias.any()


def test_discriminator_judges_patches_of_seventy_pixels():
    with torch.device("meta"):
        network = models.create(D)
        assert network(torch.zeros(2, 6, 256, 256)).shape == (2, 1, 30, 30)
    network = models.create(D, width=2).eval().double()
    maps = torch.zeros(1, 6, 128, 128, dtype=torch.float64, requires_grad=True)
    network(maps)[0, 0, 7, 7].backward()
    seen = maps.grad.abs().sum(1)[0].nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [70, 70]


@pytest.mark.parametrize(("layers", "strides"), [(1, [2, 1, 1]), (3, [2, 2, 2, 1, 1]), (5, [2, 2, 2, 2, 2, 1, 1])])
def test_discriminator_of_other_depths(layers, strides):
    network = models.create(D, width=2, layers=layers)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.stride[0] for convolution in convolutions] == strides
    assert convolutions[-1].in_channels == 2 * min(2**layers, 8)
    smallest = 3 * 2**layers
    assert network.eval()(torch.zeros(1, 6, smallest, smallest + 8)).shape[2] == 1
    with pytest.raises(ValueError, match=f"maps: expected height and width of at least {smallest}, got {smallest - 1}"):
        network(torch.zeros(1, 6, smallest - 1, 128))


@pytest.mark.parametrize("training", [False, True])
def test_channels_last_runs_through_without_a_copy(pair, training):
    network = models.create("multiscale.generator.tiny").train(training)
    expected = network(*pair)
    network.to(memory_format=torch.channels_last)
    inputs = [tensor.contiguous(memory_format=torch.channels_last) for tensor in pair]
    with torch.no_grad(), Layouts() as layouts:
        found = network(*inputs)
    assert layouts.copies == []
    assert layouts.others == []
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{"gates": (1,)}, {"fusion": "cat"}], ids=str)
def test_generator_compiles_in_one_graph_with_the_same_result(pair, options):
    network = models.create("multiscale.generator.tiny", **options).eval()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = compiled(*pair)
    image.sum().backward()
    torch.testing.assert_close(image, network(*pair))


def test_autocast_trains_in_sixteen_bits(pair):
    generator, critic = models.create("multiscale.generator.tiny"), models.create("multiscale.discriminator.tiny")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = critic(torch.cat((generator(*pair), pair[0]), dim=1))
    assert logits.dtype == torch.bfloat16
    logits.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in [*generator.parameters(), *critic.parameters()])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (G, {"gates": (0, 1)}, r"gates: expected levels from 1 \(finest\) to 4 \(deepest\), got \(0, 1\)"),
        (G, {"gates": (5,)}, "gates: expected levels from 1 .* to 4 .*, got"),
        (G, {"gates": (4,), "levels": 3}, "gates: expected levels from 1 .* to 3"),
        (G, {"gates": ()}, r"gates: expected at least one level, got \(\): the poses would not reach the image; give"),
        (G, {"gates": (1,), "fusion": "sum"}, r"gates: expected \(\) beside fusion='sum', got \(1,\)"),
        (G, {"fusion": "add"}, "fusion: expected one of sum, cat, got 'add'"),
        (G, {"gates": (1, 1)}, r"gates: expected each level once, got \(1, 1\)"),
        (G, {"gates": 4}, "gates: expected levels such as"),
        (G, {"levels": 0}, "levels: expected at least 1, got 0"),
        (G, {"width": 0}, "width: expected at least 1, got 0"),
        (G, {"image_channels": 0}, "image_channels: expected at least 1, got 0"),
        (D, {"layers": 0}, "layers: expected at least 1, got 0"),
        (D, {"in_channels": -1}, "in_channels: expected at least 1, got -1"),
    ],
)
def test_bad_options_get_one_sentence(name, options, sentence):
    with torch.device("meta"), pytest.raises((ValueError, TypeError), match=sentence):
        models.create(name, **options)


@pytest.mark.parametrize(
    ("image", "poses", "sentence"),
    [
        (
            (1, 3, 40, 64),
            (1, 36, 40, 64),
            "image: expected height and width divisible by 16, got 40 x 64; pad or resize image and poses to 48 x 64",
        ),
        (
            (1, 3, 64, 64),
            (1, 18, 64, 64),
            r"poses: expected \(B, 36, H, W\) = \(1, 36, 64, 64\), got \(1, 18, 64, 64\)",
        ),
        ((1, 1, 64, 64), (1, 36, 64, 64), r"image: expected \(B, 3, H, W\)"),
        (
            (1, 3, 16, 16),
            (1, 36, 16, 16),
            "image: expected height or width above 16, or two in a batch, to train batch norms, got one of 16 x 16",
        ),
    ],
)
def test_generator_refuses_inputs_of_other_shapes(image, poses, sentence):
    network = models.create(G, width=2)
    with pytest.raises(ValueError, match=sentence):
        network(torch.zeros(image), torch.zeros(poses))


@pytest.mark.parametrize(
    ("training", "batch", "size"), [(False, 1, (16, 16)), (True, 2, (16, 16)), (True, 1, (16, 32))]
)
def test_the_smallest_images(training, batch, size):
    network = models.create(G, width=2).train(training)
    assert network(torch.randn(batch, 3, *size), torch.randn(batch, 36, *size)).shape == (batch, 3, *size)


def test_discriminator_refuses_maps_of_other_shapes():
    critic = models.create("multiscale.discriminator.tiny")
    with pytest.raises(ValueError, match=r"maps: expected \(B, 6, H, W\)"):
        critic(torch.zeros(1, 3, 64, 64))
