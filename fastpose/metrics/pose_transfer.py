"""Whether a generated person shows the pose: key-point mask, PCKh of re-detected joints, detection score.

Key points are (B, 18, 2) as (x, y) in image pixels, in the order of ``skeletons.OPENPOSE``; a joint is known where its
visibility is greater than 0. Inputs are never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastpose.metrics import _ranks
from fastpose.metrics._arrays import ArrayLike, as_mask, as_points, same_shape
from fastpose.metrics._images import check_images
from fastpose.metrics._tally import Tally
from fastpose.metrics.report import Result
from fastpose.skeletons import OPENPOSE

HEAD = (0, 1, 14, 15, 16, 17)
"""Joints whose box is the head box: nose, neck, eyes and ears."""

HALF_WIDTH = 4
"""Pixels: half the width of a limb and the radius of a joint in the key-point mask."""

_CLOSING = 5
_AT_CORNER = 1e-12  # px
_PERSONS = 16  # whose masks are drawn at a time
# The arms, legs and face of the skeleton, and the lines that fill torso and head.
_LIMBS = (
    "neck-r_shoulder neck-l_shoulder r_shoulder-r_elbow r_elbow-r_wrist l_shoulder-l_elbow l_elbow-l_wrist neck-r_hip "
    "r_hip-r_knee r_knee-r_ankle neck-l_hip l_hip-l_knee l_knee-l_ankle neck-nose nose-r_eye r_eye-r_ear nose-l_eye "
    "l_eye-l_ear neck-r_ear neck-l_ear r_hip-l_hip l_hip-l_shoulder r_hip-r_shoulder r_ear-l_ear"
)
MASK_LIMBS = tuple(tuple(OPENPOSE.index(joint) for joint in limb.split("-")) for limb in _LIMBS.split())


def keypoint_mask(keypoints: ArrayLike, visibility: ArrayLike | None, size: tuple[int, int]) -> Tensor:
    """Return where a person's limbs are (mask-SSIM of systems 001 and its forerunners), (B, H, W) bool on the CPU.

    Rectangles of half width 4 along the 23 limbs whose two joints are known, discs of radius 4 round the known joints,
    then a closing by 5 x 5 pixels.

    Args:
        keypoints: (B, 18, 2) in pixels of the image.
        visibility: (B, 18), > 0 where known; None: all are. A joint that is not finite is unknown.
        size: (H, W).

    Raises:
        ValueError: shapes that do not fit, or a size that is not positive.
    """
    points = as_points("keypoints", keypoints, len(OPENPOSE))
    known = as_mask("visibility", visibility, tuple(points.shape[:2])) & points.isfinite().all(-1)
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size: expected positive (H, W), got {tuple(size)}")
    points = torch.where(known[..., None], points, 0.0)
    parts = zip(points.split(_PERSONS), known.split(_PERSONS), strict=True)
    masks = [_closed(_limbs_and_joints(some, shown, height, width)) for some, shown in parts]
    return torch.cat(masks) if len(points) else torch.zeros(0, height, width, dtype=torch.bool)


def masked(images: Tensor, keypoints: ArrayLike, visibility: ArrayLike | None) -> Tensor:
    """Return copies of uint8 images (B, 3, H, W), black outside :func:`keypoint_mask`, as mask-IS judges them."""
    check_images("images", images)
    mask = keypoint_mask(keypoints, visibility, (images.shape[2], images.shape[3]))
    if len(mask) != len(images):
        raise ValueError(f"keypoints: expected {len(images)} persons, one per image, got {len(mask)}")
    return images * mask.to(images.device)[:, None]


def _limbs_and_joints(points: Tensor, known: Tensor, height: int, width: int) -> Tensor:
    """Return rectangles and discs of some persons, (B, H, W)."""
    rows, columns = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    mask = torch.zeros(len(points), height, width, dtype=torch.bool)
    for start, end in MASK_LIMBS:
        limb = _rectangle(points[:, start], points[:, end], rows, columns)
        mask |= limb & (known[:, start] & known[:, end])[:, None, None]
    for joint in range(len(OPENPOSE)):
        x, y = points[:, joint, 0, None, None], points[:, joint, 1, None, None]
        disc = (columns - x).square() + (rows - y).square() < HALF_WIDTH**2
        mask |= disc & known[:, joint, None, None]
    return mask


def _rectangle(start: Tensor, end: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels of the rectangle about the line between two points (B, 2): (B, H, W); none for equal points."""
    along = start - end
    across = HALF_WIDTH * torch.stack((along[:, 1], -along[:, 0]), dim=1)
    across = across / torch.linalg.vector_norm(along, dim=1, keepdim=True)  # NaN for equal points: no pixel is inside
    corners = (start + across, start - across, end - across, end + across)
    return _inside([(corner[:, 0, None, None] - columns, corner[:, 1, None, None] - rows) for corner in corners])


