"""ASF/AMC, BVH and archives of motion: forward kinematics worked out by hand, units, and malformed files."""

from __future__ import annotations

import tarfile
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from motion_files import AMC, ASF, BVH, write, write_pair

from fastpose.data import motion
from fastpose.data.motion import asf_amc, kinematics, npz, units

CMU = 0.0254 / 0.45


def place(read, joint):
    return read.positions[:, read.joints.index(joint)]


# ---------------------------------------------------------------------------------------------------------- kinematics


@pytest.mark.parametrize(("axis", "turned"), [("X", (0, 0, 1)), ("Y", (0, 1, 0)), ("Z", (-1, 0, 0))])
def test_rotations_are_right_handed(axis, turned):
    np.testing.assert_allclose(kinematics.rotation(axis, np.pi / 2) @ [0, 1, 0], turned, atol=1e-12)


def test_a_product_turns_the_last_axis_first():
    angles = np.radians([[30.0, 40.0]])
    expected = kinematics.rotation("Z", angles[:, 0]) @ kinematics.rotation("X", angles[:, 1])
    np.testing.assert_allclose(kinematics.product("ZX", angles), expected, atol=1e-12)


def test_no_rotation_keeps_every_frame():
    np.testing.assert_array_equal(kinematics.product("", np.zeros((4, 0))), np.tile(np.eye(3), (4, 1, 1)))


# ------------------------------------------------------------------------------------------------------------- ASF/AMC


def test_amc_joints_are_the_ends_of_bones(tmp_path):
    read = motion.read(write_pair(tmp_path))
    assert read.joints == ("root", "spine", "leg", "foot")
    assert read.parents == (-1, 0, 0, 2)
    assert (read.fps, read.name, read.action) == (120.0, "07_01", "")
    assert (read.positions.dtype, read.positions.flags.writeable) == (np.float32, False)
    np.testing.assert_allclose(place(read, "root"), np.array([[1, 20, 3]] * 2) * CMU, rtol=1e-6)
    # Frame 2: the root looks along x; the spine tips forward, which is x now; the leg swings about its own z.
    np.testing.assert_allclose(place(read, "spine"), np.array([[1, 30, 3], [11, 20, 3]]) * CMU, atol=1e-6)
    np.testing.assert_allclose(place(read, "leg"), np.array([[1, 10, 3], [1, 20, -7]]) * CMU, atol=1e-6)
    np.testing.assert_allclose(place(read, "foot"), np.array([[1, 10, 5], [3, 20, -7]]) * CMU, atol=1e-6)


def test_the_axis_frame_of_a_bone_turns_its_rotation(tmp_path):
    """With z of the bone's frame along x, rz turns about x."""
    asf = ASF.replace("axis 0 0 90 XYZ", "axis 0 90 0 XYZ")
    read = motion.read(write_pair(tmp_path, AMC.replace("root 1 20 3 0 90 0", "root 1 20 3 0 0 0"), asf))
    np.testing.assert_allclose(place(read, "leg")[1], np.array([1, 20, -7]) * CMU, atol=1e-6)


def test_bone_order_and_numbers_in_frames_follow_the_files(tmp_path):
    """Root order, the order of bones in frames and the first frame's number are the files' own."""
    asf = ASF.replace("order TX TY TZ RX RY RZ", "order RX RY RZ TX TY TZ")
    first, second = "leg 0\nspine 0 0 0\nroot 0 0 0 1 20 3", "leg 90\nspine 90 0 0\nroot 0 90 0 1 20 3"
    amc = f"# a comment\n:FULLY-SPECIFIED\n:DEGREES\n7\n{first}\n8\n{second}"
    read = motion.read(write_pair(tmp_path, amc, asf))
    np.testing.assert_allclose(read.positions, motion.read(write_pair(tmp_path / "b")).positions, atol=1e-6)


