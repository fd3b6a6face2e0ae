"""The published crops against the recorded outputs of pytorch-pose, and their own rules."""

from __future__ import annotations

import numpy as np
import pytest

from fastpose.data import transforms
from fastpose.data.geometry import View
from fastpose.data.published_crops import cut_pytorch_pose, torch_matrix


@pytest.fixture(scope="module")
def oracle(shared):
    from safetensors.numpy import load_file

    return load_file(shared / "oracles" / "eval_pytorch_pose.safetensors")


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_pytorch_pose_crop_is_reproduced(oracle, scale):
    photo = np.ascontiguousarray(oracle["input.crop_img"].transpose(1, 2, 0))
    cut = cut_pytorch_pose(photo, oracle["input.crop_center"], scale, View(), (64, 64))
    expected = oracle[f"output.crop_scale{scale}_res64"].transpose(1, 2, 0)
    assert np.abs(cut - expected).max() < 1e-6


@pytest.mark.parametrize("case", range(4))
def test_published_matrix_is_reproduced(oracle, case):
    center, scale, rotation = (oracle[f"input.tf_{name}"][case] for name in ("center", "scale", "rot"))
    assert np.allclose(
        torch_matrix(center, scale, rotation, (64, 64)), oracle["output.tf_matrix_64"][case][:2], atol=1e-4
    )


@pytest.mark.parametrize("case", range(4))
def test_truncated_key_points_are_reproduced(oracle, case):
    """The code subtracts 1 from the point, truncates, and adds 1."""
    center, scale, rotation = (oracle[f"input.tf_{name}"][case] for name in ("center", "scale", "rot"))
    points = oracle["input.tf_points"] - 1
    view = View(rotation=float(rotation))
    placed, _ = transforms.crop("pytorch_pose").place(points, center, scale, view, (64, 64))
    assert (placed + 1 == oracle["output.tf_fwd_64"][case]).all()


@pytest.mark.parametrize("name", ["pytorch_pose", "stacked_hourglass", "hg_sagan"])
def test_key_points_are_whole_and_the_way_back_ends_within_a_cell(name):
    points = np.random.default_rng(0).uniform(20, 180, (50, 2))
    placed, back = transforms.crop(name).place(points, np.array([100.0, 100.0]), 1.0, View(), (64, 64))
    assert (placed == np.trunc(placed)).all()
    returned = placed @ back[:, :2].T + back[:, 2]
    cell = 200 / 64
    assert np.abs(returned - points).max() <= cell / 2 + 1e-9


@pytest.mark.parametrize("name", ["pytorch_pose", "stacked_hourglass", "hg_sagan", "exact"])
@pytest.mark.parametrize("rotation", [0.0, 30.0])
def test_a_dot_lands_where_its_key_point_does(name, rotation):
    photo = np.zeros((200, 220, 3), np.uint8)
    photo[118:123, 88:93] = 255  # a dot around (90, 120)
    crop, view = transforms.crop(name), View(scale=1.1, rotation=rotation)
    center, scale = np.array([105.3, 98.6]), 0.7
    cut = crop.cut(photo, center, scale, view, (256, 256))
    point, _ = crop.place(np.array([[90.0, 120.0]]), center, scale, view, (256, 256))
    rows, columns = np.nonzero(cut[:, :, 0] > 127)
    assert np.abs(point[0] - [columns.mean(), rows.mean()]).max() < 2.5


@pytest.mark.parametrize("name", tuple(transforms.CROPS))
@pytest.mark.parametrize("scale", [1e-4, 0.004, 30.0])
def test_extreme_scales_give_an_image(name, scale):
    photo = np.full((31, 45, 3), 200, np.uint8)
    cut = transforms.crop(name).cut(photo, np.array([20.0, 15.0]), scale, View(rotation=10.0), (32, 32))
    assert cut.shape == (32, 32, 3)


def test_the_released_augmentation_blackens_what_left_the_crop():
    photo = np.full((400, 400, 3), 255, np.uint8)
    view = View(scale=1.25)
    center = np.array([200.0, 200.0])
    assert transforms.crop("hg_sagan").cut(photo, center, 1.0, view, (64, 64))[0, 0, 0] == 0
    assert transforms.crop("stacked_hourglass").cut(photo, center, 1.0, view, (64, 64))[0, 0, 0] == 255
