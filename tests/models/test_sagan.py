"""System 000: published sizes, placement of attention, inputs and outputs."""

import pytest
import torch
from torch import nn

from fastpose import models
from fastpose.nn.self_attention import SarmA, SarmB

HG, G, D = "hourglass", "sagan.generator", "sagan.discriminator"


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        (HG, {}, 25_434_112),
        (HG, {"stacks": 4, "modules": 2}, 24_871_872),
        (HG, {"stacks": 4, "modules": 2, "skip": "bn_relu_conv"}, 24_872_256),
        (HG, {"stacks": 1, "stem": "pytorch_pose"}, 3_586_960),
        (HG, {"stacks": 2, "stem": "pytorch_pose"}, 6_730_912),
        (HG, {"stacks": 4, "stem": "pytorch_pose"}, 13_018_816),
        (HG, {"stacks": 8, "stem": "pytorch_pose"}, 25_594_624),
        (HG, {"stacks": 4, "modules": 2, "stem": "pytorch_pose"}, 25_032_384),
        (G, {"flavour": "released"}, 25_460_784),
        (G, {}, 25_762_563),
        (G, {"sarm_stacks": (3,)}, 24_872_256 + 296_769),
        (G, {"sarm_stacks": (2, 3)}, 24_872_256 + 2 * 296_769),
        (G, {"sarm": None}, 24_872_256),
        (G, {"sarm": None, "skip": "conv"}, 24_871_872),
        (D, {"sarm": None}, 3_428_368),
        (D, {"flavour": "released"}, 4_286_480),
        (D, {"sarm": "B", "flavour": "released"}, 4_217_872),
        (D, {}, 3_494_160),
        (D, {"sarm": "B"}, 3_757_332),
    ],
)
def test_published_parameter_counts_to_the_unit(name, options, parameters):
    with torch.device("meta"):
        assert models.count_parameters(models.create(name, **options)) == parameters


@pytest.mark.parametrize("stem", ["newell", "pytorch_pose"])
@pytest.mark.parametrize("skip", ["conv", "bn_relu_conv"])
def test_hourglass_gives_quarter_size_heatmaps_per_stack(stem, skip):
    network = models.create("hourglass.tiny", stacks=3, stem=stem, skip=skip)
    assert [tuple(h.shape) for h in network(torch.randn(2, 3, 32, 48))] == [(2, 5, 8, 12)] * 3


@pytest.mark.parametrize("flavour", ["paper", "released"])
@pytest.mark.parametrize("sarm", ["A", "B", None])
def test_generator_gives_quarter_size_heatmaps_per_stack(sarm, flavour):
    network = models.create("sagan.generator.tiny", sarm=sarm, flavour=flavour)
    assert [tuple(h.shape) for h in network(torch.randn(2, 3, 32, 48))] == [(2, 5, 8, 12)] * 2


@pytest.mark.parametrize("flavour", ["paper", "released"])
@pytest.mark.parametrize("sarm", ["A", "B", None])
def test_discriminator_reconstructs_heatmaps(sarm, flavour):
    network = models.create("sagan.discriminator.tiny", sarm=sarm, flavour=flavour)
    assert network(torch.randn(2, 5, 8, 12), torch.randn(2, 3, 32, 48)).shape == (2, 5, 8, 12)


def stacks_with_sarm(network):
    return [any(isinstance(m, SarmA | SarmB) for m in stack.modules()) for stack in network.stacks]


@pytest.mark.parametrize("flavour", ["paper", "released"])
@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, [False, True, True]), ((2,), [False, False, True]), ([0, 1], [True, True, False]), ((), [False] * 3)],
)
def test_sarm_stands_in_the_chosen_stacks(chosen, expected, flavour):
    network = models.create("sagan.generator.tiny", stacks=3, sarm_stacks=chosen, flavour=flavour)
    assert stacks_with_sarm(network) == expected


def test_paper_attends_behind_the_hourglass_and_released_in_the_head():
    paper = models.create("sagan.generator.tiny").stacks[1]
    released = models.create("sagan.generator.tiny", flavour="released").stacks[1]
    assert isinstance(paper.attention, SarmB)
    assert isinstance(paper.score, nn.Conv2d)
    assert isinstance(released.attention, nn.Identity)
    assert isinstance(released.score[0], SarmB)


@pytest.mark.parametrize(("sarm", "kind"), [("A", SarmA), ("B", SarmB)])
def test_discriminator_attends_on_every_branch_and_nowhere_else(sarm, kind):
    network = models.create("sagan.discriminator.tiny", sarm=sarm)
    names = [name for name, module in network.named_modules() if isinstance(module, kind)]
    assert names == ["stack.hourglass.skips.0.0", "stack.hourglass.skips.1.0"]


def test_discriminator_sees_the_image_rescaled_and_before_the_heatmaps():
    network = models.create("sagan.discriminator.tiny").eval()
    seen = []
    network.stem.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    heatmaps, ramp = torch.randn(1, 5, 8, 8), torch.arange(32.0).expand(1, 3, 32, 32)
    network(heatmaps, ramp)
    torch.testing.assert_close(seen[0][:, 3:], heatmaps)
    # The middle of each cell of four pixels: 1.5, 5.5, 9.5 ... along x, the same in every row.
    torch.testing.assert_close(seen[0][:, :3], (4 * torch.arange(8.0) + 1.5).expand(1, 3, 8, 8))