def test_radians_and_a_told_rate(tmp_path):
    amc = AMC.replace(":DEGREES", ":RADIANS\n:SAMPLES-PER-SECOND 60").replace(" 90", f" {np.pi / 2}")
    read = motion.read(write_pair(tmp_path, amc))
    assert read.fps == 60.0
    assert motion.read(tmp_path / "07_01.amc", recorded_fps=50).fps == 60.0, "what the file tells goes first"
    np.testing.assert_allclose(read.positions, motion.read(write_pair(tmp_path / "b")).positions, atol=1e-6)


def test_the_unit_of_an_asf(tmp_path):
    path = write_pair(tmp_path)
    assert np.ptp(motion.read(path, unit="inch").positions[0, :, 1]) == pytest.approx(20 * 0.0254, rel=1e-6)
    huge = write_pair(tmp_path / "cm", AMC, ASF.replace("length 10", "length 85").replace("length 0.45", "length 1"))
    assert np.ptp(motion.read(huge).positions[0, :, 1]) == pytest.approx(1.7, rel=1e-6), "read as centimetres"


def test_the_skeleton_may_have_another_name(tmp_path):
    write(tmp_path, "someone.asf", ASF)
    assert len(motion.read(write(tmp_path, "07_01.amc", AMC))) == 2


def test_amc_without_its_skeleton_says_what_to_add(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"07_01.amc: an AMC file needs .* put 07.asf beside it"):
        motion.read(write(tmp_path, "07_01.amc", AMC))


