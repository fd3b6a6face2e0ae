"""Poses with captions: who is chosen, the map of 64 x 64, the join, what is held out, malformed files, the sample."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from caption_files import caption, person, write

from fastpose.data import captions, text
from fastpose.data.captions import denormalise, normalise, read_coco
from fastpose.data.check import check
from fastpose.data.sample import FOLDER

EXTRA = "annotations/more.json"


def _ids(poses):
    return poses.person_ids.tolist()


def test_the_longer_side_fills_the_map_and_the_shorter_is_in_its_middle():
    tall, wide = np.array([10.0, 20.0, 30.0, 60.0]), np.array([10.0, 20.0, 60.0, 30.0])
    corners = np.array([[10.0, 20.0], [40.0, 80.0]])
    assert normalise(corners, tall).tolist() == [[16, 0], [48, 64]]
    assert normalise(corners[:, ::-1] + [-10, 10], wide).tolist() == [[0, 16], [64, 48]]


@pytest.mark.parametrize("box", [(14.3, 15.46, 97.93, 138.62), (281.7, 14.4, 211.0, 80.9), (0, 0, 5, 5)])
def test_the_map_is_the_published_one(box):
    x0, y0, w, h = box
    points = np.random.default_rng(0).uniform(-20, 300, (17, 2))
    if h > w:  # the two cases as system 004 writes them
        expected = [((x - x0) / h * 64 + 32 - w / h * 32, (y - y0) / h * 64) for x, y in points]
    else:
        expected = [((x - x0) / w * 64, (y - y0) / w * 64 + 32 - h / w * 32) for x, y in points]
    assert np.allclose(normalise(points, np.array(box)), expected, atol=1e-9)
    assert np.allclose(denormalise(normalise(points, np.array(box)), np.array(box)), points)


def test_many_poses_at_once():
    boxes = np.array([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 9.0, 3.0]])
    points = np.random.default_rng(0).uniform(0, 50, (2, 17, 2))
    each = [normalise(one, box) for one, box in zip(points, boxes, strict=True)]
    assert np.array_equal(normalise(points, boxes), np.stack(each))


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [0, 0, 5, -1], [0, 0, np.nan, 5], [0, 0, 5]])
def test_a_box_without_a_size_is_refused(box):
    with pytest.raises(ValueError, match=r"bbox: expected .* positive width and height"):
        normalise(np.zeros((17, 2)), np.array(box))


def test_labelled_joints_are_counted_in_the_table_and_crowds_left_out(tmp_path):
    rows = [
        person(1, 1, labelled=8, num_keypoints=3),
        person(2, 1, labelled=7, num_keypoints=17),
        person(3, 1, iscrowd=1),
    ]
    poses = read_coco(write(tmp_path, rows), "val")
    assert _ids(poses) == [1]
    assert poses.visibility[0].tolist() == [1, 2, 1, 2, 1, 2, 1, 2] + [0] * 9  # occluded joints count
    assert not poses.keypoints[0, 8:].any()
    assert np.allclose(poses.keypoints[0, 0], [8, 3.2])  # (32 - 24) + 0, (22 - 20) / 40 * 64
    assert _ids(read_coco(tmp_path, "val", minimum_joints=7)) == [1, 2]


def test_single_persons_are_alone_in_the_file_crowds_and_unposed_ones_counted(tmp_path):
    rows = [person(1, 1), person(2, 2), person(3, 2, iscrowd=1), person(4, 3), person(5, 3, labelled=0), person(6, 4)]
    assert _ids(read_coco(write(tmp_path, rows), "val", persons="single")) == [1, 6]
    assert _ids(read_coco(tmp_path, "val")) == [1, 2, 4, 6]


def test_several_files_are_one_set(tmp_path):
    write(tmp_path, [person(1, 1), person(2, 2)])
    write(tmp_path, [person(2, 2), person(3, 1), person(4, 3)], name="more.json")
    assert _ids(read_coco(tmp_path, "val", annotations=("", EXTRA))) == [1, 2, 3, 4]
    assert _ids(read_coco(tmp_path, "val", annotations=("", EXTRA), persons="single")) == [2, 4]
    assert _ids(read_coco(tmp_path, "val", annotations=(EXTRA,))) == [2, 3, 4]


def test_joints_outside_of_the_box_stay_outside_of_the_map(tmp_path):
    row = person(1, 1, keypoints=[5, 100, 2] * 17)
    assert np.allclose(read_coco(write(tmp_path, [row]), "val").keypoints, [0, 128])


def test_a_flat_box_is_left_out_and_said(tmp_path, caplog):
    write(tmp_path, [person(1, 1), person(2, 1, bbox=[0, 0, 0, 9]), person(3, 1, bbox=[0, 0, 9, 5e-324])])
    assert _ids(read_coco(tmp_path, "val")) == [1]
    assert "2 persons left out, whose box has no width or height; first 2" in caplog.text


def test_captions_join_on_the_photograph(tmp_path):
    said = [caption(7, "Not used."), caption(2, "B"), caption(1, "A  man\nruns. "), caption(1, "A2"), caption(1, "A2")]
    poses = read_coco(write(tmp_path, [person(1, 1), person(2, 2), person(3, 1), person(4, 3)], said), "val")
    assert poses.captions == ("A man runs.", "A2", "B")
    assert [poses.own_captions(index) for index in range(4)] == [
        ("A man runs.", "A2"),
        ("B",),
        ("A man runs.", "A2"),
        (),
    ]
    assert poses.caption_image.tolist() == [1, 1, 2]
    assert poses.count.tolist() == [2, 1, 2, 0]
    assert not poses.keypoints.flags.writeable
    assert _ids(read_coco(tmp_path, "val", captioned=True)) == [1, 2, 3]


def test_captions_may_be_absent_until_they_are_needed(tmp_path):
    write(tmp_path, [person(1, 1)])
    assert read_coco(tmp_path, "val").captions == ()
    for needed in ({"captioned": True}, {"captions": ("annotations/captions_val2017.json",)}):
        with pytest.raises(FileNotFoundError, match=r"caption file .*captions_val2017\.json not found"):
            read_coco(tmp_path, "val", **needed)
    write(tmp_path, [person(1, 1)], [caption(2, "B"), caption(1, " \n")])  # an empty one is none
    with pytest.raises(ValueError, match="none of the 1 poses has a caption"):
        read_coco(tmp_path, "val", captioned=True)


def test_photographs_are_held_out_whole_and_the_same_ones_whatever_is_chosen(tmp_path):
    rows = [person(10 * image + number, image) for image in range(1, 21) for number in range(1 + image % 2)]
    said = [caption(image, "x") for image in range(1, 16)]
    write(tmp_path, rows, said)

    def both(**options):
        parts = (read_coco(tmp_path, "val", holdout=0.25, part=part, **options) for part in ("train", "holdout"))
        return [set(poses.image_ids.tolist()) for poses in parts]

    train, held = both()
    assert (len(train), len(held)) == (15, 5)
    assert not train & held
    for options in ({"persons": "single"}, {"captioned": True}):
        fewer, held_of_fewer = both(**options)
        assert fewer < train
        assert held_of_fewer <= held


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"split": "test"}, "split: expected one of train, val, got 'test'"),
        ({"persons": "singel"}, "persons: .*did you mean 'single'"),
        ({"part": "val"}, "part: expected one of train, holdout"),
        ({"part": "holdout"}, "part: expected train where holdout is 0"),
        ({"holdout": 1.0}, "holdout: expected a share"),
        ({"holdout": float("nan")}, "holdout: expected a share"),
        ({"minimum_joints": 18}, "minimum_joints: expected 1 to 17"),
        ({"minimum_joints": 10}, "no person with at least 10 labelled joints found in .*json"),
        ({"persons": "single"}, "labelled joints alone on a photograph found"),
        ({"holdout": 0.5}, "holdout: expected at least 2 photographs"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, sentence):
    write(tmp_path, [person(1, 1), person(2, 1)])
    with pytest.raises(ValueError, match=sentence):
        read_coco(tmp_path, **({"split": "val"} | options))


def test_one_name_is_no_list_of_names(tmp_path):
    with pytest.raises(TypeError, match="expected a sequence of file names"):
        read_coco(tmp_path, "val", annotations="a.json")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (3, "row 0 is malformed"),
        ({}, "row 0 lacks 'id'"),
        ({"id": 1, "image_id": 1}, "row 0 lacks 'bbox'"),
        (person(1, "1"), "image_id: expected a whole number, got '1'"),
        (person(1, 2**70), "image_id: expected a whole number"),
        (person(1, True), "image_id: expected a whole number"),
        (person(1, 1, bbox=[1, 2, 3]), "box or key points that are not finite or not 4 numbers"),
        (person(1, 1, bbox=[1, 2, 1e300, 3]), "not finite"),
        (person(1, 1, bbox=[1, 2, float("nan"), 3]), "annotation 1 has a box or key points that are not finite"),
        (person(1, 1, bbox="abcd"), "row 0 is malformed"),
        (person(1, 1, keypoints=[1, 2, 2]), "annotation 1 has 3 key-point numbers"),
        (person(1, 1, keypoints=[1, 2, 5] * 17), "visibilities other than 0, 1 and 2"),
        (person(1, 1, keypoints=[float("inf"), 2, 2] * 17), "not finite"),
        (person(1, 1, keypoints=["x", 2, 2] * 17), "row 0 is malformed"),
        (person(1, 1, keypoints={}), "row 0 is malformed"),
    ],
)
def test_a_malformed_annotation_is_one_sentence(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=rf"person_keypoints_val2017\.json: .*{sentence}") as caught:
        read_coco(write(tmp_path, [row]), "val")
    assert "\n" not in str(caught.value)


def test_one_person_is_on_one_photograph(tmp_path):
    with pytest.raises(ValueError, match="annotation 1 is of image 2, elsewhere of 1"):
        read_coco(write(tmp_path, [person(1, 1), person(1, 2)]), "val")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (caption(1, None), "a caption of image 1 is None; expected text"),
        (caption(1, 5), "a caption of image 1 is 5; expected text"),
        (caption("a", "x"), "image_id: expected a whole number, got 'a'"),
        ({"image_id": 1}, "row 0 lacks 'caption'"),
        ([], "row 0 is malformed"),
    ],
)
def test_a_malformed_caption_is_one_sentence(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=rf"captions_val2017\.json: .*{sentence}"):
        read_coco(write(tmp_path, [person(1, 1)], [row]), "val")


@pytest.mark.parametrize("content", ["[]", "{", '{"images": []}', '{"annotations": 5}'])
def test_a_file_of_another_kind_is_named(tmp_path, content):
    write(tmp_path, [person(1, 1)], [])
    (tmp_path / "annotations" / "captions_val2017.json").write_text(content)
    with pytest.raises(ValueError, match=r"captions_val2017\.json: "):
        read_coco(tmp_path, "val")


def test_validation_on_photographs_that_are_trained_on_is_refused(tmp_path):
    poses = read_coco(write(tmp_path, [person(1, 5), person(2, 6)]), "val")
    with pytest.raises(ValueError, match=r"2 of the 2 photographs .* first 5; expected none, .* data\.split"):
        captions.check_disjoint(poses, poses, "data.split")


def test_data_check_tells_of_captions_and_needs_none(tmp_path, photo):
    photo("val2017/a.jpg")
    write(tmp_path, [person(1, 1, area=1), person(2, 1, area=1, bbox=[0, 0, 0, 9]), person(3, 2, area=1)])
    path = tmp_path / "annotations" / "person_keypoints_val2017.json"
    images = [{"id": number, "file_name": "a.jpg"} for number in (1, 2)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": images}))
    report = check("coco", tmp_path)
    assert report.ok
    told = "\n".join(report.lines)
    assert "- val: no captions, expected annotations/captions_val2017.json" in told
    assert "2 persons of 8 joints or more, 0 of them alone" in told
    assert "! 1 of these persons with a box without width or height (left out): 2" in told
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps({"annotations": [caption(2, "x")]}))
    told = "\n".join(check("coco", tmp_path).lines)
    assert "✓ val: 1 captions of 1 photographs" in told
    assert "1 of them alone on a photograph with captions" in told
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{")
    report = check("coco", tmp_path)
    assert report.ok  # of no matter to the other systems
    assert any("! poses from captions, val:" in line and "not valid JSON" in line for line in report.lines)


def test_the_sample_is_divided_by_photograph():
    train, val, everything = (captions.sample(split) for split in ("train", "val", "all"))
    assert [len(train), len(val), len(everything)] == [340, 60, 400]
    captions.check_disjoint(train, val, "")
    assert len(np.unique(everything.image_ids)) == 400
    assert (everything.count == 3).all()
    assert ((everything.visibility > 0).sum(1) >= 8).all()
    assert np.array_equal(everything.captions, [word for word in map(captions.clean, everything.captions) if word])
    assert len(captions.sample("all", minimum_joints=17)) < 100
    with pytest.raises(ValueError, match="split: expected one of train, val, all"):
        captions.sample("test")


def test_the_sample_has_a_vector_for_every_caption():
    said = captions.sample("all").captions
    encoder = text.create("sample")
    vectors = encoder(said)
    assert vectors.shape == (len(said), encoder.size)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    assert len(encoder.captions) == len(dict.fromkeys(caption.lower() for caption in said))


def test_the_sample_is_small_and_attributed():
    assert captions.SAMPLE.stat().st_size + captions.SAMPLE_VECTORS.stat().st_size < 1.2e6
    attribution = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "captions.json" in attribution
    assert "caption_vectors.npz" in attribution


def test_the_published_annotations(shared, tmp_path):
    with tarfile.open(shared / "data" / "coco2017" / "annotations.tar.gz") as tar:
        names = [f"annotations/{name}_val2017.json" for name in ("captions", "person_keypoints")]
        names.append("annotations/person_keypoints_val2017_one_per_image.json")
        tar.extractall(tmp_path, [member for member in tar if member.name in names], filter="data")
    assert len(read_coco(tmp_path, "val", captioned=True)) == 953
    both = read_coco(tmp_path, "val", annotations=("", names[-1]))
    assert len(both) == 953 + 1294
    assert set(both.count.tolist()) <= {4, 5, 6, 7}  # some photographs have one caption twice
    single = read_coco(tmp_path, "val", annotations=("", names[-1]), persons="single", captioned=True)
    assert len(single) == 115 + 1294  # listed alone; the second file lists one person of each photograph by design
