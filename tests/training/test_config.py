"""Configurations: types from annotations, one sentence per error, recipes from YAML."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from fastpose.training import config, systems
from fastpose.training.config import RunConfig, apply_overrides, from_dict, to_dict
from fastpose.training.run_folder import RunFolder


@dataclass(frozen=True)
class Optimizer:
    name: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Model:
    stacks: int = 4
    sizes: tuple[int, ...] = (64, 32)
    positions: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()
    kind: Literal["plain", "attention"] = "plain"
    width: int | None = None
    options: dict[str, float] | None = None


@dataclass(frozen=True)
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    optimizer: Optimizer = Optimizer()
    model: Model = Model()
    root: Path | None = None
    flip: bool = True
    title: str = ""


def overridden(*overrides: str) -> Config:
    return apply_overrides(Config(), overrides, "toy/a")


@pytest.mark.parametrize(
    ("override", "get", "expected"),
    [
        ("optimizer.lr=1e-4", lambda c: c.optimizer.lr, 1e-4),
        ("optimizer.lr=1", lambda c: c.optimizer.lr, 1.0),
        ("optimizer=sgd", lambda c: c.optimizer.name, "sgd"),
        ("optimizer.betas=0.5,0.9", lambda c: c.optimizer.betas, (0.5, 0.9)),
        ("run.epochs=1_000", lambda c: c.run.epochs, 1000),
        ("run.deterministic=yes", lambda c: c.run.deterministic, True),
        ("flip=0", lambda c: c.flip, False),
        ("flip=Off", lambda c: c.flip, False),
        ("model.sizes=8,4,2", lambda c: c.model.sizes, (8, 4, 2)),
        ("model.sizes=[8, 4]", lambda c: c.model.sizes, (8, 4)),
        ("model.sizes=(8,)", lambda c: c.model.sizes, (8,)),
        ("model.sizes=8", lambda c: c.model.sizes, (8,)),
        ("model.sizes=", lambda c: c.model.sizes, ()),
        ("model.positions=(1,2),(3,4)", lambda c: c.model.positions, ((1, 2), (3, 4))),
        ("model.positions=[[1,2]]", lambda c: c.model.positions, ((1, 2),)),
        ("model.positions=((1,2),)", lambda c: c.model.positions, ((1, 2),)),
        ("model.names=a (b)", lambda c: c.model.names, ("a (b)",)),
        ("model.names=a #1 (b c),d (e, f)", lambda c: c.model.names, ("a #1 (b c)", "d (e, f)")),
        ('model.names=["a (b)", c]', lambda c: c.model.names, ("a (b)", "c")),
        ("model.names=('(a, b)', c [d])", lambda c: c.model.names, ("(a, b)", "c [d]")),
        ("model.names=mpii:/a(b,7", lambda c: c.model.names, ("mpii:/a(b,7",)),
        ("model.names=don't, 7,", lambda c: c.model.names, ("don't", "7")),
        ("model.kind=attention", lambda c: c.model.kind, "attention"),
        ("model.width=128", lambda c: c.model.width, 128),
        ("model.width=none", lambda c: c.model.width, None),
        ("root=data/a = b", lambda c: c.root, Path("data/a = b")),
        ("root=null", lambda c: c.root, None),
        ("title=none", lambda c: c.title, "none"),
        ("title=", lambda c: c.title, ""),
    ],
)
def test_an_override_takes_the_type_of_its_field(override: str, get: Any, expected: Any) -> None:
    found = get(overridden(override))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.stack=2", "unknown key 'model.stack' for recipe toy/a; did you mean 'model.stacks'"),
        ("nothing.like=2", "unknown key 'nothing.like' for recipe toy/a; known: run, optimizer, model, root, flip"),
        ("model.zzzz=2", "unknown key 'model.zzzz' for recipe toy/a; did you mean"),
        ("model.stacks=two", "model.stacks: expected an integer, got 'two'"),
        ("model.stacks=1.5", "model.stacks: expected an integer, got '1.5'"),
        ("optimizer.lr=fast", "optimizer.lr: expected a number, got 'fast'"),
        ("optimizer.lr=nan", "optimizer.lr: expected a finite number, got 'nan'"),
        ("flip=maybe", "flip: expected true or false, got 'maybe'"),
        ("optimizer.betas=0.5", r"optimizer.betas: expected 2 values \(a number, a number\), got"),
        ("model.sizes=8,x", r"model.sizes\[1\]: expected an integer, got 'x'"),
        ("model.sizes={a: 1", r"model.sizes\[0\]: expected an integer, got '{a: 1'"),
        ("model.sizes=[8", r"model.sizes: expected a list such as 1,2,3, got '\[8'"),
        ("model.sizes=8,,2", "model.sizes: expected a list such as 1,2,3, got '8,,2'"),
        ("model.names='a' b", "model.names: expected a list such as 1,2,3"),
        ("model.names='a", "model.names: expected a list such as 1,2,3"),
        pytest.param("model.sizes=" + "(" * 5000, "model.sizes: expected a list such as 1,2,3", id="nested"),
        ("model.kind=plane", "model.kind: expected one of plain, attention, got 'plane'; did you mean 'plain'"),
        ("model.width=x", "model.width: expected an integer or none, got 'x'"),
        ("run.batch_size=0", "run.batch_size: expected 1 or more, got 0"),
        ("run.precision=fp8", "run.precision: expected one of fp32, bf16, fp16, got 'fp8'"),
        ("run.ema=1", r"run.ema: expected a decay in \[0, 1\), got 1.0"),
        ("model=4", "model: a section takes no value itself; set one of model.stacks"),
        ("epochs", "override 'epochs': expected key=value"),
        ("=3", "override '=3': expected key=value"),
    ],
)
def test_a_bad_override_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        overridden(override)
    assert "\n" not in str(caught.value)


def test_later_overrides_win_and_the_original_is_untouched() -> None:
    original = Config()
    changed = apply_overrides(original, ["model.stacks=1", "model.stacks=2"])
    assert (changed.model.stacks, original.model.stacks) == (2, 4)
    with pytest.raises(FrozenInstanceError):
        changed.flip = False  # type: ignore[misc]


def test_a_configuration_survives_dict_and_yaml() -> None:
    original = overridden("model.positions=(1,2),(3,4)", "root=/tmp/ä b", "optimizer.lr=3e-5", "model.width=none")
    assert from_dict(Config, to_dict(original)) == original
    assert from_dict(Config, config.read_yaml(config.to_yaml(original), "x")) == original


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("test.protocols=MPJPE (root)", ("MPJPE (root)",)),
        ("test.protocols=MPJPE (root),3DPCK AUC", ("MPJPE (root)", "3DPCK AUC")),
        ('test.protocols=["MPJPE #1 (root depth)"]', ("MPJPE #1 (root depth)",)),
        ("test.protocols=MPJPE #1 (root depth)", ("MPJPE #1 (root depth)",)),
    ],
)
def test_the_protocols_of_poses_in_space_can_be_named(override: str, expected: tuple[str, ...]) -> None:
    assert config.load_recipe("pose3d/tiny", [override]).config.test.protocols == expected


def test_a_section_in_yaml_may_be_named_alone() -> None:
    assert from_dict(Config, {"optimizer": "sgd"}).optimizer == Optimizer("sgd")
    with pytest.raises(ValueError, match="model: expected a section of keys, got 'big'"):
        from_dict(Config, {"model": "big"})


@dataclass(frozen=True)
class Section:
    needed: int
    optimizer: Optimizer = field(default_factory=lambda: Optimizer("sgd", lr=0.1))


@dataclass(frozen=True)
class Nested:
    outer: Section
    other: Section = field(default_factory=lambda: Section(3, Optimizer("other")))


def test_a_section_given_in_part_keeps_its_parents_default() -> None:
    found = from_dict(Nested, {"outer": {"needed": 1, "optimizer": {"lr": 2}}, "other": {"optimizer": {"lr": 4}}})
    assert found.outer == Section(1, Optimizer("sgd", lr=2.0))
    assert found.other == Section(3, Optimizer("other", lr=4.0))
    assert from_dict(Nested, {"outer": {"needed": 1}, "other": {"optimizer": "adam"}}).other.optimizer.name == "adam"
    with pytest.raises(ValueError, match=r"outer\.needed: no value given and there is no default"):
        from_dict(Nested, {"outer": {"optimizer": {"lr": 2}}})


def each_value(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every value of nested dicts alone, in its sections."""
    alone = []
    for key, value in values.items():
        inside = each_value(value) if isinstance(value, dict) and value else [value]
        alone += [{key: entry} for entry in inside]
    return alone


