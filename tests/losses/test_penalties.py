"""The gradient penalty against critics whose gradient is known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fastpose import losses, ops
from fastpose.losses import penalties


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


PENALTIES = [(form, separate) for form in penalties.FORMS for separate in (False, True)]
every_penalty = pytest.mark.parametrize(("form", "separate"), PENALTIES)
SHARE = torch.tensor([0.0, 0.4, 0.6, 1.0], dtype=torch.float64)


def test_promise_15_every_penalty_is_here() -> None:
    """A loss that takes a critic differentiates it: a second one needs these tests too."""
    known = [name for name in losses.__all__ if "critic" in inspect.signature(getattr(losses, name)).parameters]
    assert known == ["gradient_penalty"]


def rectified(rows: int) -> tuple[Callable[..., Tensor], list[nn.Parameter]]:
    """Return a critic whose gradient is zero in the first ``rows`` samples alone, and its weights."""
    generator = torch.Generator().manual_seed(rows)
    weights = [nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64)) for size in (3, 10)]
    alive = (torch.arange(4) >= rows).double()

    def critic(first: Tensor, second: Tensor) -> Tensor:
        live = alive.to(first)
        return live * torch.tanh(first @ weights[0].to(first) + second.flatten(1) @ weights[1].to(first))

    return critic, weights


@every_penalty
@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_promise_15_where_the_gradient_is_zero_both_derivatives_are_finite(
    form: str, separate: bool, rows: int
) -> None:
    critic, weights = rectified(rows)
    found = losses.gradient_penalty(critic, *pairs(2), form=form, separate=separate, share=SHARE)
    first = torch.autograd.grad(found, weights, create_graph=True, allow_unused=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), weights, allow_unused=True)
    assert found.isfinite()
    for gradient in (*first, *second):
        assert gradient.isfinite().all()
        assert rows < 4 or not gradient.any()
    if rows in (0, 4):
        return
    # The samples of zero gradient add a constant: what is left is the penalty of the others.
    alone = [[one[rows:] for one in side] for side in pairs(2)]
    others = losses.gradient_penalty(
        lambda *x: torch.tanh(x[0] @ weights[0] + x[1].flatten(1) @ weights[1]),
        *alone,
        form=form,
        separate=separate,
        share=SHARE[rows:],
    )
    for mine, theirs in zip(first, torch.autograd.grad(others, weights), strict=True):
        torch.testing.assert_close(mine, theirs * (4 - rows) / 4)


@every_penalty
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("cast", [None, torch.bfloat16, torch.float16], ids=str)
def test_promise_15_zero_gradients_are_finite_in_every_precision(
    form: str, separate: bool, dtype: torch.dtype, cast: torch.dtype | None
) -> None:
    network = nn.Linear(13, 1)
    nn.init.zeros_(network.weight)
    seen: list[torch.dtype] = []

    def critic(first: Tensor, second: Tensor) -> Tensor:
        scores = network(torch.cat((first, second.flatten(1)), 1))
        seen.append(scores.dtype)
        return scores

    real, fake = pairs(3, dtype)
    with nullcontext() if cast is None else torch.autocast("cpu", cast):
        found = losses.gradient_penalty(critic, real, fake, form=form, separate=separate)
    assert seen == [torch.float32]
    assert found.dtype == torch.float32
    assert float(found.detach()) == (0.0 if form == "lp" else 2.0 if separate else 1.0)
    (gradient,) = torch.autograd.grad(found, network.weight)
    assert not gradient.any()  # the subgradient 0, not NaN


@every_penalty
@pytest.mark.parametrize("size", [1e-20, 1e-22, 1e-25, 1e-30, 1e-42])
def test_promise_15_where_the_square_of_the_gradient_is_too_small_both_derivatives_are_finite(
    form: str, separate: bool, size: float
) -> None:
    weight = nn.Parameter(torch.full((13,), size))
    found = losses.gradient_penalty(
        lambda x, y: torch.cat((x, y.flatten(1)), 1) @ weight, *pairs(5, torch.float32), form=form, separate=separate
    )
    (first,) = torch.autograd.grad(found, weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight, allow_unused=True, materialize_grads=True)
    assert float(found.detach()) == (0.0 if form == "lp" else 2.0 if separate else 1.0)
    assert not first.any()
    assert not second.any()


@every_penalty
def test_promise_15_real_and_made_samples_that_are_alike_are_penalised_all_the_same(form: str, separate: bool) -> None:
    real, _ = pairs(4)
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    found = losses.gradient_penalty(lambda x, y: x @ weight, real, real, form=form, separate=separate)
    (gradient,) = torch.autograd.grad(found, weight)
    assert found.isfinite()
    assert not gradient.any()


def test_promise_15_its_gradient_passes_through_the_ops_of_a_critic() -> None:
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


@every_penalty
def test_promise_15_two_orders_by_finite_differences(form: str, separate: bool) -> None:
    real, fake = pairs(2)
    generator = torch.Generator().manual_seed(6)
    weights = [
        torch.randn(size, generator=generator, dtype=torch.float64, requires_grad=True) for size in ((3, 2), (10, 2))
    ]

    def penalty(first: Tensor, second: Tensor) -> Tensor:
        def critic(x: Tensor, y: Tensor) -> Tensor:
            return torch.tanh(x @ first + y.flatten(1) @ second).sum(1)

        return losses.gradient_penalty(critic, real, fake, form=form, separate=separate, share=SHARE)

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_promise_15_sixteen_bits_are_penalised_in_float32(dtype: torch.dtype) -> None:
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


def test_promise_15_separately_it_is_float32_under_autocast() -> None:
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
