"""From 16 MPII joints to the solid parts of a body: round cones of human measure, and what each is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastpose import skeletons

# An adult of about 1.75 m, millimetres. A skeleton's size is the median of its bones' ratios to these.
_LENGTHS = {
    ("r_hip", "r_knee"): 420.0,
    ("l_hip", "l_knee"): 420.0,
    ("r_knee", "r_ankle"): 420.0,
    ("l_knee", "l_ankle"): 420.0,
    ("r_shoulder", "r_elbow"): 285.0,
    ("l_shoulder", "l_elbow"): 285.0,
    ("r_elbow", "r_wrist"): 260.0,
    ("l_elbow", "l_wrist"): 260.0,
    ("pelvis", "thorax"): 500.0,
}
# How far a joint lies below the skin, in millimetres of the same adult: a joint that lies deeper is occluded.
_DEPTHS = {"hip": 110, "knee": 60, "ankle": 48, "pelvis": 130, "thorax": 110, "upper_neck": 100, "head_top": 90}
_DEPTHS |= {"wrist": 36, "elbow": 46, "shoulder": 70}
_DOWN = np.array([0.0, 1.0, 0.0])
_RIGHT = np.array([1.0, 0.0, 0.0])


class Part(NamedTuple):
    """The hull of two spheres under a metric, millimetres.

    ``metric`` is a symmetric (3, 3) matrix with eigenvalues of 1 or more: lengths are sqrt(v^T metric v), so that a
    sphere is an ellipsoid inside the round one. Before the share ``split`` of the way from ``start`` to ``end`` it is
    made of ``material``, then of ``beyond``; ``grain`` is the unit vector along which its pattern changes.
    """

    material: str
    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    metric: np.ndarray
    grain: np.ndarray
    beyond: str
    split: float


@dataclass(frozen=True)
class Build:
    """What a body wears and how stout it is.

    Attributes:
        girth: factor of all radii.
        belly: further factor of the belly's.
        sleeve: share of the arm, shoulder (0) to wrist (2), in the shirt.
        trouser: share of the leg, hip (0) to ankle (2), in trousers.
        sock: share of the shin from which on there are socks.
        shoes: else bare feet.
        hair: "none", "short" or "long".
    """

    girth: float = 1.0
    belly: float = 1.0
    sleeve: float = 1.95
    trouser: float = 1.92
    sock: float = 0.85
    shoes: bool = True
    hair: str = "short"


def random_build(rng: np.random.Generator) -> Build:
    """Return a random build and cut of clothes; it takes the same numbers from ``rng`` whatever comes out."""
    draws = rng.random(8)
    return Build(
        girth=0.95 + 0.35 * draws[0],
        belly=0.92 + 0.3 * draws[1] ** 2,
        sleeve=1.95 if draws[2] < 0.45 else 0.05 + 1.0 * draws[3],
        trouser=1.92 if draws[4] < 0.6 else 0.35 + 0.8 * draws[5],
        sock=0.5 + 0.5 * draws[5],
        shoes=bool(draws[6] < 0.9),
        hair="none" if draws[7] < 0.1 else "long" if draws[7] < 0.4 else "short",
    )


def size(joints: np.ndarray) -> float:
    """Return a skeleton's size relative to an adult of 1.75 m; ``ValueError`` where most bones have no length."""
    at = skeletons.MPII.index
    lengths = [np.linalg.norm(joints[at(end)] - joints[at(start)]) / usual for (start, end), usual in _LENGTHS.items()]
    measured = float(np.median(lengths))
    if not measured > 0.05:
        raise ValueError(
            f"joints: expected a body in millimetres, got one of {measured:.2g} times an adult's size; multiply metres "
            "by 1,000"
        )
    return measured


def depths(joints: np.ndarray, build: Build) -> np.ndarray:
    """Return how deep under the skin each MPII joint may lie, (16,) mm."""
    usual = [next(mm for word, mm in _DEPTHS.items() if name.endswith(word)) for name in skeletons.MPII.joints]
    return np.array(usual) * size(joints) * max(build.girth, 1.0)


def parts(joints: np.ndarray, build: Build) -> list[Part]:
    """Return the parts of a body from MPII joints (16, 3), millimetres; errors as ``size``."""
    return _Body(np.asarray(joints, np.float64), build).all()


