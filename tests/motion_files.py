"""Small motion files for the tests: the text of an ASF/AMC pair and of a BVH file, and their positions by hand."""

from __future__ import annotations

from pathlib import Path

ASF = """# a comment
:version 1.10
:name VICON
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
   two legs, one spine
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name spine
     direction 0 1 0
     length 10
     axis 0 0 0 XYZ
     dof rx ry rz
     limits (-20.0 45.0)
            (-30.0 30.0)
            (-30.0 30.0)
  end
  begin
     dof rz   # lines come in any order
     axis 0 0 90 XYZ
     length 10
     direction 0 -1 0
     name leg
     id 2
  end
  begin
     id 3
     name foot
     direction 0 0 1
     length 2
     axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root spine leg
    leg foot
  end
"""

AMC = """#!OML:ASF somewhere
:FULLY-SPECIFIED
:DEGREES
1
root 1 20 3 0 0 0
spine 0 0 0
leg 0
2
root 1 20 3 0 90 0
spine 90 0 0
leg 90
"""

BVH = """HIERARCHY
ROOT Hips
{
	OFFSET 0.0 0.0 0.0
	CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
	JOINT Spine
	{
		OFFSET 0 100 0
		CHANNELS 3 Xrotation Yrotation Zrotation
		End Site
		{
			OFFSET 0 0 10
		}
	}
	JOINT Left Leg
	{
		OFFSET 0 -80 0
		CHANNELS 1 Zrotation
		End Site
		{
			OFFSET 0 -10 0
		}
	}
}
MOTION
Frames: 2
Frame Time: .0083333
0 90 0 0 0 0 0 0 0 0
5 90 0 90 0 0 90 0 0 0
"""


def write(folder: Path, name: str, text: str) -> Path:
    """Write a text file under ``folder`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_pair(folder: Path, amc: str = AMC, asf: str = ASF) -> Path:
    """Write ``07.asf`` and ``07_01.amc`` and return the latter."""
    write(folder, "07.asf", asf)
    return write(folder, "07_01.amc", amc)
