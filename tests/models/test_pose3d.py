"""System 002: published sizes, separable parts, what the discriminator reads, derivatives of both orders."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from fastpose import models, ops
from fastpose.models.pose3d import SOURCES, DepthMaps
from fastpose.nn.coordinates import FAINT, cube, joints_3d

G, D = "pose3d.generator", "pose3d.discriminator"
FLAT = {"depth_head": "flatten", "image_size": 64}
VARIANTS = {"Map": ("image", "maps"), "Geo": ("image", "geometry"), "Full": SOURCES, "one": ("geometry",)}


def inputs(batch=3, dtype=torch.float32, image=(32, 40), size=(8, 12), keypoints=5):
    """An image, heatmaps of about the generator's heights, joints in the cube."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 3, *image), (batch, keypoints, *size), (batch, keypoints, 3))
    return tuple(torch.rand(shape, generator=generator, dtype=dtype) for shape in shapes)


def gradients(network):
    return {name: parameter.grad for name, parameter in network.named_parameters()}


# ------------------------------------------------------------------------------------------------------------ generator


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"depth_head": "flatten", "modules": 2}, 14_429_104),
        ({"depth_head": "flatten"}, 8_422_320),
        ({"depth_head": "flatten", "stacks": 4}, 14_710_224),
        ({}, 7_288_240),
        ({"stacks": 4}, 13_576_144),
    ],
)
def test_parameter_counts_to_the_unit(options, parameters):
    with torch.device("meta"):
        assert models.count_parameters(models.create(G, **options)) == parameters


def test_the_regressor_of_the_flat_head_has_the_published_size():
    with torch.device("meta"):
        depth = models.create(G, depth_head="flatten").depth
    assert models.count_parameters(depth.stages) == 1_716_224
    assert models.count_parameters(depth.regress) == 65_552


@pytest.mark.parametrize("options", [{}, FLAT, {"stacks": 1}, {"regressor_modules": 2}])
def test_generator_gives_quarter_size_heatmaps_per_stack_and_one_depth_per_joint(options):
    network = models.create(f"{G}.tiny", **options)
    heatmaps, depth = network(torch.randn(3, 3, 64, 64))
    assert [tuple(h.shape) for h in heatmaps] == [(3, 5, 16, 16)] * options.get("stacks", 2)
    assert depth.shape == (3, 5)


def test_the_pooled_head_takes_any_size():
    heatmaps, depth = models.create(f"{G}.tiny")(torch.randn(2, 3, 32, 48))
    assert heatmaps[-1].shape == (2, 5, 8, 12)
    assert depth.shape == (2, 5)


@pytest.mark.parametrize("options", [{}, FLAT])
def test_the_two_parts_are_separate_and_together_all_there_is(options):
    network = models.create(f"{G}.tiny", **options)
    two_d, depth = set(network.two_d_parameters()), set(network.depth_parameters())
    assert not two_d & depth
    assert two_d | depth == set(network.parameters())


def test_heatmaps_come_from_the_2d_part_alone_and_depth_from_both():
    network, image = models.create(f"{G}.tiny"), torch.randn(2, 3, 32, 32)
    network(image)[0][-1].square().mean().backward()
    assert all((grad is None) == name.startswith("depth.") for name, grad in gradients(network).items())
    network.zero_grad()
    network(image)[1].square().mean().backward()
    assert [name for name, grad in gradients(network).items() if grad is None] == []


def test_the_2d_part_is_an_hourglass_and_loads_its_weights():
    network, plain = models.create(f"{G}.tiny").eval(), models.create("hourglass.tiny").eval()
    network.two_d.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(network(image)[0], plain(image))


