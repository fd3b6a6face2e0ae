"""A small good file of every format that fastpose reads, and how it is read: where damage to them is tried out."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caption_files
import motion_files
import numpy as np
import pair_files
import vector_files

from fastpose.data import (
    captions,
    coco,
    human36m,
    human36m_files,
    keypoint_files,
    keypoint_tables,
    lsp,
    motion,
    mpi_inf_3dhp,
    mpii,
    pairs,
    person,
)
from fastpose.data.text.fasttext import FastText
from fastpose.data.text.precomputed import Precomputed, save_vectors
from fastpose.data.text.word_vectors import WordVectors

Reader = Callable[[Path], Any]
_CAMERA = np.array([[1145.0, 0.0, 512.0], [0.0, 1143.0, 515.0], [0.0, 0.0, 1.0]])
_NAMES = [f"S1_Directions_1.54138969_{1 + 5 * row:06d}.jpg" for row in range(2)]


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 90, shape).round(1)


def _savemat(path: Path, content: dict[str, Any], **options: Any) -> Path:
    from scipy.io import savemat

    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content, **options)
    return path


def _h5(path: Path, content: dict[str, Any], **options: Any) -> Path:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file.create_dataset(key, data=values, **options)
    return path


def _finished(name: str, root: Path, persons: list[person.Person]) -> list[person.Person]:
    """Return persons as a data set does: what cannot be trained on is refused."""
    for index in (*person.not_finite(persons)[:1], *person.without_size(persons)[:1]):
        raise ValueError(f"{root}: person {index} is not finite")
    return persons


def _lsp(folder: Path, **options: Any) -> tuple[Path, Reader]:
    path = _savemat(folder / "joints.mat", {"joints": _numbers(3, 14, 4), "other": np.eye(3)}, **options)
    return path, lambda path: _finished("lsp", path, lsp.read(path.parent, "lsp"))


def _mpii_official(folder: Path) -> tuple[Path, Reader]:
    def rectangle(joint: int) -> dict[str, Any]:
        point = {"x": 20.0, "y": 30.0, "id": joint, "is_visible": "1"}
        box = {"x1": 10.0, "y1": 20.0, "x2": 40.0, "y2": 60.0, "scale": 2.0, "objpos": {"x": 200.0, "y": 210.0}}
        return box | {"annopoints": {"point": np.array([point, point | {"id": 9, "is_visible": []}], object)}}

    entries = [{"image": {"name": f"{n}.jpg"}, "annorect": np.array([rectangle(n)] * 2, object)} for n in range(2)]
    cells = np.empty(2, object)
    cells[:] = [np.array([1.0, 2.0]), np.array([1.0])]
    release = {"annolist": np.array(entries, object), "img_train": np.array([1, 1]), "single_person": cells}
    path = _savemat(folder / mpii.OFFICIAL, {"RELEASE": release})
    return path, lambda path: _finished("mpii", path, mpii.read(path.parent, "trainval"))


def _mpii_truth(folder: Path) -> tuple[Path, Reader]:
    arrays = {"pos_gt_src": _numbers(16, 2, 3), "jnt_missing": np.zeros((16, 3)), "headboxes_src": _numbers(2, 2, 3)}
    path = _savemat(folder / "gt_valid.mat", arrays)
    return path, lambda path: _arrays(vars(mpii.GroundTruth.read(path)).values())


def _mpii_h5(folder: Path, **options: Any) -> tuple[Path, Reader]:
    content = {"part": _numbers(3, 16, 2), "visible": np.ones((3, 16)), "center": _numbers(3, 2)}
    content |= {"scale": np.ones(3), "normalize": np.ones(3), "imgname": np.array([b"a.jpg", b"b.jpg", b"c.jpg"])}
    path = _h5(folder / "valid.h5", content, **options)
    return path, lambda path: _finished("mpii", path, mpii.read(path.parent, "val"))


def _mpii_json(folder: Path) -> tuple[Path, Reader]:
    row = {"joints_vis": [1] * 16, "joints": [[9, 9]] * 16, "image": "a.jpg", "scale": 1.0, "center": [5.0, 5.0]}
    path = folder / "valid.json"
    path.write_text(json.dumps([row, row]))
    return path, lambda path: _finished("mpii", path, mpii.read(path.parent, "val"))


def _h36m(path: Path) -> Any:
    persons = human36m.read(path.parent, "train", annotation=path.name, subjects=["S1"], every="all")
    return _finished("h36m", path, persons)


def _h36m_coded(folder: Path) -> tuple[Path, Reader]:
    columns = {key: np.array([2, 3]) for key in ("action", "subaction", "id")}
    columns |= {key: np.array([1, 1]) for key in ("subject", "camera")}
    columns |= {"joint_2d": _numbers(2, 16, 2), "joint_3d_mono": _numbers(2, 16, 3)}
    return _h5(folder / "annotSampleTest.h5", columns), _h36m


def _h36m_npz(folder: Path, save: Any = np.savez) -> tuple[Path, Reader]:
    arrays = {"imgname": np.array(_NAMES), "center": _numbers(2, 2), "scale": np.ones(2)}
    arrays |= {"part": np.dstack([_numbers(2, 17, 2), np.ones((2, 17))])}
    arrays |= {"S": np.dstack([_numbers(2, 17, 2) / 50, np.full((2, 17), 5.0), np.ones((2, 17))])}
    save(folder / "h36m.npz", **arrays)
    return folder / "h36m.npz", _h36m


def _h36m_mat(folder: Path) -> tuple[Path, Reader]:
    names, cameras = np.empty((2, 1), object), np.empty((2, 1), object)
    names[:, 0], cameras[0, 0], cameras[1, 0] = _NAMES, _CAMERA, _CAMERA
    annot = {"imgname": names, "S": _numbers(2, 3, 17), "K": cameras, "center": _numbers(2, 2), "scale": np.ones(2)}
    return _savemat(folder / "valid.mat", {"annot": annot}), _h36m


def _3dhp(folder: Path, save: Any) -> tuple[Path, Reader]:
    points, joints = _numbers(2, 17, 1, 2).T, 40 * _numbers(3, 17, 1, 2)
    joints[2] += 3000.0
    content = {"annot2": points.T.transpose(3, 1, 2, 0), "univ_annot3": joints}
    content |= {"valid_frame": np.ones((1, 2)), "activity_annotation": np.ones((1, 2))}
    return save(folder / "TS1" / "annot_data.mat", content), lambda path: _finished(
        "3dhp", path, mpi_inf_3dhp.read(path.parents[1], "test")
    )


def _3dhp_v73(folder: Path) -> tuple[Path, Reader]:
    return _3dhp(folder, lambda path, content: _h5(path, {key: np.asarray(value).T for key, value in content.items()}))


def _motion_npz(folder: Path, save: Any = np.savez) -> tuple[Path, Reader]:
    arrays = {"a": _numbers(4, 3, 3), "joint_names": np.array(["r", "s", "t"]), "parents": np.array([-1, 0, 1])}
    save(folder / "x.npz", fps=np.array(30.0), **arrays)
    return folder / "x.npz", lambda path: _arrays([motion.read(path).positions])


def _motion_text(folder: Path, name: str, text: str) -> tuple[Path, Reader]:
    return motion_files.write(folder, name, text), lambda path: _arrays([motion.read(path).positions])


def _amc(folder: Path) -> tuple[Path, Reader]:
    motion_files.write_pair(folder)
    return folder / "07_01.amc", lambda path: _arrays([motion.read(path).positions])


def _asf(folder: Path) -> tuple[Path, Reader]:
    motion_files.write_pair(folder)
    return folder / "07.asf", lambda path: _arrays([motion.read(path.with_name("07_01.amc")).positions])


def _table(folder: Path, by_id: bool) -> tuple[Path, Reader]:
    path = folder / "table.csv"
    if by_id:
        rows = [f"a{number}," + ",".join(str(value) for value in range(100, 138)) for number in range(3)]
        path.write_text("\n".join([keypoint_tables.IDS_HEADER, *rows]) + "\n")
    else:
        rows = [pair_files.table_row(f"a{number}.jpg", pair_files.standing(seed=number)) for number in range(3)]
        path.write_text("\n".join([keypoint_tables.PATN_HEADER, *rows]) + "\n")
    return path, lambda path: _arrays([keypoint_tables.read_table(path).keypoints])


def _pairs(folder: Path) -> tuple[Path, Reader]:
    path = folder / "pairs.csv"
    path.write_text("from,to\na.jpg,b.jpg\nb.jpg,c.jpg\n")
    return path, pairs.read_list


def _coco(folder: Path) -> tuple[Path, Reader]:
    caption_files.write(folder, [caption_files.person(number, 1) for number in range(2)])
    path = folder / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(path.read_text()) | {"images": [{"id": 1, "file_name": "a.jpg", "license": 4}]}
    path.write_text(json.dumps(content))
    return path, lambda path: _finished("coco", path, coco.read(path.parents[1], "val"))


def _captions(folder: Path, which: int) -> tuple[Path, Reader]:
    caption_files.write(
        folder,
        [caption_files.person(number, 1 + number % 2) for number in range(3)],
        [caption_files.caption(1, "a man"), caption_files.caption(2, "a dog")],
    )
    files = ("person_keypoints_val2017.json", "captions_val2017.json")
    return folder / "annotations" / files[which], lambda path: _arrays(
        [captions.read_coco(path.parents[1], "val").keypoints]
    )


def _predicted(folder: Path) -> tuple[Path, Reader]:
    persons = [{"keypoints": _numbers(17, 2).tolist(), "scores": [0.9] * 17}]
    rows = [{"image": "a.jpg", "skeleton": "coco", "size": [100, 100], "persons": persons}]
    (folder / "poses.json").write_text(json.dumps(rows))
    return folder / "poses.json", lambda path: _arrays([pose.keypoints for pose in keypoint_files.read(path)])


def _openpose(folder: Path) -> tuple[Path, Reader]:
    people = [{"pose_keypoints_2d": _numbers(25, 3).ravel().tolist()}]
    (folder / "a_keypoints.json").write_text(json.dumps({"people": people}))
    return folder / "a_keypoints.json", lambda path: _arrays([pose.keypoints for pose in keypoint_files.read(path)])


def _cameras(folder: Path) -> tuple[Path, Reader]:
    camera = {"f": _CAMERA[[0, 1], [0, 1]].reshape(2, 1), "c": _CAMERA[:2, 2:], "w": 1000}
    (folder / "cameras.pkl").write_bytes(pickle.dumps({("S1", "54138969"): camera}, protocol=3))
    return folder / "cameras.pkl", lambda path: _arrays(human36m_files.named_cameras(path, _NAMES))


def _vectors(folder: Path, write: Any, read: Any) -> tuple[Path, Reader]:
    def encode(path: Path) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".* is known, such as .* zero")
            return _arrays([read(path)(["a man", "Fußball 日本", "unknown dog"])])

    return write(folder / "vectors"), encode


def _precomputed(folder: Path) -> tuple[Path, Reader]:
    encoder = WordVectors(vector_files.write_vec(folder / "words.vec"))
    save_vectors(folder / "v.npz", encoder, ["a man", "the dog"])
    return folder / "v.npz", lambda path: _arrays([Precomputed(path)(Precomputed(path).captions)])


def _arrays(values: Any) -> list[np.ndarray]:
    """Return arrays; the test fails where one of them is not finite."""
    arrays = [np.asarray(value) for value in values]
    assert all(np.isfinite(array).all() for array in arrays), "not finite"
    return arrays


FILES: dict[str, Callable[[Path], tuple[Path, Reader]]] = {
    "LSP .mat": _lsp,
    "LSP .mat, packed": lambda folder: _lsp(folder, do_compression=True),
    "MPII official .mat": _mpii_official,
    "MPII truth .mat": _mpii_truth,
    "MPII .h5": _mpii_h5,
    "MPII .h5, packed": lambda folder: _mpii_h5(folder, compression="gzip"),
    "MPII .json": _mpii_json,
    "Human3.6M .h5": _h36m_coded,
    "Human3.6M .npz": _h36m_npz,
    "Human3.6M .npz, packed": lambda folder: _h36m_npz(folder, np.savez_compressed),
    "Human3.6M .mat": _h36m_mat,
    "3DHP .mat": lambda folder: _3dhp(folder, _savemat),
    "3DHP .mat of HDF5": _3dhp_v73,
    "motion .npz": _motion_npz,
    "motion .npz, packed": lambda folder: _motion_npz(folder, np.savez_compressed),
    "motion .bvh": lambda folder: _motion_text(folder, "a.bvh", motion_files.BVH),
    "motion .amc": _amc,
    "skeleton .asf": _asf,
    "table of PATN": lambda folder: _table(folder, False),
    "table of ids": lambda folder: _table(folder, True),
    "list of pairs": _pairs,
    "COCO": _coco,
    "COCO for captions": lambda folder: _captions(folder, 0),
    "captions": lambda folder: _captions(folder, 1),
    "key points of predict": _predicted,
    "key points of OpenPose": _openpose,
    "cameras .pkl": _cameras,
    "fastText .bin": lambda folder: _vectors(folder, vector_files.write_bin, FastText),
    "fastText .vec": lambda folder: _vectors(folder, vector_files.write_vec, WordVectors),
    "vectors .npz": _precomputed,
}
"""Format -> what writes a good file into a folder and returns its path, and how a file in its place is read."""
