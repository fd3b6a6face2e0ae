"""Recorded motion seen by random cameras and drawn as a dressed body: photographs with exact 2D and 3D truth.

Nothing of a rendered picture comes from a photograph. Camera frame: x right, y down, z away, millimetres.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import bodies, images, motion
from fastpose.data.keypoint_dataset import checked_size
from fastpose.data.person import Person, person
from fastpose.data.pose3d import Pose3D

SIZE = (256, 256)
# From the joints to what is drawn of hands, feet and hair, millimetres.
_FLESH = 110.0
# The crop's side over the body's longer side, as the other sources have it.
_MARGIN = 1.25
# MPII's joints among the 17 of Human3.6M, which has its spine besides.
_H36M_TO_MPII = [skeletons.H36M.index("neck" if name == "upper_neck" else name) for name in skeletons.MPII.joints]
# The nearest that a joint may come to the camera, millimetres.
_NEAREST = 500.0


@dataclass(frozen=True)
class Cameras:
    """What random cameras are drawn from, uniformly; azimuth is free.

    Attributes:
        elevation: degrees above the horizon from which the person is seen.
        distance: metres to the middle of the person.
        roll: degrees to either side.
        fill: share of the picture that the person takes.
        shift: largest offset of the person from the picture's middle, as a share of its side.
        height: factor of the person's size.
    """

    elevation: tuple[float, float] = (-10.0, 40.0)
    distance: tuple[float, float] = (3.0, 7.0)
    roll: float = 5.0
    fill: tuple[float, float] = (0.58, 0.75)
    shift: float = 0.04
    height: tuple[float, float] = (0.9, 1.1)


class _Views(NamedTuple):
    """The pictures of one clip: joints float32 (N, 17, 3), intrinsics (N, 3, 3), frame and view number (N,)."""

    joints: np.ndarray
    intrinsics: np.ndarray
    frame: np.ndarray
    view: np.ndarray


class RenderedMocap:
    """Poses of recorded motion photographed by random cameras.

    ``persons[i].image`` is a name such as ``02_01/000120-v0`` (clip, frame, view) and no file; ``photo(i)`` draws the
    picture. Camera, clothes, light and background of a picture depend on seed, clip, frame and view alone, so that
    splits differ by their clips and by nothing else. Every joint is marked visible, since occlusion is known only once
    the body stands: ``visibility(i)`` tells it.

    Args:
        root: a motion file (.amc, .bvh, .npz), or a folder with some at any depth.
        split: "train", "val" or "all".
        fps: frames per second taken of each clip, as near as every n-th frame comes to it.
        views: cameras per frame.
        size: (H, W) of the photographs.
        seed: of cameras and appearance.
        skeleton: of the persons, "mpii" (16 joints) or "h36m" (17); the pictures are the same.
        holdout_every: each clip of this number, counted through the sorted names, is for validation; clips of one name
            stay together.
        validation_clips: names of the clips for validation instead.
        cameras: the ranges of random cameras.
        cache: folder that keeps the photographs once drawn; "" draws each anew.

    Raises:
        FileNotFoundError: no motion under ``root``.
        ValueError: an option or a file is wrong, or nothing is left for a split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        fps: float = 10.0,
        views: int = 1,
        size: tuple[int, int] = SIZE,
        seed: int = 0,
        skeleton: str = "mpii",
        holdout_every: int = 5,
        validation_clips: Sequence[str] = (),
        cameras: Cameras = Cameras(),
        cache: str | Path = "",
    ):
        _checks.choice("split", split, ("train", "val", "all"))
        _checks.choice("skeleton", skeleton, ("mpii", "h36m"))
        _check_positive(fps=fps, views=views)
        self.name, self.split, self.seed = "mocap", split, seed
        self.skeleton = skeletons.get(skeleton)
        self.scored_joints = tuple(range(len(self.skeleton)))
        self.size = checked_size("size", size)
        self._cache = Path(os.path.expanduser(cache)) if str(cache) else None
        self.persons: list[Person] = []
        for label, clip in chosen_clips(Path(root), split, holdout_every, validation_clips):
            self._add(label, clip.read(), fps, views, cameras)

    def __len__(self) -> int:
        return len(self.persons)

    def _add(self, label: str, clip: motion.Motion, fps: float, views: int, cameras: Cameras) -> None:
        """Append the persons of one clip."""
        joints = 1000 * motion.to_skeleton(clip, "h36m").astype(np.float64)
        step = max(1, round(clip.fps / fps))
        seen = _look_at(joints, step, views, (self.seed, _number(label)), cameras, self.size)
        nearest = float(seen.joints[..., 2].min())
        if nearest < _NEAREST:
            raise ValueError(
                f"mocap: clip {label}: a joint is {nearest:.0f} mm from the camera, expected {_NEAREST:g} or more; "
                "is the motion in metres? else take cameras farther away"
            )
        if self.skeleton == skeletons.MPII:
            seen = seen._replace(joints=seen.joints[:, _H36M_TO_MPII])
        self.persons += _persons(label, clip.action, seen, first=len(self.persons))

    def photo(self, index: int) -> np.ndarray:
        """Return the photograph of a person, uint8 (H, W, 3) RGB: the same for the same seed, clip, frame and view."""
        if self._cache is None:
            return self.render(index).image
        path = self._cached(index)
        if path.is_file():
            try:
                return images.read_image(path)
            except ValueError:  # left behind by a full disk: drawn anew below
                pass
        picture = self.render(index).image
        write_png(path, picture)
        return picture

    def render(self, index: int) -> bodies.Rendering:
        """Return photograph, depth map and visibility of a person, drawn anew."""
        joints, intrinsics = self._pose(index)
        return bodies.render(joints, intrinsics, self.size, self._appearance(index))

    def visibility(self, index: int) -> np.ndarray:
        """Return which of MPII's joints are seen (2) and which the body hides (1), uint8 (16,); takes about 1 ms."""
        joints, intrinsics = self._pose(index)
        return bodies.visibility(joints, intrinsics, self.size, self._appearance(index))

    def _pose(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return MPII's joints in the camera frame, and the intrinsics."""
        pose = self.persons[index].pose3d
        assert pose is not None
        assert pose.intrinsics is not None
        joints = pose.joints if self.skeleton == skeletons.MPII else pose.joints[_H36M_TO_MPII]
        return joints, pose.intrinsics

    def _appearance(self, index: int) -> np.random.Generator:
        """Random numbers of one picture."""
        return _generator(self.seed, _number(str(self.persons[index].image)), 1)

    def _cached(self, index: int) -> Path:
        """Return where a picture is kept: its name tells everything that it depends on."""
        assert self._cache is not None
        joints, intrinsics = self._pose(index)
        told = f"{bodies.VERSION} {self.seed} {self.size} {self.persons[index].image.as_posix()}".encode()
        name = hashlib.sha256(told + joints.tobytes() + intrinsics.tobytes()).hexdigest()[:32]
        return self._cache / name[:2] / f"{name}.png"


SAMPLE_HELD_OUT = ("02_03", "02_04", "03_01")


class SampleMocap(RenderedMocap):
    """The bundled clips of the CMU Graphics Lab's database as ``RenderedMocap``; its options without ``root``.

    A run, a jump and a walk over uneven ground are for validation unless other clips are named.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        fps: float = 10.0,
        views: int = 1,
        size: tuple[int, int] = SIZE,
        seed: int = 0,
        skeleton: str = "mpii",
        validation_clips: Sequence[str] = SAMPLE_HELD_OUT,
        cameras: Cameras = Cameras(),
        cache: str | Path = "",
    ):
        super().__init__(
            motion.library.SAMPLE,
            split,
            fps=fps,
            views=views,
            size=size,
            seed=seed,
            skeleton=skeleton,
            validation_clips=validation_clips,
            cameras=cameras,
            cache=cache,
        )
        self.name = "sample-mocap"


def chosen_clips(
    root: Path, split: str, holdout_every: int = 5, validation_clips: Sequence[str] = ()
) -> list[tuple[str, motion.Clip]]:
    """Return the clips of a split with labels that are unlike each other, sorted; see ``RenderedMocap``."""
    try:
        found = sorted(motion.find(root), key=lambda clip: (clip.name, str(clip.path)))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"mocap: {error} (see fastpose data check mocap {root})") from None
    held = _held_out(root, sorted({clip.name for clip in found}), holdout_every, validation_clips)
    kept = [
        (label, clip)
        for label, clip in zip(_labels(found), found, strict=True)
        if split == "all" or (clip.name in held) == (split == "val")
    ]
    if not kept:
        raise ValueError(
            f"mocap: no clip for split {split!r} under {root}, which holds {len(found)}; name others in "
            "validation_clips, or ask for split 'all'"
        )
    return kept


def _held_out(root: Path, names: list[str], every: int, chosen: Sequence[str]) -> set[str]:
    """Return the names of the clips for validation: the last one where there are fewer than ``every``."""
    for name in chosen:
        if name not in names:
            raise ValueError(f"validation_clips: {root}: " + _checks.unknown("clip", name, names))
    if chosen:
        return set(chosen)
    if every < 2:
        raise ValueError(f"holdout_every: expected 2 or more, got {every}")
    return set(names[every - 1 :: every] or names[1:][-1:])


def _labels(clips: Iterable[motion.Clip]) -> list[str]:
    """Return the clips' names as file names, the second of one name with ``~2`` behind it."""
    count: dict[str, int] = {}
    labels = []
    for clip in clips:
        name = re.sub(r"[^\w.-]+", "_", clip.name).strip(".") or "clip"
        count[name] = count.get(name, 0) + 1
        labels.append(name if count[name] == 1 else f"{name}~{count[name]}")
    return labels


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")


def _look_at(
    joints: np.ndarray,
    step: int,
    views: int,
    seeds: tuple[int, int],
    cameras: Cameras,
    size: tuple[int, int],
) -> _Views:
    """Photograph every ``step``-th pose of (T, 17, 3), world millimetres, Y up, by ``views`` random cameras."""
    frames = np.arange(0, len(joints), step)
    # Drawn for all frames, so that a frame has its camera whatever the frame rate.
    draws = np.stack([_generator(*seeds, view).random((len(joints), 8))[frames] for view in range(views)], axis=1)
    draws = draws.reshape(-1, 8)  # frame by frame, the views of each together
    world = joints[np.repeat(frames, views)]
    seen, focal = _photograph(world, draws, cameras, size)
    intrinsics = np.zeros((len(seen), 3, 3))
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, :2, 2], intrinsics[:, 2, 2] = ((size[1] - 1) / 2, (size[0] - 1) / 2), 1
    return _Views(seen.astype(np.float32), intrinsics, np.repeat(frames, views), np.tile(np.arange(views), len(frames)))