@pytest.mark.parametrize(
    ("amc", "sentence"),
    [
        ("", "not an AMC motion: expected text with 'root', found an empty file"),
        (":FULLY-SPECIFIED\n", "expected text with 'root', found none"),
        (AMC[:-4], "its last frame is cut"),
        (AMC.replace("leg 90\n", ""), "its last frame is cut"),
        (AMC.replace("leg 0\n", ""), "frame 1 lacks bone 'leg' of 07.asf"),
        (AMC.replace("leg", "arm"), "frame 1 names bone 'arm' that 07.asf has not"),
        (AMC.replace("leg 0", "leg 0 0"), "frame 1: expected 'leg', found|its last frame is cut"),
        (AMC.replace("foot", "foot").replace("leg 0", "foot 0"), "bone 'foot' that 07.asf has not, or that does not"),
        (AMC.replace("leg 90", "lag 90"), "frame 2: expected 'leg', found 'lag'"),
        (AMC.replace("\n2\n", "\n3\n"), "frame 2: expected '2', found '3'"),
        (AMC.replace("leg 90", "leg nan"), "expected finite numbers, found nan"),
        (AMC.replace("leg 90", "leg 1e999"), "expected finite numbers, found 1e999"),
        (AMC.replace("leg 90", "leg ninety"), "expected a number, found 'ninety'"),
        (AMC.replace("root 1 20", "root 1 1e300"), "joints that are not finite, or farther than 1000 m"),
        (AMC.replace("leg 0\n", "leg 0\nleg 0\n"), "names bone 'leg' twice"),
        (":DEGREES\nroot", "07_01.amc: "),
    ],
)  # fmt: skip
def test_a_malformed_amc_is_one_sentence(tmp_path, amc, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        motion.read(write_pair(tmp_path, amc))
    assert "07_01.amc" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asf", "sentence"),
    [
        ("", "not an ASF skeleton: .* an empty file"),
        (ASF[: ASF.index(":hierarchy")], "expected sections :root, :bonedata and :hierarchy, found no :hierarchy"),
        (ASF[: ASF.index("name foot")], "found no :hierarchy"),
        (ASF.replace("  end\n:hierarchy", ":hierarchy"), "the last bone has no end"),
        (ASF.replace("leg foot", "leg toe"), "hierarchy: bone 'toe' is not in :bonedata"),
        (ASF.replace("leg foot", "leg foot spine"), "bone 'spine' has two parents"),
        (ASF.replace("    leg foot\n", ""), "bone 'foot' hangs on nothing"),
        (ASF.replace("root spine leg", "root spine").replace("leg foot", "leg foot\n foot leg"), "hangs on nothing"),
        (ASF.replace("name leg", "name spine"), "expected a new name for every bone, found 'spine'"),
        (ASF.replace("direction 0 -1 0", "direction 0 -1"), "bone leg: expected direction of 3 numbers"),
        (ASF.replace("direction 0 -1 0", "direction 0 nan 0"), "direction of bone leg: expected finite numbers"),
        (ASF.replace("dof rz ", "dof tz "), "bone leg: expected dof of rx, ry, rz, found tz"),
        (ASF.replace("order TX", "order QX"), "root: expected order of TX"),
        (ASF.replace("axis XYZ", "axis XXX"), "root: expected three numbers .* axis XYZ, found XXX"),
        (ASF.replace("length 0.45", "length -1"), "units: expected a positive length"),
        (ASF.replace("length 10", "length 1e300"), "its skeleton at rest measures .* name the unit by unit="),
        (ASF.replace("length 10", "length 0.0001").replace("length 2", "length 0"), "a person's size in none of"),
    ],
)  # fmt: skip
def test_a_malformed_asf_is_one_sentence(tmp_path, asf, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        motion.read(write_pair(tmp_path, AMC, asf))
    assert "07.asf" in str(error.value)
    assert "\n" not in str(error.value)


# ----------------------------------------------------------------------------------------------------------------- BVH


def test_bvh_joints_are_where_their_bones_start(tmp_path):
    read = motion.read(write(tmp_path, "walk.bvh", BVH))
    assert read.joints == ("Hips", "Spine", "Spine_end", "Left Leg", "Left Leg_end")
    assert read.parents == (-1, 0, 1, 0, 3)
    assert (read.fps, read.name) == (120.0, "walk")
    np.testing.assert_allclose(place(read, "Hips"), [[0, 0.9, 0], [0.05, 0.9, 0]], atol=1e-6)
    np.testing.assert_allclose(place(read, "Spine"), [[0, 1.9, 0], [-0.95, 0.9, 0]], atol=1e-6)
    np.testing.assert_allclose(place(read, "Spine_end"), [[0, 1.9, 0.1], [-0.85, 0.9, 0]], atol=1e-6)
    np.testing.assert_allclose(place(read, "Left Leg_end"), [[0, 0, 0], [0.95, 0.9, 0]], atol=1e-6)


def test_channels_may_come_in_any_order_and_number(tmp_path):
    text = BVH.replace("Zrotation Yrotation Xrotation", "Yrotation Zrotation Xrotation", 1)
    text = text.replace(
        "CHANNELS 1 Zrotation", "CHANNELS 6 Xposition Yposition Zposition Xrotation Yrotation Zrotation"
    )
    text = text[: text.index("0 90 0 0 0")] + "0 90 0 30 0 0 0 0 0 0 -70 0 0 0 0"
    read = motion.read(write(tmp_path, "a.bvh", text.replace("Frames: 2", "Frames: 1")))
    assert place(read, "Left Leg")[0] == pytest.approx([0, 0.2, 0], abs=1e-6), "a position takes the offset's place"
    assert place(read, "Spine_end")[0] == pytest.approx([0.1 * 0.5, 1.9, 0.1 * 0.75**0.5], abs=1e-6), "Y turned by 30"


@pytest.mark.parametrize(("unit", "scale"), [("auto", 0.01), ("cm", 0.01), ("m", 1.0), ("mm", 0.001), ("cmu", CMU)])
def test_units_of_bvh(tmp_path, unit, scale):
    read = motion.read(write(tmp_path, "a.bvh", BVH), unit=unit)
    assert place(read, "Hips")[0, 1] == pytest.approx(90 * scale, rel=1e-6)


def of_size(size):
    """The text of a BVH file whose person is so many units high."""
    text = BVH.replace("0 90 0 0", "0 0 0 0").replace("5 90 0 90", "0 0 0 90")
    for length in (100, -80, -10):
        text = text.replace(f"OFFSET 0 {length} 0", f"OFFSET 0 {length * size / 190} 0")
    return text.replace("OFFSET 0 0 10", "OFFSET 0 0 0")


@pytest.mark.parametrize(("size", "unit"), [(1.9, "m"), (190.0, "cm"), (1900.0, "mm"), (74.8, "inch"), (33.66, "cmu")])
def test_a_person_keeps_its_size_in_every_unit(tmp_path, size, unit):
    read = motion.read(write(tmp_path, "a.bvh", of_size(size)))
    assert np.ptp(read.positions[0], axis=0).max() == pytest.approx(1.9, rel=1e-4)
    assert units.name(read.unit) == unit


@pytest.mark.parametrize("height", [0.92, 1.0, 1.1, 1.3, 2.2])
@pytest.mark.parametrize("unit", ["m", "cm", "mm"])
def test_children_and_giants_keep_theirs_in_metric_units(tmp_path, height, unit):
    rest = motion.read(write(tmp_path, "a.bvh", of_size(height / units.UNITS[unit]))).positions[0]
    assert np.ptp(rest, axis=0).max() == pytest.approx(height, rel=1e-4)


def test_a_size_that_two_units_explain_is_asked_about(tmp_path):
    path = write(tmp_path, "a.bvh", of_size(85))
    with pytest.raises(
        ValueError, match=r"measures 85 units, 0\.85 m in cm or 2\.16 m in inches; name the unit by unit="
    ):
        motion.read(path)
    assert np.ptp(motion.read(path, unit="cm").positions[0], axis=0).max() == pytest.approx(0.85, rel=1e-4)
    assert units.name(motion.read(write(tmp_path, "adult.bvh", of_size(75))).unit) == "inch"


@pytest.mark.parametrize(("told", "metres"), [(0.01, 0.01), (0.0254, 0.0254), (0.001, None)])
def test_what_a_file_tells_decides_between_two_units(tmp_path, told, metres):
    rest = np.array([[0.0, 0.0, 0.0], [0.0, 85.0, 0.0]])
    if metres is None:  # no person is 85 mm high
        with pytest.raises(ValueError, match="measures 85 units"):
            units.metres(tmp_path, "auto", rest, told)
    else:
        assert units.metres(tmp_path, "auto", rest, told) == metres


@pytest.mark.parametrize("size", [2.8, 280.0, 0.5])
def test_a_size_that_no_unit_explains_is_an_error(tmp_path, size):
    with pytest.raises(ValueError, match="a person's size in none of mm, cm, inch, cmu, m; name the unit by unit="):
        motion.read(write(tmp_path, "a.bvh", of_size(size)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not a BVH motion: .* an empty file"),
        ("\0\1\2" * 50, "not a BVH motion: .* bytes that are no text"),
        (BVH[: BVH.index("MOTION")], "expected a MOTION section"),
        (BVH[: BVH.index("Frames")], "expected 'Frames: N' and 'Frame Time: seconds'"),
        (BVH[:-3], "expected 2 frames of 10 numbers, found 19 numbers"),
        (BVH.replace("Frames: 2", "Frames: 3"), "expected 3 frames of 10 numbers, found 20"),
        (BVH.replace("Frames: 2", "Frames: 0"), "expected 0 frames"),
        (BVH.replace("Frames: 2", "Frames: 99999999999"), "expected 99999999999 frames"),
        (BVH.replace("Frames: 2", "Frames: 9999999999999999"), "Frames: expected a whole number"),
        (BVH.replace("Frames: 2", "Frames: -2"), "Frames: expected a whole number, found '-2'"),
        (BVH.replace(".0083333", "0"), "expected a positive Frame Time"),
        (BVH.replace(".0083333", "soon"), "Frame Time: expected a number, found 'soon'"),
        (BVH.replace("5 90", "nan 90"), "a frame: expected finite numbers, found nan"),
        (BVH.replace("CHANNELS 1 Zrotation", "CHANNELS 1 Qrotation"), "expected 1 channels such as .* 'Qrotation'"),
        (BVH.replace("CHANNELS 1 Zrotation", "CHANNELS 3 Zrotation"), "expected 3 channels"),
        (BVH.replace("CHANNELS 1 ", "CHANNELS 99999999999 "), "expected 99999999999 channels"),
        (BVH.replace("CHANNELS 3 Xrotation Y", "CHANNELS 3 Yrotation Y"), "found 2 different ones"),
        (BVH.replace("}\nMOTION", "MOTION"), "a brace is not closed"),
        (BVH.replace("JOINT Left Leg", "JOINT Spine"), "joint 'Spine' occurs twice"),
        (BVH.replace("JOINT Left Leg", "JOINT"), "expected one ROOT, and named joints"),
        (BVH.replace("JOINT Left Leg", "ROOT Leg"), "expected one ROOT"),
        (BVH.replace("ROOT Hips\n", ""), "hierarchy: unexpected '{'"),
        (BVH.replace("OFFSET 0 100 0", "OFFSET 0 100"), "OFFSET: expected a number, found 'CHANNELS'"),
        (BVH.replace("OFFSET 0 100 0", "OFFSET 0 1e300 0"), "its skeleton at rest measures"),
        (BVH.replace("100", "0").replace("-80", "0").replace("10 ", "0 ").replace(" 10", " 0"), "measures"),
        ("HIERARCHY\nMOTION\nFrames: 1\nFrame Time: 1\n", "expected ROOT, found no joint"),
        ("HIERARCHY\n" + "ROOT a {" + "JOINT b" * 3, "MOTION"),
    ],
)  # fmt: skip
def test_a_malformed_bvh_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        motion.read(write(tmp_path, "a.bvh", text))
    assert "a.bvh" in str(error.value)
    assert "\n" not in str(error.value)


def test_endless_hierarchies_do_not_hang(tmp_path):
    joints = "".join(f"JOINT j{index} {{ OFFSET 0 1 0\n" for index in range(20000))
    path = write(tmp_path, "a.bvh", f"HIERARCHY\nROOT r {{ OFFSET 0 0 0 {joints}\nMOTION\nFrames: 1\nFrame Time: 1\n")
    start = time.monotonic()
    with pytest.raises(ValueError, match="more than 1000 joints"):
        motion.read(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("suffix", [".bvh", ".amc", ".npz"])
def test_binary_rubbish_is_one_sentence(tmp_path, suffix):
    write(tmp_path, "07.asf", ASF)
    path = tmp_path / f"07_01{suffix}"
    for seed in range(20):
        start = {".bvh": b"HIERARCHY\n", ".amc": b"root ", ".npz": b"PK\3\4"}[suffix] if seed % 2 else b""
        path.write_bytes(start + np.random.default_rng(seed).integers(0, 256, 5000, dtype=np.uint8).tobytes())
        with pytest.raises(ValueError, match="07_01"):
            motion.read(path)


@pytest.mark.parametrize("kind", ["bvh", "amc", "asf"])
def test_every_cut_of_a_file_is_refused_or_whole(tmp_path, kind):
    """Wherever a file is cut, it is an error of one sentence, or what is left is finite."""
    whole = {"bvh": BVH, "amc": AMC, "asf": ASF}[kind]
    for length in range(0, len(whole), 7):
        cut = whole[:length]
        if kind == "bvh":
            path = write(tmp_path, "a.bvh", cut)
        else:
            path = write_pair(tmp_path, *((AMC, cut) if kind == "asf" else (cut, ASF)))
        try:
            read = motion.read(path)
        except ValueError as error:
            sentence = str(error)
        else:
            sentence = "" if np.isfinite(read.positions).all() else "not\nfinite"
        assert "\n" not in sentence


# ------------------------------------------------------------------------------------------------------------ archives


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "clips_30fps.npz"
    positions = np.random.default_rng(0).normal(size=(4, 3, 3)).astype(np.float32)
    np.savez(
        path, a_01=positions, b_02=positions[:2], joint_names=np.array(["r", "s", "t"]), parents=np.array([-1, 0, 1])
    )
    return path


def test_archives_hold_clips(archive):
    assert npz.clips(archive) == ["a_01", "b_02"]
    read = motion.read(archive, clip="b_02")
    assert (read.joints, read.parents, read.fps, read.name, len(read)) == (("r", "s", "t"), (-1, 0, 1), 30.0, "b_02", 2)


def test_written_archives_read_back(archive, tmp_path):
    clips = [motion.read(archive, clip=name) for name in ("a_01", "b_02")]
    npz.write(tmp_path / "b.npz", clips, joints=("r", "s"))
    read = motion.read(tmp_path / "b.npz", clip="a_01")
    assert (read.joints, read.parents, read.fps) == (("r", "s"), (-1, 0), 30.0)
    np.testing.assert_allclose(read.positions, clips[0].positions[:, :2], atol=0.00051)


@pytest.mark.parametrize(
    ("joints", "sentence"),
    [(("r", "t"), "each with its parent's"), (("r", "q"), "expected names of the motions' joints")],
)
def test_writing_refuses_a_broken_chain(archive, tmp_path, joints, sentence):
    with pytest.raises(ValueError, match=sentence):
        npz.write(tmp_path / "b.npz", [motion.read(archive, clip="a_01")], joints=joints)


def test_writing_refuses_what_does_not_fit(archive, tmp_path):
    clip = motion.read(archive, clip="a_01")
    far = motion.Motion(clip.positions + 40, clip.joints, clip.parents, clip.fps, clip.name)
    with pytest.raises(ValueError, match="within 32 m"):
        npz.write(tmp_path / "b.npz", [far])
    with pytest.raises(ValueError, match="one skeleton and frame rate"):
        npz.write(tmp_path / "b.npz", [clip, clip.at(15)])


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["01_01", "02_01", "01_01"], "found '01_01', which names two of them; rename it"),
        (["fps"], "found 'fps', which is no clip's name"),
        (["a", "joint_names"], "found 'joint_names', which is no clip's name"),
        ([""], "found '', which is no clip's name"),
    ],
)
def test_writing_loses_no_clip_to_its_name(archive, tmp_path, names, sentence):
    clip = motion.read(archive, clip="a_01")
    with pytest.raises(ValueError, match=sentence):
        npz.write(tmp_path / "b.npz", [replace(clip, name=name) for name in names])
    assert not (tmp_path / "b.npz").exists()


