"""Market-1501 and DeepFashion for pose transfer: layouts, frames of the coordinates, rules, and the real samples."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from pair_files import both_ways, standing, table_row, write_tables

from fastpose import data
from fastpose.data import pair_layouts, pose_transfer
from fastpose.data.images import PIXEL_LIMIT, read_image
from fastpose.data.keypoint_tables import IDS_HEADER, KeypointTable


def _rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def _view(source, index, size=None):
    return source.view(index, size or source.size, PIXEL_LIMIT)


# ---------------------------------------------------------------------------------------------------------- Market-1501


def test_market_in_the_patn_layout(market):
    source = data.create("market", market, "train")
    assert (source.name, source.split, source.guide, source.size) == ("market", "train", "pose", (128, 64))
    assert (len(source.persons), len(source)) == (6, 6)
    assert source.pairs.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]
    assert source.pairs.dtype == np.int64
    assert [person.identity for person in source.persons[::2]] == ["0007", "0010", "0022"]
    assert [person.camera for person in source.persons[:2]] == [1, 2]
    assert np.array_equal(source.persons[0].keypoints[:17], standing()[:17])


def test_the_usual_folder_is_found(market, tmp_path):
    inner = tmp_path / "outer" / "market_data"
    inner.parent.mkdir()
    for item in ("train", "test", *(path.name for path in market.glob("*.csv"))):
        inner.mkdir(exist_ok=True)
        (market / item).rename(inner / item)
    assert len(data.create("market", tmp_path / "outer", "test")) == 4


@pytest.mark.parametrize(
    ("name", "identity", "camera"),
    [
        ("0007_c2s3_070952_01.jpg", "0007", 2),
        ("0000_c1s1_000151_01.jpg", "", 1),
        ("-1_c6s3_1_01.jpg", "", 6),
        ("x.jpg", "", -1),
    ],
)
def test_market_names(name, identity, camera):
    assert pair_layouts.market_identity(name) == identity
    assert pair_layouts.market_camera(name) == camera


def test_an_image_of_the_right_size_is_given_bit_by_bit(market):
    source = data.create("market", market, "train")
    view = _view(source, 2)
    assert np.array_equal(view["image"], read_image(source.persons[2].image))
    assert np.array_equal(view["keypoints"], source.persons[2].keypoints)
    assert view["visibility"].tolist() == [1] * 17 + [0]


def test_an_image_of_another_size_is_refused(market, photo):
    photo("train/0007_c1s1_000101_01.jpg", (60, 80))
    with pytest.raises(ValueError, match="expected 64 x 128 pixels, found 80 x 60"):
        _view(data.create("market", market, "train"), 0)


def test_all_pairs_need_hips_and_shoulders(market):
    source = data.create("market", market, "train", pairs="all")
    assert source.pairs.tolist() == [[0, 1], [1, 0], [2, 3], [3, 2], [4, 5], [5, 4]]
    points = standing(seed=9)
    points[8] = -1
    path = market / "market-annotation-train.csv"
    rows = path.read_text().splitlines()
    rows[1] = table_row("0007_c1s1_000101_01.jpg", points)
    path.write_text("\n".join(rows))
    assert len(data.create("market", market, "train", pairs="all")) == 4
    assert len(data.create("market", market, "train")) == 6


def test_distractors_make_no_pair(market):
    names = ["0000_c1s1_1.jpg", "0000_c2s1_1.jpg", "-1_c1s1_1.jpg", "-1_c2s1_1.jpg"]
    write_tables(market, "market", "train", names, both_ways(names[:2]), (128, 64))
    with pytest.raises(ValueError, match="no pair left"):
        data.create("market", market, "train", pairs="all")


def test_held_out_identities_divide_one_list(market):
    train, val = (data.create("market", market, split, holdout=0.34) for split in ("train", "val"))
    data.pairs.check_disjoint(train, val)
    assert len(train) + len(val) == 6
    assert {person.identity for person in (*train.persons, *val.persons)} == {"0007", "0010", "0022"}
    again = data.create("market", market, "val", holdout=0.34)
    assert [person.image for person in again.persons] == [person.image for person in val.persons]
    assert len(data.create("market", market, "test", holdout=0.34)) == 4


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_test_list_is_divided_where_there_is_no_other(fashion, share):
    train, val = (data.create("deepfashion", fashion, split, holdout=share) for split in ("train", "val"))
    assert sorted((len(train), len(val))) == [2, 4]
    items = [{person.identity[:-2] for person in source.persons} for source in (train, val)]
    assert not items[0] & items[1]  # both colours of an item fall into one part


def test_a_divided_test_list_is_no_test_split(fashion):
    with pytest.raises(
        ValueError, match=r"holdout=0\.5 divides the test list into 'train' and 'val'.*use 'val' or drop"
    ):
        data.create("deepfashion", fashion, "test", holdout=0.5)
    assert len(data.create("deepfashion", fashion, "test")) == 6


def test_a_divided_list_that_was_named_is_no_test_split(market):
    options = {"pair_list": "market-pairs-train.csv", "annotation": "market-annotation-train.csv", "holdout": 0.34}
    with pytest.raises(ValueError, match=r"holdout=0\.34 divides the named list into 'train' and 'val'"):
        data.create("market", market, "test", **options)
    assert len(data.create("market", market, "val", **options)) == 2


def test_other_files_may_be_named(market):
    (market / "mine.csv").write_text("from,to\n0007_c1s1_000101_01.jpg,0007_c2s1_000102_01.jpg\n")
    source = data.create("market", market, "train", pair_list="mine.csv")
    assert (len(source), len(source.persons)) == (1, 2)
    with pytest.raises(FileNotFoundError, match=r"pair list .*none\.csv not found"):
        data.create("market", market, "train", pair_list="none.csv")


def test_persons_without_a_pair_may_be_kept(market):
    (market / "mine.csv").write_text("from,to\n0022_c1s1_000101_01.jpg,0022_c2s1_000102_01.jpg\n")
    source = data.create("market", market, "train", pair_list="mine.csv", keep_unpaired=True)
    assert len(source.persons) == 6
    assert source.pairs.tolist() == [[4, 5]]


def test_absent_images_are_counted_or_dropped(market):
    (market / "train" / "0010_c1s1_000101_01.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"5 of 6 images found .* first missing: 0010_c1s1_000101_01\.jpg"):
        data.create("market", market, "train")
    source = data.create("market", market, "train", missing_images="drop")
    assert (len(source), len(source.persons)) == (4, 4)
    kept = data.create("market", market, "train", missing_images="drop", keep_unpaired=True)
    assert (len(kept), len(kept.persons)) == (4, 5)
    assert {kept.persons[index].identity for index in kept.pairs.ravel()} == {"0007", "0022"}


def test_all_images_are_looked_for_where_all_persons_are_kept(market):
    (market / "mine.csv").write_text("from,to\n0022_c1s1_000101_01.jpg,0022_c2s1_000102_01.jpg\n")
    (market / "train" / "0010_c1s1_000101_01.jpg").unlink()
    assert len(data.create("market", market, "train", pair_list="mine.csv")) == 1
    with pytest.raises(FileNotFoundError, match="5 of 6 images found"):
        data.create("market", market, "train", pair_list="mine.csv", keep_unpaired=True)


def test_the_folders_of_market_itself_will_do(market):
    (market / "train").rename(market / "bounding_box_train")
    source = data.create("market", market, "train")
    assert source.persons[0].image == market / "bounding_box_train" / "0007_c1s1_000101_01.jpg"


def test_images_without_annotation_are_counted_or_dropped(market):
    (market / "market-pairs-train.csv").write_text(
        "from,to\n0007_c1s1_000101_01.jpg,0007_c9s1_1.jpg\n0007_c1s1_000101_01.jpg,0007_c2s1_000102_01.jpg\n"
    )
    with pytest.raises(ValueError, match=r"1 images of the pair list have no row in .*first 0007_c9s1_1\.jpg"):
        data.create("market", market, "train")
    assert len(data.create("market", market, "train", missing_images="drop")) == 1


def test_pairs_of_two_identities_are_refused(market):
    (market / "market-pairs-train.csv").write_text("from,to\n0007_c1s1_000101_01.jpg,0010_c2s1_000102_01.jpg\n")
    with pytest.raises(ValueError, match="is of identities '0007' and '0010'"):
        data.create("market", market, "train")
    assert len(data.create("market", market, "train", check_identities=False)) == 1


def test_an_empty_folder_names_the_expected_tree(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"train/\*\.jpg, market-annotation-train\.csv, market-pairs-train\.csv"
    ):
        data.create("market", tmp_path)


def test_what_is_missing_comes_with_a_way_out(market, fashion):
    (market / "market-pairs-train.csv").unlink()
    with pytest.raises(FileNotFoundError, match="pass pairs=all"):
        data.create("market", market, "train")
    with pytest.raises(FileNotFoundError, match=r"pass data\.holdout=0\.2 to divide the test list"):
        data.create("deepfashion", fashion, "train")
    with pytest.raises(ValueError, match=r"no split 'val': pass data\.holdout=0\.2"):
        data.create("market", market, "val")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "valid"}, "split: expected one of train, test, val"),
        ({"pairs": "some"}, "pairs: expected one of published, all"),
        ({"missing_images": "skip"}, "missing_images: expected one of error, drop"),
        ({"holdout": 1.5}, "holdout: expected a fraction between 0 and 1"),
    ],
)
def test_options_out_of_range(market, options, words):
    with pytest.raises(ValueError, match=words):
        data.create("market", market, **options)


# ---------------------------------------------------------------------------------------------------------- DeepFashion


def _table(rows, width=None):
    """A table with one joint's x per row; the other joints are missing."""
    points, visibility = np.zeros((len(rows), 18, 2)), np.zeros((len(rows), 18), np.uint8)
    points[:, 3, 0], visibility[:, 3] = rows, 2
    sizes = None if width is None else np.array([[256, width]] * len(rows))
    return KeypointTable(Path("t.csv"), tuple(f"{row}" for row in range(len(rows))), points, visibility, sizes, False)


