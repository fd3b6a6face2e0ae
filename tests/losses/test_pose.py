"""The pose loss of all stacks against its equation, written out."""

from __future__ import annotations

import pytest
import torch

from fastpose import losses, ops

SIGMA = 1.0


@pytest.fixture
def case() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "first": torch.randn(2, 3, 8, 10, generator=generator, dtype=torch.float64),
        "second": torch.randn(2, 3, 8, 10, generator=generator, dtype=torch.float64),
        "keypoints": torch.rand(2, 3, 2, generator=generator, dtype=torch.float64) * 8,
        "visibility": torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64),
    }


def target(case: dict[str, torch.Tensor]) -> torch.Tensor:
    size = tuple(case["first"].shape[-2:])
    return ops.render_gaussian_heatmaps(case["keypoints"], size, SIGMA, visibility=case["visibility"])


def loss(case: dict[str, torch.Tensor], **options: str) -> torch.Tensor:
    stacks = [case["first"], case["second"]]
    return losses.pose_loss(stacks, case["keypoints"], SIGMA, visibility=case["visibility"], **options)


def test_mean_is_summed_over_stacks(case: dict[str, torch.Tensor]) -> None:
    truth = target(case)
    expected = (case["first"] - truth).square().mean() + (case["second"] - truth).square().mean()
    torch.testing.assert_close(loss(case), expected)


def test_half_sum_is_equation_5_averaged_over_the_batch(case: dict[str, torch.Tensor]) -> None:
    truth = target(case)
    total = (case["first"] - truth).square().sum() + (case["second"] - truth).square().sum()
    torch.testing.assert_close(loss(case, reduction="half_sum"), 0.5 * total / 2)


def test_a_missing_joint_is_asked_to_be_a_zero_plane(case: dict[str, torch.Tensor]) -> None:
    case["first"] = target(case)
    case["second"] = target(case)
    assert loss(case) == pytest.approx(0)
    case["first"][0, 1] += 1
    assert loss(case) > 0.01


def test_an_ignored_joint_has_no_influence(case: dict[str, torch.Tensor]) -> None:
    before = loss(case, missing="ignore")
    case["first"][0, 1] += 100
    case["second"][0, 1] += 100
    torch.testing.assert_close(loss(case, missing="ignore"), before)
    case["first"][0, 0] += 1
    assert loss(case, missing="ignore") != before


def test_gradient_of_every_stack(case: dict[str, torch.Tensor]) -> None:
    stacks = [case[name].requires_grad_() for name in ("first", "second")]
    losses.pose_loss(stacks, case["keypoints"], SIGMA, visibility=case["visibility"]).backward()
    expected = 2 * (case["first"].detach() - target(case)) / case["first"].numel()
    torch.testing.assert_close(stacks[0].grad, expected)
    assert stacks[1].grad is not None


def test_no_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one stack"):
        losses.pose_loss([], torch.zeros(1, 1, 2), 1.0)


def test_an_unknown_option_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'ignore'"):
        losses.pose_loss([torch.zeros(1, 1, 2, 2)], torch.zeros(1, 1, 2), 1.0, missing="ignor")
