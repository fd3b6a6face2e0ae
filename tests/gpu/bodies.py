"""What the GPU tests check, as functions of a device and a backend, so that the CPU can run them as well (dry run).

Everything random is made before a call: `Orders.run` itself reads nothing from the host, so that it can be captured in
a CUDA graph and run with synchronisation forbidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import attention_cases
import heatmap_cases
import torch
from tolerances import RELATIVE, SECOND_ORDER
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from fastpose import models, ops

Call = Callable[[str], Tensor]  # backend -> the output
HIGH = 2e-3  # relative to the largest number, where tf32 (11 bits) is allowed


def moved(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A leaf with the same numbers and the same strides, whatever they are, on the device."""
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = tensor.detach().as_strided((count,), (1,), 0).to(device, dtype or tensor.dtype, copy=True)
    there = memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return there.requires_grad_(tensor.requires_grad)


def numbers_like(tensor: Tensor, seed: int) -> Tensor:
    """Seeded normal numbers, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, dtype=torch.float64, generator=generator).to(tensor.device, tensor.dtype)


@dataclass(frozen=True)
class Orders:
    """Output, first and second derivatives of a call, from cotangents that were made before.

    Attributes:
        call: backend -> output.
        leaves: tensors whose gradients are taken.
        grad: what comes to the output.
        cotangents: what comes to each first gradient.
    """

    call: Call
    leaves: Sequence[Tensor]
    grad: Tensor
    cotangents: Sequence[Tensor]

    @classmethod
    def of(cls, call: Call, leaves: Sequence[Tensor]) -> Orders:
        with torch.no_grad():
            out = call("reference")
        grad = numbers_like(out, 1).requires_grad_()
        return cls(call, leaves, grad, [numbers_like(leaf, 2 + index) for index, leaf in enumerate(leaves)])

    def run(self, backend: str) -> list[Tensor]:
        """Output, one gradient per leaf, second gradients of the leaves and of ``grad`` (zeros where independent)."""
        out = self.call(backend)
        first = torch.autograd.grad(out, self.leaves, self.grad, create_graph=True)
        inputs = (*self.leaves, self.grad)
        second = torch.autograd.grad(first, inputs, self.cotangents, allow_unused=True, materialize_grads=True)
        return [tensor.detach() for tensor in (out, *first, *second)]

    def numbers_of(self) -> list[int]:
        """The order of derivative of each result of `run`."""
        return [0] + [1] * len(self.leaves) + [2] * (len(self.leaves) + 1)


def assert_orders_close(
    found: Sequence[Tensor],
    torch_s: Sequence[Tensor],
    exact: Sequence[Tensor],
    orders: Sequence[int],
    high: bool = False,
) -> None:
    """Error against float64 at most three times that of the reference in the same dtype, or the table's tolerance.

    Both are needed: plain torch may be exact by luck, and its own error is the measure where sums cancel.
    """
    for index, (ours, theirs, true, order) in enumerate(zip(found, torch_s, exact, orders, strict=True)):
        assert ours.dtype == theirs.dtype, f"result {index}: {ours.dtype}, expected {theirs.dtype}"
        assert ours.shape == true.shape, f"result {index}: {tuple(ours.shape)}, expected {tuple(true.shape)}"
        if not true.numel():
            continue
        wide, largest = ours.double().cpu(), float(true.abs().max())
        assert bool(wide.isfinite().all()), f"result {index} (order {order}): not finite"
        error = float((wide - true.cpu()).abs().max())
        torch_error = float((theirs.double().cpu() - true.cpu()).abs().max())
        relative = max(RELATIVE[ours.dtype], HIGH if high else 0.0) * (SECOND_ORDER if order == 2 else 1.0)
        limit = max(3 * torch_error, relative * largest)
        assert error <= limit, f"result {index} (order {order}): off by {error:.3g}, allowed {limit:.3g}"
        assert largest == 0 or bool(ours.any()), f"result {index} (order {order}): all zero, a term was forgotten"


# -------------------------------------------------------------------------------------------------- the calls by name


def attention(
    shape: tuple[int, ...], layout: str, dtype: torch.dtype, device: str, *, residual: bool = False
) -> Orders:
    """Three orders of attention at (B, Ck, Cv, Nq, Nk)."""
    tensors = [moved(tensor, device) for tensor in attention_cases.inputs(shape, dtype, layout)]
    if residual:
        more = (torch.empty(shape[0], shape[2], shape[3], dtype=dtype), torch.empty(1, dtype=dtype))
        tensors += [numbers_like(tensor.to(device), 9).requires_grad_() for tensor in more]
        return Orders.of(lambda b: ops.nonlocal_attention_residual(*tensors, scale=0.7, backend=b), tensors)
    return Orders.of(lambda b: ops.nonlocal_attention(*tensors, scale=0.7, backend=b), tensors)


def heatmap(name: str, shape: tuple[int, ...], layout: str, dtype: torch.dtype, device: str) -> Orders:
    """Three orders of a case of `heatmap_cases` at (B, K, H, W)."""
    case = heatmap_cases.CASES[name]
    here = heatmap_cases.tensors_of(case, shape, dtype, layout)
    tensors = {key: tensor if key == "size" else moved(tensor, device) for key, tensor in here.items()}
    return Orders.of(lambda b: case.call(tensors, b), [tensors[key] for key in case.differentiable])


def descriptor(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> Orders:
    """Three orders of the pairwise descriptor at (B, P, D)."""
    joints = numbers_like(torch.empty(shape, dtype=dtype, device=device), 3).requires_grad_()
    return Orders.of(lambda b: ops.pairwise_descriptor(joints, backend=b), [joints])


EVERY: dict[str, Callable[[str], Orders]] = {
    "attention": lambda device: attention((2, 8, 16, 47, 127), "positions", torch.float32, device),
    "residual": lambda device: attention((2, 8, 16, 64, 64), "positions", torch.float32, device, residual=True),
    **{
        name: lambda device, name=name: heatmap(name, (2, 3, 24, 18), "contiguous", torch.float32, device)
        for name in heatmap_cases.CASES
    },
    "descriptor": lambda device: descriptor((5, 17, 3), torch.float32, device),
}


def backends_of(name: str) -> tuple[str, ...]:
    """The GPU backends that a name of `EVERY` is meant to have."""
    return ("triton",) if name in ("attention", "residual") else ("cuda", "triton")


# ------------------------------------------------------------------------------------------------------- comparisons


def check_orders(
    make: Callable[[torch.dtype, str], Orders], dtype: torch.dtype, device: str, backend: str, high: bool = False
) -> None:
    """Three orders on the device equal float64's as well as plain torch on the device can."""
    exact = make(torch.float64, "cpu")
    orders = make(dtype, device)
    for leaf, other in zip(exact.leaves, orders.leaves, strict=True):  # the same rounded numbers
        leaf.detach().copy_(other.detach())
    exact.grad.detach().copy_(orders.grad.detach())
    for one, other in zip(exact.cotangents, orders.cotangents, strict=True):
        one.copy_(other)
    found = orders.run(backend)
    assert_orders_close(found, orders.run("reference"), exact.run("reference"), orders.numbers_of(), high)