def test_deepfashion_in_the_patn_layout(fashion):
    source = data.create("deepfashion", fashion, "test")
    assert (source.size, len(source), len(source.persons)) == ((256, 256), 6, 6)
    assert source.persons[0].identity == "fashionWOMENDressesid0000000202"
    assert np.array_equal(_view(source, 0)["image"], read_image(source.persons[0].image))


@pytest.mark.parametrize("stem", ["fashion", "fasion-resize", "fashion-resize"])
def test_the_other_spellings(fashion, stem):
    for path in list(fashion.glob("fasion-*.csv")):
        path.rename(fashion / path.name.replace("fasion", stem))
    assert len(data.create("deepfashion", fashion, "test")) == 6


def test_the_crop_keeps_columns_40_to_215_and_moves_the_joints(fashion):
    whole, cropped = (data.create("deepfashion", fashion, "test", crop=crop) for crop in ("none", "176"))
    assert cropped.size == (256, 176)
    wide, narrow = _view(whole, 1), _view(cropped, 1)
    assert np.array_equal(narrow["image"], wide["image"][:, 40:216])
    seen = wide["visibility"] > 0
    inside = seen & (wide["keypoints"][:, 0] >= 40) & (wide["keypoints"][:, 0] < 216)
    assert np.array_equal(narrow["visibility"] > 0, inside)
    assert np.array_equal(narrow["keypoints"][inside], wide["keypoints"][inside] - [40, 0])