def _photograph(
    world: np.ndarray, draws: np.ndarray, cameras: Cameras, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return joints in the camera frame (N, 17, 3) and focal lengths in pixels (N,)."""

    def between(column: int, ends: tuple[float, float]) -> np.ndarray:
        return np.asarray(ends[0] + (ends[1] - ends[0]) * draws[:, column])

    distance = 1000 * between(2, cameras.distance)
    rotation = _rotation(2 * np.pi * draws[:, 0], between(1, cameras.elevation), between(3, (-1, 1)) * cameras.roll)
    middle = (world.max(1, keepdims=True) + world.min(1, keepdims=True)) / 2
    seen = np.einsum("nij,nkj->nki", rotation, (world - middle) * between(7, cameras.height)[:, None, None])
    seen[..., 2] += distance[:, None]
    for _ in range(3):  # moves the camera sideways until the person's picture is around the optical axis
        low, high = _outline(seen)
        seen[..., :2] -= ((low + high) / 2 * distance[:, None])[:, None]
    low, high = _outline(seen)
    share = between(4, cameras.fill)
    flesh = 2 * _FLESH / distance[:, None]
    focal = (share[:, None] * size[::-1] / (high - low + flesh)).min(1)
    shift = np.stack([between(5, (-1, 1)), between(6, (-1, 1))], axis=1) * cameras.shift * size[::-1]
    seen[..., :2] += (shift / focal[:, None] * distance[:, None])[:, None]
    return seen, focal


def _outline(seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (N, 2) of the joints' pictures at focal length 1."""
    flat = seen[..., :2] / np.maximum(seen[..., 2:], 1.0)
    return flat.min(1), flat.max(1)


def _rotation(azimuth: np.ndarray, elevation: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """Return the rotations world -> camera (N, 3, 3) of cameras that look at the origin; elevation, roll in degrees."""
    rise, turn = np.deg2rad(elevation), np.deg2rad(roll)
    forward = -np.stack([np.sin(azimuth) * np.cos(rise), np.sin(rise), np.cos(azimuth) * np.cos(rise)], axis=1)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    down = np.cross(forward, right)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=1)


def _persons(label: str, action: str, seen: _Views, *, first: int) -> list[Person]:
    """Return the persons of a clip's pictures."""
    focal, centre = seen.intrinsics[:, 0, 0], seen.intrinsics[:, :2, 2]
    joints = seen.joints.astype(np.float64)
    points = joints[..., :2] / joints[..., 2:] * focal[:, None, None] + centre[:, None]  # (N, K, 2)
    flesh = (_FLESH * focal / joints[..., 2].mean(1))[:, None]
    low, high = points.min(1) - flesh, points.max(1) + flesh
    boxes = np.concatenate([low, high - low], axis=1)
    middle, scale = (low + high) / 2, _MARGIN * (high - low).max(1) / 200.0
    subject, seen_all = label.partition("_")[0], np.full(points.shape[1], 2, np.uint8)
    return [
        person(
            Path(f"{label}/{seen.frame[row]:06d}-v{seen.view[row]}"),
            points[row],
            seen_all,
            middle[row],
            scale[row],
            bbox=boxes[row],
            image_id=first + row,
            person_id=first + row,
            identity=subject,
            camera=int(seen.view[row]),
            pose3d=Pose3D(seen.joints[row], seen.intrinsics[row], subject, action, f"v{seen.view[row]}", label),
        )
        for row in range(len(points))
    ]


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB as a PNG file that is there wholly or not at all; folders are made."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    assert done
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(data.tobytes())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
