"""Acclaim skeletons and motions (ASF, AMC), as the CMU Graphics Lab's database is distributed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fastpose.data.motion import actions, kinematics, text, units
from fastpose.data.motion.clips import Motion, motion

# AMC files do not tell their frame rate; the database's cameras took 120 a second.
FPS = 120.0
_ROOT = "root"
_ROOT_ORDER = ["TX", "TY", "TZ", "RX", "RY", "RZ"]
_INCH = 0.0254


@dataclass
class Bone:
    """A bone of the skeleton at rest; angles in the file's unit.

    Attributes:
        direction: (3,) unit vector in the world.
        length: in the file's unit.
        axis: (3,) Euler angles of the bone's own frame, and ``order`` their letters, the first turned first.
        dof: what a frame's numbers are, in order: "rx", "ry", "rz", for the root also "tx", "ty", "tz".
    """

    direction: np.ndarray = field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: np.ndarray = field(default_factory=lambda: np.zeros(3))
    order: str = "XYZ"
    dof: tuple[str, ...] = ()


@dataclass
class Asf:
    """A skeleton file: bones by name (the root first, parents before children), parents' indices, units."""

    path: Path
    bones: dict[str, Bone]
    parents: tuple[int, ...]
    length_unit: float
    degrees: bool

    def metres(self, unit: str) -> float:
        """Return metres per unit of length; "auto" is the database's rule: lengths over the length unit are inches."""
        rest = self.positions(np.zeros((1, sum(len(bone.dof) for bone in self.bones.values()))))[0]
        return units.metres(self.path, unit, rest, _INCH / self.length_unit)

    def positions(self, values: np.ndarray, *, degrees: bool | None = None) -> np.ndarray:
        """Return joint positions (T, J, 3) in units of the file from the frames' numbers (T, N), in bones' order."""
        per_unit = np.pi / 180 if (self.degrees if degrees is None else degrees) else 1.0
        frame_unit = np.pi / 180 if self.degrees else 1.0
        offsets, turns, column = [], [], 0
        for bone in self.bones.values():
            own = values[:, column : column + len(bone.dof)]  # (T, n)
            column += len(bone.dof)
            frame = kinematics.product(bone.order[::-1], bone.axis[::-1] * frame_unit)  # (3, 3)
            turned = [index for index, name in enumerate(bone.dof) if name[0] == "r"][::-1]
            local = kinematics.product([bone.dof[index][1].upper() for index in turned], own[:, turned] * per_unit)
            turns.append(frame @ local @ frame.T)
            offsets.append(_translation(bone, own))
        return kinematics.forward(self.parents, offsets, turns, own=True)


def _translation(bone: Bone, own: np.ndarray) -> np.ndarray:
    """Return where a bone leads (3,), or where the root is in every frame (T, 3)."""
    moved = {name: index for index, name in enumerate(bone.dof) if name[0] == "t"}
    rest = bone.direction * bone.length
    if not moved:
        return rest
    return np.stack([rest[i] + (own[:, moved["t" + c]] if "t" + c in moved else 0.0) for i, c in enumerate("xyz")], 1)


def read(path: Path, *, unit: str = "auto", recorded_fps: float = FPS) -> Motion:
    """Read an AMC file with the ASF file of its subject; ``recorded_fps`` is its rate where it tells none."""
    skeleton = read_asf(skeleton_path(path))
    values, degrees, told = read_amc(path, skeleton)
    scale = skeleton.metres(unit)
    positions = skeleton.positions(values, degrees=degrees) * scale
    joints, fps, name = tuple(skeleton.bones), told or recorded_fps, path.stem
    return motion(path, positions, joints, skeleton.parents, fps, name=name, action=actions.of(name), unit=scale)


def skeleton_path(path: Path) -> Path:
    """Return the ASF file of an AMC file: ``SS.asf`` beside ``SS_NN.amc``, ``NAME.asf``, or the folder's only one."""
    for name in (path.stem, path.stem.rpartition("_")[0], path.parent.name):
        for suffix in (".asf", ".ASF"):
            if name and (path.parent / (name + suffix)).is_file():
                return path.parent / (name + suffix)
    found = (
        sorted(item for item in path.parent.iterdir() if item.suffix.lower() == ".asf") if path.parent.is_dir() else []
    )
    if len(found) == 1:
        return found[0]
    subject = path.stem.rpartition("_")[0] or path.stem
    raise FileNotFoundError(
        f"{path}: an AMC file needs its subject's skeleton; put {subject}.asf beside it (CMU: subjects/SS/SS.asf)"
    )


# ------------------------------------------------------------------------------------------------------- the skeleton