@pytest.fixture
def narrow(fashion):
    """The same set stored 176 columns wide, with key points in that frame."""
    import cv2

    for path in (fashion / "test").glob("*.png"):
        cv2.imwrite(str(path), cv2.imread(str(path))[:, 40:216])
    names = sorted(path.name for path in (fashion / "test").glob("*.png"))
    pairs = [pair for start in range(0, 6, 2) for pair in both_ways(names[start : start + 2])]
    write_tables(fashion, "fasion", "test", names, pairs, (256, 176))
    return fashion


def test_narrow_images_are_padded_with_white(narrow):
    tight = _view(data.create("deepfashion", narrow, "test", crop="176", coordinates="176"), 0)
    padded = _view(data.create("deepfashion", narrow, "test", crop="none", coordinates="176"), 0)
    assert np.array_equal(padded["image"][:, 40:216], tight["image"])
    assert (padded["image"][:, :40] == 255).all()
    assert (padded["image"][:, 216:] == 255).all()
    assert np.array_equal(padded["keypoints"][:17], tight["keypoints"][:17] + [40, 0])
    assert data.create("deepfashion", narrow, "test", coordinates="176").persons[0].center.tolist() == [87.5, 127.5]


def test_the_frame_of_the_annotation_may_differ_from_the_images(fashion):
    shifted = data.create("deepfashion", fashion, "test", coordinates="176")
    plain = data.create("deepfashion", fashion, "test", coordinates="256")
    assert np.array_equal(shifted.persons[0].keypoints[:17], plain.persons[0].keypoints[:17] + [40, 0])
    assert not shifted.persons[0].keypoints[17].any()


