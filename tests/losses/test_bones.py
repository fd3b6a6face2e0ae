"""The bone-length-ratio loss against numbers worked out by hand, and the released groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastpose import losses, skeletons
from fastpose.losses import bones

GROUPS = (((0, 1, 1.0), (1, 2, 2.0)),)


def chain(*lengths: float) -> Tensor:
    """Joints on the depth axis, so many apart."""
    places = torch.tensor([0.0, *lengths], dtype=torch.float64).cumsum(0)
    return torch.stack((torch.zeros_like(places), torch.zeros_like(places), places), dim=-1)[None]


def mean_body() -> Tensor:
    """16 joints whose groups have the mean proportions exactly."""
    joints = torch.zeros(16, 3, dtype=torch.float64)
    shin, forearm = 1 / 1.0085885098415446, 1 / 1.1375361376887123
    joints[2], joints[3] = torch.tensor([-0.2, 0, 0]), torch.tensor([0.2, 0, 0])
    joints[1], joints[4] = joints[2] + torch.tensor([0, 0.3, 0.4]), joints[3] + torch.tensor([0, 0.5, 0])
    joints[0], joints[5] = joints[1] + torch.tensor([0, 0.5 * shin, 0]), joints[4] + torch.tensor([0, 0, 0.5 * shin])
    joints[8] = torch.tensor([0, -0.8, 0])
    joints[12], joints[13] = joints[8] + torch.tensor([-0.3, 0, 0]), joints[8] + torch.tensor([0, 0, 0.3])
    joints[11], joints[14] = joints[12] + torch.tensor([0, 0.4, 0]), joints[13] + torch.tensor([0, 0, 0.4])
    joints[10] = joints[11] + torch.tensor([0.4 * forearm, 0, 0])
    joints[15] = joints[14] + torch.tensor([0, -0.4 * forearm, 0])
    return joints[None]


def test_the_variance_by_hand() -> None:
    """Lengths 1 and 2 x 1.5 = 3: mean 2, variance 1."""
    found = losses.bone_ratio_loss(chain(1.0, 1.5), torch.ones(1, 3), GROUPS)
    assert float(found) == pytest.approx(1.0)


def test_proportions_as_in_the_mean_cost_nothing_at_any_size() -> None:
    joints = mean_body()
    for size in (0.1, 1.0, 3.0):
        assert float(losses.bone_ratio_loss(size * joints, torch.ones(1, 16))) == pytest.approx(0, abs=1e-12)
    joints[0, 10] += torch.tensor([0.3, 0, 0])
    assert float(losses.bone_ratio_loss(joints, torch.ones(1, 16))) > 0.01


def test_a_hidden_joint_takes_its_bones_out() -> None:
    joints = torch.cat((chain(1.0, 1.5), chain(1.0, 1.5)))
    joints[1, 2] = float("nan")
    visible = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    joints.requires_grad_()
    loss = losses.bone_ratio_loss(joints, visible, GROUPS)
    assert float(loss.detach()) == pytest.approx(0.5)  # one bone alone has no variance; the mean over two samples
    loss.backward()
    assert torch.isfinite(joints.grad).all()
    assert (joints.grad[1] == 0).all()


def test_nothing_visible_costs_nothing() -> None:
    assert float(losses.bone_ratio_loss(mean_body(), torch.zeros(1, 16))) == 0


def test_the_gradient_pulls_a_stretched_bone_back() -> None:
    joints = mean_body()
    joints[0, 15, 2] += 0.2
    joints.requires_grad_()
    losses.bone_ratio_loss(joints, torch.ones(1, 16)).backward()
    assert joints.grad[0, 15, 2] > 0
    assert torch.autograd.gradcheck(lambda x: losses.bone_ratio_loss(x, torch.ones(1, 16)), (joints,))


def test_joints_in_one_place_have_a_finite_gradient() -> None:
    joints = torch.zeros(2, 16, 3, requires_grad=True)
    losses.bone_ratio_loss(joints, torch.ones(2, 16)).backward()
    assert torch.isfinite(joints.grad).all()


def test_sixteen_bits_are_added_in_float32() -> None:
    narrow = mean_body().to(torch.bfloat16)
    found = losses.bone_ratio_loss(narrow, torch.ones(1, 16))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, losses.bone_ratio_loss(narrow.double(), torch.ones(1, 16)).float())


def test_the_released_groups_are_those_of_the_skeleton() -> None:
    names = [[(skeletons.MPII.joints[a], skeletons.MPII.joints[b]) for a, b, _ in group] for group in bones.MPII_GROUPS]
    assert [len(group) for group in names] == [4, 4, 2, 2]
    assert {joint.partition("_")[2] for pair in names[0] for joint in pair} == {"ankle", "knee", "hip"}
    assert {joint.partition("_")[2] for pair in names[1] for joint in pair} == {"wrist", "elbow", "shoulder"}
    assert {pair[1] for pair in names[2] + names[3]} == {"pelvis", "upper_neck"}
    for group in bones.MPII_GROUPS:  # both sides are treated alike
        swap = skeletons.MPII.flip_permutation
        assert {(*sorted((swap[a], swap[b])), f) for a, b, f in group} == {(*sorted((a, b)), f) for a, b, f in group}


@pytest.mark.parametrize(
    ("joints", "visible", "sentence"),
    [
        (torch.zeros(2, 14, 3), torch.ones(2, 14), r"joints: expected \(B, K, 3\) with K > 15, got \(2, 14, 3\)"),
        (torch.zeros(2, 16, 2), torch.ones(2, 16), r"joints: expected \(B, K, 3\) with K > 15, got \(2, 16, 2\)"),
        (torch.zeros(2, 16, 3), torch.ones(2, 15), r"visible: expected \(B, K\) = \(2, 16\), got \(2, 15\)"),
    ],
)
def test_bad_shapes_are_one_sentence(joints: Tensor, visible: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        losses.bone_ratio_loss(joints, visible)