def test_any_other_name_of_a_clip_can_be_written(archive, tmp_path):
    clips = [replace(motion.read(archive, clip="a_01"), name=name) for name in ("file", "self", "a b/c", "path")]
    npz.write(tmp_path / "b.npz", clips)
    assert npz.clips(tmp_path / "b.npz") == ["file", "self", "a b/c", "path"]
    for clip in clips:
        read = motion.read(tmp_path / "b.npz", clip=clip.name)
        np.testing.assert_allclose(read.positions, clip.positions, atol=0.00051)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parents": None}, "found no parents"),
        ({"joint_names": None}, "found no joint_names"),
        ({"parents": np.array([-1, 2, 0])}, "expected -1 for the first joint, and an earlier joint"),
        ({"parents": np.array([-1, 0])}, "expected parents: 3 whole numbers"),
        ({"a": np.zeros((4, 2, 3))}, r"expected numbers \(T, 3, 3\), found float64 \(4, 2, 3\)"),
        ({"a": np.zeros((0, 3, 3))}, "holds no frame"),
        ({"a": np.full((1, 3, 3), np.nan)}, "joints that are not finite"),
        ({"a": np.array([{}])}, "array a cannot be read"),
        ({"fps": np.array("fast")}, "array fps: expected one positive number"),
        ({"fps": np.array(np.nan)}, "array fps: expected one positive number"),
        ({"fps": None}, "its frame rate is not told"),
        ({"unit": np.array(-1.0)}, "array unit: expected one positive number"),
    ],
)  # fmt: skip
def test_a_malformed_archive_is_one_sentence(tmp_path, changes, sentence):
    arrays = {"a": np.zeros((4, 3, 3)), "joint_names": np.array(["r", "s", "t"]), "parents": np.array([-1, 0, 1])}
    arrays |= {"fps": np.array(30.0)} | changes
    np.savez(tmp_path / "x.npz", **{key: value for key, value in arrays.items() if value is not None})
    with pytest.raises(ValueError, match=sentence) as error:
        motion.read(tmp_path / "x.npz", clip="a")
    assert "x.npz" in str(error.value)