@pytest.mark.parametrize(
    ("x", "stated", "width"),
    [
        ([60] * 20 + [176] * 3, None, 256),
        ([60] * 20 + [39] * 3, None, 176),
        ([60] * 57 + [176] * 3, None, 256),
        ([60] * 57 + [39] * 3, None, 176),
        ([60] * 80 + [200] * 16 + [9] * 3, None, 256),  # single joints stray into the margin
        ([60] * 80 + [9] * 16 + [200] * 3, None, 176),
        ([60], 256, 256),
        ([60], 176, 176),
    ],
)
def test_the_frame_is_told_from_sizes_or_rows(x, stated, width):
    assert pose_transfer.frame_width(_table(x, stated)) == width


@pytest.mark.parametrize(
    ("x", "counts"),
    [
        ([40, 175] * 20, "0 of 40 rows have an x of 176 or more, 0 an x below 40"),
        ([60] * 10 + [9] * 2, "0 of 12 rows have an x of 176 or more, 2 an"),
        ([60] * 10 + [200] * 2, "2 of 12 rows"),
        ([60] * 58 + [9] * 3, "0 of 61 rows have an x of 176 or more, 3 an"),  # less than 5 %
        ([60] * 58 + [200] * 3, "3 of 61 rows"),
        ([60] * 80 + [200] * 15 + [9] * 3, "15 of 98 rows have an x of 176 or more, 3 an"),
        ([60] * 80 + [200] * 3 + [9] * 15, "3 of 98 rows have an x of 176 or more, 15 an"),
    ],
)
def test_a_frame_that_few_rows_tell_is_asked_for(x, counts):
    with pytest.raises(ValueError, match=rf"{counts}.*; pass coordinates=256 or coordinates=176"):
        pose_transfer.frame_width(_table(x))


def test_other_widths_in_a_table_are_refused():
    with pytest.raises(ValueError, match=r"img_w is \[200\]; expected 256 throughout, or 176 throughout"):
        pose_transfer.frame_width(_table([60], 200))


def test_missing_joints_tell_no_frame():
    table = _table([60] * 20)
    assert (table.keypoints[..., 0] < 40).any()  # what is missing lies at 0
    with pytest.raises(ValueError, match="0 an x below 40"):
        pose_transfer.frame_width(table)


def test_a_stray_joint_moves_no_picture(fashion):
    path = fashion / "fasion-annotation-test.csv"
    rows = path.read_text().splitlines()
    points = np.clip(standing((256, 256)), [45, 0], [170, 255])
    rows[1:] = [table_row(row.split(":")[0], points) for row in rows[1:]]
    points[4, 0] = 12
    rows[1] = table_row(rows[1].split(":")[0], points)
    path.write_text("\n".join(rows))
    with pytest.raises(ValueError, match="pass coordinates=256 or coordinates=176"):
        data.create("deepfashion", fashion, "test")
    source = data.create("deepfashion", fashion, "test", coordinates="256")
    assert np.array_equal(source.persons[0].keypoints[:17], points[:17])


