"""`fastpose import` of networks that were pickled whole: system 002."""

import pytest
import torch
from python2_pickles import Call, Global, Writer, as_new, module, published_weights, whole

from fastpose import models
from fastpose.training import checkpoint

RECIPE = """
system: pose3d
description: A network that fits the tiny published one.
config:
  data: {image_size: 64}
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
    assert all(torch.equal(state[key], t) for key, t in network.state_dict().items())


def test_import_with_a_recipe_says_its_recipe_and_configuration(run, weights, tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE)
    code, out, err = run("import", "pose3d.generator", "model_30.pth", "-o", "w.safetensors", "--recipe", "mine.yaml")
    assert (code, err) == (0, "")
    assert "fastpose predict mine.yaml --weights w.safetensors PHOTO.jpg" in out
    assert "gave it BGR" in out
    state, manifest = checkpoint.load_weights(tmp_path / "w.safetensors")
    turned = weights["conv1_.weight"].flip(1) * (255 / 256)
    torch.testing.assert_close(state["two_d.stem.conv.weight"], turned)
    assert manifest["system"] == "pose3d"
    assert manifest["config"]["model"]["depth_head"] == "flatten"


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
