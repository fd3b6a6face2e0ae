"""What guides a generator outside training: poses from files and photographs, maps of parts, skeletons of letters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.data.images import SUFFIXES as PHOTOS
from fastpose.training.transfer_frame import check_own

if TYPE_CHECKING:
    from fastpose.data.keypoint_files import Pose
    from fastpose.training.transfer_data import TransferDataConfig
    from fastpose.training.transfer_inference import PoseTransfer

TABLES = (".json", ".csv")

PICTURES = ("sheet", "features", "gates", "attention")
"""What is drawn of a photograph beside its targets, by the names of the files."""

_NOT_IN_NAMES = '/\\:*?"<>|'  # here or on other systems
_LONGEST = 60


@dataclass(frozen=True)
class Guides:
    """What the user names; every kind of generator takes its own part of it.

    Attributes:
        poses: target poses, for a generator guided by poses: files of key points (JSON of ``predict``, OpenPose's JSON,
            PATN's CSV; every pose in it is one target), photographs of persons, and folders of either.
        keypoints: such a file with the key points of the photographs themselves, found by their names.
        pose_weights: weights of a 2D pose network of ours for the photographs without.
        source_map: what the photograph shows, for a generator guided by parts or skeletons: an image, or a folder of
            images named like the photographs.
        target_maps: what is to be drawn: images, and folders of them.
        letters, font: draw these letters of a .ttf file, for a generator guided by skeletons.
    """

    poses: tuple[Path, ...] = ()
    keypoints: Path | None = None
    pose_weights: Path | None = None
    source_map: Path | None = None
    target_maps: tuple[Path, ...] = ()
    letters: str = ""
    font: Path | None = None

    def named(self) -> list[str]:
        """Return the names of what is there."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


@dataclass(frozen=True)
class Target:
    """What one image is to show.

    Attributes:
        name: for file names and captions.
        guide: what `PoseTransfer` takes.
    """

    name: str
    guide: Any


@dataclass(frozen=True)
class _Kind:
    """The guides of one kind of generator: which of `Guides` it takes, and in which words the first is asked for."""

    takes: tuple[str, ...]
    wanted: str
    targets: Callable[[PoseTransfer, Guides, PoseReader], list[Target]]
    source: Callable[[PoseTransfer, Guides, PoseReader, Path, np.ndarray], Any]


class PoseReader:
    """Poses of photographs: from a file of key points where it has them, else seen by a 2D pose network.

    Args:
        keypoints: file of key points, or None.
        weights: of the pose network, or None; read when first needed.
        device: where that network runs.
    """

    def __init__(self, keypoints: Path | None, weights: Path | None, device: Any = "cpu") -> None:
        from fastpose.data import keypoint_files

        self._file = keypoints
        self._weights = weights
        self._device = device
        self._known = [] if keypoints is None else keypoint_files.read(keypoints)
        self._estimator: Any = None

    def of(self, photo: Path, image: np.ndarray | None = None) -> Pose:
        """Return the pose of a photograph's person, in its pixels; ``ValueError`` where nothing tells it."""
        found = _by_name(self._known, photo)
        if found is not None:
            return found
        if self._weights is not None:
            return self._seen(photo, image)
        missing = f"; {self._file} has {len(self._known):,} poses, none of that name" if self._file is not None else ""
        raise ValueError(
            f"photograph {photo}: its key points are not known{missing}; pass --keypoints FILE (fastpose predict "
            "--save-keypoints writes one) or --pose-weights W of a 2D pose network"
        )

    def listed(self, paths: Iterable[Path]) -> list[Pose]:
        """Return all poses of files of key points, photographs and folders of either, in order."""
        from fastpose.data import keypoint_files

        poses: list[Pose] = []
        for path in paths:
            for file in find_files(path, (*TABLES, *PHOTOS), "--pose"):
                if file.suffix.lower() in TABLES:
                    poses += [_sized(pose) for pose in keypoint_files.read(file)]
                else:
                    poses.append(self._photographed(file))
        return poses

    def _photographed(self, photo: Path) -> Pose:
        """Return the pose of a photograph that is a target; raises where the key points are of another image."""
        from fastpose.data.images import read_image

        image = read_image(photo, exif="apply")
        pose = self.of(photo, image)
        size = (image.shape[0], image.shape[1])
        check_own(pose, f"--pose {photo}", size)
        return replace(pose, size=size)

    def _seen(self, photo: Path, image: np.ndarray | None) -> Pose:
        from fastpose.data.images import read_image

        image = read_image(photo, exif="apply") if image is None else image
        if self._estimator is None:
            self._estimator = self._load()
        return pose_of(photo.name, self._estimator(image), self._estimator.skeleton, image.shape)

    def _load(self) -> Any:
        from fastpose.training import systems

        assert self._weights is not None
        system, config, network = systems.load_network(self._weights)
        return systems.estimator(system, network.to(self._device), config)


def pose_of(name: str, estimate: Any, skeleton: Any, shape: Sequence[int]) -> Pose:
    """Return the first person of an estimate as an OpenPose pose; joints of low score are missing.

    ``shape`` is that of the photograph, (H, W, ...).
    """
    from fastpose import skeletons
    from fastpose.data import joints, keypoint_files

    sure = (estimate.scores[0] >= keypoint_files.LEAST_SCORE).astype(np.float32)
    points, visibility = joints.convert(estimate.keypoints[0], sure, skeleton, skeletons.OPENPOSE)
    return keypoint_files.Pose(name, points, visibility, (int(shape[0]), int(shape[1])))


def _sized(pose: Pose) -> Pose:
    """Return a pose with the size of its image, read from the image where that is on the disk and the pose lacks it."""
    from fastpose.data.images import read_image

    path = Path(pose.name)
    if pose.size is not None or path.suffix.lower() not in PHOTOS or not os.path.isfile(path):  # of any name
        return pose
    height, width = read_image(path, exif="apply").shape[:2]
    return replace(pose, size=(height, width))


def _by_name(poses: Sequence[Pose], photo: Path) -> Pose | None:
    """Return the pose named like a photograph: by its path, then folder and name, then name, then name without suffix.

    ``ValueError`` where several are.
    """
    for parts in (None, 2, 1, 0):
        found = [pose for pose in poses if _key(Path(pose.name), parts) == _key(photo, parts)]
        if len(found) > 1:
            raise ValueError(
                f"photograph {photo}: {len(found)} poses are named {found[0].name!r} or alike; expected one"
            )
        if found:
            return found[0]
    return None


def _key(path: Path, parts: int | None) -> Any:
    """Return the last ``parts`` of a path, all where None, the stem alone where 0."""
    return path.stem if parts == 0 else path.parts[-parts:] if parts else path.parts


def find_files(path: Path, suffixes: Sequence[str], argument: str) -> list[Path]:
    """Return a file, or those of a folder with one of the suffixes, sorted: where there are tables, these alone.

    ``FileNotFoundError`` where there is none, ``ValueError`` for a file of another suffix; both name ``argument``.
    """
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{argument} {path}: expected a file that ends in {', '.join(suffixes)}, or a folder")
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{argument} {path}: no such file or folder")
    inside = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in suffixes)
    tables = [file for file in inside if file.suffix.lower() in TABLES]
    if not inside:
        what = "no image" if not set(TABLES) & set(suffixes) else "nothing"
        raise FileNotFoundError(f"{argument} {path}: {what} in it; expected {', '.join(suffixes)} files")
    return tables or inside