def test_an_archive_that_claims_more_than_it_holds(tmp_path, archive):
    """An array's header may claim any shape."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "b_30fps.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"(4, 3, 3), ", b"(4000000000, 3, 3), "))
    with pytest.raises(ValueError, match=r"b_30fps\.npz"):
        motion.read(tmp_path / "b_30fps.npz", clip="a_01")


# ----------------------------------------------------------------------------------------------------------- real clips


@pytest.fixture(scope="module")
def cmu(shared, tmp_path_factory):
    """The folder of real CMU clips, unpacked."""
    folder = tmp_path_factory.mktemp("cmu")
    for name in ("cmu_asfamc", "cmu_bvh"):
        path = shared / "data" / "mocap" / f"{name}.tar.xz"
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        with tarfile.open(path) as packed:
            packed.extractall(folder, filter="data")
    return folder


def one(folder, name):
    return next(folder.rglob(name))


def test_kinematics_agree_with_the_archive(cmu, shared):
    """The archive holds every 4th frame, rounded to a tenth of a millimetre."""
    stored = shared / "data" / "mocap" / "cmu_positions_30fps.npz"
    for name in ("01_08", "02_03", "03_01"):
        read, expected = motion.read(one(cmu, f"{name}.amc"), fps=30), motion.read(stored, clip=name)
        assert (read.joints, read.parents, read.fps) == (expected.joints, expected.parents, expected.fps)
        assert np.abs(read.positions - expected.positions).max() < 5.1e-5


def test_both_formats_of_a_clip_agree(cmu):
    """The conversion to BVH kept root and legs; it lost a bone of the spine and one of each arm."""
    for name in ("02_01", "02_02"):
        amc, bvh = motion.read(one(cmu, f"{name}.amc")), motion.read(one(cmu, f"{name}.bvh"))
        pairs = {"root": "Hips", "lfemur": "LeftKnee", "rtoes": "RightToe_end", "upperback": "Chest2"}
        for bone, joint in pairs.items():
            np.testing.assert_allclose(place(amc, bone), place(bvh, joint), atol=2e-4)
        apart = np.linalg.norm(motion.to_skeleton(amc, "mpii") - motion.to_skeleton(bvh, "mpii"), axis=-1)
        assert apart[:, [0, 1, 2, 3, 4, 5, 6]].max() < 2e-4
        assert apart.max() < 0.01


def test_every_bvh_is_a_person(cmu):
    for path in sorted(cmu.rglob("*.bvh")):
        joints = motion.to_skeleton(motion.read(path, fps=15), "mpii")
        assert 1.4 < np.median(np.ptp(joints[..., 1], axis=1)) < 1.8, path.name


def test_skeletons_are_found_in_the_released_folders(cmu):
    path = one(cmu, "02_03.amc")
    assert asf_amc.skeleton_path(path) == path.parent / "02.asf"