def read_asf(path: Path) -> Asf:
    """Read a skeleton; ``ValueError`` says which part of the file cannot be."""
    sections = _sections(text.read_text(path, "an ASF skeleton", ":bonedata"))
    for name in ("root", "bonedata", "hierarchy"):
        if name not in sections:
            raise ValueError(f"{path}: expected sections :root, :bonedata and :hierarchy, found no :{name}")
    bones = {_ROOT: _root(path, sections["root"]), **_bonedata(path, sections["bonedata"])}
    parents = _hierarchy(path, sections["hierarchy"], bones)
    length_unit, degrees = _units(path, sections.get("units", []))
    order = list(parents)
    indices = tuple(-1 if parent is None else order.index(parent) for parent in parents.values())
    return Asf(path, {name: bones[name] for name in order}, indices, length_unit, degrees)


def _sections(content: str) -> dict[str, list[list[str]]]:
    """Split a file at its ``:keyword`` lines into rows of tokens, without comments."""
    sections: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in content.splitlines():
        tokens = line.partition("#")[0].split()
        if tokens and tokens[0].startswith(":"):
            rows = sections.setdefault(tokens[0][1:].lower(), [])
            tokens = tokens[1:]
        if tokens:
            rows.append(tokens)
    return sections


def _units(path: Path, rows: list[list[str]]) -> tuple[float, bool]:
    """Return the length unit and whether angles are degrees."""
    told = {row[0].lower(): row[1] for row in rows if len(row) > 1}
    length = float(text.numbers(path, [told.get("length", "1")], "unit of length")[0])
    angle = told.get("angle", "deg").lower()
    if length <= 0 or angle[:3] not in ("deg", "rad"):
        raise ValueError(f"{path}: units: expected a positive length and angle deg or rad, found {length:g}, {angle}")
    return length, angle.startswith("deg")


def _root(path: Path, rows: list[list[str]]) -> Bone:
    """Build the root: ``order`` tells a frame's numbers, ``axis`` and ``orientation`` its own frame."""
    told = {row[0].lower(): row[1:] for row in rows}
    dof = tuple(name.lower() for name in told.get("order", _ROOT_ORDER))
    order = "".join(told.get("axis", ["XYZ"])).upper()
    if not dof or any(not re.fullmatch("[rt][xyz]", name) for name in dof) or len(set(dof)) != len(dof):
        raise ValueError(f"{path}: root: expected order of TX TY TZ RX RY RZ, found {' '.join(dof)[:60] or 'nothing'}")
    axis = text.numbers(path, told.get("orientation", ["0", "0", "0"]), "orientation of the root")
    position = text.numbers(path, told.get("position", ["0", "0", "0"]), "position of the root")
    if len(axis) != 3 or len(position) != 3 or sorted(order) != ["X", "Y", "Z"]:
        raise ValueError(
            f"{path}: root: expected three numbers of position, of orientation and axis XYZ, found {order}"
        )
    return Bone(direction=position, length=1.0, axis=axis, order=order, dof=dof)


def _bonedata(path: Path, rows: list[list[str]]) -> dict[str, Bone]:
    """Build every bone between ``begin`` and ``end``; its lines may come in any order."""
    bones: dict[str, Bone] = {}
    block: dict[str, list[str]] | None = None
    for row in rows:
        word = row[0].lower()
        if word == "begin":
            block = {}
        elif word == "end" and block is not None:
            name = " ".join(block.get("name", []))
            if not name or name in bones or name == _ROOT:
                raise ValueError(f"{path}: bonedata: expected a new name for every bone, found {name[:40]!r}")
            bones[name], block = _bone(path, name, block), None
            if len(bones) > text.MOST_JOINTS:
                raise ValueError(f"{path}: bonedata: more than {text.MOST_JOINTS} bones, no person's skeleton")
        elif block is not None and not word.startswith("("):  # further limits
            block[word] = row[1:]
    if block is not None:
        raise ValueError(f"{path}: bonedata: the last bone has no end; the file seems to be cut")
    return bones


def _bone(path: Path, name: str, block: dict[str, list[str]]) -> Bone:
    direction = text.numbers(path, block.get("direction", []), f"direction of bone {name}")
    length = text.numbers(path, block.get("length", []), f"length of bone {name}")
    axis = text.numbers(path, block.get("axis", [])[:3], f"axis of bone {name}")
    order = "".join(block.get("axis", [])[3:]).upper() or "XYZ"
    dof = tuple(entry.lower() for entry in block.get("dof", []))
    if (len(direction), len(length), len(axis)) != (3, 1, 3) or sorted(order) != ["X", "Y", "Z"]:
        raise ValueError(
            f"{path}: bone {name}: expected direction of 3 numbers, one length and axis of 3 with its order"
        )
    if any(entry not in ("rx", "ry", "rz") for entry in dof) or len(set(dof)) != len(dof):
        raise ValueError(f"{path}: bone {name}: expected dof of rx, ry, rz, found {' '.join(dof)[:60]}")
    return Bone(direction, float(length[0]), axis, order, dof)


