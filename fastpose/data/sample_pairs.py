"""Pairs of the bundled sample: every person and its own mirror image, in both directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import images, joints
from fastpose.data.geometry import fit_matrix
from fastpose.data.pair_dataset import mirrored
from fastpose.data.person import Person
from fastpose.data.sample import SamplePersons
from fastpose.data.views import photo_view

# Of the annotated box, so that hands and hair are in.
_MARGIN = 1.15


class SamplePairs:
    """The bundled persons with their 17 COCO joints as OpenPose's 18; photographs of "train" and "val" are disjoint.

    Person 2k is the k-th of ``sample``, person 2k + 1 its mirror image: the same photograph and pixels, with left and
    right joints swapped; ``view`` mirrors the picture.

    Args:
        split: "train", "val" or "all".
        size: (H, W) of the pictures; each shows the person's box with a margin, padded with white.
        minimum_joints: persons with fewer labelled joints are left out.
    """

    def __init__(self, split: str = "train", *, size: tuple[int, int] = (128, 64), minimum_joints: int = 1):
        _checks.choice("split", split, ("train", "val", "all"))
        self.name, self.split, self.guide = "sample-pairs", split, "pose"
        self.skeleton, self.scored_joints = skeletons.OPENPOSE, tuple(range(18))
        self.size = (int(size[0]), int(size[1]))
        self._swap = np.array(self.skeleton.flip_permutation)
        originals = SamplePersons(split, minimum_joints=minimum_joints).persons
        self.persons = [view for entry in originals for view in self._both(entry)]
        first = 2 * np.arange(len(originals))
        both = np.stack([first, first + 1, first + 1, first], axis=1)  # (N, 4)
        self.pairs = both.reshape(-1, 2).astype(np.int64)

    def __len__(self) -> int:
        return len(self.pairs)

    def _both(self, entry: Person) -> tuple[Person, Person]:
        """Return a person with OpenPose's joints, and as its mirror image shows it."""
        points, visible = joints.convert(entry.keypoints, entry.visibility, skeletons.COCO, self.skeleton)
        own = replace(entry, keypoints=points, visibility=visible, bbox=_with_joints(entry))
        return own, replace(own, keypoints=points[self._swap], visibility=visible[self._swap])

    def view(self, index: int, size: tuple[int, int], pixel_limit: int = images.PIXEL_LIMIT) -> dict[str, np.ndarray]:
        """Return image and joints of a person, or of its mirror image, at ``size`` (see ``PairSource``)."""
        entry = self.persons[index - index % 2]
        assert entry.bbox is not None
        photo = images.read_image(entry.image, pixel_limit=pixel_limit)
        view = photo_view(entry, photo, fit_matrix(entry.bbox, _MARGIN, size), size, size)
        return mirrored(view, self._swap) if index % 2 else view


def _with_joints(entry: Person) -> np.ndarray:
    """Return the box (x, y, width, height) around a person's annotated box and all its joints (some lie outside)."""
    assert entry.bbox is not None
    corners = np.stack([entry.bbox[:2], entry.bbox[:2] + entry.bbox[2:] - 1])
    points = np.concatenate([corners, entry.keypoints[entry.visibility > 0]])
    low, high = points.min(0), points.max(0)
    return np.concatenate([low, high - low + 1])
