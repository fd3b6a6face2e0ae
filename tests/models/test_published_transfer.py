"""The forms in which weights of pose transfer are found: prefixes, old statistics, spectral norms, what they show."""

import pytest
import torch

from fastpose import models
from fastpose.models import _formats, _registry, published
from fastpose.models.published import import_published

G, D, BLOCK, MULTISCALE, PATCHES = (
    "pona.generator",
    "pona.discriminator",
    "pona.block",
    "multiscale.generator",
    "multiscale.discriminator",
)
SMALL = {
    G: {"blocks": 2, "width": 4},
    D: {"blocks": 2, "width": 4, "in_channels": 21},
    BLOCK: {"channels": 8},
    MULTISCALE: {"levels": 3, "width": 2, "pose_channels": 32},
    PATCHES: {"layers": 2, "width": 4, "in_channels": 5},
}
SHAPES = {
    G: [(1, 3, 16, 16), (1, 36, 16, 16)],
    D: [(1, 21, 16, 16)],
    BLOCK: [(1, 8, 4, 4)] * 2,
    MULTISCALE: [(1, 3, 16, 16), (1, 32, 16, 16)],
    PATCHES: [(1, 5, 16, 16)],
}


def theirs(name, **options):
    """A small network and its weights under the authors' names, made from the importer's own rules backwards."""
    torch.manual_seed(0)
    network = models.create(name, **SMALL[name], **options).eval()
    rules = _formats.FORMATS[name].rules({**_registry.defaults(name), **SMALL[name], **options})
    return network, {published.rename(key, rules): tensor for key, tensor in network.state_dict().items()}


def assert_same(name, network, other):
    inputs = [torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in SHAPES[name]]
    with torch.no_grad():
        torch.testing.assert_close(network(*inputs), other(*inputs), rtol=0, atol=0)