def test_the_last_stack_is_merged_for_the_regressor():
    network = models.create(f"{G}.tiny").eval()
    seen = []
    network.depth.stages[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = torch.randn(1, 3, 32, 32)
    network(image)
    heatmaps, (x, features, last) = network.two_d.with_last(image)
    merge = network.depth.merge
    torch.testing.assert_close(seen[0], x + merge.features(features) + merge.heatmaps(last))
    assert last is heatmaps[-1]


def test_a_fixed_2d_part_stands_still_through_later_calls_of_train():
    network = models.create(f"{G}.tiny").train_depth_only()
    network.eval().train()
    before = {key: tensor.clone() for key, tensor in network.two_d.state_dict().items()}
    heatmaps, depth = network(torch.randn(2, 3, 32, 32))
    assert not heatmaps[-1].requires_grad
    depth.square().mean().backward()
    assert all((grad is None) == name.startswith("two_d.") for name, grad in gradients(network).items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.two_d.state_dict().items())
    assert network.depth.training


def test_a_fixed_2d_part_trains_again_when_asked():
    network = models.create(f"{G}.tiny").train_depth_only().train_depth_only(False)
    assert all(module.training for module in network.modules())
    heatmaps, _ = network(torch.randn(2, 3, 32, 32))
    assert heatmaps[-1].requires_grad
    assert not any(module.training for module in network.eval().train_depth_only().modules())


@pytest.mark.parametrize("options", [{}, FLAT])
def test_channels_last_gives_the_same_heatmaps_and_depth(options):
    network, image = models.create(f"{G}.tiny", **options).eval(), torch.randn(3, 3, 64, 64)
    heatmaps, depth = network(image)
    last = network.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close((last[0][-1], last[1]), (heatmaps[-1], depth), atol=1e-4, rtol=1e-4)


def test_the_generator_compiles_in_one_graph_with_the_same_result():
    network, image = models.create(f"{G}.tiny", stacks=1, depth=1).eval(), torch.randn(1, 3, 32, 32)
    heatmaps, depth = torch.compile(network, backend="aot_eager", fullgraph=True)(image)
    torch.testing.assert_close((heatmaps, depth), network(image))


@pytest.mark.parametrize("options", [{}, FLAT])
def test_a_copy_for_inference_gives_the_same(options):
    network, image = models.create(f"{G}.tiny", **options), torch.randn(3, 3, 64, 64)
    for _ in range(3):
        network(torch.randn(4, 3, 64, 64))  # statistics other than 0 and 1
    heatmaps, depth = network.eval()(image)
    found = models.for_inference(network)(image)
    torch.testing.assert_close((found[0], found[1]), (heatmaps, depth), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stacks": 0}, "stacks: expected at least 1, got 0"),
        ({"width": 20}, "width: expected a multiple of 8, got 20"),
        ({"regressor_modules": 0}, "regressor_modules: expected at least 1, got 0"),
        ({"depth_head": "flat"}, "depth_head: .*got 'flat'; did you mean 'flatten'"),
        ({"depth_head": "flatten", "image_size": 100}, "image_size: expected a multiple of 64 .*, got 100"),
    ],
)
def test_bad_options_of_the_generator_get_one_sentence(options, sentence):
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        models.create(G, **options)


