"""The perceptual loss and its scalings against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastpose import losses

MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(1, 3, 1, 1)


@pytest.fixture
def features() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers).double().requires_grad_(False)


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = [torch.rand(2, 3, 6, 4, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(2)]
    return 0.6 * draw[0], draw[1]


def affine(images: Tensor) -> Tensor:
    return (images + 1) / 2


def minmax_batch(images: Tensor) -> Tensor:
    return (images - images.min()) / (images.max() - images.min())


def minmax_sample(images: Tensor) -> Tensor:
    return torch.stack([minmax_batch(image) for image in images])


SCALINGS = {"affine": affine, "minmax_batch": minmax_batch, "minmax_sample": minmax_sample}


@pytest.mark.parametrize("name", SCALINGS)
def test_both_layers_against_the_formula(name: str, features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    found = losses.perceptual_losses(*pair, features, (2, 5), scaling=name)
    for layer, loss in zip((2, 5), found, strict=True):
        seen, wanted = (features[:layer]((SCALINGS[name](images) - MEAN) / STD) for images in pair)
        torch.testing.assert_close(loss, (seen - wanted).abs().mean())


def test_the_sum_is_equation_11_averaged_over_the_batch(features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    (found,) = losses.perceptual_losses(*pair, features, (4,), reduction="sum")
    seen, wanted = (features[:4]((affine(images) - MEAN) / STD) for images in pair)
    norms = torch.stack([(seen[b, i] - wanted[b, i]).norm(p=1) for b in range(2) for i in range(6)])
    torch.testing.assert_close(found, norms.sum() / 2)


@pytest.mark.parametrize("name", SCALINGS)
def test_gradient_goes_through_the_scaling(name: str, features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    generated, target = pair[0].requires_grad_(), pair[1].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: losses.perceptual_losses(x, target.detach(), features, (5,), scaling=name)[0], (generated,)
    )
    losses.perceptual_losses(generated, target, features, (5,), scaling=name)[0].backward()
    assert generated.grad.abs().sum() > 0
    assert target.grad is None


@pytest.mark.parametrize("name", ["minmax_batch", "minmax_sample"])
def test_a_constant_image_is_all_zero(name: str, features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    constant = torch.full_like(pair[0], 0.3).requires_grad_()
    (found,) = losses.perceptual_losses(constant, pair[1], features, (5,), scaling=name)
    (expected,) = losses.perceptual_losses(torch.full_like(constant, -1), torch.zeros_like(constant), features, (5,))
    seen = features((0 - MEAN) / STD + torch.zeros_like(constant))
    wanted = features((SCALINGS[name](pair[1]) - MEAN) / STD)
    torch.testing.assert_close(found, (seen - wanted).abs().mean())
    assert torch.isfinite(expected)
    found.backward()
    assert torch.isfinite(constant.grad).all()


def test_the_scales_of_generated_and_target_are_apart(features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    darker = 0.25 * pair[1] - 0.5  # the same image once each is stretched to its own range
    (found,) = losses.perceptual_losses(darker, pair[1], features, (5,), scaling="minmax_batch")
    assert float(found) == pytest.approx(0, abs=1e-12)
    (found,) = losses.perceptual_losses(darker, pair[1], features, (5,), scaling="affine")
    assert found > 0.01


def test_equal_images_cost_nothing(features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    assert losses.perceptual_losses(pair[0], pair[0], features, (1, 2, 5)) == [0, 0, 0]


def test_under_autocast_the_loss_is_float32(features: nn.Sequential, pair: tuple[Tensor, Tensor]) -> None:
    generated, target = pair[0].bfloat16(), pair[1].float()
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = losses.perceptual_losses(generated, target, features.float(), (2,))
    assert found.dtype == torch.float32
    (expected,) = losses.perceptual_losses(*pair, features.double(), (2,))
    assert float(found) == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wide_images_come_to_narrow_features_in_their_type(
    dtype: torch.dtype, features: nn.Sequential, pair: tuple[Tensor, Tensor]
) -> None:
    generated = pair[0].requires_grad_()
    (expected,) = losses.perceptual_losses(generated.detach(), pair[1], features, (5,))
    (found,) = losses.perceptual_losses(generated, pair[1], features.to(dtype), (5,))
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(expected), rel=10 * torch.finfo(dtype).eps)
    found.backward()
    assert generated.grad.dtype == torch.float64


def test_features_without_weights_keep_the_type_of_the_images(pair: tuple[Tensor, Tensor]) -> None:
    (found,) = losses.perceptual_losses(*pair, nn.Sequential(nn.Identity()), (1,))
    torch.testing.assert_close(found, ((pair[0] - pair[1]) / 2 / STD).abs().mean())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"scaling": "min_max_batch"}, "scaling: expected one of .*did you mean 'minmax_batch'"),
        ({"reduction": "summ"}, "did you mean 'sum'"),
        ({"layers": (6,)}, r"layer numbers within 1..5, got \(6,\)"),
        ({"layers": ()}, r"layer numbers within 1..5, got \(\)"),
        ({"target": torch.zeros(2, 3, 6, 5)}, r"expected \(B, 3, H, W\) each, got .*\(2, 3, 6, 5\)"),
        ({"generated": torch.zeros(2, 1, 6, 4), "target": torch.zeros(2, 1, 6, 4)}, r"expected \(B, 3, H, W\) each"),
        (
            {"generated": torch.zeros(0, 3, 6, 4), "target": torch.zeros(0, 3, 6, 4)},
            r"^generated, target: expected at least one image, got \(0, 3, 6, 4\)$",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    changes: dict[str, object], sentence: str, features: nn.Sequential, pair: tuple[Tensor, Tensor]
) -> None:
    arguments = {"generated": pair[0], "target": pair[1], "features": features, "layers": (4,)}
    with pytest.raises(ValueError, match=sentence):
        losses.perceptual_losses(**arguments | changes)
