"""What is done in the known clips of the CMU Graphics Lab's database, one word each."""

from __future__ import annotations

# Clips by action, from the database's public index.
_CLIPS = {
    "climb": "01_02 01_03 01_04 01_05 01_06 01_07 01_08 01_09 01_10 01_11 01_12 01_13 01_14",
    "jump": "01_01 02_04",
    "walk": "02_01 02_02 03_01 03_02 03_03 03_04 06_01 07_09 07_10 08_01 08_10 10_04 16_21 16_22 26_01 32_01 32_02 "
    "35_01 35_07 39_07 39_08 43_01 45_01 46_01 55_04 113_25 133_21 133_22 141_25",
    "run": "02_03",
    "punch": "02_05",
    "bend": "02_06",
    "swordplay": "02_07 02_08 02_09",
    "wash": "02_10",
}
_ACTIONS = {clip: action for action, clips in _CLIPS.items() for clip in clips.split()}


def of(clip: str) -> str:
    """Return the action of a clip by its name ("02_03"), empty where it is not known."""
    return _ACTIONS.get(clip, "")
