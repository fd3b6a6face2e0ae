"""`import` and `export` of what makes poses from captions."""

import json

import pytest
import torch
from drawing_weights import save

from fastpose import models
from fastpose.cli import export
from fastpose.data import captions
from fastpose.models import _registry, published
from fastpose.models._formats import FORMATS
from fastpose.training import checkpoint, systems
from fastpose.training.config import load_recipe

NAME = "caption.generator"
SMALL = {"text_size": 384, "compress": 4, "noise": 8, "widths": (16, 8, 8, 4)}  # caption/tiny with its encoder's size


def theirs(path, **options):
    """Write weights under the authors' names, with the layer that a conditional network does not run."""
    torch.manual_seed(0)
    network = models.create(NAME, **SMALL, **options).eval()
    rules = FORMATS[NAME].rules({**_registry.defaults(NAME), **SMALL, **options})
    weights = {published.rename(key, rules): tensor for key, tensor in network.state_dict().items()}
    torch.save({"first.weight": torch.zeros(8, 16, 4, 4), **weights}, path)
    return network


def test_published_weights_become_weights_that_predict_takes(run, tmp_path):
    network = theirs(tmp_path / "theirs.pth", conditional=True)
    code, out, err = run("import", NAME, "theirs.pth", "-o", "w.safetensors", "--recipe", "caption/tiny")
    assert (code, err) == (0, "")
    assert f"{models.count_parameters(network):,} parameters" in out
    assert "predict caption/tiny --weights w.safetensors 'a man playing tennis' -o out" in out
    system, config, found = systems.load_network(tmp_path / "w.safetensors")
    assert (system.name, config.text.size) == ("caption", 384)
    inputs = torch.randn(2, 8), torch.randn(2, 384)
    with torch.no_grad():
        assert torch.equal(found(*inputs), network(*inputs))
    caption = captions.sample("val").captions[0]
    assert run("predict", "caption/tiny", "--weights", "w.safetensors", caption, "--count", 2, "-o", "out")[0] == 0
    assert len(list((tmp_path / "out").glob("*.json"))) == 1


def test_import_without_recipe_shows_the_options(run, tmp_path):
    network = theirs(tmp_path / "theirs.pth")
    code, out, err = run("import", NAME, "theirs.pth", "-o", "w.safetensors")
    assert (code, err) == (0, "")
    assert 'models.create("caption.generator", conditional=False, noise=8, keypoints=17, widths=(16, 8, 8, 4))' in out
    state, manifest = checkpoint.load_weights(tmp_path / "w.safetensors")
    models.create(NAME, **json.loads(json.dumps(manifest["options"]))).load_state_dict(state)
    assert state.keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["caption", "theirs.pth"], "unknown model 'caption'; did you mean"),
        ([NAME, "theirs.pth", "conditional=yes"], "missing (compress.0.weight, compress.0.bias, first2.weight)"),
        ([NAME, "theirs.pth", "widths=3"], "widths: expected four numbers of channels"),
        ([NAME, "theirs.pth", "--recipe", "caption/tiny"], "--recipe caption/tiny: its network differs from the publ"),
        ([NAME, "theirs.pth", "--recipe", "sagan/tiny"], "--recipe sagan/tiny: its network differs from the publishe"),
        (["caption.discriminator", "theirs.pth"], "2 missing (second.weight, third.2.weight)"),
    ],
)
def test_what_does_not_fit_is_one_line(run, tmp_path, words, sentence):
    theirs(tmp_path / "theirs.pth")
    code, out, err = run("import", *words, "-o", "w.safetensors")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not (tmp_path / "w.safetensors").exists()


def test_export_is_compared_on_what_the_network_sees(tmp_path):
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, noise, text):
            seen.append((noise, text))
            return noise + text

    export.export_network(Watched(), {"noise": (64,), "text": (64,)}, tmp_path / "m.pt2", draw=export._of_captions(30))
    noise, vectors = seen[0]
    assert noise.min() < -1
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((3,), 30.0))


def test_export_of_weights_that_diverged_is_refused(run, tmp_path):
    weights = save(tmp_path, "caption/tiny", "text.size=12", value=float("nan"))
    code, out, err = run("export", "caption/tiny", "--weights", weights, "-o", "model.pt2")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "holds NaN or infinite values; take other weights" in err
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize(
    ("recipe", "shapes"),
    [("caption/wgan-lp", {"noise": (128,), "text": (300,)}), ("caption/wgan-gp", {"noise": (128,)})],
)
def test_the_shapes_of_an_export_come_from_the_configuration(recipe, shapes):
    assert export.input_shapes(systems.get("caption"), load_recipe(recipe).config) == shapes
