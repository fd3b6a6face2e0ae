"""Recorded motion seen by random cameras and drawn as a dressed body: photographs with exact 2D and 3D truth.

Nothing of a rendered picture comes from a photograph. Camera frame: x right, y down, z away, millimetres.
"""

from __future__ import annotations

import hashlib
import numbers
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data import bodies, images, motion
from fastpose.data.cameras import FLESH, Cameras, Views, generator, look_at
from fastpose.data.motion.asf_amc import FPS
from fastpose.data.motion.clips import check_positive
from fastpose.data.person import Person, person
from fastpose.data.pose3d import Pose3D

SIZE, CAMERAS = (256, 256), Cameras()
# The longest side of a photograph: one of this size takes some 2 GB while it is drawn.
_LONGEST = 4096
# The crop's side over the body's longer side, as the other sources have it.
_MARGIN = 1.25
# Where MPII's joints are among the 17 of Human3.6M, which has its spine besides.
H36M_TO_MPII = [skeletons.H36M.index("neck" if name == "upper_neck" else name) for name in skeletons.MPII.joints]
# The nearest that a joint may come to the camera, millimetres.
_NEAREST = 500.0


class RenderedMocap:
    """Poses of recorded motion photographed by random cameras.

    ``persons[i].image`` is a name such as ``/mocap/02_01.amc#02_01/000120-v0`` (motion file without links, clip, frame
    of the recording, view) and no file; ``photo(i)`` draws the picture. Camera, clothes, light and background of a
    picture depend on seed, clip, frame and view alone, so that splits differ by their clips and by nothing else. Every
    joint is marked visible, since occlusion is known only once the body stands: ``visibility(i)`` tells it.

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
        unit: unit of length of .amc and .bvh files, one of ``motion.UNITS``; "auto" tells it by the person's size.
        recorded_fps: rate of recording of .amc files, which do not tell it.

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
        cameras: Cameras = CAMERAS,
        cache: str | Path = "",
        unit: str = "auto",
        recorded_fps: float = FPS,
    ):
        _checks.choice("split", split, ("train", "val", "all"))
        _checks.choice("skeleton", skeleton, ("mpii", "h36m"))
        _checks.choice("unit", unit, ("auto", *motion.UNITS))
        check_positive("fps", fps)
        views = _whole("views", views, 1)
        self.name, self.split, self.seed = "mocap", split, _whole("seed", seed, 0)
        self.skeleton = skeletons.get(skeleton)
        self.scored_joints = tuple(range(len(self.skeleton)))
        self.size = _size(size)
        self._cache = Path(os.path.expanduser(cache)) if str(cache) else None
        self.persons: list[Person] = []
        for label, clip in chosen_clips(Path(root), split, holdout_every, validation_clips):
            read = clip.read(unit=unit, recorded_fps=recorded_fps)
            self._add(label, _place(clip), read, fps, views, cameras)

    def __len__(self) -> int:
        return len(self.persons)

    def _add(self, label: str, place: str, clip: motion.Motion, fps: float, views: int, cameras: Cameras) -> None:
        """Append the persons of one clip."""
        joints = 1000 * motion.to_skeleton(clip, "h36m").astype(np.float64)
        step = max(1, round(min(clip.fps / fps, len(clip.positions))))
        seen = look_at(joints, step, views, (self.seed, _number(label)), cameras, self.size)
        nearest = float(seen.joints[..., 2].min())
        if not nearest >= _NEAREST:
            raise ValueError(
                f"mocap: clip {label}: a joint is {nearest:.0f} mm from the camera, expected {_NEAREST:g} or more; "
                "is the motion in metres (unit)? else take cameras farther away"
            )
        if self.skeleton == skeletons.MPII:
            seen = seen._replace(joints=seen.joints[:, H36M_TO_MPII])
        self.persons += _persons(label, place, clip.action, seen, first=len(self.persons))

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
        try:
            write_png(path, picture)
        except OSError as error:
            raise OSError(
                f"cache: {self._cache} could not be written ({error.strerror or error}); name another folder, or none"
            ) from error
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
        joints = pose.joints if self.skeleton == skeletons.MPII else pose.joints[H36M_TO_MPII]
        return joints, pose.intrinsics

    def picture_name(self, index: int) -> str:
        """Return what a picture is called within its source, such as "02_01/000120-v0": clip, frame and view."""
        entry = self.persons[index]
        assert entry.pose3d is not None
        return f"{entry.pose3d.clip}/{entry.image.name}"

    def _appearance(self, index: int) -> np.random.Generator:
        """Random numbers of one picture."""
        return generator(self.seed, _number(self.picture_name(index)), 1)

    def _cached(self, index: int) -> Path:
        """Return where a picture is kept: its name tells everything that it depends on."""
        assert self._cache is not None
        joints, intrinsics = self._pose(index)
        told = f"{bodies.VERSION} {self.seed} {self.size} {self.picture_name(index)}".encode()
        name = hashlib.sha256(told + joints.tobytes() + intrinsics.tobytes()).hexdigest()[:32]
        return self._cache / name[:2] / f"{name}.png"


SAMPLE_HELD_OUT = ("02_03", "02_04", "03_01")


class SampleMocap(RenderedMocap):
    """The bundled clips of the CMU Graphics Lab's database as ``RenderedMocap``; its options but those of files.

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
        cameras: Cameras = CAMERAS,
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
    if isinstance(validation_clips, str):
        raise ValueError(f"validation_clips: expected names such as [02_03], got {validation_clips!r}")
    _whole("holdout_every", holdout_every, 2)
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


def _place(clip: motion.Clip) -> str:
    """Return where a clip is, the same by whatever path it was found and unlike that of every other one."""
    return f"{clip.path.resolve()}#{quote(clip.name, safe='')}"


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _whole(argument: str, value: Any, least: int) -> int:
    """Return a whole number; ``ValueError`` when it is none, or below ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{argument}: expected a whole number from {least}, got {value!r}")
    return int(value)


def _size(size: Any) -> tuple[int, int]:
    """Return a size (H, W); ``ValueError`` unless both are whole numbers that a picture can have."""
    sides = tuple(size) if isinstance(size, (tuple, list)) else (size,)
    whole = all(isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or not all(1 <= side <= _LONGEST for side in sides):
        raise ValueError(f"size: expected (H, W), whole numbers of at least 1 and at most {_LONGEST}, got {size!r}")
    return int(sides[0]), int(sides[1])


def _persons(label: str, place: str, action: str, seen: Views, *, first: int) -> list[Person]:
    """Return the persons of a clip's pictures."""
    focal, centre = seen.intrinsics[:, 0, 0], seen.intrinsics[:, :2, 2]
    joints = seen.joints.astype(np.float64)
    points = joints[..., :2] / joints[..., 2:] * focal[:, None, None] + centre[:, None]  # (N, K, 2)
    # Of MPII's joints whatever the skeleton, so that crops are the same too.
    body = slice(None) if joints.shape[1] == len(skeletons.MPII) else H36M_TO_MPII
    flesh = (FLESH * focal / joints[:, body, 2].mean(1))[:, None]
    low, high = points[:, body].min(1) - flesh, points[:, body].max(1) + flesh
    boxes = np.concatenate([low, high - low], axis=1)
    middle, scale = (low + high) / 2, _MARGIN * (high - low).max(1) / 200.0
    subject, seen_all = label.partition("_")[0], np.full(points.shape[1], 2, np.uint8)
    return [
        person(
            Path(f"{place}/{seen.frame[row]:06d}-v{seen.view[row]}"),
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
