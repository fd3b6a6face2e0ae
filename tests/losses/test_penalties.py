"""The gradient penalty against critics whose gradient is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fastpose import losses, ops


def pairs(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3), (4, 2, 5))
    real = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return real, [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def linear(size: float, first: Tensor, second: Tensor) -> Tensor:
    """A critic whose gradient has the norm sqrt(3 + 10) * size in every sample."""
    return size * (first.sum(1) + second.sum((1, 2)))


@pytest.mark.parametrize("size", [0.1, 1.0, 3.0])
def test_the_norm_is_over_all_inputs_together(size: float) -> None:
    real, fake = pairs()
    norm = size * 13**0.5
    found = losses.gradient_penalty(partial(linear, size), real, fake)
    assert float(found) == pytest.approx((norm - 1) ** 2)
    one_sided = losses.gradient_penalty(partial(linear, size), real, fake, form="lp")
    assert float(one_sided) == pytest.approx(max(norm - 1, 0) ** 2)


def test_a_critic_of_slope_one_costs_nothing() -> None:
    real, fake = pairs()
    assert float(losses.gradient_penalty(partial(linear, 13**-0.5), real, fake)) == pytest.approx(0, abs=1e-12)


def test_all_inputs_of_a_sample_stand_at_one_place_of_the_line() -> None:
    real, fake = pairs()
    seen: list[tuple[Tensor, ...]] = []

    def critic(*inputs: Tensor) -> Tensor:
        seen.append(tuple(x.detach() for x in inputs))
        return linear(1.0, *inputs)

    share = torch.tensor([0.0, 0.25, 0.5, 1.0])
    losses.gradient_penalty(critic, real, fake, share=share)
    (points,) = seen
    for point, true, made in zip(points, real, fake, strict=True):
        weight = share.double().view(-1, *[1] * (true.dim() - 1))
        torch.testing.assert_close(point, weight * true + (1 - weight) * made)
    losses.gradient_penalty(critic, real, fake)
    drawn = [((p - f) / (t - f)).flatten(1) for p, t, f in zip(seen[1], real, fake, strict=True)]
    places = torch.cat(drawn, 1)
    assert float(places.std(1).max()) < 1e-5
    assert float(places.min()) >= -1e-9
    assert float(places.max()) <= 1 + 1e-9


def test_it_is_the_formula_by_hand() -> None:
    """Of a critic sum(w x^2) the gradient is 2 w x."""
    real, fake = [torch.tensor([[1.0, 2.0]])], [torch.tensor([[3.0, -2.0]])]
    weight = torch.tensor([0.5, 1.5], requires_grad=True)
    found = losses.gradient_penalty(lambda x: (weight * x**2).sum(1), real, fake, share=torch.tensor([0.25]))
    point = torch.tensor([2.5, -1.0])
    expected = ((2 * weight * point).norm() - 1) ** 2
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, weight)
    (wanted,) = torch.autograd.grad(expected, weight)
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("form", ["gp", "lp"])
def test_a_flat_critic_has_a_finite_gradient(form: str) -> None:
    weight = torch.zeros(3, requires_grad=True)
    real, fake = [torch.randn(2, 3)], [torch.randn(2, 3)]
    loss = losses.gradient_penalty(lambda x: x @ weight, real, fake, form=form)
    assert float(loss.detach()) == (1 if form == "gp" else 0)
    (gradient,) = torch.autograd.grad(loss, weight)
    assert torch.isfinite(gradient).all()


def test_its_gradient_passes_through_the_ops_of_a_critic() -> None:
    """Numerically, of weights behind the descriptor, which is differentiated twice by it."""
    generator = torch.Generator().manual_seed(5)
    real, fake = (torch.randn(2, 4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(96, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    share = torch.tensor([0.3, 0.8], dtype=torch.float64)

    def penalty(weight: Tensor) -> Tensor:
        def critic(joints: Tensor) -> Tensor:
            return torch.tanh(ops.pairwise_descriptor(joints).flatten(1) @ weight / 10).sum(1)

        return losses.gradient_penalty(critic, [real], [fake], share=share)

    assert torch.autograd.gradcheck(penalty, (weight,), atol=1e-6)


@pytest.mark.parametrize("form", ["gp", "lp"])
def test_it_can_itself_be_differentiated_twice(form: str) -> None:
    real, fake = pairs(2)
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64, requires_grad=True)
    share = torch.tensor([0.1, 0.4, 0.6, 0.9], dtype=torch.float64)

    def penalty(weight: Tensor) -> Tensor:
        return losses.gradient_penalty(
            lambda x: torch.tanh(x @ weight).sum(1), real[:1], fake[:1], form=form, share=share
        )

    assert torch.autograd.gradcheck(penalty, (weight,))
    assert torch.autograd.gradgradcheck(penalty, (weight,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_penalised_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    real, fake = [torch.randn(4, 3).to(dtype)], [torch.randn(4, 3).to(dtype)]
    share = torch.rand(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.gradient_penalty(critic, real, fake, share=share)
    assert found.dtype == torch.float32
    wide = losses.gradient_penalty(critic, [real[0].float()], [fake[0].float()], share=share)
    torch.testing.assert_close(found, wide, rtol=0, atol=0)


def test_several_scores_of_a_sample_count_together() -> None:
    real, fake = [torch.randn(2, 3)], [torch.randn(2, 3)]
    patches = losses.gradient_penalty(lambda x: x[:, :, None, None].expand(2, 3, 2, 2), real, fake)
    assert float(patches) == pytest.approx((4 * 3**0.5 - 1) ** 2, rel=1e-5)


def test_an_input_that_is_not_read_changes_nothing() -> None:
    real, fake = pairs()
    alone = losses.gradient_penalty(lambda x: 2 * x.sum(1), real[:1], fake[:1])
    torch.testing.assert_close(losses.gradient_penalty(lambda x, _: 2 * x.sum(1), real, fake), alone)


def test_samples_get_no_gradient_and_need_no_grad_mode() -> None:
    real, fake = pairs()
    real[0].requires_grad_()
    weight = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = losses.gradient_penalty(lambda x, _: x @ weight, real, fake)
    loss.backward()
    assert real[0].grad is None
    assert weight.grad is not None
    with torch.no_grad():
        assert float(losses.gradient_penalty(partial(linear, 1.0), real, fake)) > 0


@pytest.mark.parametrize(
    ("real", "fake", "options", "sentence"),
    [
        ([torch.zeros(2, 3)], [torch.zeros(3, 3)], {}, r"equal shapes \(B, \.\.\.\).*\[\(2, 3\)\] and \[\(3, 3\)\]"),
        ([], [], {}, r"equal shapes .*got \[\] and \[\]"),
        ([torch.zeros(0, 3)], [torch.zeros(0, 3)], {}, r"with B >= 1, got \[\(0, 3\)\]"),
        ([torch.zeros(2, 3)], [torch.zeros(2, 3)], {"form": "pg"}, "form: expected one of gp, lp, got 'pg'"),
    ],
)
def test_a_bad_input_is_one_sentence(
    real: list[Tensor], fake: list[Tensor], options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        losses.gradient_penalty(lambda x: x.sum(1), real, fake, **options)


def test_a_critic_that_reads_nothing_is_refused() -> None:
    constant = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="critic: expected scores that depend on its inputs"):
        losses.gradient_penalty(lambda x: constant, [torch.zeros(2, 3)], [torch.zeros(2, 3)])


# ---- one penalty for each input (system 004, eq. 9) ---------------------------------------------------------------


def excess(norm: float, form: str) -> float:
    return (norm - 1) ** 2 if form == "gp" else max(norm - 1, 0) ** 2


@pytest.mark.parametrize("form", ["gp", "lp"])
@pytest.mark.parametrize("size", [0.1, 0.5, 3.0])
def test_separately_each_input_has_a_norm_of_its_own(form: str, size: float) -> None:
    real, fake = pairs()
    found = losses.gradient_penalty(partial(linear, size), real, fake, form=form, separate=True)
    assert float(found) == pytest.approx(excess(size * 3**0.5, form) + excess(size * 10**0.5, form))


def test_of_one_input_both_penalties_are_the_same() -> None:
    real, fake = pairs()
    share = torch.rand(4, dtype=torch.float64)
    found = [
        losses.gradient_penalty(lambda x: x.square().sum(1), real[:1], fake[:1], separate=separate, share=share)
        for separate in (False, True)
    ]
    assert found[0] == found[1]


def test_separately_an_input_that_is_not_read_adds_nothing() -> None:
    real, fake = pairs()
    alone = losses.gradient_penalty(lambda x: 2 * x.sum(1), real[:1], fake[:1])
    both = losses.gradient_penalty(lambda x, _: 2 * x.sum(1), real, fake, separate=True)
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize("form", ["gp", "lp"])
def test_separately_a_critic_flat_in_one_input_has_a_finite_gradient(form: str) -> None:
    first, second = torch.ones(3, requires_grad=True), torch.zeros(5, requires_grad=True)
    loss = losses.gradient_penalty(
        lambda x, y: x @ first + y @ second,
        [torch.randn(2, 3), torch.randn(2, 5)],
        [torch.randn(2, 3), torch.randn(2, 5)],
        form=form,
        separate=True,
    )
    assert float(loss.detach()) == pytest.approx(excess(3**0.5, form) + excess(0, form), rel=1e-6)
    for gradient in torch.autograd.grad(loss, [first, second]):
        assert torch.isfinite(gradient).all()


def test_separately_it_is_float32_under_autocast() -> None:
    torch.manual_seed(0)
    image, text = nn.Linear(3, 1), nn.Linear(5, 1)

    def critic(x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(2 * image(x) + 3 * text(y))

    real, fake, share = [torch.randn(4, 3), torch.randn(4, 5)], [torch.randn(4, 3), torch.randn(4, 5)], torch.rand(4)
    wide = losses.gradient_penalty(critic, real, fake, separate=True, share=share)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses.gradient_penalty(critic, real, fake, separate=True, share=share)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wide, rtol=0, atol=0)


class Stored:
    """The critic of text and pose that was stored with its losses, in plain functions."""

    def __init__(self, shared: Path) -> None:
        self.values = load_file(shared / "oracles" / "text2pose_d2_small.safetensors")

    def __call__(self, maps: Tensor, text: Tensor) -> Tensor:
        for layer in (0, 3, 6, 9):
            maps = functional.leaky_relu(functional.conv2d(maps, self.values[f"main.{layer}.weight"], None, 2, 1), 0.2)
        linear = functional.linear(text, self.values["compress.0.weight"], self.values["compress.0.bias"])
        said = functional.leaky_relu(linear, 0.2)[:, :, None, None].expand(-1, -1, 4, 4)
        joined = functional.conv2d(torch.cat((maps, said), 1), self.values["second2.weight"])
        return functional.conv2d(functional.leaky_relu(joined, 0.2), self.values["third.2.weight"]).flatten()

    def loss(self, form: str, separate: bool, weight: float) -> Tensor:
        """The critic's loss of eq. 9 with alpha 1."""
        real, fake, share = (self.values[f"input.{name}"] for name in ("real", "fake", "eps"))
        text, wrong = self.values["input.text"].flatten(1), self.values["input.text_wrong"].flatten(1)
        scores = self(fake, text) + self(real, wrong) - 2 * self(real, text)
        penalty = losses.gradient_penalty(self, [real, text], [fake, text], form=form, separate=separate, share=share)
        return scores.mean() + weight * penalty