def check_attention(device: str, backend: str, shape: tuple[int, ...], layout: str, dtype: torch.dtype) -> None:
    check_orders(lambda dtype, device: attention(shape, layout, dtype, device), dtype, device, backend)


def check_heatmap(
    device: str, backend: str, name: str, shape: tuple[int, ...], layout: str, dtype: torch.dtype
) -> None:
    """The reference runs beside it, where the key points of an invisible joint and the like have the same rounding."""
    orders = heatmap(name, shape, layout, dtype, device)
    theirs, ours = orders.run("reference"), orders.run(backend)
    assert_orders_close(ours, theirs, [tensor.double() for tensor in theirs], orders.numbers_of())


def check_descriptor(device: str, backend: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_orders(lambda dtype, device: descriptor(shape, dtype, device), dtype, device, backend)


def check_render(device: str, backend: str, profile: str, dtype: torch.dtype) -> None:
    """Every profile, with joints that are absent, far, not finite or of sigma 0; into fresh memory and into ``out``."""
    shape = (4, 5, 33, 20)
    keypoints = numbers_like(torch.empty(4, 5, 2, device=device), 4) * 8 + 10
    keypoints[0, 0], keypoints[0, 1], keypoints[1, 2, 0] = 500.0, float("nan"), float("inf")
    sigma = numbers_like(torch.empty(4, 5, device=device), 5).abs() + 0.5
    sigma[2, 2] = 0.0
    visibility = torch.arange(20, device=device).view(4, 5) % 4
    keypoints, sigma = keypoints.to(dtype), sigma.to(dtype)
    given = {"visibility": visibility, "profile": profile}
    expected = ops.render_gaussian_heatmaps(keypoints, shape[2:], sigma, **given, backend="reference")
    room = torch.full((4, 5, 35, 27), 7.0, dtype=dtype, device=device)[..., 1:-1, 3:-4]
    for out in (None, room):
        found = ops.render_gaussian_heatmaps(keypoints, shape[2:], sigma, **given, out=out, backend=backend)
        assert float((found.double() - expected.double()).abs().max()) <= RELATIVE[dtype]


def decode_planes(device: str, layout: str, dtype: torch.dtype, size: tuple[int, int] = (40, 33)) -> Tensor:
    """Planes (3, 4, *size) with a peak each, but for a zero one, ties, one without and one with some finite numbers."""
    keypoints = numbers_like(torch.empty(3, 4, 2, device=device), 6) * 6 + 16
    planes = ops.render_gaussian_heatmaps(keypoints, size, 2.0, backend="reference")
    planes[0, 0], planes[0, 1], planes[1, 0] = 0.0, 1.0, float("nan")
    planes[1, 1, 3, 4:9] = float("inf")
    there = heatmap_cases.arrange(planes.cpu().to(dtype), layout)
    return moved(there, device)


def check_decode(device: str, backend: str, method: str, layout: str, dtype: torch.dtype) -> None:
    """Places and scores equal the reference's on the device; the Newton step to a thousandth of a pixel."""
    planes = decode_planes(device, layout, dtype)
    for kernel, max_step in ((11, None), (17, 1.0)):
        given = {"kernel": kernel, "max_step": max_step}
        theirs = ops.decode_heatmaps(planes, method, **given, backend="reference")
        ours = ops.decode_heatmaps(planes, method, **given, backend=backend)
        assert bool((ours[0] - theirs[0]).abs().max() <= (1e-3 if method.startswith(("dark", "soft")) else 0)), method
        assert torch.equal(ours[1], theirs[1])


# ------------------------------------------------------------------------------------------- memory, repetition, graphs


def poison(device: str) -> None:
    """Leave freed blocks of many sizes full of NaN, so that the next results are given such memory."""
    sizes = [2**power for power in range(9, 24)] * 3
    blocks = [torch.full((size // 4,), float("nan"), device=device) for size in sizes]
    del blocks


def check_poisoned(device: str, backend: str, name: str) -> None:
    """Every number of every result is written: memory full of NaN changes nothing."""
    orders = EVERY[name](device)
    theirs = orders.run("reference")
    poison(device)
    ours = orders.run(backend)
    assert_orders_close(ours, theirs, [tensor.double() for tensor in theirs], orders.numbers_of())


def check_bit_equal(device: str, backend: str, name: str) -> None:
    """Five runs in deterministic mode give the same bits."""
    orders = EVERY[name](device)
    torch.use_deterministic_algorithms(True)
    try:
        first = orders.run(backend)
        for _ in range(4):
            again = orders.run(backend)
            assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    finally:
        torch.use_deterministic_algorithms(False)


def check_compiled(device: str, backend: str, name: str, compiler: str = "aot_eager") -> None:
    """One graph without breaks, whose output and first gradients are those of the eager call."""
    orders = EVERY[name](device)
    torch._dynamo.reset()
    compiled = torch.compile(lambda: orders.call(backend), fullgraph=True, backend=compiler)
    expected, found = orders.call(backend), compiled()
    torch.testing.assert_close(found, expected)
    theirs, ours = (torch.autograd.grad(out, orders.leaves, orders.grad.detach()) for out in (expected, found))
    torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------------------------------------------------------- training


def critic_losses(device: str, backend: str, steps: int, size: int = 16) -> list[float]:
    """The losses of a small SAGAN critic that learns with gradient penalty to tell two kinds of noise apart."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int, scale: float) -> Tensor:
        return torch.randn(*shape, generator=generator).mul_(scale).to(device)

    channels, keys = 32, 8
    first = numbers(channels, 3, 3, 3, scale=0.2)
    embed = numbers(2 * keys + channels, channels, 1, 1, scale=0.2)
    last = numbers(1, channels, scale=0.2)
    parameters = [first, embed, last, torch.full((1,), 0.3, device=device)]
    for parameter in parameters:
        parameter.requires_grad_()

    def critic(image: Tensor) -> Tensor:
        maps = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(image, first, padding=1), 0.2)
        query, key, value = torch.nn.functional.conv2d(maps, embed).split((keys, keys, channels), dim=1)
        maps = ops.nonlocal_attention_residual(query, key, value, maps, parameters[3], backend=backend)
        return torch.tanh(maps).mean((2, 3)) @ last.mT  # (B, 1)

    optimizer = torch.optim.Adam(parameters, lr=2e-4, betas=(0.0, 0.9))
    losses = []
    for _ in range(steps):
        real, fake = numbers(8, 3, size, size, scale=1.0), numbers(8, 3, size, size, scale=0.5)
        mix = numbers(8, 1, 1, 1, scale=1.0).sigmoid()
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = (slope.square().sum((1, 2, 3)).add(1e-12).sqrt() - 1).square().mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).tolist()


def check_training(device: str, backend: str, steps: int = 200) -> None:
    """Losses follow the reference's run; they start equal and drift apart by rounding alone."""
    ours, theirs = (critic_losses(device, name, steps) for name in (backend, "reference"))
    for step, (loss, expected) in enumerate(zip(ours, theirs, strict=True)):
        allowed = 1e-4 * (1 + abs(expected)) * (1 + step / 10)
        assert abs(loss - expected) <= allowed, f"step {step}: loss {loss:.6f}, expected {expected:.6f}"
    assert theirs[-1] < theirs[0] or steps < 50, "the critic did not learn: the comparison would mean little"


def check_spectral_norm(device: str) -> None:
    """A training step of system 001 in bfloat16: each critic's singular values are those of float64, not of 16 bits."""
    torch.manual_seed(0)
    generator = models.create("pona.generator.tiny").to(device)
    critic = models.create("pona.discriminator.tiny").to(device)
    normalised = [layer for layer in critic.modules() if parametrize.is_parametrized(layer, "weight")]
    assert normalised, "no spectral norm: the comparison would mean nothing"
    image, poses = (numbers_like(torch.empty(2, c, 16, 16, device=device), c) for c in (3, 36))
    before = [layer.parametrizations.weight[0]._v.double() for layer in normalised]
    weights = [layer.parametrizations.weight.original.detach().double().flatten(1) for layer in normalised]
    optimizer = torch.optim.Adam([*generator.parameters(), *critic.parameters()], lr=2e-4)
    with torch.autocast(device, torch.bfloat16):
        loss = critic(torch.cat((generator(image, poses), image), dim=1)).float().square().mean()
    loss.backward()
    for layer, v, weight in zip(normalised, before, weights, strict=True):  # the step's one power iteration
        u = functional.normalize(weight @ v, dim=0)
        torch.testing.assert_close(layer.parametrizations.weight[0]._u.double(), u, rtol=0, atol=1e-5)
    optimizer.step()
    critic.eval()
    for layer in normalised:
        check_sigma(layer, device)


def check_sigma(layer: nn.Module, device: str) -> None:
    """The value that divides a layer's weight under autocast, against u^T W v in float64."""
    norm, weight = layer.parametrizations.weight[0], layer.parametrizations.weight.original.detach()
    with torch.autocast(device, torch.bfloat16), torch.no_grad():
        found = weight.double().norm() / layer.weight.double().norm()
    exact = norm._u.double() @ weight.double().flatten(1) @ norm._v.double()
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)
