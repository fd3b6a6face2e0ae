"""The two published key-point tables: order of the axes, missing joints, and every kind of damage as one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from pair_files import sentence, standing, table_row

from fastpose.data import keypoint_tables
from fastpose.data.keypoint_tables import IDS_HEADER, PATN_HEADER, file_id, read_table


def _write(folder, *lines, header=PATN_HEADER, ending="\n", start=""):
    path = folder / "table.csv"
    path.write_bytes((start + ending.join([header, *lines]) + ending).encode("utf-8"))
    return path


def _id_row(name, points, size=(256, 176)):
    return ",".join([name, str(size[0]), str(size[1]), *(str(int(value)) for value in points.ravel())])


def test_y_comes_before_x(tmp_path):
    points = standing()
    table = read_table(_write(tmp_path, table_row("a.jpg", points)))
    assert table.names == ("a.jpg",)
    assert np.array_equal(table.keypoints[0, :17], points[:17])
    assert table.visibility[0].tolist() == [2] * 17 + [0]
    assert not table.keypoints[0, 17].any()
    assert table.sizes is None


def test_the_table_of_file_ids(tmp_path):
    points = standing((256, 176))
    table = read_table(_write(tmp_path, _id_row("imgWOMENid_00000001", points), header=IDS_HEADER))
    assert table.by_id
    assert table.sizes.tolist() == [[256, 176]]
    assert np.array_equal(table.keypoints[0, :17], points[:17])
    assert not table.visibility[0, 17]


def test_file_ids_are_paths_without_slashes_and_suffix():
    assert file_id("img/WOMEN/id_1/02_1_front.jpg") == "imgWOMENid_102_1_front"
    assert file_id("img\\WOMEN\\02.jpg") == "imgWOMEN02"
    assert file_id("a.b/c") == "a.bc"


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_marks_of_other_systems_do_not_matter(tmp_path, ending, start):
    path = _write(tmp_path, table_row("a.jpg", standing()), "", ending=ending, start=start)
    assert len(read_table(path)) == 1


def test_one_coordinate_of_minus_one_is_a_missing_joint(tmp_path):
    points = standing()
    points[4, 1] = -1
    table = read_table(_write(tmp_path, table_row("a.jpg", points)))
    assert not table.visibility[0, 4]
    assert not table.keypoints[0, 4].any()


def test_a_repeated_row_counts_once(tmp_path):
    row = table_row("a.jpg", standing())
    assert len(read_table(_write(tmp_path, row, row))) == 1


def test_two_rows_that_differ_are_refused(tmp_path):
    path = _write(tmp_path, table_row("a.jpg", standing()), table_row("a.jpg", standing(seed=1)))
    with pytest.raises(ValueError, match=r"a\.jpg has two different rows"):
        read_table(path)


def _numbers(**changes):
    values = [10] * 18
    for place, value in changes.items():
        values[int(place[1:])] = value
    return "[" + ", ".join(str(value) for value in values) + "]"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a.jpg: [1, 2]: [1, 2]", "line 2"),
        (f"a.jpg: {_numbers()}", "line 2"),
        ("a.jpg", "line 2"),
        (f": {_numbers()}: {_numbers()}", "expected a name"),
        (f"a.jpg: {_numbers()}: {_numbers()[:-5]}", "line 2"),
        (f"a.jpg: {_numbers(k3='x')}: {_numbers()}", "line 2"),
        (f"a.jpg: {_numbers(k3='NaN')}: {_numbers()}", "joint 3 .r_elbow. is at x 10, y nan"),
        (f"a.jpg: {_numbers(k3='Infinity')}: {_numbers()}", "y inf"),
        (f"a.jpg: {_numbers(k3=-7)}: {_numbers()}", "y -7; expected pixels from 0, or -1"),
        (f"a.jpg: {_numbers()}: {_numbers(k0='1e300')}", "x 1e"),
        (f"a.jpg: {_numbers()}: {_numbers(k0='9' * 400)}", "line 2|x inf"),
        (f"a.jpg: {_numbers()}: {_numbers(k0='[1]')}", "line 2"),
        (f"a.jpg: {_numbers()}: {_numbers(k0='null')}", "joint 0|line 2"),
        ("[" * 5000, "line 2"),
    ],
)
def test_damaged_rows_are_one_sentence(tmp_path, row, words):
    path = _write(tmp_path, row)
    with pytest.raises(ValueError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"name,keypoints\n", "starts with 'name,keypoints'"),
        (b"file_id,img_h,img_w,p0_x,p0_y\n", "for 18 joints"),
        (PATN_HEADER.encode(), "no row below the header"),
        (IDS_HEADER.encode() + b"\na,256\n", "line 2"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_sizes_must_be_positive(tmp_path):
    path = _write(tmp_path, _id_row("a", standing(), (0, 176)), header=IDS_HEADER)
    with pytest.raises(ValueError, match=r"a: an image of size \[0\.0, 176\.0\]"):
        read_table(path)


def test_every_truncation_is_read_or_refused(tmp_path):
    """Wherever the file ends, there is a table of whole rows or one sentence."""
    whole = "\n".join([PATN_HEADER, table_row("a.jpg", standing()), table_row("b.jpg", standing(seed=1))]).encode()
    path = tmp_path / "t.csv"
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        refused = sentence(lambda: read_table(path))
        assert "\n" not in refused
        assert str(path) in refused if refused else 1 <= len(read_table(path)) <= 2


def test_random_damage_is_read_or_refused(tmp_path):
    whole = bytearray("\n".join([PATN_HEADER, table_row("a.jpg", standing())]).encode())
    rng = np.random.default_rng(4)
    path = tmp_path / "t.csv"
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        refused = sentence(lambda: read_table(path))
        assert not refused or str(path) in refused


def test_what_is_written_is_read_again(tmp_path):
    points = np.stack([standing(), standing(seed=1)])
    visible = (points >= 0).all(2)
    keypoint_tables.write_patn(tmp_path / "t.csv", ["a.jpg", "b/c.jpg"], points, visible)
    table = read_table(tmp_path / "t.csv")
    assert table.names == ("a.jpg", "b/c.jpg")
    assert np.array_equal(table.visibility > 0, visible)
    assert np.array_equal(table.keypoints, np.where(visible[:, :, None], points, 0))


def test_joints_that_cannot_be_written_are_missing(tmp_path):
    points = standing()[None] + 0.4
    points[0, 0], points[0, 1] = (-3, 5), (np.nan, 5)
    keypoint_tables.write_patn(tmp_path / "t.csv", ["a.jpg"], points, np.ones((1, 18)))
    table = read_table(tmp_path / "t.csv")
    assert table.visibility[0, :3].tolist() == [0, 0, 2]
    assert np.array_equal(table.keypoints[0, 2], standing()[2])


@pytest.mark.parametrize(
    ("name", "count"), [("market-annotation-train.csv", 12936), ("market-annotation-test.csv", 19732)]
)
def test_the_published_tables(shared, tmp_path, name, count):
    import tarfile

    archive = shared / "data" / "market1501_sample" / "annotations_full.tar.xz"
    with tarfile.open(archive) as packed:
        (member,) = [one for one in packed.getmembers() if one.name.endswith(name)]
        (tmp_path / name).write_bytes(packed.extractfile(member).read())
    table = read_table(tmp_path / name)
    assert len(table) == count
    assert table.keypoints[..., 0].max() == 63
    assert table.keypoints[..., 1].max() == 127
