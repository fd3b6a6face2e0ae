"""The controller of lambda_D."""

from __future__ import annotations

import pytest
import torch

from fastpose.losses import Equilibrium


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_one_step_by_hand() -> None:
    k, measure = Equilibrium(gamma=0.5, rate=0.001).advance(scalar(0.2), scalar(4.0), scalar(1.5))
    # balance = 0.5 * 4 - 1.5 = 0.5
    assert float(k) == pytest.approx(0.2005)
    assert float(measure) == pytest.approx(4.5)


@pytest.mark.parametrize(("real", "fake", "expected"), [(1e6, 0.0, 1.0), (0.0, 1e6, 0.0)])
def test_k_stays_between_0_and_1(real: float, fake: float, expected: float) -> None:
    k, _ = Equilibrium().advance(scalar(0.5), scalar(real), scalar(fake))
    assert float(k) == expected


def test_k_rests_where_the_wanted_ratio_holds() -> None:
    k, measure = Equilibrium(gamma=0.5).advance(scalar(0.3), scalar(2.0), scalar(1.0))
    assert float(k) == 0.3
    assert float(measure) == 2.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_leaves_k(bad: float) -> None:
    k, _ = Equilibrium().advance(scalar(0.3), scalar(1.0), scalar(bad))
    assert float(k) == 0.3


def test_nothing_carries_gradient() -> None:
    loss = torch.tensor(1.0, requires_grad=True)
    k, measure = Equilibrium().advance(torch.tensor(0.0), loss * 2, loss)
    assert not k.requires_grad
    assert not measure.requires_grad


def test_a_start_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="equilibrium start: expected a number from 0 to 1, got 2"):
        Equilibrium(start=2)
