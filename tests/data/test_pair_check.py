"""``data.check`` for pairs: counts, ticks and crosses, first offenders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pair_files import both_ways, standing, table_row, write_tables

from fastpose.data.check import check


def _line(report, words):
    (line,) = [line for line in report.lines if words in line]
    return line


def _rows(path):
    return path.read_text().splitlines()


def test_promise_19_a_whole_market_is_ready(market):
    report = check("market", market)
    assert report.ok
    assert "✗" not in "".join(report.lines)
    assert _line(report, "✓ train:") == "✓ train: 6 images, 3 identities, 6 pairs"
    assert _line(report, "✓ test:") == "✓ test: 4 images, 2 identities, 4 pairs"
    assert _line(report, "and test share") == "✓ train and test share 0 identities"
    assert report.lines[-1] == "market: ready"


def test_promise_19_one_split_is_enough_and_the_other_ones_needs_are_named(fashion):
    report = check("deepfashion", fashion)
    assert report.ok
    assert report.lines[-1] == (
        "deepfashion: ready for: test; train needs fasion-annotation-train.csv, fasion-pairs-train.csv, train/, or "
        "data.holdout=0.2, which divides the test list into train and val"
    )
    assert _line(report, "✓ test:") == "✓ test: 6 images, 3 identities, 6 pairs"
    assert "256 columns wide" in "".join(report.lines)
    assert _line(report, "  - train: deepfashion:").count("holdout") == 1


def test_promise_19_key_points_without_their_list_are_crossed(market):
    (market / "market-pairs-train.csv").unlink()
    report = check("market", market)
    assert not report.ok
    assert "pass pairs=all to pair the annotated images" in _line(report, "✗ train: market: pair list")
    assert _line(report, "✓ test:").endswith("4 pairs")
    assert report.lines[-1] == "market: not ready, see the crosses above"


def test_promise_19_a_training_list_alone_is_ready_for_training(market):
    for path in ("market-annotation-test.csv", "market-pairs-test.csv"):
        (market / path).unlink()
    report = check("market", market)
    assert report.ok
    assert report.lines[-1].startswith(
        "market: ready for: train; test needs market-annotation-test.csv, market-pairs-t"
    )


def test_promise_19_pairs_of_absent_images_are_crossed(market):
    (market / "train" / "0010_c1s1_000101_01.jpg").unlink()
    report = check("market", market)
    assert not report.ok
    assert _line(report, "absent image:").startswith(
        "  ✗ 2 pairs that name an absent image: 0010_c1s1_000101_01.jpg and 0010_c2"
    )


def test_promise_19_shared_identities_are_crossed(market):
    names = ["0007_c1s1_9.jpg", "0007_c2s1_9.jpg"]
    write_tables(market, "market", "test", names, both_ways(names), (128, 64))
    for name in names:
        shutil.copy(next((market / "train").iterdir()), market / "test" / name)
    report = check("market", market)
    assert not report.ok
    assert _line(report, "and test share") == "✗ train and test share 1 identities"
    assert _line(report, "identities in train and test").endswith(": 0007")


def test_promise_19_other_faults_are_named(market):
    path = market / "market-pairs-train.csv"
    first, second = "0007_c1s1_000101_01.jpg", "0007_c2s1_000102_01.jpg"
    rows = [f"{first},{second}", f"{first},{second}", f"{first},0010_c1s1_000101_01.jpg", f"{first},nobody.jpg"]
    path.write_text("\n".join(["from,to", *rows]))
    (market / "train" / second).write_bytes(b"")
    report = check("market", market)
    assert not report.ok
    assert _line(report, "without key points").endswith(": nobody.jpg")
    assert _line(report, "two identities").startswith("  ✗ 1 pairs")
    assert _line(report, "repeat").startswith("  ! 1 pairs that repeat an earlier one")
    assert f"{second}: the file is empty" in _line(report, "unreadable")


def test_promise_19_joints_are_remarks(market):
    path = market / "market-annotation-test.csv"
    rows, points = _rows(path), standing()
    points[3] = (70, 5)
    names = [row.split(":")[0] for row in rows]
    rows[1], rows[2] = table_row(names[1], points), table_row(names[2], np.full((18, 2), -1))
    path.write_text("\n".join(rows))
    report = check("market", market)
    assert report.ok
    assert _line(report, "out of frame") == f"  ! 1 images with joints out of frame: {names[1]}"
    assert _line(report, "without any joint") == f"  ! 1 images without any joint: {names[2]}"


def test_promise_19_other_sizes_are_crossed(market, photo):
    photo("test/0001_c1s1_000101_01.jpg", (60, 80))
    report = check("market", market)
    assert not report.ok
    assert _line(report, "64 x 128:") == "  ✗ 1 images that are not 64 x 128: 0001_c1s1_000101_01.jpg (80 x 60)"


def test_promise_19_damaged_files_are_reported(market):
    (market / "market-annotation-train.csv").write_text("junk")
    report = check("market", market)
    assert not report.ok
    assert "starts with 'junk'" in _line(report, "✗ train:")


def test_promise_19_photographs_left_out_are_named(tmp_path, photo):
    rows = []
    for name in ("anna/1.jpg", "anna/2.jpg", "ben/1.jpg", "anna/3.jpg"):
        photo(name, (90, 60))
        person = {"keypoints": np.full((17, 2), 30).tolist(), "scores": [0.9 * (name != "anna/3.jpg")] * 17}
        rows.append({"image": name, "skeleton": "coco", "joints": [], "persons": [person]})
    photo("ben/9.jpg", (90, 60))
    (tmp_path / "keypoints.json").write_text(json.dumps(rows))
    report = check("photos", tmp_path)
    assert report.ok
    assert _line(report, "✓ all:") == "✓ all: 3 images, 2 identities, 2 pairs"
    assert _line(report, "too few").endswith(": anna/3.jpg (0)")
    assert _line(report, "without key points").endswith(": ben/9.jpg")
    assert _line(report, "alone").endswith(": ben/1.jpg")


def test_promise_19_fonts_of_no_use_are_named(tmp_path):
    import matplotlib

    bundled = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSerif.ttf"):
        shutil.copy(bundled / name, tmp_path)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    report = check("fonts", tmp_path)
    assert report.ok
    assert _line(report, "capitals, up to") == "✓ 2 fonts with all 26 capitals, up to 1,300 pairs"
    assert _line(report, "✓ train:") == "✓ train: 1 fonts"
    assert _line(report, "✓ test:") == "✓ test: 1 fonts"
    assert "broken.ttf: cannot be read" in _line(report, "of no use")
    (tmp_path / "DejaVuSans.ttf").unlink()
    report = check("fonts", tmp_path)
    assert not report.ok
    assert "at least 2 identities to divide, found 1" in _line(report, "✗")


def test_promise_19_copies_of_fonts_are_named(tmp_path):
    import matplotlib

    bundled = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf"):
        shutil.copy(bundled / name, tmp_path)
    shutil.copy(bundled / "DejaVuSans.ttf", tmp_path / "other.ttf")
    report = check("fonts", tmp_path)
    assert report.ok
    assert _line(report, "that are copies") == (
        "  ! 1 fonts that are copies of another (they count as one font): other.ttf of DejaVuSans.ttf"
    )
    for split, names in (("train", ("DejaVuSans.ttf", "DejaVuSerif.ttf")), ("test", ("other.ttf",))):
        (tmp_path / split).mkdir()
        for name in names:
            (tmp_path / name).rename(tmp_path / split / name)
    report = check("fonts", tmp_path)
    assert not report.ok
    assert _line(report, "in train and test").startswith("  ✗ 1 fonts in train and test: DejaVu Sans Book ")
    assert _line(report, "neither split") == "  ! 1 fonts in neither split: STIXGeneral.ttf"


def test_promise_19_maps_are_counted(fashion):
    import cv2

    for path in sorted((fashion / "test").iterdir())[:3]:
        target = fashion / "parts" / path.name
        target.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(target), np.zeros((256, 256, 3), np.uint8))
    report = check("semantic", fashion)
    assert report.ok
    assert _line(report, "have both maps") == "  ✓ test: 2 of 6 pairs have both maps"
    cv2.imwrite(str(target.with_name(sorted((fashion / "test").iterdir())[0].name)), np.full((9, 9, 3), 99, np.uint8))
    report = check("semantic", fashion)
    assert not report.ok
    assert "colour #636363" in _line(report, "other colours")


def test_promise_19_maps_are_found_beside_the_other_files(fashion):
    import cv2

    inner = fashion / "fashion_data"
    inner.mkdir()
    for path in [path for path in fashion.iterdir() if path != inner]:
        path.rename(inner / path.name)
    for path in (inner / "test").iterdir():
        (inner / "parts").mkdir(exist_ok=True)
        cv2.imwrite(str(inner / "parts" / path.name), np.zeros((256, 256, 3), np.uint8))
    report = check("semantic", fashion)
    assert report.ok
    assert _line(report, "have both maps") == "  ✓ test: 6 of 6 pairs have both maps"


def test_promise_19_maps_of_two_kinds_are_crossed(fashion):
    import cv2

    (fashion / "parts").mkdir()
    for index, path in enumerate(sorted((fashion / "test").iterdir())):
        labels = np.full((256, 256, 3), (3, 3, 3) if index == 2 else (0, 0, 255), np.uint8)  # BGR; red is headwear
        cv2.imwrite(str(fashion / "parts" / path.name), labels)
    report = check("semantic", fashion)
    assert not report.ok
    assert "holds labels, and the first map of its folder colours" in _line(report, "maps unreadable")


def test_promise_19_the_bundled_pairs_are_ready():
    report = check("sample-pairs")
    assert report.ok
    assert _line(report, "✓ train:") == "✓ train: 60 images, 60 identities, 120 pairs"


@pytest.mark.parametrize("name", ["market", "deepfashion", "photos", "semantic", "fonts"])
def test_promise_19_an_absent_folder_is_crossed(tmp_path, name):
    report = check(name, tmp_path / "none")
    assert not report.ok
    assert report.lines[0].startswith("✗")


def test_promise_19_the_real_market_sample_is_ready(shared, tmp_path):
    import tarfile

    with tarfile.open(shared / "data" / "market1501_sample" / "market_data.tar") as packed:
        packed.extractall(tmp_path, filter="data")
    report = check("market", tmp_path)
    assert report.ok
    assert _line(report, "✓ train:") == "✓ train: 164 images, 50 identities, 468 pairs"
