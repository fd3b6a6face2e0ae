"""`fastpose import` of networks that were pickled whole: system 002."""

import pytest
import torch
from PIL import Image
from python2_pickles import Call, Global, Writer, as_new, module, published_weights, whole

from fastpose import models
from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM
from fastpose.training import checkpoint, pose3d_data, pose3d_pictures, systems
from fastpose.training.config import load_recipe

RECIPE = """
system: pose3d
description: A network that fits the tiny published one.
config:
  data: {image_size: 64, mean: [0, 0, 0]}
  model: {stacks: 2, modules: 1, width: 16, depth: 2, depth_head: flatten}
"""


@pytest.fixture
def weights(tmp_path):
    """Weights under the authors' keys, and their file in the folder of the run."""
    theirs = published_weights(keypoints=16)
    writer = Writer(theirs, as_new)
    (tmp_path / "model_30.pth").write_bytes(whole(writer.network, writer.storages))
    return theirs


def test_import_reads_a_network_that_was_pickled_whole(run, weights, tmp_path):
    code, out, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors")
    assert (code, err) == (0, "")
    network = models.import_published("pose3d.generator", weights)
    assert f"{models.count_parameters(network):,} parameters" in out
    state, manifest = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert manifest["source"] == "model_30.pth"
    assert state.keys() == network.state_dict().keys()
    own = models.create("pose3d.generator", **manifest["options"]).eval()
    own.load_state_dict(state)
    assert_alike(own, network)
    assert manifest["image"] == "RGB in 0..1, nothing subtracted"
    assert "expects RGB in 0..1, nothing subtracted" in out
    assert "\nfor models.create(\"pose3d.generator\", depth_head='flatten', width=16, " in out
    assert "); for fastpose predict and eval, import with --recipe\n" in out


def photos():
    """Two images (2, 3, 64, 64): uint8 RGB."""
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_alike(ours, theirs, see=lambda images: images / 255):
    """Ours gives for RGB what theirs gives for BGR over 256."""
    with torch.no_grad():
        (maps, depth), (their_maps, their_depth) = ours(see(photos())), theirs(photos().flip(1) / 256)
    assert maps[-1].std() > 0
    torch.testing.assert_close(maps, their_maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(depth, their_depth, rtol=1e-4, atol=1e-5)


def test_import_with_a_recipe_says_its_recipe_and_configuration(run, weights, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    code, out, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors", "--recipe", "mine.yaml")
    assert (code, err) == (0, "")
    assert "fastpose predict mine.yaml --weights w.safetensors PHOTO.jpg" in out
    assert "gave it BGR" in out
    _, manifest = checkpoint.load_weights(tmp_path / "w.safetensors")
    assert (manifest["system"], manifest["image"]) == ("pose3d", "RGB in 0..1, nothing subtracted")
    assert manifest["config"]["model"]["depth_head"] == "flatten"
    _, config, own = systems.load_network(tmp_path / "w.safetensors")
    assert config.test.bone_sum == RELEASED_BONE_SUM  # eval needs no training set, and assumes what predict does
    theirs = models.import_published("pose3d.generator", weights)
    assert_alike(own, theirs, lambda images: pose3d_data.normalise(images, config.data))


@pytest.mark.parametrize("data", ["", ", mean: [0.4, 0, 0]", ", mean: [0, 0, 0], std: [1, 1, 0.5]"])
def test_import_refuses_a_recipe_that_feeds_the_network_other_numbers(run, weights, tmp_path, data):
    (tmp_path / "mine.yaml").write_text(RECIPE.replace(", mean: [0, 0, 0]", data))
    code, _, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors", "--recipe", "mine.yaml")
    assert code == 2
    assert err.startswith("fastpose: --recipe mine.yaml: data.mean, data.std: expected 0, 0, 0 and 1, 1, 1")
    assert err.count("\n") == 1
    assert not (tmp_path / "w.safetensors").exists()


def test_an_imported_network_predicts(run, weights, monkeypatch, tmp_path):
    monkeypatch.setattr(pose3d_pictures, "FRAMES", 3)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    Image.fromarray(photos()[0].permute(1, 2, 0).numpy()).save(tmp_path / "p.png")
    assert run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors", "--recipe", "mine.yaml")[0] == 0
    for recipe in ((), ("mine.yaml",)):
        out = f"out{len(recipe)}"
        code, _, err = run("predict", *recipe, "--weights", "w.safetensors", "p.png", "-o", out)
        assert (code, err) == (0, "")
        assert any((tmp_path / out).iterdir())


def test_the_backbones_own_recipe_takes_the_published_network_as_it_is():
    assert not any(load_recipe("pose3d/zhou").config.data.mean)
    assert set(load_recipe("pose3d/zhou").config.data.std) == {1.0}


def test_import_refuses_a_recipe_with_another_depth_head(run, weights, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("flatten", "gap"))
    code, _, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors", "--recipe", "mine.yaml")
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "w.safetensors").exists()


def test_import_names_what_a_hostile_file_wants_in_one_line(run, tmp_path):
    wants = Call(Global("os", "system"), (f"touch {tmp_path / 'ran'}",))
    network = module(("models.hg_3d", "HourglassNet3D"), hook=wants)
    (tmp_path / "bad.pth").write_bytes(whole(network))
    code, _, err = run("import", "pose3d.generator", "bad.pth", "-o", "w.safetensors")
    assert code == 2
    assert err.startswith("fastpose: checkpoint bad.pth: names os.system, which is none of")
    assert err.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "w.safetensors").exists()


def test_import_of_a_state_dict_still_works(run, weights, tmp_path):
    torch.save({"state_dict": weights}, tmp_path / "new.pth")
    assert run("import", "pose3d.generator", "new.pth", "-o", "w.safetensors")[0] == 0


def test_import_of_a_cut_file_is_one_line(run, weights, tmp_path):
    data = (tmp_path / "model_30.pth").read_bytes()
    (tmp_path / "model_30.pth").write_bytes(data[: len(data) // 2])
    code, _, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors")
    assert code == 2
    assert "truncated at" in err
    assert err.count("\n") == 1