def _inside(corners: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return which pixels a polygon holds, (B, H, W), given its corners' offsets in x (B, 1, W) and in y (B, H, 1).

    A pixel is inside when a ray to the right, or one to the left, crosses the edges an odd number of times (O'Rourke,
    Computational Geometry in C, 7.4). Pixel centres on an edge are frequent, key points being whole numbers, and fall
    inside but for rounding: these are the operations of scikit-image's polygons, so that masks agree pixel by pixel.
    """
    (x1, y1), shape = corners[-1], torch.broadcast_shapes(corners[0][0].shape, corners[0][1].shape)
    right, left, corner = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for x0, y0 in corners:
        crossing = (x0 * y1 - x1 * y0) / (y1 - y0)  # not finite for a level edge, which no ray crosses
        right ^= ((y0 > 0) != (y1 > 0)) & (crossing > 0)
        left ^= ((y0 < 0) != (y1 < 0)) & (crossing < 0)
        corner |= (x0.abs() < _AT_CORNER) & (y0.abs() < _AT_CORNER)
        x1, y1 = x0, y0
    return right | left | corner


def _closed(mask: Tensor) -> Tensor:
    """Return the closing of (B, H, W) by a square; outside the image nothing is set by it and nothing is taken away."""
    grown = torch.nn.functional.max_pool2d(mask.float()[:, None], _CLOSING, stride=1, padding=_CLOSING // 2)
    shrunk = -torch.nn.functional.max_pool2d(-grown, _CLOSING, stride=1, padding=_CLOSING // 2)
    return shrunk[:, 0] > 0


class TransferPCKh:
    """Share of the target's joints that are found again on generated images, pooled over all images.

    A joint is right where it was found and differs by less than half of the head box's width in x and less than half of
    its height in y. The head box spans the known ones of nose, neck, eyes and ears of the target; an image with fewer
    than two of them is left out.
    """

    name = "PCKh (transfer)"
    sentence = (
        "share of the target's known joints found on the generated image with |dx| < 0.5 x width and "
        "|dy| < 0.5 x height of the target's head box (nose, neck, eyes, ears; 2 or more known, else the image is left "
        "out), pooled over images (systems 001 and 003)"
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._joints = torch.zeros(2, len(OPENPOSE), dtype=torch.int64)  # right, known
        self._images = torch.zeros(2, dtype=torch.int64)  # seen, left out

    def update(
        self,
        prediction: ArrayLike,
        target: ArrayLike,
        prediction_visibility: ArrayLike | None = None,
        visibility: ArrayLike | None = None,
    ) -> None:
        """Add a batch. A failed batch adds nothing.

        Args:
            prediction: (B, 18, 2) joints found on the generated images; one that is not finite was not found.
            target: (B, 18, 2) joints of the target images, in the same pixels.
            prediction_visibility: (B, 18), > 0 where found; None: all were.
            visibility: (B, 18), > 0 where the target's joint is known; None: all are.

        Raises:
            ValueError: shapes that do not fit.
        """
        found, truth = as_points("prediction", prediction, len(OPENPOSE)), as_points("target", target, len(OPENPOSE))
        same_shape(found, truth)
        shape = tuple(truth.shape[:2])
        seen = as_mask("prediction_visibility", prediction_visibility, shape) & found.isfinite().all(-1)
        known = as_mask("visibility", visibility, shape) & truth.isfinite().all(-1)
        size, present = head_box(truth, known)
        scored = known & present[:, None]
        near = ((found - truth).abs() < 0.5 * size[:, None]).all(-1)
        self._joints = self._joints + torch.stack(((near & seen & scored).sum(0), scored.sum(0)))
        self._images = self._images + torch.tensor([len(truth), int((~present).sum())])

    def merge(self, other: TransferPCKh) -> None:
        """Add the batches of another accumulator."""
        self._joints, self._images = self._joints + other._joints, self._images + other._images

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks; without a process group, nothing happens."""
        self._joints, self._images = _ranks.summed((self._joints, self._images), device)

    def result(self) -> Result:
        """Return the share, from 0 to 1 as published; ``ValueError`` when no joint was scored."""
        (right, known), (images, left_out) = self._joints.tolist(), self._images.tolist()
        if not sum(known):
            raise ValueError(f"{self.name}: no known joint with a head box among {images} images")
        each = zip(OPENPOSE.joints, right, known, strict=True)
        return Result(
            name=self.name,
            protocol=self.sentence,
            value=sum(right) / sum(known),
            count=sum(known),
            per_joint={joint: good / count for joint, good, count in each if count},
            details={"right": sum(right), "images": images, "left_out": left_out},
        )


def head_box(points: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Return width and height of the box round the head's known joints, (B, 2), and whether two are known, (B,).

    ``points`` is (B, 18, 2), ``known`` (B, 18) bool.
    """
    head, shown = points[:, list(HEAD)], known[:, list(HEAD), None]
    least = torch.where(shown, head, torch.inf).amin(1)
    greatest = torch.where(shown, head, -torch.inf).amax(1)
    present = shown.sum((1, 2)) >= 2
    return torch.where(present[:, None], greatest - least, 0.0), present


Detector = Callable[[Tensor], Sequence[Sequence[float] | Tensor]]


class DetectionScore:
    """Mean over images of the greatest confidence with which a detector sees a person.

    Args:
        detector: from uint8 RGB images (B, 3, H, W) to B lists of confidences in [0, 1] of the persons seen, each empty
            where there is none.
        judge: the detector in words, for the sentence.
    """

    name = "DS"

    def __init__(self, detector: Detector, judge: str = "the given detector") -> None:
        self._detector = detector
        self.sentence = f"greatest confidence of a person by {judge}, 0 where none is seen, mean over images"
        self.reset()

    def reset(self) -> None:
        """Forget all batches."""
        self._tally = Tally(1)

    def update(self, images: Tensor) -> None:
        """Add a batch; ``ValueError`` when the detector does not answer for every image in [0, 1]."""
        found = self._detector(check_images("images", images))
        if len(found) != len(images):
            raise ValueError(f"detector: expected {len(images)} lists of confidences, one per image, got {len(found)}")
        best = torch.tensor([max((float(score) for score in scores), default=0.0) for scores in found])
        if not bool(((best >= 0) & (best <= 1)).all()):
            raise ValueError(f"detector: expected confidences in [0, 1], got {best.tolist()}")
        self._tally.add(best.to(torch.float64)[:, None])

    def merge(self, other: DetectionScore) -> None:
        """Add the batches of another accumulator of the same detector."""
        if other.sentence != self.sentence:
            raise ValueError(f"merge: expected {self.sentence!r}, got {other.sentence!r}")
        self._tally.merge(other._tally)

    def all_reduce(self, device: torch.device | str | None = None) -> None:
        """Sum the tallies over all ranks; without a process group, nothing happens."""
        self._tally.all_reduce(device)

    def result(self) -> Result:
        """Return the mean; ``ValueError`` when no image was seen."""
        count = int(self._tally.counts[0])
        if not count:
            raise ValueError(f"{self.name}: no image was judged; call update first")
        return Result(self.name, self.sentence, self._tally.mean(0), count)