@pytest.mark.parametrize(
    ("form", "separate", "weight", "name"),
    [
        ("lp", True, 150.0, "lp_paper_separate"),
        ("lp", False, 150.0, "lp_code_joint"),
        ("gp", False, 10.0, "gp_code_joint"),
    ],
)
def test_the_stored_losses_are_met(shared: Path, form: str, separate: bool, weight: float, name: str) -> None:
    stored = Stored(shared)
    torch.testing.assert_close(
        stored.loss(form, separate, weight), stored.values[f"output.lossD_{name}"], rtol=1e-5, atol=1e-5
    )


def test_the_stored_norms_are_met_where_each_counts_alone(shared: Path) -> None:
    """Steeper by 10, so that a one-sided penalty sees them too."""
    stored = Stored(shared)
    real, fake, share = (stored.values[f"input.{name}"] for name in ("real", "fake", "eps"))
    text = stored.values["input.text"].flatten(1)
    norms = [10 * stored.values[f"output.grad_norm_{name}"] for name in ("x", "h")]
    for form, wanted in (("gp", [n - 1 for n in norms]), ("lp", [(n - 1).clamp(min=0) for n in norms])):
        found = losses.gradient_penalty(
            lambda x, h: 10 * stored(x, h), [real, text], [fake, text], form=form, separate=True, share=share
        )
        torch.testing.assert_close(found, sum(w.square().mean() for w in wanted), rtol=1e-4, atol=1e-6)
