"""fastpose augment: from weights of pose transfer to a mixed set, and the two trainings that compare it."""

from __future__ import annotations

import json

import pytest
import tiny_market

from fastpose.training import load_recipe, systems
from fastpose.training.checkpoint import save_weights
from fastpose.training.config import to_dict

RECIPE = "pona/tiny"


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """Untrained weights of a tiny pose transfer."""
    recipe = load_recipe(RECIPE)
    network = systems.get(recipe.system).network(recipe.config)
    path = tmp_path_factory.mktemp("weights") / "pona.safetensors"
    about = {"recipe": recipe.name, "system": recipe.system, "config": to_dict(recipe.config), "step": 0}
    save_weights(path, network, about)
    return path


@pytest.fixture
def root(tmp_path):
    return tiny_market.write(tmp_path / "original")


def augment(run, root, weights, *words):
    return run("augment", "market", root, "--recipe", RECIPE, "--weights", weights, *words)


def test_the_two_documented_commands_follow(run, root, drawing, tmp_path):
    code, out, _ = augment(run, root, drawing, "-p", "0.4", "-o", "mixed", "--seed", 1)
    assert code == 0
    assert "mixed: 16 images, 6 real (37.5%), 10 generated" in out
    assert json.loads((tmp_path / "mixed" / "augmentation.json").read_text())["recipe"] == RECIPE
    commands = [line.split()[1:] for line in out.splitlines() if line.startswith("  fastpose train")]
    assert [words[-1] for words in commands] == ["data.only_real=yes", "data.only_real=no"]
    for words in commands:
        # only_real leaves 6 images: a batch of 4 still fits
        code, out, err = run(*[word.replace("reid/small", "reid/tiny") for word in words], "run.epochs=1")
        assert (code, "Traceback" in err) == (0, False)
        assert "market test mAP" in out


def test_a_portion_that_cannot_be_met_says_why(run, root, drawing, tmp_path):
    code, out, _ = augment(run, root, drawing, "-p", "0.1", "-o", "mixed")
    assert code == 0
    assert "mixed: 16 images, 5 real (31.2%), 11 generated" in out
    assert "more than the 10.0% asked for: one image of each person must stay" in out
    assert "generated from it (4), and what cannot be generated (1)" in out
    assert "real in any case: 1 image without" in out
    about = json.loads((tmp_path / "mixed" / "augmentation.json").read_text())
    assert (about["portion"], about["reached"]) == (0.1, 0.3125)
    _, out, _ = augment(run, root, drawing, "-p", "0.4", "-o", "met")
    assert "asked for" not in out


def test_mistakes_are_one_line(run, root, drawing, tmp_path):
    cases = (
        (root, drawing, ("-p", "0", "-o", "mixed"), "portion: expected a share"),
        (root, drawing, ("-o", root / "in"), "lies in the original set"),
        (root, drawing, ("-o", "mixed", "--seed", "-1"), "seed: expected 0 or more, got -1"),
        (tmp_path / "none", drawing, ("-o", "mixed"), "no folder train"),
        (root, tmp_path / "no.safetensors", ("-o", "mixed"), "no.safetensors"),
    )
    for where, weights, words, message in cases:
        code, _, err = augment(run, where, weights, *words)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


def test_weights_of_another_job_are_refused(run, root, weights):
    code, _, err = run("augment", "market", root, "--recipe", "sagan/tiny", "--weights", weights, "-o", "mixed")
    assert (code, "pose transfer" in err) == (2, True)