@pytest.mark.parametrize(
    ("shape", "options", "sentence"),
    [
        ((3, 32, 32), {}, r"image: expected \(B, 3, H, W\)"),
        ((1, 1, 32, 32), {}, r"image: expected \(B, 3, H, W\)"),
        ((1, 3, 16, 64), {}, "image: expected height and width of at least 32, got 16 x 64"),
        ((1, 3, 32, 40), {}, "image: expected height and width divisible by 16, got 32 x 40"),
        ((1, 3, 64, 128), FLAT, "image: expected 64 x 64 for depth_head='flatten', got 64 x 128; .* depth_head='gap'"),
        ((1, 3, 32, 32), {"depth": 3}, "image: .*, or two in a batch, to train batch norms, got one of 32 x 32"),
    ],
)
def test_wrong_images_get_one_sentence(shape, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.create(f"{G}.tiny", **options)(torch.zeros(shape))


# -------------------------------------------------------------------------------------------------------- discriminator


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("sources", VARIANTS.values(), ids=list(VARIANTS))
def test_discriminator_gives_a_logit_per_image_for_any_batch_and_learns_throughout(sources, norm):
    network = models.create(f"{D}.tiny", sources=sources, norm=norm)
    for batch in (1, 3):
        assert network(*inputs(batch)).shape == (batch,)
    network(*inputs()).sum().backward()
    assert [name for name, grad in gradients(network).items() if grad is None] == []


def test_every_source_changes_the_logit():
    network = models.create(f"{D}.tiny", norm="none")
    image, heatmaps, joints = inputs()
    here = network(image, heatmaps, joints)
    for other in ((image / 2, heatmaps, joints), (image, heatmaps / 2, joints), (image, heatmaps, joints / 2)):
        assert (network(*other) - here).abs().min() > 1e-6


@pytest.mark.parametrize(
    ("sources", "unread"), [(("image", "geometry"), 1), (("geometry", "maps"), 0), (("image",), 2), (("image",), 1)]
)
def test_what_no_source_needs_may_be_missing(sources, unread):
    network = models.create(f"{D}.tiny", sources=sources, norm="none")
    given = list(inputs())
    logit = network(*given)
    given[unread] = None
    assert torch.equal(network(*given), logit)


def test_sources_are_the_same_in_any_order():
    keys = [list(models.create(f"{D}.tiny", sources=s).state_dict()) for s in (SOURCES, SOURCES[::-1], [*SOURCES])]
    assert keys[0] == keys[1] == keys[2]


def test_only_differences_of_joints_count_for_the_geometry():
    network = models.create(f"{D}.tiny", sources=("geometry",))
    _, _, joints = inputs()
    moved = joints + torch.tensor([0.5, -1.0, 0.25])
    torch.testing.assert_close(network(None, None, moved), network(None, None, joints), atol=1e-5, rtol=1e-5)


def test_without_norms_there_are_none_and_no_sample_sees_another():
    network = models.create(f"{D}.tiny", norm="none")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    given = inputs()
    alone = torch.cat([network(*(tensor[i : i + 1] for tensor in given)) for i in range(3)])
    torch.testing.assert_close(alone, network(*given), atol=1e-5, rtol=1e-5)


def test_without_norms_the_rectifiers_leave_what_the_skips_carry():
    network = models.create(f"{D}.tiny", norm="none", sources=("image",))
    residual = network.embeddings["image"][3]
    x = torch.randn(1, 4, 8, 8)
    kept = x.clone()
    torch.testing.assert_close(residual(x), residual.body(kept.clone()) + residual.skip(kept))
    assert torch.equal(x, kept)


CHOICES = [
    {},
    {"geometry": "conv"},
    {"depth_maps": "constant"},
    {"depth_maps": "onehot"},
    {"depth_maps_from": "joints"},
    {"depth_maps_from": "joints", "depth_maps": "constant"},
    {"depth_maps_from": "joints", "depth_maps": "onehot"},
]


def smooth(network):
    """The network with smooth rectifiers and means for maxima: finite differences do not stand kinks."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            network.set_submodule(name, nn.Softplus(beta=3.0))
        elif isinstance(module, nn.MaxPool2d):
            network.set_submodule(name, nn.AvgPool2d(2))
    return network


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_discriminator_is_differentiable_twice(choice, norm):
    network = smooth(models.create(f"{D}.tiny", keypoints=2, width=8, hidden=4, norm=norm, **choice).double())
    given = inputs(2, torch.float64, (32, 32), (8, 8), keypoints=2)
    for seen in range(3):  # in each of the three inputs, the image in one channel's corner

        def call(values, seen=seen):
            full = list(given)
            full[seen] = torch.cat((values, given[seen][..., 2:]), -1) if seen < 2 else values
            return network(*full)

        values = given[seen] if seen == 2 else given[seen][..., :2]
        values = values.clone().requires_grad_()
        assert gradcheck(call, values, fast_mode=True)
        assert gradgradcheck(call, values, fast_mode=True)


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_gradient_penalty_trains_every_layer(choice):
    """All but shifts: between kinks the slope of the logit does not know them."""
    torch.manual_seed(0)  # with other weights a narrow layer may have no rectifier open
    network = models.create(f"{D}.tiny", norm="none", **choice)
    given = [tensor.requires_grad_() for tensor in inputs()]
    slopes = torch.autograd.grad(network(*given).sum(), given, create_graph=True)
    (sum(slope.flatten(1).square().sum(1) for slope in slopes).sqrt() - 1).square().mean().backward()
    for name, grad in gradients(network).items():
        if name.endswith(".weight"):
            assert torch.isfinite(grad).all(), name
            assert (grad != 0).any(), name
        else:
            assert grad is None or (grad == 0).all(), name


def test_the_generator_learns_from_the_discriminator_through_coordinates_and_maps():
    generator, critic = models.create(f"{G}.tiny"), models.create(f"{D}.tiny", norm="none")
    image = torch.randn(2, 3, 32, 32)
    for method in ("softargmax", "straight_through"):
        generator.zero_grad()
        heatmaps, depth = generator(image)
        joints = joints_3d(heatmaps[-1], depth, method=method)
        critic(image, heatmaps[-1], joints).sum().backward()
        assert generator.depth.regress.weight.grad.abs().sum() > 0
        assert generator.two_d.stacks[-1].score.weight.grad.abs().sum() > 0


def test_channels_last_gives_the_same_logits():
    network, (image, heatmaps, joints) = models.create(f"{D}.tiny").eval(), inputs()
    here = network(image, heatmaps, joints)
    ordered = [t.contiguous(memory_format=torch.channels_last) for t in (image, heatmaps)]
    there = network.to(memory_format=torch.channels_last)(*ordered, joints)
    torch.testing.assert_close(there, here, atol=1e-5, rtol=1e-4)


def test_autocast_trains_in_sixteen_bits():
    generator, critic = models.create(f"{G}.tiny"), models.create(f"{D}.tiny")
    image = torch.randn(3, 3, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heatmaps, depth = generator(image)
        logit = critic(image, heatmaps[-1], joints_3d(heatmaps[-1], depth))
    assert heatmaps[-1].dtype == depth.dtype == logit.dtype == torch.bfloat16
    logit.float().square().mean().backward()
    grads = [grad for network in (generator, critic) for grad in gradients(network).values()]
    assert all(grad is None or torch.isfinite(grad).all() for grad in grads)


def test_inputs_of_other_types_are_judged_in_the_type_of_the_weights():
    network = models.create(f"{D}.tiny").bfloat16().eval()
    assert network(*inputs()).dtype == torch.bfloat16


# ----------------------------------------------------------------------------------------------------------- depth maps


def truth():
    """Rendered heatmaps of joints on pixels, the third not visible, and the joints in the cube."""
    points = torch.tensor([[[3.0, 2.0], [9.0, 6.0], [5.0, 5.0]]])
    heatmaps = ops.render_gaussian_heatmaps(points, (8, 12), 1.0, visibility=torch.tensor([[1, 1, 0]]))
    return heatmaps, cube(points, torch.tensor([[0.5, -2.0, 1.0]]), (8, 12))


@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
def test_depth_maps_say_the_depth_at_the_joint(kind):
    heatmaps, joints = truth()
    maps = DepthMaps(kind, "heatmaps", 1.0)(0.3 * heatmaps, joints)  # a lower peak says the same depth
    torch.testing.assert_close(maps[0, [0, 1], [2, 6], [3, 9]], torch.tensor([0.5, -2.0]))
    assert (maps[0, 2] == 0).all()
    expected = {"gaussian": heatmaps, "constant": torch.ones_like(heatmaps), "onehot": (heatmaps == 1).float()}[kind]
    torch.testing.assert_close(maps[0, :2], (joints[..., 2, None, None] * expected)[0, :2])


@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
def test_depth_maps_of_the_truth_are_the_same_from_heatmaps_and_from_joints(kind):
    heatmaps, joints = truth()
    seen = [DepthMaps(kind, origin, 1.0)(heatmaps, joints)[:, :2] for origin in ("heatmaps", "joints")]
    torch.testing.assert_close(*seen, atol=1e-6, rtol=0)


@pytest.mark.parametrize("origin", ["heatmaps", "joints"])
@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
def test_a_joint_without_heatmap_has_no_depth_map(kind, origin):
    """Also where its depth map is drawn at its (x, y): a joint that is not shown has some."""
    heatmaps, joints = truth()
    maps = DepthMaps(kind, origin, 1.0)(heatmaps, joints)
    assert (maps[0, 2] == 0).all()
    assert (maps[0, :2].abs().amax((1, 2)) > 0).all()


@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
@pytest.mark.parametrize("height", [0.0, -1.0, 1e-12])
def test_heatmaps_without_a_peak_give_no_huge_depth_maps(kind, height):
    heatmaps = torch.full((1, 2, 8, 8), height)
    heatmaps[0, 0, 0, 0] -= 5.0
    heatmaps.requires_grad_()
    maps = DepthMaps(kind, "heatmaps", 1.0)(heatmaps, torch.ones(1, 2, 3))
    assert maps.abs().max() <= (1 if height > 0 else 0)
    if maps.requires_grad:
        (slope,) = torch.autograd.grad(maps.sum(), heatmaps)
        assert slope.abs().max() <= 1 / FAINT


@pytest.mark.parametrize("origin", ["heatmaps", "joints"])
@pytest.mark.parametrize("kind", ["gaussian", "constant", "onehot"])
def test_depth_maps_are_differentiable_twice(kind, origin):
    maps = DepthMaps(kind, origin, 1.0)
    _, heatmaps, joints = inputs(1, torch.float64, size=(3, 4), keypoints=2)
    given = tuple(tensor.requires_grad_() for tensor in (heatmaps - 0.3, joints - 0.4))
    assert gradcheck(maps, given)
    assert gradgradcheck(maps, given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sources": ()}, "sources: expected each of image, geometry, maps at most once and at least one"),
        ({"sources": ("image", "image")}, "sources: expected each of"),
        ({"sources": ("image", "map")}, "sources: .*got 'map'; did you mean 'maps'"),
        ({"norm": "instance"}, "norm: expected one of batch, none, got 'instance'"),
        ({"geometry": "convs"}, "geometry: .*did you mean 'conv'"),
        ({"depth_maps": "one_hot"}, "depth_maps: .*did you mean 'onehot'"),
        ({"depth_maps_from": "joint"}, "depth_maps_from: .*did you mean 'joints'"),
        ({"sigma": 0.0}, "sigma: expected a positive number"),
        ({"leak": 1.5}, "leak: expected a slope from 0 up to 1, got 1.5"),
        ({"hidden": 0}, "hidden: expected at least 1, got 0"),
        ({"width": 20}, "width: expected a multiple of 8, got 20"),
    ],
)
def test_bad_options_of_the_discriminator_get_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.create(f"{D}.tiny", **options)


def test_sources_in_a_word_get_one_sentence():
    with pytest.raises(TypeError, match="sources: expected some of image, geometry, maps in a list, got 'image'"):
        models.create(D, sources="image")


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((2, 3, 32), (2, 5, 8, 8), (2, 5, 3)), r"image: expected \(B, 3, H, W\)"),
        (((2, 3, 24, 32), (2, 5, 8, 8), (2, 5, 3)), "image: expected height and width of at least 32, got 24 x 32"),
        (((2, 3, 32, 32), (2, 4, 8, 8), (2, 5, 3)), r"heatmaps: expected \(B, K, h, w\) = \(2, 5, any, any\)"),
        (((2, 3, 32, 32), (2, 5, 8, 4), (2, 5, 3)), "heatmaps: expected height and width of at least 8, got 8 x 4"),
        (((2, 3, 32, 32), (2, 5, 8, 8), (2, 5, 2)), r"joints: expected \(B, K, 3\) = \(2, 5, 3\), got \(2, 5, 2\)"),
        (((2, 3, 32, 32), (2, 5, 8, 8), (1, 5, 3)), r"joints: expected \(B, K, 3\) = \(2, 5, 3\), got \(1, 5, 3\)"),
    ],
)
def test_inputs_of_other_shapes_get_one_sentence(shapes, sentence):
    with pytest.raises(ValueError, match=sentence):
        models.create(f"{D}.tiny")(*(torch.zeros(shape) for shape in shapes))


def test_a_missing_input_that_a_source_needs_gets_one_sentence():
    image, heatmaps, _ = inputs()
    with pytest.raises(TypeError, match=r"joints: expected a torch\.Tensor \(B, K, 3\), got NoneType"):
        models.create(f"{D}.tiny")(image, heatmaps, None)