def test_all_parameters_of_both_networks_learn():
    generator, critic = models.create("sagan.generator.tiny"), models.create("sagan.discriminator.tiny", sarm="B")
    for module in [*generator.modules(), *critic.modules()]:
        if isinstance(module, SarmB):
            nn.init.constant_(module.gamma, 0.5)
    image = torch.randn(2, 3, 32, 32)
    heatmaps = generator(image)
    (heatmaps[0].square().mean() + critic(heatmaps[1], image).square().mean()).backward()
    parameters = [*generator.named_parameters(), *critic.named_parameters()]
    assert [name for name, p in parameters if p.grad is None] == []


@pytest.mark.parametrize("name", ["sagan.generator.tiny", "hourglass.tiny"])
@pytest.mark.parametrize("flavour", ["paper", "released"])
def test_compiles_in_one_graph_with_the_same_result(name, flavour):
    options = {} if name.startswith("hourglass") else {"flavour": flavour}
    network, image = models.create(name, **options).eval(), torch.randn(1, 3, 32, 32)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    outputs = compiled(image)
    outputs[-1].sum().backward()
    torch.testing.assert_close(outputs[-1], network(image)[-1])


@pytest.mark.parametrize("sarm", ["A", "B"])
@pytest.mark.parametrize("flavour", ["paper", "released"])
def test_autocast_trains_in_sixteen_bits(sarm, flavour):
    network = models.create("sagan.discriminator.tiny", sarm=sarm, flavour=flavour)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reconstructed = network(torch.randn(2, 5, 8, 8), torch.randn(2, 3, 32, 32))
    assert reconstructed.dtype == torch.bfloat16
    reconstructed.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_channels_last_gives_the_same_heatmaps():
    network, image = models.create("sagan.generator.tiny").eval(), torch.randn(2, 3, 32, 32)
    last = network.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(
        last[-1], network.to(memory_format=torch.contiguous_format)(image)[-1], atol=1e-4, rtol=1e-4
    )


def test_gradient_penalty_through_the_discriminator():
    network = models.create("sagan.discriminator.tiny", sarm="B").eval()
    heatmaps = torch.randn(1, 5, 8, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(network(heatmaps, torch.randn(1, 3, 32, 32)).sum(), heatmaps, create_graph=True)
    slope.square().sum().backward()
    assert network.stack.hourglass.skips[0][0].residual.body[2].weight.grad.abs().sum() > 0


def test_attention_maps_of_a_generator():
    network = models.create("sagan.generator.tiny")
    maps = models.attention_maps(network, [torch.randn(2, 3, 32, 32)], [(1, 2), (7, 0), (3, 3)])
    assert {name: tuple(rows.shape) for name, rows in maps.items()} == {"stacks.1.attention": (2, 3, 8, 8)}
    torch.testing.assert_close(maps["stacks.1.attention"].sum((2, 3)), torch.ones(2, 3))


def test_attention_maps_of_a_discriminator_cover_all_its_resolutions():
    network = models.create("sagan.discriminator.tiny", flavour="released")
    maps = models.attention_maps(network, [torch.randn(1, 5, 8, 8), torch.randn(1, 3, 32, 32)], [(7, 7)])
    assert [tuple(rows.shape) for rows in maps.values()] == [(1, 1, 8, 8), (1, 1, 4, 4)]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (HG, {"stacks": 0}, "stacks: expected at least 1, got 0"),
        (G, {"modules": -1}, "modules: expected at least 1, got -1"),
        (D, {"width": 20}, "width: expected a multiple of 8, got 20"),
        (G, {"sarm": "C"}, "sarm: expected one of A, B, got 'C'"),
        (D, {"sarm": "C"}, "sarm: expected one of A, B, got 'C'"),
        (G, {"sarm": None, "flavour": "release"}, "flavour: .*got 'release'; did you mean 'released'"),
        (G, {"sarm_stacks": (1, 4)}, r"sarm_stacks: expected 0-based indices below stacks=4, got \(1, 4\)"),
        (HG, {"stem": "newel"}, "stem: .* did you mean 'newell'"),
        (HG, {"skip": "bn_conv"}, "skip: .* did you mean"),
    ],
)
def test_bad_options_get_one_sentence(name, options, sentence):
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        models.create(name, **options)


@pytest.mark.parametrize(
    ("heatmaps", "image", "sentence"),
    [
        ((1, 4, 8, 8), (1, 3, 32, 32), r"heatmaps: expected \(B, 5, H, W\)"),
        ((1, 5, 8, 6), (1, 3, 32, 32), "heatmaps: expected height and width divisible by 4, got 8 x 6"),
        ((1, 5, 8, 8), (2, 3, 32, 32), r"image: expected \(B, 3, H, W\) = \(1, 3, any, any\), got \(2, 3, 32, 32\)"),
    ],
)
def test_discriminator_refuses_inputs_of_other_shapes(heatmaps, image, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.create("sagan.discriminator.tiny")(torch.zeros(heatmaps), torch.zeros(image))