class _Body:
    """The frames of hips, chest and head, and the parts laid along them."""

    def __init__(self, joints: np.ndarray, build: Build):
        self.at = dict(zip(skeletons.MPII.joints, joints, strict=True))
        self.build, self.size = build, size(joints)
        at = self.at
        self.up = _unit(at["thorax"] - at["pelvis"], -_DOWN)
        hips = _unit(_across(at["l_hip"] - at["r_hip"], self.up), _any_across(self.up))
        self.left = _unit(_across(at["l_shoulder"] - at["r_shoulder"], self.up), hips)
        self.hips = _unit(hips + 0.3 * self.left, hips)
        self.forward = np.cross(self.left, self.up)
        self.hips_forward = np.cross(self.hips, self.up)

    def mm(self, length: float) -> float:
        """Return a length of the adult on this skeleton."""
        return length * self.size

    def cone(
        self,
        material: str,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        *,
        metric: np.ndarray | None = None,
        grain: np.ndarray | None = None,
        beyond: str = "",
        split: float = 2.0,
        stout: bool = True,
    ) -> Part:
        """Return a part whose radii are the adult's millimetres."""
        factor = self.size * (self.build.girth if stout else 1.0)
        along = _unit(end - start, self.up) if grain is None else grain
        metric = np.eye(3) if metric is None else metric
        return Part(
            material, start, end, (radii[0] * factor, radii[1] * factor), metric, along, beyond or material, split
        )

    def all(self) -> list[Part]:
        """Return every part."""
        found = [*self.torso(), *self.head()]
        for side in ("r_", "l_"):
            found += [*self.leg(side), *self.arm(side)]
        return found

    def torso(self) -> list[Part]:
        """Hips, belly, chest, shoulder line and neck; wider than deep."""
        at, up, build = self.at, self.up, self.build
        pelvis, spine = at["pelvis"], at["thorax"] - at["pelvis"]
        middle = pelvis + 0.42 * spine + self.forward * self.mm(12) * build.belly
        breast = pelvis + 0.70 * spine + self.forward * self.mm(8)
        lift = up * self.mm(25)
        wide = _flat(self.forward, 0.68)
        shoulders = np.linalg.norm(at["l_shoulder"] - at["r_shoulder"]) / 2 / (self.size * build.girth)
        chest = float(np.clip(0.92 * shoulders, 120, 180))
        belly = 130 * build.belly
        seat = _flat(self.hips_forward, 0.92)
        neck_root = at["thorax"] + 0.3 * (at["upper_neck"] - at["thorax"])
        chin = at["upper_neck"] + 0.2 * (at["head_top"] - at["upper_neck"])
        return [
            self.cone("trousers", at["r_hip"] + lift, at["l_hip"] + lift, (96, 96), metric=seat, grain=self.hips),
            self.cone(
                "trousers", pelvis + lift, middle, (140, belly), metric=wide, grain=up, beyond="shirt", split=0.35
            ),
            self.cone("shirt", middle, breast, (belly, chest), metric=_flat(self.forward, 0.7), grain=up),
            *(self.cone("shirt", neck_root, at[f"{side}shoulder"], (66, 52), grain=up) for side in ("r_", "l_")),
            self.cone("shirt", at["thorax"], chin, (84, 50), beyond="skin", split=0.35),
        ]

    def head(self) -> list[Part]:
        """Skull, jaw, nose, eyes and hair, turned with the chest and tilted with the neck."""
        neck, top = self.at["upper_neck"], self.at["head_top"]
        up = _unit(top - neck, self.up)
        left = _unit(_across(self.left, up), _any_across(up))
        front = np.cross(left, up)
        height = float(np.clip(np.linalg.norm(top - neck), self.mm(190), self.mm(260)))
        middle = top - up * 0.5 * height + front * self.mm(12)
        frame = (left, up, front)

        def place(sideways: float, upwards: float, forwards: float) -> np.ndarray:
            return middle + left * self.mm(sideways) + up * upwards * height + front * self.mm(forwards)

        found = [
            self.ellipsoid("skin", middle, frame, (77, 0.5 * height / self.size, 98)),
            self.ellipsoid("skin", place(0, -0.28, 32), frame, (57, 62, 62)),
            self.cone("skin", place(0, 0.02, 92), place(0, -0.12, 104), (9, 15), stout=False),
            *(self.ellipsoid("eye", place(x, 0.05, 84), frame, (17, 10, 13)) for x in (-33, 33)),
        ]
        if self.build.hair != "none":
            found.append(self.ellipsoid("hair", place(0, 0.1, -16), frame, (84, 0.45 * height / self.size, 98)))
        if self.build.hair == "long":
            found.append(self.cone("hair", place(0, 0.05, -34), place(0, -0.72, -58), (72, 50), stout=False))
        return found

    def ellipsoid(
        self, material: str, middle: np.ndarray, frame: tuple[np.ndarray, ...], half: tuple[float, float, float]
    ) -> Part:
        """Return an ellipsoid of the adult's half axes along a frame."""
        longest = max(half)
        metric = sum(np.outer(axis, axis) * (longest / side) ** 2 for axis, side in zip(frame, half, strict=True))
        return self.cone(material, middle, middle, (longest, longest), metric=np.asarray(metric), stout=False)

    def leg(self, side: str) -> list[Part]:
        """Thigh, shin, calf and foot; the knee's bend says where the toes point."""
        hip, knee, ankle = (self.at[side + name] for name in ("hip", "knee", "ankle"))
        build = self.build
        thigh, shin = _unit(knee - hip, -self.up), _unit(ankle - knee, -self.up)
        bend = np.cross(thigh, shin)  # along the person's left where the knee is bent
        axis = _unit(_across(0.35 * self.hips + bend, shin), _any_across(shin))
        toes = np.cross(axis, -shin)
        back = -toes * self.mm(14)
        # Where trousers end above the knee, the shin is bare down to the sock.
        hem = build.trouser - 1 if build.trouser > 1 else build.sock
        over, under = ("trousers", "skin") if build.trouser > 1 else ("skin", "sock")
        calf = knee + 0.14 * (ankle - knee) + back, knee + 0.5 * (ankle - knee) + back
        heel = ankle + shin * self.mm(38) - toes * self.mm(28)
        ball = ankle + shin * self.mm(52) + toes * self.mm(128)
        sole = _flat(shin, 0.8)
        return [
            self.cone("trousers", hip, knee, (88, 56), beyond="skin", split=build.trouser),
            self.cone(over, knee, ankle, (55, 37), beyond=under, split=hem),
            self.cone(over, *calf, (50, 44), beyond=under, split=(hem - 0.14) / 0.36),
            self.cone("shoe" if build.shoes else "skin", heel, ball, (40, 42), metric=sole, stout=False),
        ]

    def arm(self, side: str) -> list[Part]:
        """Upper arm, forearm, palm, fingers and thumb; the hand goes on where the forearm ends."""
        shoulder, elbow, wrist = (self.at[side + name] for name in ("shoulder", "elbow", "wrist"))
        sleeve = self.build.sleeve
        ahead = _unit(wrist - elbow, _unit(elbow - shoulder, -self.up))
        front = _unit(_across(self.forward, ahead), _any_across(ahead))
        flat = _flat(np.cross(front, ahead), 0.6)
        palm = wrist + ahead * self.mm(75)
        tips = wrist + ahead * self.mm(150) + front * self.mm(8)
        thumb = wrist + ahead * self.mm(80) + front * self.mm(48)
        lower = "shirt" if sleeve > 1 else "skin"
        return [
            self.cone("shirt", shoulder, elbow, (58, 43), beyond="skin", split=sleeve),
            self.cone(lower, elbow, wrist, (43, 28), beyond="skin", split=sleeve - 1 if sleeve > 1 else 2.0),
            self.cone("skin", wrist, palm, (27, 38), metric=flat, stout=False),
            self.cone("skin", palm, tips, (37, 22), metric=flat, stout=False),
            self.cone("skin", wrist + ahead * self.mm(25), thumb, (17, 11), stout=False),
        ]


def _unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Return a vector of length 1; ``otherwise`` where it is too short to have a direction."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-3 else otherwise


def _across(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Return the share of a vector that is perpendicular to a unit vector."""
    perpendicular: np.ndarray = vector - axis * (vector @ axis)
    return perpendicular


def _any_across(axis: np.ndarray) -> np.ndarray:
    """Return a unit vector perpendicular to ``axis``."""
    helper = _RIGHT if abs(axis[0]) < 0.9 else _DOWN
    return _unit(_across(helper, axis), helper)


def _flat(axis: np.ndarray, share: float) -> np.ndarray:
    """Return the metric in which a sphere is squeezed to ``share`` of its radius along a unit vector."""
    squeezed: np.ndarray = np.eye(3) + (share**-2 - 1) * np.outer(axis, axis)
    return squeezed