def _hierarchy(path: Path, rows: list[list[str]], bones: dict[str, Bone]) -> dict[str, str | None]:
    """Return every bone's parent, the root first and parents before children."""
    children: dict[str, list[str]] = {}
    for row in rows:
        if row[0].lower() not in ("begin", "end"):
            children.setdefault(row[0], []).extend(row[1:])
    parents: dict[str, str | None] = {_ROOT: None}
    for parent in _walk(children):
        for child in children.get(parent, []):
            if child not in bones or child in parents:
                what = "has two parents" if child in parents else "is not in :bonedata"
                raise ValueError(f"{path}: hierarchy: bone {child[:40]!r} {what}")
            parents[child] = parent
    lost = [name for name in (*bones, *children) if name not in parents]
    if lost:
        raise ValueError(f"{path}: hierarchy: bone {lost[0][:40]!r} hangs on nothing that leads to the root")
    return parents


def _walk(children: dict[str, list[str]]) -> Iterator[str]:
    """Yield the root and every bone below it, a whole branch before the next; each name once."""
    stack, seen = [_ROOT], set()
    while stack:
        name = stack.pop()
        if name not in seen:
            seen.add(name)
            yield name
            stack.extend(reversed(children.get(name, [])))


# --------------------------------------------------------------------------------------------------------- the motion


def read_amc(path: Path, skeleton: Asf) -> tuple[np.ndarray, bool, float]:
    """Return a motion's numbers (T, N) in the order of the skeleton's bones, whether angles are degrees, and the rate.

    The rate is 0 where the file, as usual, tells none. A bone that moves must be in every frame.
    """
    content = text.read_text(path, "an AMC motion", "root")
    header, body = _header(content)
    tokens = body.split()
    names, width = _layout(path, tokens, skeleton)
    if len(tokens) % width:
        raise ValueError(f"{path}: its last frame is cut, or a frame has another number of values than the first")
    columns, position = {}, 1
    _match(path, tokens, 0, width, None)
    for name in names:
        _match(path, tokens, position, width, name)
        size = len(skeleton.bones[name].dof)
        columns[name] = [tokens[position + 1 + index :: width] for index in range(size)]
        position += 1 + size
    ordered = [column for name in skeleton.bones for column in columns.get(name, [])]
    values = np.stack([text.numbers(path, column, "a frame") for column in ordered], axis=1)
    rate = re.search(r"SAMPLES-PER-SECOND\s+([0-9.]+)", header, re.IGNORECASE)
    degrees = skeleton.degrees if ":RADIANS" not in header.upper() else False
    degrees = True if ":DEGREES" in header.upper() else degrees
    return values, degrees, float(text.numbers(path, [rate[1]], "SAMPLES-PER-SECOND")[0]) if rate else 0.0


def _header(content: str) -> tuple[str, str]:
    """Split comments and ``:keyword`` lines from the frames."""
    head: list[str] = []
    frames: list[str] = []
    for line in content.splitlines():
        (head if line.lstrip().startswith((":", "#")) else frames).append(line)
    return "\n".join(head), "\n".join(frames)


def _layout(path: Path, tokens: list[str], skeleton: Asf) -> tuple[list[str], int]:
    """Return the first frame's bones in its order and how many tokens a frame has."""
    moving = {name for name, bone in skeleton.bones.items() if bone.dof}
    names: list[str] = []
    position = 1
    while position < len(tokens) and not _frame_number(tokens[position]):
        name = tokens[position]
        if name not in moving or name in names:
            what = "twice" if name in names else f"that {skeleton.path.name} has not, or that does not move there"
            raise ValueError(f"{path}: frame 1 names bone {name[:40]!r} {what}; is it this subject's skeleton?")
        names.append(name)
        position += 1 + len(skeleton.bones[name].dof)
    absent = sorted(moving - set(names))
    if absent:
        raise ValueError(f"{path}: frame 1 lacks bone {absent[0]!r} of {skeleton.path.name}, or the file is cut there")
    return names, position


def _frame_number(token: str) -> bool:
    return token.isascii() and token.isdigit()


def _match(path: Path, tokens: list[str], position: int, width: int, name: str | None) -> None:
    """Raise unless every frame names this bone here; ``None``: unless the frames are numbered one by one."""
    found = tokens[position::width]
    first = text.count(path, found[0], "number of the first frame") if name is None else 0
    for index, token in enumerate(found):
        wanted = str(first + index) if name is None else name
        if token != wanted and (name is not None or not _frame_number(token) or int(token[:12]) != first + index):
            raise ValueError(
                f"{path}: frame {index + 1}: expected {wanted!r}, found {token[:40]!r}; the file is damaged"
            )
