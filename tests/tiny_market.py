"""A made-up Market-1501 in a folder: persons are colours, each seen by some cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = (32, 16)
TRAIN = {2: (1, 1, 2, 3), 4: (1, 2, 2, 5), 6: (3, 4, 4), 8: (1, 6, 6, 6, 2)}
TEST = {1: (1, 1, 2), 3: (2, 3), 5: (1, 1), 7: (4, 5, 6, 6), 0: (1, 2), -1: (3,)}
NO_POSE = "0008_c6s1_000003_01.jpg"


def name(identity: int, camera: int, number: int) -> str:
    return f"{identity if identity < 0 else f'{identity:04d}'}_c{camera}s1_{number:06d}_01.jpg"


def names(persons: dict[int, tuple[int, ...]]) -> list[str]:
    return [name(person, camera, number) for person, all_ in persons.items() for number, camera in enumerate(all_)]


def photo(identity: int, seed: int) -> np.ndarray:
    """The upper half shows who it is, the lower half nothing in particular."""
    rng = np.random.default_rng(1000 + identity)
    image = np.random.default_rng(seed).integers(90, 160, (*SIZE, 3)).astype(np.uint8)
    image[: SIZE[0] // 2] = rng.integers(0, 256, 3)
    return image


def write_images(folder: Path, persons: dict[int, tuple[int, ...]]) -> None:
    import cv2

    folder.mkdir(parents=True)
    for seed, file in enumerate(names(persons)):
        # Not by cv2.imwrite, which ends the process where a folder's name is no UTF-8.
        written, jpeg = cv2.imencode(".jpg", photo(int(file.split("_")[0]), seed))
        assert written
        (folder / file).write_bytes(jpeg)


def write(root: Path) -> Path:
    """Write train/, test/, the key points of train/ (none on one image) and a pair list; return the root."""
    write_images(root / "train", TRAIN)
    write_images(root / "test", TEST)
    rows = ["name:keypoints_y:keypoints_x"]
    for number, file in enumerate(names(TRAIN)):
        there = file != NO_POSE
        ys = [2 + joint + number % 3 if there else -1 for joint in range(18)]
        xs = [3 + joint % 8 if there else -1 for joint in range(18)]
        rows.append(f"{file}: {ys}: {xs}")
    (root / "market-annotation-train.csv").write_text("\n".join(rows) + "\n")
    (root / "market-pairs-train.csv").write_text("from,to\n")
    return root