def test_other_sizes_of_images_are_refused(fashion, photo):
    photo(f"test/{next((fashion / 'test').iterdir()).name}", (60, 80))
    for path in (fashion / "test").iterdir():
        photo(f"test/{path.name}", (60, 80))
    with pytest.raises(ValueError, match="expected 256 x 256 or 176 x 256 pixels, found 80 x 60"):
        data.create("deepfashion", fashion, "test")


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("fashionWOMENBlouses_Shirtsid0000141904_1front.jpg", "fashionWOMENBlouses_Shirtsid0000141904"),
        ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "imgWOMENDressesid_0000000202"),
        ("nothing.jpg", ""),
    ],
)
def test_an_identity_is_an_item_in_one_colour(name, identity):
    assert pair_layouts.fashion_identity(name) == identity


def test_the_layout_of_system_003(tmp_path, photo):
    names = [f"img/WOMEN/Dresses/id_00000002/02_{view}.jpg" for view in ("1_front", "3_back")]
    rows = []
    for index, name in enumerate(names):
        photo(name, (256, 256), index)
        numbers = ",".join(str(int(value)) for value in standing((256, 256), index).ravel())
        rows.append(f"imgWOMENDressesid_0000000202_{name[-11:-4].lstrip('_2')},256,256,{numbers}")
    rows = [row.replace(row.split(",")[0], name[:-4].replace("/", "")) for row, name in zip(rows, names, strict=True)]
    (tmp_path / "train_img_keypoints.csv").write_text("\n".join([IDS_HEADER, *rows]))
    (tmp_path / "train_img_pairs.csv").write_text(f"imgA,imgB\n{names[0]},{names[1]}\n")
    source = data.create("deepfashion", tmp_path, "train")
    assert source.persons[0].image == tmp_path / names[0]
    assert source.pairs.tolist() == [[0, 1]]
    assert np.array_equal(source.persons[1].keypoints[:17], standing((256, 256), 1)[:17])
    assert len(data.create("deepfashion", tmp_path, "train", pairs="all")) == 2


# ---------------------------------------------------------------------------------------------------- published numbers


def _unpack(shared, tmp_path, name):
    with tarfile.open(shared / "data" / name) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


def test_the_market_sample(shared, tmp_path):
    root = _unpack(shared, tmp_path, "market1501_sample/market_data.tar")
    train, test = (data.create("market", root, split) for split in ("train", "test"))
    counts = [(len(s.persons), len({person.identity for person in s.persons}), len(s)) for s in (train, test)]
    assert counts == [(164, 50, 468), (178, 68, 370)]
    data.pairs.check_disjoint(train, test)
    assert np.array_equal(_view(train, 5)["image"], read_image(train.persons[5].image))


def test_the_deepfashion_sample(shared, tmp_path):
    root = _unpack(shared, tmp_path, "deepfashion_sample/fashion_data.tar")
    source = data.create("deepfashion", root, "test")
    identities = {person.identity for person in source.persons}
    assert (len(source.persons), len(identities), len(source)) == (323, 154, 372)
    train, val = (data.create("deepfashion", root, split, holdout=0.2) for split in ("train", "val"))
    assert len(train) + len(val) == 372
    data.pairs.check_disjoint(train, val)


def test_pair_generation_gives_the_published_counts(shared, tmp_path):
    """263,632 training pairs of Market-1501 and 8,570 test pairs of DeepFashion, from the annotation alone."""
    market = _unpack(shared, tmp_path / "market", "market1501_sample/annotations_full.tar.xz")
    (path,) = market.rglob("market-annotation-train.csv")
    made = pair_layouts.read_pairs(pair_layouts.MARKET, path.parent, "train", rule="all")
    assert (len(made.persons), len(made.pairs)) == (12936, 263632)
    listed = pair_layouts.read_pairs(pair_layouts.MARKET, path.parent, "test")
    assert (len(listed.persons), len(listed.pairs)) == (19732, 12000)
    fashion = _unpack(shared, tmp_path / "fashion", "deepfashion_sample/annotations_full.tar.xz")
    (path,) = fashion.rglob("fasion-annotation-test.csv")
    made, listed = (
        pair_layouts.read_pairs(pair_layouts.DEEPFASHION, path.parent, "test", rule=rule)
        for rule in ("all", "published")
    )
    assert {tuple(pair) for pair in made.pairs.tolist()} == {tuple(pair) for pair in listed.pairs.tolist()}
    assert len(made.pairs) == 8570
