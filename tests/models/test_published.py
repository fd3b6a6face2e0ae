"""Published weights: all keys map, strictly, and the outputs of the published networks come back."""

import json
import time
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file

from fastpose import models
from fastpose.models import _formats, _registry, published
from fastpose.models.published import import_published

HG, G, D, SARM = "hourglass", "sagan.generator", "sagan.discriminator", "sagan.sarm"
PONA, PONA_D, BLOCK = "pona.generator", "pona.discriminator", "pona.block"
MULTISCALE, PATCHES = "multiscale.generator", "multiscale.discriminator"
POSE3D = "pose3d.generator"
ORACLES = [
    ("bearpaw_hg_s2_b1_w32", HG, {"stacks": 2, "width": 64}),
    ("hgsagan_port_g_s2_r1_f32", G, {"stacks": 2, "modules": 1, "width": 32}),
    ("hgsagan_port_d_sarmA_f32", D, {"width": 32}),
    ("hgsagan_port_sarmA_code", SARM, {"kind": "A", "in_channels": 16}),
    ("hgsagan_port_sarmB_code", SARM, {"kind": "B", "in_channels": 32, "out_channels": 16}),
    ("hgsagan_port_sarmA_paper", SARM, {"kind": "A", "in_channels": 32, "flavour": "paper"}),
    ("hgsagan_port_sarmB_paper", SARM, {"kind": "B", "in_channels": 32, "flavour": "paper"}),
    ("pona_g_bn_b2_ngf8", PONA, {"dropout": 0.0}),
    ("roy_g_ngf8", MULTISCALE, {}),
    ("roy_d_ndf8", PATCHES, {}),
    ("zhou_hg3d_s2_m1_f32_r1", POSE3D, {}),
]
WITHOUT_STATISTICS = [  # instance norms: evaluation and training differ by dropout alone
    ("pona_g_in_b3_ngf8", PONA, {}),
    ("pona_block_in_c32", BLOCK, {}),
    ("pona_d_sn_in_6ch_ngf8", PONA_D, {}),
    ("patn_d_in_21ch_ngf8_sig", PONA_D, {"sigmoid": True}),
]
FULL_SIZE = [
    ("bearpaw_hg_s1_b1", HG, {"stacks": 1}),
    ("bearpaw_hg_s2_b1", HG, {"stacks": 2}),
    ("bearpaw_hg_s4_b1", HG, {"stacks": 4}),
    ("bearpaw_hg_s8_b1", HG, {}),
    ("hgsagan_port_g_s4_r2", G, {}),
    ("hgsagan_port_d_sarmA_m1", D, {}),
    *((f"pona_g_deepfashion_in_b{blocks}", PONA, {}) for blocks in range(1, 6)),
    *((f"pona_g_market_bn_b{blocks}", PONA, {}) for blocks in range(1, 6)),
    ("pona_d_pp_deepfashion_in_SN_standin", PONA_D, {}),
    ("pona_d_pp_market_bn_SN_standin", PONA_D, {}),
    ("roy_netG", MULTISCALE, {}),
    ("roy_netD", PATCHES, {}),
    ("zhou_hg3d_s2_m1", POSE3D, {}),
    ("zhou_hg3d_s2_m2", POSE3D, {}),
    ("zhou_hg3d_s4_m1", POSE3D, {}),
]
# Where the published names of the norms whose running statistics are stored live in our networks.
NORMS = {
    "bn1": "stem.norm",
    "b1": "stem.norm",
    "fc.1.1": "stacks.1.features.1",
    "lin.1": "stack.features.1",
    "score.1.0.conv.6": "stacks.1.score.0.residual.body.6",
    "res_conv.0": "residual.body.0",
    "att_conv.6": "attention.embed.6",
    "conv.0": "residual.body.0",
    "conv.6": "residual.body.6",
    "res.conv.0": "residual.body.0",
    "res.conv.6": "residual.body.6",
    "model.stream1_down.2": "image_encoder.2",
    "model.stream1_up.4": "decoder.4",
    "in1_conv1.1": "image_encoder.first.1",
    "out_conv1.3.layers.4": "residuals.3.body.4",
    "layers.3": "layers.3",
    "layers.9": "layers.9",
    "reg_.3.bn2": "depth.stages.3.0.body.6",
}


