"""One update: whose gradients, what precision, what happens to values that are not finite."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastpose.training.ema import Ema
from fastpose.training.phases import BufferGuard, NonFiniteError, Update, are_finite, is_finite


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"generator": nn.Linear(3, 3), "critic": nn.Linear(3, 1)}


def create(nets: dict[str, nn.Module], lr: float = 0.1, **options: Any) -> Update:
    optimizers = {name: torch.optim.SGD(net.parameters(), lr=lr) for name, net in nets.items()}
    return Update(nets, optimizers, main="generator", **options)


X = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def adversarial(nets: dict[str, nn.Module]) -> Tensor:
    return nets["critic"](nets["generator"](X)).square().mean()


def copies(net: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def test_a_generators_loss_leaves_nothing_in_the_critic() -> None:
    nets = networks()
    before = copies(nets["critic"])
    assert create(nets)("generator", adversarial(nets)) is True
    assert all(parameter.grad is None for net in nets.values() for parameter in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, nets["critic"].parameters(), strict=True))


def test_an_update_is_what_plain_torch_does() -> None:
    nets, plain = networks(), networks()
    create(nets)("generator", adversarial(nets))
    adversarial(plain).backward()
    torch.optim.SGD(plain["generator"].parameters(), lr=0.1).step()
    assert torch.equal(nets["generator"].weight, plain["generator"].weight)


def test_backward_may_come_in_parts() -> None:
    nets, plain = networks(), networks()
    update = create(nets)
    first, second = nets["critic"](X).mean(), nets["critic"](X * 2).square().mean()
    update.backward("critic", first)
    update.backward("critic", second)
    update.step("critic")
    create(plain)("critic", plain["critic"](X).mean() + plain["critic"](X * 2).square().mean())
    assert torch.allclose(nets["critic"].weight, plain["critic"].weight, atol=1e-7)


def test_accumulation_equals_the_larger_batch() -> None:
    nets, plain = networks(), networks()
    update = create(nets, accumulate=2)
    for number, part in enumerate((X[:2], X[2:])):
        update.begin(1, None, last=number == 1)
        assert update.steps_now == (number == 1)
        assert update("critic", nets["critic"](part).square().mean()) is (number == 1)
    create(plain)("critic", plain["critic"](X).square().mean())
    assert torch.allclose(nets["critic"].weight, plain["critic"].weight, atol=1e-7)


def test_clipping_bounds_the_step() -> None:
    nets = networks()
    before = copies(nets["critic"])
    create(nets, lr=1.0, clip_norm=0.01)("critic", 1000 * nets["critic"](X).square().mean())
    moved = torch.cat([(a - b.detach()).flatten() for a, b in zip(before, nets["critic"].parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_wrong_names_and_losses_are_one_sentence() -> None:
    nets = networks()
    update = create(nets)
    with pytest.raises(ValueError, match="unknown optimizer 'critics'; did you mean 'critic'"):
        update("critics", adversarial(nets))
    with pytest.raises(ValueError, match="unknown network 'x'"):
        update.network("x")
    with pytest.raises(ValueError, match=r"expected a scalar with gradient, got shape \(4, 1\)"):
        update("critic", nets["critic"](X))
    with pytest.raises(ValueError, match="got a value that depends on no parameter"):
        update("critic", torch.tensor(1.0))
    with pytest.raises(ValueError, match="step without a backward"):
        update.step("critic")
    with pytest.raises(ValueError, match="reaches no parameter of the optimizer 'generator'"):
        update("generator", nets["critic"](X).mean())


def test_promise_13_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    nets = networks()
    update = create(nets)
    before = copies(nets["critic"])
    assert update("critic", nets["critic"](X).mean() * float("nan")) is False
    assert update("critic", nets["critic"](X).sqrt().sum()) is False  # a NaN gradient
    assert all(torch.equal(a, b) for a, b in zip(before, nets["critic"].parameters(), strict=True))
    assert update.skipped == {"generator": 0, "critic": 2}
    assert update.disturbed
    assert update("critic", nets["critic"](X).mean()) is True
    assert update.failure is None


def test_promise_13_too_many_in_a_row_name_step_terms_and_samples() -> None:
    nets = networks()
    update = create(nets, limit=2)
    for step in (7, 8):
        update.begin(step, torch.tensor([3, 5]), last=True)
        nan = nets["critic"](X).mean() * float("nan")
        update("critic", nan, terms={"real": torch.tensor(0.5), "penalty": nan})
    assert isinstance(update.failure, NonFiniteError)
    text = str(update.failure)
    assert "step 8: 2 updates of 'critic' in a row had a loss that is not finite" in text
    assert "(loss nan, real 0.5, penalty nan, gradient norm nan; samples 3, 5)" in text


def test_promise_13_fp16_finds_its_scale_and_that_is_no_fault() -> None:
    nets = networks()
    update = create(nets, precision="fp16", limit=1)
    with update.autocast():
        assert nets["critic"](X).dtype == torch.float16
        loss = nets["critic"](X).float().square().mean()
    huge = loss * 1e36  # finite, but its scaled gradient is not
    assert update("critic", huge) is False
    assert update.failure is None
    state = update.state_dict()
    assert state["scalers"]["critic"]["scale"] == 2.0**15
    assert update("critic", nets["critic"](X).square().mean()) is True
    other = create(networks(), precision="fp16")
    other.load_state_dict(state)
    assert other.state_dict()["scalers"]["critic"]["scale"] == 2.0**15


def test_a_scale_is_asked_for_only_where_an_update_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each question waits for the device."""
    nets, asked, ask = networks(), [], torch.amp.GradScaler.get_scale
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", lambda self: asked.append(self) or ask(self))
    update = create(nets, precision="fp16")
    assert update("critic", nets["critic"](X).square().mean()) is True
    assert not asked
    assert update("critic", nets["critic"](X).mean() * float("nan")) is False


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2])
def test_promise_13_a_fault_in_one_of_several_batches_skips_them_all(bad: float, part: int) -> None:
    nets = networks()
    update = create(nets, accumulate=3, limit=1)
    before = copies(nets["critic"])
    for number in range(3):
        update.begin(4, torch.tensor([10 * number, 10 * number + 1]), last=number == 2)
        loss = nets["critic"](X).mean() * (bad if number == part else 0.0)
        assert update("critic", loss, terms={"real": torch.tensor(6.0), "penalty": loss}) is False
    assert all(torch.equal(a, b) for a, b in zip(before, nets["critic"].parameters(), strict=True))
    assert update.skipped == {"generator": 0, "critic": 1}
    assert "real 6, penalty " in str(update.failure)
    assert "penalty 0," not in str(update.failure)
    assert "samples 0, 1, 10, 11, 20, 21)" in str(update.failure)


