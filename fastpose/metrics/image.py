"""Generated images against their targets: SSIM, mask-SSIM, PSNR and L1, each as a named protocol.

Images are uint8 RGB tensors (B, 3, H, W) on any device and are never changed; arithmetic is float64. Every protocol
gives one number per image, and the result is their mean. SSIM of systems 001 and 003 differ in window, covariance, data
range and padding, so they have different names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastpose._checks import unknown
from fastpose.metrics import _ranks, _ssim, pose_transfer
from fastpose.metrics._arrays import ArrayLike
from fastpose.metrics._images import check_pair
from fastpose.metrics._tally import Tally
from fastpose.metrics.report import Result

_GAUSSIAN, _UNIFORM = _ssim.gaussian(), _ssim.uniform()
_WHITE = 255


@dataclass(frozen=True)
class ImageProtocol:
    """One definition of a number per image.

    Attributes:
        name: short name that is printed, e.g. ``"SSIM (PATN)"``.
        sentence: the definition in words.
        measure: (generated, target), uint8 (B, 3, H, W), to (B,) float64; NaN for an image that is left out.
        smallest: least height and width.
        masked: whether both images are blacked out where no limb of the target is, which takes key points.
    """

    name: str
    sentence: str
    measure: Callable[[Tensor, Tensor], Tensor]
    smallest: int = 1
    masked: bool = False


def protocols(names: Sequence[str] | str) -> list[ImageProtocol]:
    """Return the protocols of these names, in their order; ``NAMES`` holds all.

    ``LPIPS (...)`` needs weights and comes from :func:`fastpose.metrics.lpips.protocol`. Raises ``ValueError`` for an
    unknown name, with the nearest known ones.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name.startswith("LPIPS"):
            raise ValueError(f"image protocol {name!r} needs weights; make it by metrics.lpips.protocol(net, trunk)")
        if name not in _PROTOCOLS:
            raise ValueError(unknown("image protocol", name, _PROTOCOLS))
    return [_PROTOCOLS[name] for name in names]


def values(
    protocol: ImageProtocol,
    generated: Tensor,
    target: Tensor,
    keypoints: ArrayLike | None = None,
    visibility: ArrayLike | None = None,
) -> Tensor:
    """Return the protocol's number for each image.

    Args:
        protocol: from :func:`protocols`.
        generated, target: (B, 3, H, W) uint8 RGB.
        keypoints: (B, 18, 2) of the target in its pixels, for masked protocols.
        visibility: (B, 18), > 0 where the target's joint is known.

    Returns:
        (B,) float64 on the CPU; NaN for an image that the protocol leaves out.

    Raises:
        TypeError: images that are no uint8 tensors.
        ValueError: shapes that do not fit, images smaller than the window, or a masked protocol without key points.
    """
    generated, target = check_pair(generated, target)
    if min(generated.shape[2:]) < protocol.smallest:
        raise ValueError(
            f"{protocol.name}: expected images of at least {protocol.smallest} x {protocol.smallest} pixels, "
            f"got {generated.shape[2]} x {generated.shape[3]}"
        )
    if not protocol.masked:
        return _ssim.in_blocks(protocol.measure, generated, target).to("cpu", torch.float64)
    if keypoints is None:
        raise ValueError(f"{protocol.name}: expected the target's key points (B, 18, 2), got none")
    shown = pose_transfer.masked(torch.ones_like(target), keypoints, visibility)  # (B, 3, H, W), 0 or 1
    numbers = _ssim.in_blocks(protocol.measure, generated * shown, target * shown).to("cpu", torch.float64)
    return torch.where((shown > 0).flatten(1).any(1).cpu(), numbers, torch.nan)


