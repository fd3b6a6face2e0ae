"""The reconstruction losses against their equations."""

from __future__ import annotations

import pytest
import torch

from fastpose import losses


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 4, 5, 6, generator=generator), torch.randn(3, 4, 5, 6, generator=generator)


def test_mean_is_over_all_elements(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    redrawn, heatmaps = pair
    expected = torch.nn.functional.mse_loss(redrawn, heatmaps)
    torch.testing.assert_close(losses.reconstruction_loss(redrawn, heatmaps), expected)


def test_half_sum_is_equation_8_averaged_over_the_batch(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    redrawn, heatmaps = pair
    per_image = [0.5 * (redrawn[b] - heatmaps[b]).square().sum() for b in range(3)]
    found = losses.reconstruction_loss(redrawn, heatmaps, reduction="half_sum")
    torch.testing.assert_close(found, torch.stack(per_image).mean())


def test_a_perfect_reconstruction_costs_nothing(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert losses.reconstruction_loss(pair[0], pair[0]) == 0


def test_half_precision_is_squared_in_float32() -> None:
    small = torch.full((1, 1, 2, 2), 1e-4, dtype=torch.float16)
    loss = losses.reconstruction_loss(small, torch.zeros_like(small))
    assert loss.dtype == torch.float32
    assert loss > 0  # in float16, 1e-8 would be 0


def test_float64_stays_float64() -> None:
    values = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert losses.reconstruction_loss(values, values).dtype == torch.float64


def test_gradient_reaches_both_arguments_twice() -> None:
    a, b = (torch.rand(2, 1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(losses.reconstruction_loss, (a, b))


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"reconstruction: expected \(1, 2, 3, 3\).*got \(1, 2, 3, 4\)"):
        losses.reconstruction_loss(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 3))


def test_an_unknown_reduction_offers_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        losses.reconstruction_loss(torch.zeros(1), torch.zeros(1), reduction="meen")


def test_discriminator_and_generator_losses_are_equations_10_and_7() -> None:
    real, fake = torch.tensor(3.0), torch.tensor(2.0)
    assert losses.discriminator_loss(real, fake, 0.5) == 2.0
    assert losses.generator_loss(real, fake, 0.1) == pytest.approx(3.2)