# ------------------------------------------------------------------------------------------------- kinds of generators


def reader(drawer: PoseTransfer, guides: Guides) -> tuple[list[Target], Callable[[Path, np.ndarray], Any]]:
    """Return the targets, and what gives the source's guide of a photograph (path, uint8 (H, W, 3)).

    Args:
        drawer: whose guides they are.
        guides: what the user named.

    Raises:
        ValueError, FileNotFoundError: one sentence about what is missing, or of no use to this kind.
    """
    chosen = _KINDS[drawer.guide]
    useless = [name for name in guides.named() if name not in chosen.takes]
    if useless:
        options = ", ".join(option(name) for name in chosen.takes)
        raise ValueError(
            f"{option(useless[0])}: of no use to a generator guided by {_WORDS[drawer.guide]}; it takes {options}"
        )
    poses = PoseReader(guides.keypoints, guides.pose_weights, drawer.device)
    targets = chosen.targets(drawer, guides, poses)
    if not targets:
        raise ValueError(f"predict: nothing says what to draw; {chosen.wanted}")
    return _distinct(targets), lambda photo, image: chosen.source(drawer, guides, poses, photo, image)


def _distinct(targets: Sequence[Target]) -> list[Target]:
    """Return targets whose names make different file names, none of them that of another picture of ours."""
    from fastpose.training.prediction import short

    taken, named = set(PICTURES), []
    for target in targets:
        clean = "".join(
            letter if letter.isprintable() and letter not in _NOT_IN_NAMES else "_" for letter in target.name
        )
        clean = short(clean[:_LONGEST])
        name, number = clean, 1
        while name.lower() in taken:
            number += 1
            name = f"{clean}-{number}"
        taken.add(name.lower())
        named.append(replace(target, name=name))
    return named


