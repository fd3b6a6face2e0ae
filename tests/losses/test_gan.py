"""The adversarial criterion against its formulas, at its limits and in 16 bits."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fastpose import losses


@pytest.fixture
def scores() -> torch.Tensor:
    return torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("real", [True, False])
def test_bce_is_the_log_loss_of_equation_9(scores: torch.Tensor, real: bool) -> None:
    probability = torch.sigmoid(scores)
    expected = -torch.log(probability if real else 1 - probability).mean()
    torch.testing.assert_close(losses.gan_loss(scores, real, criterion="bce"), expected)
    torch.testing.assert_close(losses.gan_loss(probability, real, criterion="bce", probabilities=True), expected)


@pytest.mark.parametrize(("real", "label"), [(True, 1.0), (False, 0.0)])
def test_lsgan_is_the_squared_distance_to_the_label(scores: torch.Tensor, real: bool, label: float) -> None:
    expected = functional.mse_loss(scores, torch.full_like(scores, label))
    torch.testing.assert_close(losses.gan_loss(scores, real), expected)


@pytest.mark.parametrize("criterion", ["bce", "lsgan"])
def test_a_perfect_discriminator_and_a_fooled_one(criterion: str) -> None:
    sure = torch.full((2, 1, 3, 3), 60.0) if criterion == "bce" else torch.ones(2, 1, 3, 3)
    assert losses.gan_loss(sure, True, criterion=criterion) == pytest.approx(0, abs=1e-6)
    assert losses.gan_loss(sure, False, criterion=criterion) >= 1


@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("real", [True, False])
def test_saturated_logits_keep_value_and_gradient(logit: float, real: bool) -> None:
    value = torch.tensor([logit], requires_grad=True)
    loss = losses.gan_loss(value, real, criterion="bce")
    loss.backward()
    expected = max(-logit if real else logit, 0.0) + math.log1p(math.exp(-abs(logit)))
    assert float(loss.detach()) == pytest.approx(expected)
    wanted = float(torch.sigmoid(torch.tensor(logit, dtype=torch.float64))) - real
    assert float(value.grad) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_saturated_probabilities_stay_finite(logit: float, real: bool) -> None:
    value = torch.tensor([logit], requires_grad=True)
    loss = losses.gan_loss(torch.sigmoid(value), real, criterion="bce", probabilities=True)
    loss.backward()
    assert 0 <= float(loss.detach()) <= 100
    assert torch.isfinite(value.grad).all()


@pytest.mark.parametrize("options", [{"criterion": "bce"}, {"criterion": "bce", "probabilities": True}, {}])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_averaged_in_float32(options: dict[str, object], dtype: torch.dtype) -> None:
    narrow = torch.rand(4, 8, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.gan_loss(narrow, True, **options)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, losses.gan_loss(narrow.double(), True, **options).float())


@pytest.mark.parametrize("options", [{"criterion": "bce"}, {}])
def test_gradient_reaches_the_scores_twice(options: dict[str, object]) -> None:
    value = torch.rand(2, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: losses.gan_loss(x, False, **options), (value,))


def test_an_unknown_criterion_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'lsgan'"):
        losses.gan_loss(torch.zeros(1), True, criterion="lsgam")


def test_no_score_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scores: expected at least one, got \(0, 1\)"):
        losses.gan_loss(torch.zeros(0, 1), True)
    with pytest.raises(TypeError, match=r"scores: expected a torch\.Tensor"):
        losses.gan_loss(0.5, True)


# ---- the critic's loss ---------------------------------------------------------------------------------------------


def test_a_critic_pays_with_its_mean(scores: torch.Tensor) -> None:
    torch.testing.assert_close(losses.wasserstein_loss(scores, True), -scores.mean())
    torch.testing.assert_close(losses.wasserstein_loss(scores, False), scores.mean())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_of_a_critic_are_averaged_in_float32(dtype: torch.dtype) -> None:
    narrow = torch.full((5000,), 30.0, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses.wasserstein_loss(narrow, False)
    assert (loss.dtype, float(loss)) == (torch.float32, 30.0)


def test_no_score_of_a_critic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scores: expected at least one, got \(0,\)"):
        losses.wasserstein_loss(torch.zeros(0), True)
