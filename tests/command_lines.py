"""A command line of every verb that works and is cheap, and the files that they need: made in any folder.

What a test does with them: run them in odd folders, stop them at odd moments, change their words.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import runs
import tiny_market
import torch
import vector_files
from drawing_weights import SMALL, save
from motion_files import write_pair
from python2_pickles import published_weights

SIZE = (60, 40)
RECIPES = {system: f"{system}/tiny" for system in runs.SYSTEMS}


@dataclass(frozen=True)
class Material:
    """A folder with one input of each kind; ``line`` spells the command lines over them."""

    folder: Path

    def __truediv__(self, name: str) -> str:
        return str(self.folder / name)


def make(folder: Path) -> Material:
    """Write all inputs into ``folder`` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder)
    _write_pictures(folder)
    _write_texts(folder)
    tiny_market.write(folder / "market")
    write_pair(folder / "motion")
    return Material(folder)


def _write_weights(folder: Path) -> None:
    from fastpose.data import text

    encoder = text.create("sample")
    for system, recipe in RECIPES.items():
        words = [word for word in runs.SYSTEMS[system] if not word.startswith("schedule")]
        if system == "caption":
            words += [f"text.size={encoder.size}", f"text.fingerprint={encoder.fingerprint}"]
        save(folder, recipe, "run.device=cpu", "run.workers=0", *words).rename(folder / f"{system}.safetensors")
    save(folder, "multiscale/semantic", *SMALL).rename(folder / "parts.safetensors")
    torch.save(published_weights(keypoints=16), folder / "theirs.pth")


def _row(name: str, seed: int) -> dict[str, object]:
    points = np.random.default_rng(seed).uniform([12, 5], [28, 55], (17, 2)).tolist()
    persons = [{"keypoints": points, "scores": [1.0] * 17}]
    return {"image": name, "size": SIZE, "skeleton": "coco", "persons": persons}


def _write_pictures(folder: Path) -> None:
    from fastpose.data import sample
    from fastpose.visual.grids import save_image

    shutil.copy(min((sample.FOLDER / "images").glob("*.jpg")), folder / "photo.jpg")
    for number, name in enumerate(("person.png", *(f"{kind}/{k}.png" for kind in ("real", "ours") for k in range(4)))):
        (folder / name).parent.mkdir(exist_ok=True)
        save_image(folder / name, np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    labels = np.zeros((*SIZE, 3), np.uint8)
    labels[5:30, 5:30], labels[30:55, 5:30] = 1, 6
    save_image(folder / "map.png", labels)


def _write_texts(folder: Path) -> None:
    (folder / "k.json").write_text(json.dumps([_row("person.png", 0)]))
    (folder / "p.json").write_text(json.dumps([_row("one.png", 1), _row("two.png", 2)]))
    item = {"caption": "a man", "right": "real/0.png", "wrong": "ours/0.png"}
    (folder / "items.json").write_text(json.dumps([item, item | {"right": "real/1.png"}]))
    vector_files.write_vec(folder / "words.vec")
    rows = [{"image": "0", "truth": "real", "answer": "real", "milliseconds": 900}]
    head = {"format": "fastpose-study", "version": 2, "study": "s", "kind": "pictures", "exposure": 5, "images": 1}
    (folder / "answers.json").write_text(json.dumps({**head, "submission": "a", "answers": rows}))


def reading(material: Material) -> dict[str, list[str]]:
    """Return command lines that write nothing."""
    return {
        "help": ["--help"],
        "doctor": ["doctor"],
        "recipes": ["recipes"],
        "recipes show": ["recipes", "show", "sagan/tiny"],
        "data list": ["data", "list"],
        "data check": ["data", "check", "sample"],
        "data check market": ["data", "check", "market", material / "market"],
        "study score": ["study", "score", material / "answers.json"],
        "eval": ["eval", "sagan/tiny", "--weights", material / "sagan.safetensors"],
    }


def writing(material: Material, out: str) -> dict[str, list[str]]:
    """Return command lines that write ``out``, or files whose names begin so; the verb is the first word of the key."""
    from fastpose.data import captions

    lines = _of_systems(material, out)
    weights = {system: ["--weights", material / f"{system}.safetensors"] for system in RECIPES}
    person = [material / "person.png", "--keypoints", material / "k.json", "--pose", material / "p.json"]
    pages = ["study", "make", "--real", material / "real", "--generated", material / "ours"]
    clothes = [material / "person.png", "--target-map", material / "map.png", "--parts", "top"]
    clothes += ["--reference", material / "person.png", "--reference-map", material / "map.png"]
    caption = captions.sample("train").captions[0]
    composed = ["--person", material / "person.png", "--keypoints", material / "k.json", *weights["pona"]]
    return lines | {
        "predict sagan": ["predict", material / "photo.jpg", *weights["sagan"], "-o", out],
        "predict pose3d": ["predict", material / "photo.jpg", *weights["pose3d"], "-o", out],
        "predict pona": ["predict", *person, *weights["pona"], "-o", out],
        "predict multiscale": ["predict", *person, *weights["multiscale"], "-o", out],
        "predict caption": ["predict", caption, *weights["caption"], "--encoder", "sample", "-o", out],
        "try-on": ["try-on", *clothes, "--weights", material / "parts.safetensors", "-o", f"{out}.png"],
        "compose": [
            *("compose", caption, *composed, "--caption-weights", material / "caption.safetensors"),
            *("--encoder", "sample", "-o", out),
        ],
        "augment market": [
            *("augment", "market", material / "market", "--recipe", "pona/tiny", *weights["pona"], "-o", out),
        ],
        "study make": [*pages, "--practice", "1", "--images", "4", "-o", f"{out}.html"],
        "study make-caption": [
            *("study", "make-caption", "--items", material / "items.json", "--questions", "1", "-o", f"{out}.html"),
        ],
        "study caption-items": [
            *("study", "caption-items", *weights["caption"], "--count", "2", "--encoder", "sample", "-o", out),
        ],
        "data render": ["data", "render", "sample", "-o", out, "--count", "2", "--size", "32"],
        "data encode": ["data", "encode", "sample", "--encoder", material / "words.vec", "-o", f"{out}.npz"],
        "import": ["import", "pose3d.generator", material / "theirs.pth", "-o", f"{out}.safetensors"],
        "recipes copy": ["recipes", "copy", "sagan/tiny", f"{out}.yaml"],
    }


def _of_systems(material: Material, out: str) -> dict[str, list[str]]:
    """Return what every system does alike: train, eval, export."""
    lines = {}
    for system, recipe in RECIPES.items():
        weights = ["--weights", material / f"{system}.safetensors"]
        short = [*runs.SYSTEMS[system], "run.device=cpu", "run.workers=0", "run.max_steps=1"]
        lines[f"train {system}"] = ["train", recipe, "--out", out, *short]
        lines[f"eval {system}"] = ["eval", recipe, *weights, "-o", out]
        lines[f"export {system}"] = ["export", recipe, *weights, "-o", f"{out}.pt2"]
    return lines


def quick(material: Material, out: str) -> dict[str, list[str]]:
    """Return the lines of ``writing`` without those that take long and do what others do."""
    slow = {f"export {system}" for system in RECIPES if system != "caption"}
    slow |= {f"train {system}" for system in RECIPES if system not in ("sagan", "caption")}
    return {verb: words for verb, words in writing(material, out).items() if verb not in slow}
