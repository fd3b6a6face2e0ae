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


def test_sum_is_the_heatmap_term_of_system_002(case: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(loss(case, reduction="sum"), 2 * loss(case, reduction="half_sum"))


# ---- depth ---------------------------------------------------------------------------------------------------------

DEPTH = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]])
TARGET = torch.tensor([[0.0, 2.0, 9.0], [0.0, 0.0, 0.0]])
KNOWN = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("reduction", "over", "expected"),
    [("mean", "batch", 1 / 6), ("mean", "known", 1 / 2), ("sum", "batch", 1 / 2), ("sum", "known", 1.0)],
)
def test_depth_by_hand(reduction: str, over: str, expected: float) -> None:
    found = losses.depth_loss(DEPTH, TARGET, KNOWN, reduction=reduction, over=over)
    assert float(found) == pytest.approx(expected)


def test_unknown_depth_has_no_influence() -> None:
    depth, target = DEPTH.clone().requires_grad_(), TARGET.clone()
    target[1] = float("nan")
    losses.depth_loss(depth, target, KNOWN).backward()
    assert (depth.grad[1] == 0).all()
    assert depth.grad[0].tolist() == pytest.approx([2 / 6, 0, 0])


@pytest.mark.parametrize("over", ["batch", "known"])
def test_nothing_known_costs_nothing(over: str) -> None:
    assert float(losses.depth_loss(DEPTH, TARGET, torch.zeros(2, 3), over=over)) == 0


def test_depth_in_sixteen_bits_is_added_in_float32() -> None:
    found = losses.depth_loss(DEPTH.bfloat16(), TARGET, KNOWN)
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"over": "knwn"}, "over: expected one of batch, known.*did you mean 'known'"),
        ({"reduction": "half_sum"}, "reduction: expected one of mean, sum"),
        ({"target": torch.zeros(2, 4)}, r"target: expected \(B, K\) = \(2, 3\), got \(2, 4\)"),
        ({"known": torch.zeros(3)}, r"known: expected \(B, K\) = \(2, 3\), got \(3,\)"),
    ],
)
def test_bad_depth_is_one_sentence(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        losses.depth_loss(**{"depth": DEPTH, "target": TARGET, "known": KNOWN, **arguments})
