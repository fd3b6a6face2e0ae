"""Named protocols of the PCK family: which length is the unit, which joints count, how the mean is taken."""

from __future__ import annotations

from dataclasses import dataclass

from fastpose import skeletons
from fastpose._checks import choice
from fastpose.skeletons import LSP, MPII, Skeleton

TORSOS = {
    "lsho-rhip": (("l_shoulder", "r_hip"),),
    "rsho-lhip": (("r_shoulder", "l_hip"),),
    "either": (("l_shoulder", "r_hip"), ("r_shoulder", "l_hip")),
}
_LIMB_ROWS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# the joints of LSP under the names that MPII gives them
_IN_MPII = {"neck": "upper_neck"}


@dataclass(frozen=True)
class Protocol:
    """One definition of PCK.

    Attributes:
        name: short name that is printed, e.g. ``"PCKh@0.5"``.
        sentence: the definition in words.
        joints: joint names in storage order, K of them.
        scored: indices of the joints that enter the value.
        threshold: fraction of the reference length.
        inclusive: whether a distance of exactly the threshold counts as correct.
        reference: ``"given"`` (the caller's lengths), ``"torso"`` or ``"box"``.
        diagonals: for ``"torso"``, joint index pairs in order of preference.
        rows: the published table's rows as (name, joint indices).
        average: ``"pooled"`` (mean over joint x image) or ``"joints"`` (unweighted mean of the joints' values).
    """

    name: str
    sentence: str
    joints: tuple[str, ...]
    scored: tuple[int, ...]
    threshold: float
    inclusive: bool
    reference: str
    diagonals: tuple[tuple[int, int], ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    average: str


def lsp(
    threshold: float = 0.2, torso: str = "lsho-rhip", skeleton: str = "lsp", *, every_joint: bool = True
) -> Protocol:
    """LSP's PCK, person-centric, over its 14 joints (system 000, eq. 12 and the released evaluation).

    Args:
        threshold: fraction of the torso.
        torso: ``"lsho-rhip"`` as the released code, ``"rsho-lhip"`` as the paper prints, ``"either"`` takes the
            first where both its joints are labelled and its mirror elsewhere (for LSP-extended).
        skeleton: storage order of the joints, ``"lsp"`` (14) or ``"mpii"`` (16, pelvis and thorax not scored).
        every_joint: every joint counts, as published; False says in the sentence that a visibility masks some
            (LSP-extended).
    """
    choice("torso", torso, tuple(TORSOS))
    choice("skeleton", skeleton, ("lsp", "mpii"))
    order = skeletons.get(skeleton)
    names = LSP.joints if skeleton == "lsp" else tuple(_IN_MPII.get(joint, joint) for joint in LSP.joints)
    spelled = " or else ".join(f"|{a} - {b}|" for a, b in TORSOS[torso])
    masked = "" if every_joint else ", labelled joints only; persons without a labelled torso left out"
    return Protocol(
        name=f"PCK@{threshold:g}",
        sentence=f"LSP PCK@{threshold:g}, person-centric, <= {threshold:g} x {spelled}, mean over joint x image"
        f"{masked}",
        joints=order.joints,
        scored=tuple(sorted(order.index(name) for name in names)),
        threshold=threshold,
        inclusive=True,
        reference="torso",
        diagonals=tuple((order.index(a), order.index(b)) for a, b in TORSOS[torso]),
        rows=_rows(order, (order.index(names[-2]), order.index(names[-1]))),
        average="pooled",
    )


def mpii(threshold: float = 0.5) -> Protocol:
    """MPII's PCKh: below a fraction of the head size, missing joints excluded, pelvis and thorax not scored."""
    scored = tuple(index for index, joint in enumerate(MPII.joints) if joint not in ("pelvis", "thorax"))
    return Protocol(
        name=f"PCKh@{threshold:g}",
        sentence=f"MPII PCKh@{threshold:g}, < {threshold:g} x head size (0.6 x head-box diagonal), labelled joints, "
        "unweighted mean of 14 joints (without pelvis and thorax)",
        joints=MPII.joints,
        scored=scored,
        threshold=threshold,
        inclusive=False,
        reference="given",
        diagonals=(),
        rows=_rows(MPII, (MPII.index("head_top"),)),
        average="joints",
    )


def person(skeleton: Skeleton, threshold: float = 0.2, size: str = "box") -> Protocol:
    """PCK against the person's own size, for skeletons without a published PCK (COCO).

    Args:
        skeleton: the joints; its head row is every joint that belongs to no limb row.
        threshold: fraction of the size.
        size: ``"box"``, the longer side of the tight box round the person's labelled joints, or ``"torso"``,
            |l_shoulder - r_hip|, or its mirror where that is not labelled.
    """
    choice("size", size, ("box", "torso"))
    words = {
        "box": "the longer side of the box round the person's labelled joints",
        "torso": "|l_shoulder - r_hip| or else |r_shoulder - l_hip|",
    }
    diagonals = TORSOS["either"] if size == "torso" else ()
    return Protocol(
        name=f"PCK@{threshold:g} ({size})",
        sentence=f"{skeleton.name} PCK@{threshold:g}, <= {threshold:g} x {words[size]}, labelled joints, "
        "mean over joint x person",
        joints=skeleton.joints,
        scored=tuple(range(len(skeleton))),
        threshold=threshold,
        inclusive=True,
        reference=size,
        diagonals=tuple((skeleton.index(a), skeleton.index(b)) for a, b in diagonals),
        rows=_rows(skeleton, None),
        average="pooled",
    )


def _rows(skeleton: Skeleton, head: tuple[int, ...] | None) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return (row, joint indices): the head, then left and right of each limb joint together."""
    bare = [joint.split("_", 1)[1] if joint[:2] in ("l_", "r_") else joint for joint in skeleton.joints]
    if head is None:
        head = tuple(index for index, joint in enumerate(bare) if joint not in _LIMB_ROWS)
    limbs = ((row, tuple(index for index, joint in enumerate(bare) if joint == row)) for row in _LIMB_ROWS)
    return (("head", head), *((row, indices) for row, indices in limbs if indices))