def test_promise_13_a_message_names_no_more_than_a_few_samples() -> None:
    nets = networks()
    update = create(nets, limit=1)
    update.begin(1, torch.arange(40), last=True)
    update("critic", nets["critic"](X).mean() * float("nan"))
    assert "samples 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 and 24 more)" in str(update.failure)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_promise_13_a_gradient_whose_norm_overflows_is_a_fault_in_every_precision(clip: float) -> None:
    for precision in ("fp32", "fp16"):  # each number is finite, and so no scale of fp16 is too large
        nets = networks()
        update = create(nets, limit=3, precision=precision, clip_norm=clip)
        before = copies(nets["critic"])
        for _ in range(3):
            update("critic", nets["critic"](X).square().mean() * 1e30)
        assert "3 updates of 'critic' in a row had a gradient" in str(update.failure), precision
        assert all(torch.equal(a, b) for a, b in zip(before, nets["critic"].parameters(), strict=True))


def test_promise_13_a_scale_that_is_too_large_after_faults_ends_no_run() -> None:
    nets = networks()
    update = create(nets, precision="fp16", limit=2)
    update.load_state_dict(update.state_dict() | {"in_a_row": {"generator": 0, "critic": 2}})
    update("critic", nets["critic"](X).square().mean() * 1e36)
    assert update.failure is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_promise_13_every_kind_of_state_is_looked_at(bad: float) -> None:
    fine = {"count": 3, "name": "nan", "tensors": [torch.ones(3), torch.ones(2, dtype=torch.int64)], "none": None}
    assert are_finite(fine)
    assert are_finite([])
    assert not are_finite(fine | {"number": bad})
    assert not are_finite([fine, (torch.tensor([1.0, bad]),)])
    assert not are_finite({"wide": torch.tensor([bad], dtype=torch.float64), "narrow": torch.ones(2)})


@pytest.mark.parametrize(("value", "dtype"), [(1e38, torch.float32), (6e4, torch.float16), (1e300, torch.float64)])
def test_promise_13_large_numbers_are_finite(value: float, dtype: torch.dtype) -> None:
    """Their squares are not, in their own type or in the one that norms are summed in."""
    large = torch.full((3, 5), value, dtype=dtype)
    assert are_finite([large, -large, torch.ones(2)])
    assert not are_finite([large, torch.tensor([float("nan")], dtype=dtype)])
    assert not are_finite([large.index_fill(0, torch.tensor(1), -float("inf"))])


def test_promise_13_averages_of_large_gradients_are_finite() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1000))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.full((1000,), 1e11)
    optimizer.step()
    assert are_finite(optimizer.state_dict()["state"])


def test_bf16_runs_the_forward_in_bf16_and_keeps_weights_in_fp32() -> None:
    nets = networks()
    update = create(nets, precision="bf16")
    with update.autocast():
        out = nets["critic"](X)
    assert out.dtype == torch.bfloat16
    assert update("critic", out.float().mean()) is True
    assert nets["critic"].weight.dtype == torch.float32


def test_the_average_follows_the_main_network_only() -> None:
    nets = networks()
    ema = Ema(nets["generator"], 0.9)
    update = create(nets, ema=ema)
    before = copies(ema.average)
    update("critic", nets["critic"](X).mean())
    update.finish()
    assert all(torch.equal(a, b) for a, b in zip(before, ema.average.parameters(), strict=True))
    update("generator", adversarial(nets))
    update.finish()
    expected = torch.lerp(before[0], nets["generator"].weight.detach(), 1 - 1 / 10)  # warm-up: (1 + 0) / (10 + 0)
    assert torch.allclose(ema.average.weight, expected, atol=1e-7)
    assert not ema.average.training


def test_promise_13_weights_that_are_not_finite_never_reach_the_average() -> None:
    nets = networks()
    ema = Ema(nets["generator"], 0.9)
    update = create(nets, lr=float("inf"), ema=ema)
    update("generator", adversarial(nets))
    update.finish()
    assert not is_finite(nets["generator"])
    assert is_finite(ema.average)


def test_the_average_copies_buffers() -> None:
    net = nn.BatchNorm1d(3)
    ema = Ema(net, 0.5)
    net(X)
    ema.update(net)
    assert torch.equal(ema.average.running_mean, net.running_mean)
    with pytest.raises(ValueError, match="ema: expected a decay in"):
        Ema(net, 1.0)


def test_promise_13_buffers_can_be_put_back() -> None:
    net = nn.BatchNorm1d(3)
    guard = BufferGuard({"n": net})
    net(X)
    guard.remember()
    kept = net.running_mean.clone()
    net(X * float("nan"))
    assert not is_finite(net)
    guard.restore()
    assert torch.equal(net.running_mean, kept)
    assert int(net.num_batches_tracked) == 1
