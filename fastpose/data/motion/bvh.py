"""Biovision motions (BVH): hierarchy and frames in one file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastpose.data.motion import actions, kinematics, text, units
from fastpose.data.motion.clips import Motion, motion

_CHANNELS = {f"{axis}{kind}": (kind[0], axis.upper()) for axis in "xyz" for kind in ("rotation", "position")}


@dataclass
class Joint:
    """A joint at rest: offset (3,) from its parent, and what a frame's numbers are: ("p" or "r", axis) in order."""

    name: str
    parent: int
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))
    channels: list[tuple[str, str]] = field(default_factory=list)


def read(path: Path, *, unit: str = "auto") -> Motion:
    """Read a BVH file; the end of a chain becomes a joint ``NAME_end``. ``unit``: see ``units.UNITS``."""
    parts = re.split(r"(?im)^[ \t]*MOTION[ \t\r]*$", text.read_text(path, "a BVH motion", "HIERARCHY"), maxsplit=1)
    if len(parts) < 2:
        raise ValueError(f"{path}: expected a MOTION section after the hierarchy; the file seems to be cut")
    joints = _hierarchy(path, parts[0].split())
    values, fps = _motion(path, parts[1].replace(":", ": ").split(), sum(len(joint.channels) for joint in joints))
    parents = tuple(joint.parent for joint in joints)
    still = [np.eye(3)] * len(joints)
    rest = kinematics.forward(parents, [joint.offset[None] for joint in joints], still, own=False)[0]
    scale = units.metres(path, unit, rest)
    positions = _positions(joints, parents, values) * scale
    names = tuple(joint.name for joint in joints)
    name = path.stem
    return motion(path, positions, names, parents, fps, name=name, action=actions.of(name), unit=scale)


def _positions(joints: list[Joint], parents: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Return joint positions (T, J, 3) in the file's unit; a position channel takes the place of the offset."""
    offsets, turns, column = [], [], 0
    for joint in joints:
        own = values[:, column : column + len(joint.channels)]  # (T, n)
        column += len(joint.channels)
        turned = [index for index, (kind, _) in enumerate(joint.channels) if kind == "r"]
        offset = np.tile(joint.offset, (len(values), 1))  # (T, 3)
        for index, (kind, axis) in enumerate(joint.channels):
            if kind == "p":
                offset[:, "XYZ".index(axis)] = own[:, index]
        turns.append(kinematics.product([joint.channels[index][1] for index in turned], np.radians(own[:, turned])))
        offsets.append(offset)
    return kinematics.forward(parents, offsets, turns, own=False)


def _hierarchy(path: Path, tokens: list[str]) -> list[Joint]:
    """Return the joints in the file's order, in which a parent comes before its children."""
    joints: list[Joint] = []
    open_joints: list[int] = []
    position = 0
    while position < len(tokens):
        word = tokens[position].upper()
        if word in ("ROOT", "JOINT", "END"):
            brace = tokens.index("{", position) if "{" in tokens[position : position + 16] else position
            joints.append(_named(path, word, tokens[position + 1 : brace], joints, open_joints))
            position = brace
        elif word == "{" and joints:
            open_joints.append(len(joints) - 1)
            position += 1
        elif word == "}" and open_joints:
            open_joints.pop()
            position += 1
        elif word == "OFFSET" and open_joints:
            joints[open_joints[-1]].offset = _offset(path, tokens[position + 1 : position + 4])
            position += 4
        elif word == "CHANNELS" and open_joints:
            size = text.count(path, (tokens[position + 1 : position + 2] or [""])[0], "CHANNELS")
            joints[open_joints[-1]].channels = _channels(path, size, tokens[position + 2 : position + 2 + size])
            position += 2 + size
        elif word == "HIERARCHY" and not joints:
            position += 1
        else:
            raise ValueError(f"{path}: hierarchy: unexpected {tokens[position][:40]!r}")
    if open_joints or not joints:
        raise ValueError(f"{path}: hierarchy: {'a brace is not closed' if joints else 'expected ROOT, found no joint'}")
    return joints


def _named(path: Path, word: str, following: list[str], joints: list[Joint], open_joints: list[int]) -> Joint:
    """Begin a joint; the parent is the joint whose brace is open."""
    if not following or (word == "ROOT") != (not open_joints) or (word == "ROOT" and joints):
        raise ValueError(f"{path}: hierarchy: expected one ROOT, and named joints inside its braces")
    if len(joints) >= text.MOST_JOINTS:
        raise ValueError(f"{path}: hierarchy: more than {text.MOST_JOINTS} joints, no person's skeleton")
    name = f"{joints[open_joints[-1]].name}_end" if word == "END" else " ".join(following)
    known = {joint.name for joint in joints}
    if name in known:
        if word != "END":
            raise ValueError(f"{path}: hierarchy: joint {name[:40]!r} occurs twice")
        name = f"{name}{len(joints)}"
    return Joint(name, open_joints[-1] if open_joints else -1)


def _offset(path: Path, tokens: list[str]) -> np.ndarray:
    values = text.numbers(path, tokens, "OFFSET")
    if len(values) != 3:
        raise ValueError(f"{path}: hierarchy: expected OFFSET of 3 numbers, found {len(values)}")
    return values


def _channels(path: Path, size: int, tokens: list[str]) -> list[tuple[str, str]]:
    unknown = [token for token in tokens if token.lower() not in _CHANNELS]
    if unknown or len(tokens) != size or len({token.lower() for token in tokens}) != size:
        found = repr(unknown[0][:40]) if unknown else f"{len(set(tokens))} different ones"
        raise ValueError(f"{path}: hierarchy: expected {size} channels such as Xposition or Zrotation, found {found}")
    return [_CHANNELS[token.lower()] for token in tokens]


def _motion(path: Path, tokens: list[str], width: int) -> tuple[np.ndarray, float]:
    """Return the frames' numbers (T, width) and frames per second."""
    if (
        len(tokens) < 5
        or tokens[0].lower() != "frames:"
        or [word.lower() for word in tokens[2:4]] != ["frame", "time:"]
    ):
        raise ValueError(f"{path}: MOTION: expected 'Frames: N' and 'Frame Time: seconds'; the file seems to be cut")
    frames = text.count(path, tokens[1], "Frames")
    seconds = float(text.numbers(path, tokens[4:5], "Frame Time")[0])
    if seconds <= 0:
        raise ValueError(f"{path}: MOTION: expected a positive Frame Time, found {seconds:g}")
    found = tokens[5:]
    if len(found) != frames * width or not frames * width:
        raise ValueError(
            f"{path}: MOTION: expected {frames} frames of {width} numbers, found {len(found)} numbers "
            f"({len(found) / max(width, 1):.1f} frames); the file is cut or damaged"
        )
    fps = 1 / seconds
    nearest = round(fps)
    # Frame times are written to few digits: .0083333 is 120 a second.
    fps = float(nearest) if nearest and abs(fps - nearest) < 0.005 * fps else fps
    return text.numbers(path, found, "a frame").reshape(frames, width), fps
