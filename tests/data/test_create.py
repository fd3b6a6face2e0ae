"""The registry of data sets."""

from __future__ import annotations

import pytest

from fastpose import data


def test_names():
    assert data.list() == (
        *("coco", "deepfashion", "fonts", "h36m", "lsp", "lspet", "market", "mocap", "mpi_inf_3dhp", "mpii"),
        *("photos", "sample", "sample-mocap", "sample-pairs", "semantic"),
    )


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown data set 'mpi'.*did you mean 'mpii'"):
        data.create("mpi", "root")


def test_an_unknown_option_offers_the_nearest():
    with pytest.raises(ValueError, match=r"unknown option 'holdot' for data set 'lspet'; did you mean 'holdout'"):
        data.create("lspet", "root", holdot=3)


def test_a_data_set_on_disk_needs_a_root():
    with pytest.raises(ValueError, match=r"pass data\.root=PATH"):
        data.create("coco")


@pytest.mark.parametrize("name", ["sample", "sample-mocap", "sample-pairs"])
def test_a_bundled_data_set_has_no_root(name, tmp_path):
    with pytest.raises(ValueError, match=rf"data\.root: data set '{name}' is bundled and has no folder.*leave it out"):
        data.create(name, tmp_path)


def test_an_unknown_split_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="split: expected one of train, val, all, got 'test'"):
        data.create("lspet", tmp_path, "test")


@pytest.mark.parametrize("name", [name for name in data.list() if not name.startswith("sample")])
def test_a_folder_without_files_is_a_file_error(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"fastpose data check {name}"):
        data.create(name, tmp_path)


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data" / "joints.mat")):
        data.create("lspet", "~/data")
