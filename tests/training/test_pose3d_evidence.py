"""What the critic is shown: hidden joints say nothing, and the choice of samples is even and decided by the batch."""

from __future__ import annotations

import pytest
import torch

from fastpose import ops
from fastpose.training.pose3d_evidence import Evidence, choose, partners


def evidence(seed: int = 0, count: int = 3) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    shown = torch.ones(count, 16, dtype=torch.bool)
    shown[0, 4] = False
    shown[1] = False
    heatmaps = torch.rand(count, 16, 8, 8, generator=generator, dtype=torch.float64)
    joints = torch.randn(count, 16, 3, generator=generator, dtype=torch.float64)
    image = torch.rand(count, 3, 32, 32, generator=generator, dtype=torch.float64)
    return Evidence(image, heatmaps, joints, shown)


def test_shown_joints_are_as_they_are() -> None:
    poses = evidence()
    image, heatmaps, joints = poses.sources()
    assert torch.equal(image, poses.image)
    assert torch.equal(heatmaps[2], poses.heatmaps[2])
    assert torch.equal(joints[2], poses.joints[2])


def test_a_hidden_joint_is_blank_and_in_the_middle_of_the_others() -> None:
    poses = evidence()
    _, heatmaps, joints = poses.sources()
    assert (heatmaps[0, 4] == 0).all()
    others = [joint for joint in range(16) if joint != 4]
    torch.testing.assert_close(joints[0, 4], poses.joints[0, others].mean(0))
    assert (heatmaps[1] == 0).all()
    assert (joints[1] == 0).all()  # nothing is shown at all


def test_what_a_hidden_joint_holds_has_no_influence() -> None:
    poses = evidence()
    before = poses.sources()
    poses.joints[0, 4] = float("nan")
    poses.heatmaps[0, 4] = float("inf")
    for tensor, old in zip(poses.sources(), before, strict=True):
        assert torch.equal(tensor, old)


def test_the_descriptor_of_a_hidden_joint_does_not_know_where_the_body_is() -> None:
    poses = evidence()
    moved = Evidence(poses.image, poses.heatmaps, poses.joints + 0.7, poses.shown)
    first, second = (ops.pairwise_descriptor(one.sources()[2][[0, 2]]) for one in (poses, moved))
    torch.testing.assert_close(first, second)


def test_hidden_joints_get_no_gradient_and_the_others_theirs() -> None:
    poses = evidence()
    poses.joints.requires_grad_()
    poses.heatmaps.requires_grad_()
    _, heatmaps, joints = poses.sources()
    (heatmaps.sum() + joints.square().sum()).backward()
    assert (poses.joints.grad[0, 4] == 0).all()
    assert (poses.heatmaps.grad[0, 4] == 0).all()
    assert (poses.joints.grad[2] != 0).all()
    assert torch.isfinite(poses.joints.grad).all()


def test_samples_are_taken_and_joined_in_order() -> None:
    poses = evidence()
    both = poses.take([2, 0]).beside(poses.take([1]))
    assert torch.equal(both.joints, poses.joints[[2, 0, 1]])
    assert torch.equal(both.shown, poses.shown[[2, 0, 1]])


def test_partners_hide_what_one_of_them_lacks() -> None:
    poses = evidence()
    first, second = poses.paired(poses.take([2, 2, 0]))
    assert torch.equal(first.shown, second.shown)
    assert torch.equal(first.shown, poses.shown & poses.shown[[2, 2, 0]])
    assert torch.equal(second.joints, poses.joints[[2, 2, 0]])


def test_detached_poses_have_no_history() -> None:
    poses = evidence()
    poses.joints.requires_grad_()
    assert not poses.detach().joints.requires_grad


# ---- which samples ---------------------------------------------------------------------------------------------

KNOWN = [True, False, True, False, False, True]


@pytest.mark.parametrize(
    ("fakes", "turn", "expected"),
    [
        ("both", 0, ([0, 2, 5], [1, 2, 4])),
        ("both", 1, ([0, 2, 5], [0, 3, 5])),
        ("both", 2, ([0, 2, 5], [1, 2, 4])),
        ("3d", 0, ([0, 2, 5], [0, 2, 5])),
        ("wild", 0, ([0, 2, 5], [1, 3, 4])),
    ],
)
def test_as_many_estimates_as_true_poses(fakes: str, turn: int, expected: tuple[list[int], list[int]]) -> None:
    assert choose(KNOWN, fakes, turn) == expected


def test_estimates_of_both_domains_are_even() -> None:
    known = [True] * 6 + [False] * 6
    _, others = choose(known, "both")
    assert sum(known[row] for row in others) == 3
    assert choose(known, "both") == choose(known, "both")


def test_a_domain_that_is_short_is_filled_from_the_other() -> None:
    assert choose([True, True, True, False], "both") == ([0, 1, 2], [3, 0, 1])
    assert choose([True, False, False, False], "both") == ([0], [1])


def test_few_wild_ones_take_as_few_true_poses() -> None:
    known = [True, True, True, False]
    assert choose(known, "wild") == ([0], [3])
    assert choose(known, "wild", turn=2) == ([2], [3])


def test_without_wild_photographs_both_are_those_of_the_3d_set() -> None:
    assert choose([True] * 3, "both") == ([0, 1, 2], [0, 1, 2])


def test_every_sample_has_a_true_pose_as_partner_and_all_are_shown_as_often() -> None:
    assert partners(KNOWN) == [0, 2, 5, 0, 2, 5]
    assert partners([False, True, False]) == [1, 1, 1]


@pytest.mark.parametrize(
    ("known", "fakes", "found"), [([False, False], "both", "0 with truth and 2 without"), ([True], "wild", "1 with")]
)
def test_a_batch_without_a_domain_is_one_sentence(known: list[bool], fakes: str, found: str) -> None:
    with pytest.raises(ValueError, match=f"batch: expected samples with 3D truth .*{found}.*change data.wild_share"):
        choose(known, fakes)