@pytest.mark.parametrize("system", systems.names())
def test_one_value_of_a_systems_default_gives_the_default(system: str) -> None:
    cls = systems.get(system).config
    sections = [key for key, annotation in config.flatten_types(cls).items() if hasattr(annotation, "__post_init__")]
    assert {"run", "data", "model"} <= set(sections)
    for values in each_value(to_dict(cls())):
        assert from_dict(cls, values) == cls(), values


def test_an_own_recipe_may_say_little(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("system: multiscale\nconfig:\n  data: {root: X}\n  run: {workers: 0}\n  test: {inception: W}\n")
    found = config.load_recipe(path).config
    assert (found.data.name, found.data.pose_map, found.data.root) == ("deepfashion", "binary", "X")
    assert (found.run.max_steps, found.run.batch_size, found.test.both_directions) == (270_000, 8, True)


def test_differences_names_dotted_keys() -> None:
    changed = config.differences(to_dict(Config()), to_dict(overridden("model.stacks=2", "flip=no")))
    assert changed == {"model.stacks": (4, 2), "flip": (True, False)}


GOOD = "system: toy\ndescription: A row.\npaper: {PCK: 94.3}\nconfig:\n  model: {stacks: 2}\n"
LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))
"""A kilobyte that stands for 9**39 words."""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (LAUGHS, "x, line 1: anchors and aliases are not allowed"),
        ("a: &x 1\nb: *x", "x, line 1: anchors and aliases are not allowed"),
        ("a: {x: 1}\nb: {<<: {x: 2}}", "x, line 2: merge keys are not allowed"),
        ("a: 1\na: 2", "x, line 2: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "x, line 1: the key 'b' stands twice"),
        ("a: [1", "x, line 1"),
        ("a: !!python/object/apply:os.getcwd []", "x, line 1: tags such as .*os.getcwd' are not allowed"),
        ("a: !!python/name:os.system", "x, line 1: tags such as"),
        ("a: !!binary aGVsbG8=", "x, line 1: tags such as"),
        ("a: !!set {b}", "x, line 1: tags such as"),
        ("!mine {a: 1}", "x, line 1: tags such as '!mine'"),
        ("a: b: c", "x, line 1"),
        ("a:\n\tb: 1", "x, line 2: found character '.t'"),
        ("a: 1\n---\nb: 2", "x, line 2"),
        ("[1, 2]: 3", "x, line 1: a list or section is no key"),
        ("{a: 1}: 3", "x, line 1: a list or section is no key"),
        ("? [a]\n: 1", "x, line 1: a list or section is no key"),
        ("a: 010", "x, line 1: the number 010 is not read as it stands; write it in decimal digits"),
        ("a: 0x10", "x, line 1: the number 0x10 is not read as it stands"),
        ("a: 1:30.5", "x, line 1: the number 1:30.5 is not read as it stands"),
        ("yes: 1\non: 2", "x, line 2: the key 'on' stands twice"),
        ("a: 1:30", "x, line 1: the number 1:30 is not read as it stands"),
        ("a: " + "9" * 100_000, r"x, line 1: the number 9999999999\.\.\. is not read as it stands"),
        ("[" * 5000, "x: nested too deeply"),
        ("{a: " * 5000, "x: nested too deeply"),
        ("".join(" " * depth + "a:\n" for depth in range(1500)), "x: nested too deeply"),
        ("a: \0", "x: special characters are not allowed"),
    ],
)
def test_promise_21_yaml_beyond_plain_values_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}") as caught:
        config.read_yaml(text, "x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_promise_21_what_looks_like_a_date_is_text() -> None:
    assert config.read_yaml("a: 2026-11-21\nb: 2026-13-45\nc: 1_000", "x") == {
        "a": "2026-11-21",
        "b": "2026-13-45",
        "c": 1000,
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (GOOD.encode("utf-16"), r"byte 0 is no UTF-8; save the file as UTF-8"),
        ((GOOD + "# café\n").encode("latin-1"), r"byte \d+ is no UTF-8"),
        (b"\0" * 10, "special characters are not allowed"),
        (b"#" * (1 << 21), "has 2,097,152 bytes; expected 1,048,576 at most"),
    ],
)
def test_promise_21_a_recipe_or_configuration_of_other_bytes_is_refused(tmp_path, content, sentence) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    for read in (lambda: config.load_recipe(path, config_class=Config), RunFolder(tmp_path).read_config):
        with pytest.raises(ValueError, match=rf"config\.yaml: {sentence}"):
            read()