class ImageAccumulator:
    """Image protocols over any number of batches and ranks; memory does not grow with the number of images.

    Args:
        protocols: from :func:`protocols` and :func:`fastpose.metrics.lpips.protocol`.

    Example::

        accumulator = ImageAccumulator(image.protocols(["SSIM (PATN)", "mask-SSIM", "L1"]))
        for batch in loader:
            accumulator.update(generated, target, keypoints, visibility)
        accumulator.all_reduce()
        print(report.table(accumulator.results()))
    """

    def __init__(self, protocols: Sequence[ImageProtocol]) -> None:
        self.protocols = tuple(protocols)
        if not self.protocols:
            raise ValueError(f"protocols: expected at least one image protocol, got none; known: {', '.join(NAMES)}")
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._tally = Tally(len(self.protocols))
        self._images = torch.zeros(2, dtype=torch.int64)  # seen, and those equal to their targets

    def update(
        self,
        generated: Tensor,
        target: Tensor,
        keypoints: ArrayLike | None = None,
        visibility: ArrayLike | None = None,
    ) -> None:
        """Add a batch; arguments as :func:`values`. A failed batch adds nothing."""
        generated, target = check_pair(generated, target)
        columns = [values(protocol, generated, target, keypoints, visibility) for protocol in self.protocols]
        equal = (generated == target).flatten(1).all(1).sum()
        self._tally.add(torch.stack(columns, dim=1))
        self._images = self._images + torch.tensor([len(generated), int(equal)])

    def merge(self, other: ImageAccumulator) -> None:
        """Add the batches of another accumulator of the same protocols; the result is that of one pass, digit by digit.

        Raises ``ValueError`` when the protocols differ.
        """
        mine, theirs = ([protocol.sentence for protocol in each.protocols] for each in (self, other))
        if mine != theirs:
            raise ValueError(f"merge: expected protocols {self._names()}, got {other._names()}")
        self._tally.merge(other._tally)
        self._images = self._images + other._images

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks; without a process group, nothing happens.

        Args:
            device: where the collective runs: this rank's GPU under NCCL (the default there), else the CPU.
        """
        self._tally.all_reduce(device)
        (self._images,) = _ranks.summed([self._images], device)

    def results(self) -> list[Result]:
        """Return one result per protocol, in their order; ``ValueError`` when a protocol has seen no image."""
        return [self._result(column, protocol) for column, protocol in enumerate(self.protocols)]

    def _result(self, column: int, protocol: ImageProtocol) -> Result:
        count, (images, equal) = int(self._tally.counts[column]), self._images.tolist()
        if not count:
            reason = "none has a joint to look around" if images else "call update first"
            raise ValueError(f"{protocol.name}: no image to compare among {images} images; {reason}")
        return Result(
            name=protocol.name,
            protocol=protocol.sentence,
            value=self._tally.mean(column),
            count=count,
            details={"images": images, "left_out": images - count, "equal_to_target": equal},
        )

    def _names(self) -> str:
        return ", ".join(protocol.name for protocol in self.protocols)


def _range_of(images: Tensor) -> Tensor:
    """Return greatest minus least value of each image, (B,) float64; at least 1, so C1 and C2 are above 0."""
    flat = images.flatten(1).to(torch.float64)
    return (flat.amax(1) - flat.amin(1)).clamp(min=1)


def _ssim_patn(generated: Tensor, target: Tensor) -> Tensor:
    return _ssim.ssim(generated, target, _range_of(generated), _GAUSSIAN, sample=False)


def _on_white(images: Tensor) -> Tensor:
    """Return images with white columns left and right that make them square."""
    height, width = images.shape[2:]
    if width > height:
        raise ValueError(
            f"SSIM (PATN, padded): expected upright images, as 256 x 176, got {height} x {width}; take SSIM (PATN)"
        )
    left = (height - width) // 2
    return torch.nn.functional.pad(images, (left, height - width - left), value=_WHITE)


def _ssim_padded(generated: Tensor, target: Tensor) -> Tensor:
    return _ssim_patn(_on_white(generated), _on_white(target))


def _ssim_default(generated: Tensor, target: Tensor) -> Tensor:
    full = torch.full((len(generated),), 255.0, dtype=torch.float64, device=generated.device)
    return _ssim.ssim(generated, target, full, _UNIFORM, sample=True)


def _decibels(squares: Tensor) -> Tensor:
    """Return 10 log10(255^2 / mean) of squared differences (B, 3, H, W).

    Their sum is at least 1, the least that two different 8-bit images can have, so equal images stay finite.
    """
    total = squares.flatten(1).sum(1).clamp(min=1).to(torch.float64)
    return 10 * torch.log10(255.0**2 * squares[0].numel() / total)


def _psnr(generated: Tensor, target: Tensor) -> Tensor:
    return _decibels((generated.to(torch.int64) - target.to(torch.int64)).square())


def _psnr_wrapped(generated: Tensor, target: Tensor) -> Tensor:
    return _decibels((generated.to(torch.int64) - target.to(torch.int64)).square() % 256)


def _l1(generated: Tensor, target: Tensor) -> Tensor:
    differences = (generated.to(torch.int64) - target.to(torch.int64)).abs()
    return differences.flatten(1).sum(1) * (2 / 255 / differences[0].numel())


_PATN = (
    "structural similarity, Gaussian window 11 x 11 of sigma 1.5 inside the image, covariance over n, "
    "data range max - min of the generated image (at least 1), mean over RGB and images"
)
_FLOOR = "of each RGB image, range 255, mean over images; an image equal to its target counts as off by 1 in one value"
_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ImageProtocol("SSIM (PATN)", f"{_PATN} (system 001)", _ssim_patn, smallest=11),
        ImageProtocol(
            "SSIM (PATN, padded)",
            f"images pasted on a white square (40 columns left and right of 256 x 176), then {_PATN} (system 001)",
            _ssim_padded,
            smallest=11,
        ),
        ImageProtocol(
            "SSIM (7x7)",
            "structural similarity, uniform window 7 x 7 inside the image, sample covariance (over n - 1), "
            "data range 255, mean over RGB and images (system 003)",
            _ssim_default,
            smallest=7,
        ),
        ImageProtocol(
            "mask-SSIM",
            "both images black outside the limbs of the target (23 limbs of half width 4, discs of radius 4, closed by "
            f"5 x 5), images without a limb left out, then on the whole image {_PATN} (system 001)",
            _ssim_patn,
            smallest=11,
            masked=True,
        ),
        ImageProtocol("PSNR", f"10 log10(255^2 / mean squared error) {_FLOOR}", _psnr),
        ImageProtocol(
            "PSNR (8-bit wrap)",
            f"10 log10(255^2 / mean of squared differences modulo 256) {_FLOOR}; no measure of quality, "
            "only to compare with tables that show 28 to 31 dB",
            _psnr_wrapped,
        ),
        ImageProtocol("L1", "mean |2 (generated - target) / 255| over RGB, pixels and images (system 001)", _l1),
    )
}
NAMES = tuple(_PROTOCOLS)