class Oracle:
    """Weights, inputs and outputs of one published network."""

    def __init__(self, path):
        stored = load_file(path)
        self.weights = {key: t for key, t in stored.items() if not key.startswith(("input.", "output."))}
        self.stored = stored

    def inputs(self, name):
        if name == D:  # stored as the image at heatmap size before the heatmaps
            x = self.stored["input.x"]
            return x[:, 3:], x[:, :3]
        pair = {PONA: ("image", "pose"), MULTISCALE: ("image", "pose"), BLOCK: ("image_code", "pose_code")}
        return tuple(
            self.stored[f"input.{part}"] for part in pair.get(name, ("image" if name in (HG, G, POSE3D) else "x",))
        )

    def outputs(self, mode):
        return [t for key, t in sorted(self.stored.items()) if key == mode or key.startswith(f"{mode}.")]


def imported(shared, file, name, options):
    oracle = Oracle(shared / "oracles" / f"{file}.safetensors")
    return oracle, name, import_published(name, oracle.weights, **options)


@pytest.fixture(params=ORACLES, ids=[case[0] for case in ORACLES])
def case(request, shared):
    return imported(shared, *request.param)


def run(network, inputs, dtype=torch.float32):
    with torch.no_grad():
        outputs = network.to(dtype)(*(t.to(dtype) for t in inputs))
    if isinstance(outputs, tuple) and isinstance(outputs[0], list):  # heatmaps of all stacks, depth
        return [*outputs[0], *outputs[1:]]
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def distance(found, expected):
    """The largest difference over the expected output's largest value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def test_imported_weights_reproduce_the_published_outputs(case):
    oracle, name, network = case
    found, expected = run(network, oracle.inputs(name)), oracle.outputs("output.eval")
    assert len(found) == len(expected)
    assert [distance(f, e) <= 1e-5 for f, e in zip(found, expected, strict=True)] == [True] * len(expected)


@pytest.mark.parametrize("published", WITHOUT_STATISTICS, ids=[case[0] for case in WITHOUT_STATISTICS])
def test_imported_instance_norms_reproduce_the_published_outputs(shared, published):
    oracle, name, network = imported(shared, *published)
    found, expected = run(network, oracle.inputs(name)), oracle.outputs("output.eval")
    if name == BLOCK:  # stored with its attention map between the two codes
        positions = [(x, y) for y in range(12) for x in range(10)]
        rows = models.attention_maps(network, oracle.inputs(name), positions)["cross"]  # (B, N query, 12, 10)
        found.insert(1, rows.flatten(2))
    assert [distance(f, e) <= 1e-5 for f, e in zip(found, expected, strict=True)] == [True] * len(expected)


def assert_as_near_as_exact(found, exact, expected):
    """Norms over the few positions of the innermost level amplify rounding, in the stored result as in ours.

    So ours may be off by what is asked of evaluation, or by twice what the float64 result is off, itself within 2e-4.
    """
    assert distance(found, expected) <= max(1e-5, 2 * distance(exact, expected))
    assert distance(exact, expected) <= 2e-4


def test_batch_statistics_reproduce_the_published_outputs(case):
    oracle, name, network = case
    expected = oracle.outputs("output.train_nodropout")
    found, exact = (run(network.train(), oracle.inputs(name), dtype) for dtype in (torch.float32, torch.float64))
    for triple in zip(found, exact, expected, strict=True):
        assert_as_near_as_exact(*triple)


def test_running_statistics_move_as_the_published_ones(case):
    oracle, name, network = case
    exact = deepcopy(network)
    run(network.train(), oracle.inputs(name))
    run(exact.train(), oracle.inputs(name), torch.float64)
    updated = {key: t for key, t in oracle.stored.items() if key.startswith("output.train_running")}
    assert len(updated) == 4
    for key, expected in updated.items():
        statistic, norm = key.removeprefix("output.train_").split(".", 1)
        place = "two_d.stem.norm" if (name, norm) == (POSE3D, "bn1") else NORMS[norm]
        found = (getattr(module.get_submodule(place), statistic) for module in (network, exact))
        assert_as_near_as_exact(*found, expected)


def full_size(shared, file):
    listed = json.loads((shared / "oracles" / "keys" / f"{file}.json").read_text())
    weights = {key: torch.empty(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in listed["keys"]}
    return weights, listed["n_params"]


@pytest.mark.parametrize(("file", "name", "options"), FULL_SIZE, ids=[case[0] for case in FULL_SIZE])
def test_every_key_of_the_full_size_networks_maps(shared, file, name, options):
    with torch.device("meta"):
        weights, parameters = full_size(shared, file)
        assert models.count_parameters(import_published(name, weights, **options)) == parameters


# --------------------------------------------------------------------- without reference files: a small pytorch-pose


@pytest.fixture
def weights():
    """A tiny hourglass under pytorch-pose's names, made from the importer's own rules backwards."""
    network = models.create("hourglass.tiny", stem="pytorch_pose")
    rules = _formats._pytorch_pose({**_registry.defaults("hourglass"), "depth": 2})
    return {published.rename(key, rules): tensor for key, tensor in network.state_dict().items()}


def load(weights, **options):
    return import_published("hourglass.tiny", weights, **options)


def test_known_names_of_pytorch_pose(weights):
    known = {
        "conv1.weight",
        "layer3.0.bn1.bias",
        "hg.1.hg.0.3.0.conv3.weight",
        "hg.0.hg.1.0.0.bn2.bias",
        "fc_.0.weight",
    }
    assert known <= weights.keys()


def test_import_gives_an_evaluating_network_with_copied_weights(weights):
    network = load(weights)
    assert not any(module.training for module in network.modules())
    weights["conv1.weight"].zero_()
    assert network.stem.conv.weight.abs().sum() > 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {f"module.{key}": t for key, t in w.items()},
        lambda w: {"epoch": 3, "arch": "hg", "state_dict": {f"module.{key}": t for key, t in w.items()}},
        lambda w: {key: t for key, t in w.items() if not key.endswith("num_batches_tracked")},
    ],
    ids=["data parallel", "checkpoint", "without batch counters"],
)
def test_the_forms_in_which_weights_are_found(weights, wrap):
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(load(wrap(weights))(image), load(weights)(image))


def test_missing_and_unexpected_keys_are_named_in_one_sentence_five_of_each(weights):
    for index in range(6):
        weights[f"extra.{index}"] = torch.zeros(1)
    for key in [key for key in weights if key.startswith("layer1.0.bn")][:3]:
        del weights[key]
    sentence = (
        r"^hourglass.tiny: the state dict does not fit the network, keys: 3 missing \(layer1.0.bn1.weight, "
        r"layer1.0.bn1.bias, layer1.0.bn1.running_mean\); 6 unexpected \(extra.0, extra.1, extra.2, extra.3, extra.4, "
        r"...\); check the options$"
    )
    with pytest.raises(ValueError, match=sentence):
        load(weights)


def test_a_missing_first_weight_is_missing_like_any_other(weights):
    del weights["conv1.weight"]
    with pytest.raises(ValueError, match=r"missing \(conv1.weight\)"):
        load(weights, stem_width=4)


def test_keys_are_shown_in_one_line_of_a_length_to_read(weights):
    with pytest.raises(ValueError, match=r"1 unexpected \(a\?b{118}\)") as error:
        load(weights | {"a\n" + "b" * 10**6: torch.zeros(1)})
    assert str(error.value).isprintable()


def test_other_shapes_are_named_with_both(weights):
    weights["score.0.weight"] = torch.zeros(7, 16, 1, 1)
    with pytest.raises(
        ValueError, match=r"1 of another shape \(score.0.weight \(7, 16, 1, 1\) instead of \(5, 16, 1, 1\)\)"
    ):
        load(weights)


def test_wrong_number_of_stacks_is_refused_both_ways(weights):
    with pytest.raises(ValueError, match="missing"):
        load(weights, stacks=3)
    with pytest.raises(ValueError, match="unexpected"):
        load(weights, stacks=1)


def test_unknown_names_and_other_objects_get_one_sentence(weights):
    with pytest.raises(ValueError, match="unknown model 'hourgass'; did you mean 'hourglass"):
        import_published("hourgass", weights)
    with pytest.raises(TypeError, match="unknown option of hourglass: 'stack'"):
        load(weights, stack=2)
    with pytest.raises(TypeError, match="state_dict: expected a mapping of key to tensor, got list"):
        load([])


def test_networks_that_were_given_bgr_see_rgb_when_asked(shared):
    oracle, name, network = imported(shared, "zhou_hg3d_s2_m1_f32_r1", POSE3D, {})
    assert published.to_rgb(name, network)
    theirs = oracle.stored["input.image"][:1]
    rgb = theirs.flip(1) * 256 / 255
    expected = [t[:1] for t in oracle.outputs("output.eval")]
    assert all(distance(f, e) <= 1e-5 for f, e in zip(run(network, [rgb]), expected, strict=True))


def test_other_networks_see_rgb_already(weights):
    network = load(weights)
    before = network.stem.conv.weight.clone()
    assert not published.to_rgb("hourglass.tiny", network)
    assert torch.equal(network.stem.conv.weight, before)


HUGE = {
    "stacks": (POSE3D, {f"hourglass.{'9' * 9}.low1_.0.bn.weight": (1,)}),
    "stacks of as many digits as Python reads": (POSE3D, {f"hourglass.{'9' * 5000}.low1_.0.bn.weight": (1,)}),
    "stacks of modules": (POSE3D, {"hourglass.9998.a": (1,), "hourglass.0.up1_.9998.a": (1,)}),
    "levels": (POSE3D, {"hourglass.0." + "low2." * 10**5 + "a": (1,)}),
    "modules of the regressors": (POSE3D, {"reg_.9998.a": (1,)}),
    "width": (POSE3D, {"lin_.0.0.weight": (2**40,)}),
    "a width beyond all tensors": (POSE3D, {"lin_.0.0.weight": (2**62,)}),
    "places": (POSE3D, {"reg.weight": (2**20, 2**41)}),
    "blocks": (PONA, {"model.att.9998.a": (1,)}),
    "levels that double": (MULTISCALE, {"in1_down99.layers.0.weight": (1,)}),
    "a width of the discriminator": (PATCHES, {"layers.0.weight": (2**40, 2**20)}),
}


@pytest.mark.parametrize("what", HUGE)
def test_sizes_that_few_weights_show_take_no_memory(what):
    name, shapes = HUGE[what]
    weights = {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}
    before = time.process_time()
    with pytest.raises(ValueError, match=r"does not fit the network|build no network"):
        import_published(name, weights)
    assert time.process_time() - before < 10


def test_the_options_make_the_network_of_the_weights(weights):
    weights = {f"module.{key}": tensor for key, tensor in weights.items()}
    options = published.published_options("hourglass.tiny", weights)
    network = models.create("hourglass", **options)
    assert {key: t.shape for key, t in network.state_dict().items()} == {
        key: t.shape for key, t in load(weights).state_dict().items()
    }


def test_a_network_without_published_format_says_so(weights, monkeypatch):
    monkeypatch.delitem(_formats.FORMATS, "hourglass")
    with pytest.raises(ValueError, match=r"'hourglass.tiny' has no published weights .*; known: .*multiscale.*, sagan"):
        load(weights)