@pytest.mark.parametrize(
    ("yaml", "word", "key"),
    [
        ("no", "no", "run.epochs"),
        ("1e3", "1e3", "run.epochs"),
        ("2026-11-21", "2026-11-21", "run.epochs"),
        ("3.0", "3.0", "run.epochs"),
        ("true", "true", "run.epochs"),
        (".nan", "nan", "run.clip_norm"),
        (".inf", "inf", "run.clip_norm"),
        ("1e400", "1e400", "run.clip_norm"),
        ("9" * 400, "9" * 400, "run.clip_norm"),
        ("[1]", "[1]", "run.epochs"),
        ("{a: 1}", "{a: 1}", "run.epochs"),
        ('"!!python/name:os.system"', "!!python/name:os.system", "run.epochs"),
        ('"*a"', "*a", "run.epochs"),
        ("'" + "[" * 100_000 + "'", "[" * 100_000, "run.epochs"),
        ("'" + "9" * 5_000 + "'", "9" * 5_000, "run.epochs"),
        ("9" * 30, "9" * 30, "run.seed"),
    ],
)
def test_promise_21_a_value_that_does_not_fit_is_one_sentence_wherever_it_stands(yaml, word, key) -> None:
    section, name = key.split(".")
    for build in (
        lambda: from_dict(Config, config.read_yaml(f"{section}: {{{name}: {yaml}}}", "x")),
        lambda: overridden(f"{key}={word}"),
    ):
        with pytest.raises(
            ValueError, match=r"^(run\.(epochs|clip_norm|seed): expected|x, line 1: the number 9+)"
        ) as caught:
            build()
        assert len(str(caught.value)) < 500


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_a_recipe_file_of_ones_own(tmp_path: Path) -> None:
    found = config.load_recipe(written(tmp_path, GOOD), ["flip=no"], config_class=Config)
    assert (found.name, found.system, found.paper) == ("mine", "toy", {"PCK": 94.3})
    assert (found.config.model.stacks, found.config.flip) == (2, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "expected the keys system, description, paper, config, got list"),
        ("", "expected the keys system, description, paper, config, got NoneType"),
        (GOOD + "extras: 1", "unknown key 'extras'"),
        ("config: {}", "'system' must name a system"),
        ("system: toy\nconfig: 3", "'config' must be a section of keys, got 3"),
        (GOOD.replace("94.3", "high"), "'paper' must map protocols to numbers"),
        (GOOD.replace("stacks", "stack"), "unknown key 'model.stack' for recipe mine; did you mean 'model.stacks'"),
    ],
)
def test_a_malformed_recipe_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        config.load_recipe(written(tmp_path, text), config_class=Config)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_offers_the_nearest() -> None:
    names = config.list_recipes()
    if not names:
        pytest.skip("the package holds no recipes")
    with pytest.raises(ValueError, match=f"unknown recipe .*did you mean '{names[0]}'"):
        config.load_recipe(names[0] + "x", config_class=Config)
    with pytest.raises(FileNotFoundError, match="no such file"):
        config.load_recipe("absent.yaml", config_class=Config)


def test_a_recipe_is_copied_but_nothing_is_overwritten(tmp_path: Path) -> None:
    names = config.list_recipes()
    if not names:
        pytest.skip("the package holds no recipes")
    copy = config.copy_recipe(names[0], tmp_path)
    assert config.read_yaml(copy.read_text(), "copy")["system"] == names[0].partition("/")[0]
    with pytest.raises(ValueError, match="exists already"):
        config.copy_recipe(names[0], tmp_path)


@pytest.mark.parametrize("name", ["...yaml", ".yaml", "-a.yaml"])
def test_a_recipe_file_must_name_a_folder_of_runs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("system: toy\n")
    with pytest.raises(ValueError, match=r"recipe file .*: expected a name of letters"):
        config.load_recipe(path, config_class=Config)
