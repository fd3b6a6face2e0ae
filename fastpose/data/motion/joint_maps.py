"""From the joints of motion files to the joints of this package's skeletons."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastpose import _checks, skeletons
from fastpose.data.motion.clips import Motion

# A point is a sum of the file's joints, "name" or "weight*name" by spaces; {s} is the side. The thorax lies at the
# height of the shoulders, halfway up the lower neck; the crown as far above the head's joint as that above the neck.

# CMU's ASF, where a joint is its bone's end. The forearm ends with "lwrist", which turns along it as the radius does;
# the hand bends after it.
_ASF = {
    "hip": "{s}hipjoint",
    "knee": "{s}femur",
    "ankle": "{s}tibia",
    "shoulder": "{s}clavicle",
    "elbow": "{s}humerus",
    "wrist": "{s}wrist",
    "spine": "upperback",
    "thorax": "0.5*thorax 0.5*lowerneck",
    "upper_neck": "upperneck",
    "head_top": "2*head -1*upperneck",
}
# Conversions of CMU's clips to BVH, where a joint is where its bones start. They lost two bones: the thorax, as long as
# the upper back below it, and the wrist, half as long as the radius; both are put back along those. "LHipJoint" tells
# these files from others of like names, which lost nothing.
_CMU_BVH = {
    "hip": "{s}Hip 0*LHipJoint",
    "knee": "{s}Knee",
    "ankle": "{s}Ankle",
    "shoulder": "{s}Shoulder Chest2 -1*Chest",
    "elbow": "{s}Elbow Chest2 -1*Chest",
    "wrist": "1.5*{s}Wrist -0.5*{s}Elbow Chest2 -1*Chest",
    "spine": "Chest2",
    "thorax": "0.5*Neck 1.5*Chest2 -1*Chest",
    "upper_neck": "Head Chest2 -1*Chest",
    "head_top": "2*Head_end -1*Head Chest2 -1*Chest",
}
# The same conversion under other names.
_CMU_BVH_RENAMED = {
    "hip": "{s}UpLeg 0*LHipJoint",
    "knee": "{s}Leg",
    "ankle": "{s}Foot",
    "shoulder": "{s}Arm Spine1 -1*Spine",
    "elbow": "{s}ForeArm Spine1 -1*Spine",
    "wrist": "1.5*{s}Hand -0.5*{s}ForeArm Spine1 -1*Spine",
    "spine": "Spine1",
    "thorax": "0.5*Neck1 1.5*Spine1 -1*Spine",
    "upper_neck": "Head Spine1 -1*Spine",
    "head_top": "2*Head_end -1*Head Spine1 -1*Spine",
}
_COMMON_BVH = {
    "hip": "{s}UpLeg",
    "knee": "{s}Leg",
    "ankle": "{s}Foot",
    "shoulder": "{s}Arm",
    "elbow": "{s}ForeArm",
    "wrist": "{s}Hand",
    "spine": "Spine1",
    "thorax": "0.5*{l}Arm 0.5*{r}Arm",
    "upper_neck": "Head",
    "head_top": "Head_end",
}
_BIOVISION = {
    "hip": "{s}Hip",
    "knee": "{s}Knee",
    "ankle": "{s}Ankle",
    "shoulder": "{s}Shoulder",
    "elbow": "{s}Elbow",
    "wrist": "{s}Wrist",
    "spine": "Chest",
    "thorax": "0.5*{l}Shoulder 0.5*{r}Shoulder",
    "upper_neck": "Head",
    "head_top": "Head_end",
}
_MAPS = {
    "CMU ASF": (_ASF, "l", "r"),
    "CMU BVH": (_CMU_BVH, "Left", "Right"),
    "CMU BVH, renamed": (_CMU_BVH_RENAMED, "Left", "Right"),
    "MotionBuilder's BVH": (_COMMON_BVH, "Left", "Right"),
    "Biovision's BVH": (_BIOVISION, "Left", "Right"),
}
# Joints of the skeletons that go by another name here.
_SAME = {"neck": "upper_neck"}


def to_skeleton(motion: Motion, name: str) -> np.ndarray:
    """Return a motion's joints as "mpii" (T, 16, 3) or "h36m" (T, 17, 3), float32 metres in the motion's world.

    The pelvis is the middle of the hips. Raises ``ValueError`` when the file's joints are named in no known way.
    """
    _checks.choice("name", name, ("mpii", "h36m"))
    weights = _weights(motion)
    wanted = np.stack([_row(weights, joint) for joint in skeletons.get(name).joints])  # (K, J)
    # Around the root, so that float32 loses nothing where the person is far from the origin.
    root = motion.positions[:, :1].astype(np.float64)
    return (np.einsum("kj,tjd->tkd", wanted, motion.positions - root) + root).astype(np.float32)


def _row(weights: dict[str, np.ndarray], joint: str) -> np.ndarray:
    if joint == "pelvis":
        return (weights["l_hip"] + weights["r_hip"]) / 2
    return weights[_SAME.get(joint, joint)]


def _weights(motion: Motion) -> dict[str, np.ndarray]:
    """Return every point's weights (J,) over the motion's joints, by the first map whose joints are all there."""
    columns = {joint.rpartition(":")[2]: index for index, joint in enumerate(motion.joints)}
    if "HeadTop_End" in columns:  # a joint there, where others end the head's chain
        columns["Head_end"] = columns["HeadTop_End"]
    for table, left, right in _MAPS.values():
        terms = {point: list(_terms(text)) for point, text in _sided(table, left, right)}
        if all(joint in columns for parts in terms.values() for joint, _ in parts):
            return {point: _vector(parts, columns, len(motion.joints)) for point, parts in terms.items()}
    shown = ", ".join(motion.joints[:6])
    raise ValueError(
        f"motion {motion.name}: its joints ({shown}, ...) are those of none of {', '.join(_MAPS)}; rename them to one"
    )


def _sided(table: dict[str, str], left: str, right: str) -> Iterator[tuple[str, str]]:
    """Yield points with their sums, those that name a side once for each."""
    for point, text in table.items():
        if "{s}" not in text:
            yield point, text.format(l=left, r=right)
            continue
        yield f"l_{point}", text.format(s=left, l=left, r=right)
        yield f"r_{point}", text.format(s=right, l=left, r=right)


def _terms(text: str) -> Iterator[tuple[str, float]]:
    for term in text.split():
        weight, star, joint = term.rpartition("*")
        yield joint, float(weight) if star else 1.0


def _vector(parts: list[tuple[str, float]], columns: dict[str, int], count: int) -> np.ndarray:
    vector = np.zeros(count)
    for joint, weight in parts:
        vector[columns[joint]] += weight
    return vector