def option(name: str) -> str:
    """Return what the command line calls one of `Guides`."""
    return "--" + {"poses": "pose", "target_maps": "target-map"}.get(name, name.replace("_", "-"))


def _pose_targets(drawer: PoseTransfer, guides: Guides, poses: PoseReader) -> list[Target]:
    return [
        Target(Path(pose.name).stem or f"pose {index}", pose) for index, pose in enumerate(poses.listed(guides.poses))
    ]


def _pose_source(drawer: PoseTransfer, guides: Guides, poses: PoseReader, photo: Path, image: np.ndarray) -> Any:
    return poses.of(photo, image)


def _part_targets(drawer: PoseTransfer, guides: Guides, poses: PoseReader) -> list[Target]:
    files = [file for path in guides.target_maps for file in find_files(path, PHOTOS, "--target-map")]
    return [Target(file.stem, read_parts(file, drawer.data)) for file in files]


def _part_source(drawer: PoseTransfer, guides: Guides, poses: PoseReader, photo: Path, image: np.ndarray) -> Any:
    return read_parts(_map_of(guides.source_map, photo), drawer.data)


def read_parts(path: str | Path, config: TransferDataConfig) -> np.ndarray:
    """Return a map of parts as labels, uint8 (H, W), by the colours that the network was trained with."""
    from fastpose.data import semantic

    try:
        return semantic.read_map(path, palette=colours(config.palette), tolerance=config.tolerance)
    except ValueError as error:
        sentence, divided, advice = str(error).partition("; pass ")  # as for data sets, whose options have no section
        if not divided:
            raise
        advice = advice.removeprefix("palette=auto, ").replace("palette=", "data.palette=")
        raise ValueError(f"{sentence}; pass {advice.replace('tolerance', 'data.tolerance=')}") from None


def colours(palette: str) -> tuple[tuple[int, int, int], ...]:
    """Return the colours of parts that ``data.palette`` names, background first; ``ValueError`` for "auto"."""
    from fastpose.data import semantic

    if palette == "auto":
        raise ValueError(
            "data.palette=auto: means the colours found in the maps of the training; name them in their order, "
            "background first and the others sorted, such as data.palette=000000,104e8b"
        )
    return semantic.find_palette(palette, ())


def _map_of(named: Path | None, photo: Path) -> Path:
    """Return the image that shows the parts or the skeleton of a photograph."""
    if named is None:
        raise ValueError(f"photograph {photo}: no map of what it shows; pass --source-map PNG")
    if not named.is_dir():
        return find_files(named, PHOTOS, "--source-map")[0]
    found = [file for file in sorted(named.iterdir()) if file.stem == photo.stem and file.suffix.lower() in PHOTOS]
    if not found:
        raise FileNotFoundError(f"--source-map {named}: no image named {photo.stem} in this folder")
    return found[0]


def _letter_targets(drawer: PoseTransfer, guides: Guides, poses: PoseReader) -> list[Target]:
    from fastpose.data import fonts

    if bool(guides.letters) != (guides.font is not None):
        missing = "--font" if guides.letters else "--letters"
        raise ValueError(f"{missing}: expected with {'--letters' if guides.letters else '--font'}; give both")
    files = [file for path in guides.target_maps for file in find_files(path, PHOTOS, "--target-map")]
    targets = [Target(file.stem, fonts.read_skeleton(file)) for file in files]
    if guides.font is not None:
        targets += [
            Target(letter, fonts.letter_skeleton(guides.font, letter, drawer.size)) for letter in guides.letters
        ]
    return targets


def _letter_source(drawer: PoseTransfer, guides: Guides, poses: PoseReader, photo: Path, image: np.ndarray) -> Any:
    from fastpose.data import fonts

    if guides.source_map is not None:
        return fonts.read_skeleton(_map_of(guides.source_map, photo))
    found = fonts.skeleton(drawer.fitted(image))
    if not found.any():
        raise ValueError(f"photograph {photo}: shows no letter; expected one in a colour on white")
    return found


_WORDS = {"pose": "poses", "semantic": "maps of parts", "skeleton": "skeletons of letters"}
_KINDS = {
    "pose": _Kind(
        ("poses", "keypoints", "pose_weights"),
        "name target poses with --pose: key points, a photograph, or a folder",
        _pose_targets,
        _pose_source,
    ),
    "semantic": _Kind(
        ("source_map", "target_maps"), "name a map of parts with --target-map PNG", _part_targets, _part_source
    ),
    "skeleton": _Kind(
        ("source_map", "target_maps", "letters", "font"),
        "give --letters ABC with --font TTF, or skeletons with --target-map PNG",
        _letter_targets,
        _letter_source,
    ),
}
