"""doctor, recipes, data, import, export, bench."""

from __future__ import annotations

import io
import logging
import sys

import pytest
import torch
import yaml

from fastpose import cli, models, ops
from fastpose.benchmark.cases import typical
from fastpose.training import checkpoint, list_recipes, load_recipe


def test_doctor_names_versions_devices_and_a_backend_for_each_operation(run):
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    assert f"{torch.get_num_threads()} threads" in out
    assert "extension fastpose._C" in out
    for name in ops.operations():
        chosen = ops.explain(name, *typical()[name].make("cpu")).chosen
        assert f"  {name}: {chosen}\n" in out


def test_recipes_lists_every_recipe_with_the_papers_number(run):
    code, out, err = run("recipes")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert list(rows) == list_recipes()
    for name, line in rows.items():
        assert all(f"{value:g}" in line for value in load_recipe(name).paper.values())


def test_recipes_show_prints_yaml_with_every_default(run):
    code, out, _ = run("recipes", "show", "sagan/ours-c")
    assert code == 0
    shown = yaml.safe_load(out)
    assert shown["model"]["stacks"] == 4
    assert shown["run"]["seed"] == 0


def test_recipes_copy_is_a_recipe_and_refuses_to_overwrite(run, tmp_path):
    code, out, _ = run("recipes", "copy", "sagan/tiny", "mine.yaml")
    assert code == 0
    assert "fastpose train mine.yaml" in out
    assert load_recipe(tmp_path / "mine.yaml").config == load_recipe("sagan/tiny").config
    code, _, err = run("recipes", "copy", "sagan/tiny", "mine.yaml")
    assert (code, err) == (2, "fastpose: mine.yaml: exists already; name another file\n")


def test_data_list_names_the_data_sets(run):
    code, out, _ = run("data", "list")
    assert code == 0
    assert {"lsp", "lspet", "mpii", "coco", "sample"} <= set(out.split())


def test_data_check_of_the_bundled_sample_is_ready(run):
    code, out, err = run("data", "check", "sample")
    assert (code, err) == (0, "")
    assert "✓" in out


def test_data_check_of_an_empty_folder_shows_the_tree_and_fails(run, tmp_path):
    code, out, err = run("data", "check", "lspet", tmp_path)
    assert code == 2
    assert "joints.mat" in out
    assert "✗" in out
    assert err.startswith("fastpose: data set lspet")
    assert err.count("\n") == 1


def test_import_reads_a_published_hourglass(run, shared, tmp_path):
    source = shared / "oracles" / "bearpaw_hg_s2_b1_w32.safetensors"
    if not source.is_file():
        pytest.skip("the reference folder holds no bearpaw_hg_s2_b1_w32")
    state, _ = checkpoint.deserialise(source, source.read_bytes())
    theirs = {f"module.{name}": value for name, value in state.items() if not name.startswith(("input.", "output."))}
    torch.save({"state_dict": theirs, "epoch": 3}, tmp_path / "hg.pth")
    code, out, err = run(
        "import", "hourglass", "hg.pth", "stacks=2", "width=64", "stem=pytorch_pose", "-o", "new/hg.safetensors"
    )
    assert (code, err) == (0, "")
    assert "433,984 parameters" in out
    _, manifest = checkpoint.load_weights(tmp_path / "new/hg.safetensors")
    assert manifest["options"] == {"stacks": 2, "width": 64, "stem": "pytorch_pose", "stem_width": 16}


def test_import_with_an_option_of_a_wrong_type_is_one_line(run, tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "hg.pth")
    code, _, err = run("import", "hourglass", "hg.pth", "stacks=three", "-o", "w.safetensors")
    assert code == 2
    assert err.startswith("fastpose: hourglass: the options stacks=three build no network")
    assert err.count("\n") == 1


def test_import_never_runs_pickled_code(run, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    code, _, err = run("import", "hourglass", "bomb.pth", "-o", "w.safetensors")
    assert code == 2
    assert "readable with weights_only=True" in err
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("recipe", ["sagan/tiny", "mine.yaml"])
def test_import_with_a_recipe_gives_weights_that_predict_takes(run, photo, tmp_path, monkeypatch, recipe):
    # The importer itself is tested with the models; here a network that fits the recipe stands in for its result.
    network = models.create("sagan.generator.tiny", keypoints=17)
    monkeypatch.setattr(models, "import_published", lambda name, state, **options: network)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "theirs.pth")
    assert run("recipes", "copy", "sagan/tiny", "mine.yaml")[0] == 0
    code, out, err = run("import", "sagan.generator", "theirs.pth", "-o", "w.safetensors", "--recipe", recipe)
    assert (code, err) == (0, "")
    assert f"fastpose predict {recipe} --weights w.safetensors" in out
    assert run("predict", recipe, photo, "--weights", "w.safetensors", "-o", "drawn")[0] == 0


def test_import_refuses_a_recipe_of_another_network_with_the_same_weights(run, tmp_path, monkeypatch):
    full = models.create("multiscale.generator", width=8, levels=2)
    monkeypatch.setattr(models, "import_published", lambda name, state, **options: full)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "theirs.pth")
    assert run("recipes", "copy", "multiscale/tiny", "own.yaml")[0] == 0
    recipe = (tmp_path / "own.yaml").read_text()
    start, _, end = recipe.partition("  model:\n")
    rest = end[end.index("  discriminator:") :]
    (tmp_path / "own.yaml").write_text(f"{start}  model:\n    width: 8\n    levels: 2\n    fusion: sum\n{rest}")
    code, _, err = run("import", "multiscale.generator", "theirs.pth", "-o", "w.safetensors", "--recipe", "own.yaml")
    assert code == 2
    assert "differs from the published one at 'gates" in err
    assert not (tmp_path / "w.safetensors").exists()


def test_the_callers_streams_are_as_they_were(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    level = logging.getLogger("matplotlib").level
    assert cli.main(["--version"]) == 0
    assert (out.errors, logging.getLogger("matplotlib").level) == ("strict", level)