CASES = [
    (G, {"norm": "batch"}),
    (G, {}),
    (D, {"norm": "batch"}),
    (D, {"spectral_norm": False}),
    (D, {}),
    (BLOCK, {"norm": "batch"}),
    (MULTISCALE, {}),
    (PATCHES, {}),
]
NAMES = [f"{name} {options}" for name, options in CASES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_weights_show_sizes_norm_and_spectral_norm(name, options):
    network, weights = theirs(name, **options)
    found = import_published(name, weights)
    assert not found.training
    assert_same(name, network, found)


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_data_parallel_and_whole_checkpoints_are_unwrapped(name, options):
    network, weights = theirs(name, **options)
    wrapped = {f"module.{key}": tensor for key, tensor in weights.items()}
    assert_same(name, network, import_published(name, wrapped))
    assert_same(name, network, import_published(name, {"epoch": 3, "state_dict": wrapped}))


@pytest.mark.parametrize("before", ["", "module.", "model.module.", "module.model."])
@pytest.mark.parametrize("name", [G, D])
def test_any_order_of_prefixes_will_do(name, before):
    network, weights = theirs(name)
    assert all(key.startswith("model.") for key in weights)
    renamed = {before + key.removeprefix("model."): tensor for key, tensor in weights.items()}
    assert_same(name, network, import_published(name, renamed))


@pytest.mark.parametrize("name", [G, D, PATCHES])
def test_missing_batch_counters_are_allowed(name):
    network, weights = theirs(name, **({} if name == PATCHES else {"norm": "batch"}))
    without = {key: tensor for key, tensor in weights.items() if not key.endswith("num_batches_tracked")}
    assert len(without) < len(weights)
    assert_same(name, network, import_published(name, without))


@pytest.mark.parametrize(
    ("name", "norms"),
    [(G, ["model.stream1_down.2", "model.att.1.dconv2.conv.5"]), (D, ["model.2"]), (BLOCK, ["conv.conv.1"])],
)
def test_statistics_that_old_pytorch_wrote_of_instance_norms_are_dropped(name, norms):
    network, weights = theirs(name)
    for norm in norms:
        weights |= {f"{norm}.running_mean": torch.ones(4), f"{norm}.running_var": torch.ones(4)}
        weights[f"{norm}.num_batches_tracked"] = torch.tensor(9)
    assert_same(name, network, import_published(name, weights))


def test_statistics_of_batch_norms_are_needed():
    _, weights = theirs(G, norm="batch")
    del weights["model.stream1_down.5.running_var"]
    with pytest.raises(ValueError, match=r"1 missing \(model.stream1_down.5.running_var\); check"):
        import_published(G, weights)


@pytest.mark.parametrize("inner", ["module.", ""])
def test_spectral_norm_of_the_public_sngan_code(inner):
    network, weights = theirs(D)
    bars = {key.replace("weight_orig", "weight_bar"): tensor for key, tensor in weights.items()}
    spelled = {".".join([*key.split(".")[:-1], inner + key.split(".")[-1]]): tensor for key, tensor in bars.items()}
    assert f"model.1.{inner}weight_bar" in spelled
    assert f"model.11.conv_block.6.{inner}weight_u" in spelled
    assert_same(D, network, import_published(D, spelled))


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_discriminators_without_dropout_count_their_layers_otherwise(norm):
    network, weights = theirs(D, norm=norm)
    places = {"conv_block.6.": "conv_block.5.", "conv_block.7.": "conv_block.6."}
    moved = {}
    for key, tensor in weights.items():
        part = next((part for part in places if part in key), None)
        moved[key.replace(part, places[part]) if part else key] = tensor
    assert moved.keys() != weights.keys()
    assert_same(D, network, import_published(D, moved, dropout=0.0))


def test_full_weights_serve_fewer_gates_and_drop_the_pose_levels_below():
    network, weights = theirs(MULTISCALE)
    highest = import_published(MULTISCALE, weights, gates=(1,))
    lowest = import_published(MULTISCALE, weights, gates=(3,))
    assert len(highest.pose_encoder.downs) == 1
    assert models.count_parameters(lowest) == models.count_parameters(network)
    unread = {f"in2_down{level}" for level in (2, 3)}
    rest = {key: tensor for key, tensor in weights.items() if key.split(".")[0] not in unread}
    assert len(rest) < len(weights)
    assert_same(MULTISCALE, highest, import_published(MULTISCALE, rest, gates=(1,)))
    weights["in2_down4.0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"1 unexpected \(in2_down4.0.weight\)"):
        import_published(MULTISCALE, weights, gates=(1,))


def test_gates_are_fewer_only_where_the_caller_says_so():
    _, weights = theirs(MULTISCALE)
    assert list(import_published(MULTISCALE, weights).gates) == ["3", "2", "1"]
    assert list(import_published(MULTISCALE, weights, gates=None).gates) == ["3", "2", "1"]
    assert list(import_published(MULTISCALE, weights, gates=(3,)).gates) == ["3"]
    for level in (1, 2):
        rest = {key: tensor for key, tensor in weights.items() if not key.startswith(f"in2_down{level + 1}.")}
        with pytest.raises(ValueError, match=rf"missing \(in2_down{level + 1}.0.weight"):
            import_published(MULTISCALE, rest)


@pytest.mark.parametrize("fusion", ["sum", "cat"])
def test_no_published_weights_join_the_deepest_codes(fusion):
    _, weights = theirs(MULTISCALE)
    sentence = (
        f"^fusion: expected None for published weights of multiscale.generator, got '{fusion}'; leave it out, [^\n]*$"
    )
    with pytest.raises(ValueError, match=sentence):
        import_published(MULTISCALE, weights, fusion=fusion)
    with pytest.raises(ValueError, match=sentence):
        import_published(MULTISCALE, {}, fusion=fusion, gates=())


def test_known_names_of_the_authors():
    assert {
        "model.stream1_down.1.bias",
        "model.stream2_down.7.weight",
        "model.stream1_up.7.bias",
        "model.att.0.gamma",
        "model.att.1.query_conv.weight",
        "model.att.0.att2.beta",
        "model.att.0.dconv2.conv.4.bias",
    } <= theirs(G)[1].keys()
    assert {"model.1.weight_orig", "model.10.conv_block.6.weight_v"} <= theirs(D)[1].keys()
    assert {"in1_down3.3.layers.4.running_var", "out_conv1.4.weight", "in2_conv1.1.bias"} <= theirs(MULTISCALE)[
        1
    ].keys()
    assert {"layers.0.bias", "layers.5.weight"} <= theirs(PATCHES)[1].keys()


# ------------------------------------------------------------------------------------------------ what a user may do


@pytest.mark.parametrize(("name", "options"), CASES, ids=NAMES)
def test_a_cut_file_is_refused_wherever_it_is_cut(name, options):
    _, weights = theirs(name, **options)
    keys = [key for key in weights if not key.endswith("num_batches_tracked")]
    for key in (*keys[:-1:7], keys[-1]):
        rest = {other: tensor for other, tensor in weights.items() if other != key}
        with pytest.raises(ValueError, match=r"\A[^\n]*\Z"):
            import_published(name, rest, **SMALL[name], **options)


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        (G, {"width": 8}, r"of another shape \(model.stream1_down.1.weight .* instead of \(8, 3, 7, 7\)"),
        (G, {"norm": "batch"}, r"missing \(model.stream1_down.2.weight, model.stream1_down.2.bias"),
        (G, {"blocks": 3}, r"missing \(model.att.2.att2.gamma"),
        (G, {"blocks": 1}, r"unexpected \(model.att.1.att2.beta"),
        (G, {"self_attention_beta": False}, r"2 unexpected \(model.att.0.att2.beta, model.att.1.att2.beta\)"),
        (G, {"fusion": "none"}, "of another shape"),
        (D, {"spectral_norm": False}, r"missing \(model.1.weight,"),
        (D, {"in_channels": 6}, r"model.1.weight_orig \(4, 21, 7, 7\) instead of \(4, 6, 7, 7\)"),
        (MULTISCALE, {"pose_channels": 36}, r"in2_conv1.0.weight \(2, 32, 3, 3\) instead of \(2, 36, 3, 3\)"),
        (PATCHES, {"layers": 3}, "missing"),
    ],
)
def test_options_that_do_not_fit_get_one_sentence(name, wrong, sentence):
    with pytest.raises(ValueError, match=f"^{name}: the state dict does not fit the network, keys: [^\n]*{sentence}"):
        import_published(name, theirs(name)[1], **wrong)


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_another_network_are_refused(name):
    for other in SMALL:
        if other != name:
            with pytest.raises(ValueError, match=f"^{name}: the state dict does not fit the network, [^\n]*$"):
                import_published(name, theirs(other)[1], **SMALL[name])


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"model.att.0.gamma": 0.5}, "expected a mapping of key to tensor, got float at 'model.att.0.gamma'"),
        ({3: torch.zeros(1)}, "expected a mapping of key to tensor, got Tensor at 3"),
        ({"state_dict": [1]}, "expected a mapping of key to tensor, got list inside"),
    ],
)
def test_what_is_no_state_dict_gets_one_sentence(weights, sentence):
    with pytest.raises(TypeError, match=f"^state_dict: {sentence}$"):
        import_published(G, weights)


@pytest.mark.parametrize("other", ["module.model.att.0.gamma", "att.0.gamma"])
def test_a_weight_that_is_there_twice_is_refused(other):
    _, weights = theirs(G)
    weights[other] = torch.ones(1)
    with pytest.raises(ValueError, match=r"^state_dict: expected each weight once, got 'model.att.0.gamma' and '"):
        import_published(G, weights)


def test_a_first_weight_of_an_odd_rank_is_a_weight_of_another_shape():
    _, weights = theirs(G)
    weights["model.stream1_down.1.weight"] = torch.zeros(())
    with pytest.raises(ValueError, match=r"model.stream1_down.1.weight \(\) instead of \(64, 3, 7, 7\)"):
        import_published(G, weights)
