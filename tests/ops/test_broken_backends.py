"""A backend that is absent or broken: one warning, the same answers from another, and ``fastpose doctor`` says why.

Each case is a process of its own, with a package that is the one under test but for its extension.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import fastpose
from fastpose import _native

PACKAGE = Path(fastpose.__file__).parent
SLOWEST = 300  # seconds, on a machine ten times slower

LOOK = """
import contextlib, io, json, sys, warnings
for name in sys.argv[1:]:
    sys.modules[name] = None
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import torch
    from fastpose import _native, ops
    from fastpose.benchmark.cases import typical
    from fastpose.cli import main

    chosen = {}
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 8, 12)
    points = torch.rand(2, 3, 2) * 8
    joints = torch.rand(2, 5, 3, requires_grad=True)
    flat = torch.rand(2, 4, 20, requires_grad=True)
    calls = {
        "nonlocal_attention": lambda backend: ops.nonlocal_attention(flat, flat, flat, backend=backend),
        "render_gaussian_heatmaps": lambda backend: ops.render_gaussian_heatmaps(points, (8, 12), 1.0, backend=backend),
        "heatmap_mse_loss": lambda backend: ops.heatmap_mse_loss(maps, points, 1.0, backend=backend),
        "decode_heatmaps": lambda backend: ops.decode_heatmaps(maps, "dark", backend=backend)[0],
        "flip_average": lambda backend: ops.flip_average(maps, maps, ((0, 1),), backend=backend),
        "pairwise_descriptor": lambda backend: ops.pairwise_descriptor(joints, backend=backend),
    }
    for name, call in calls.items():
        for _ in range(2):
            torch.testing.assert_close(call("auto"), call("reference"), atol=1e-5, rtol=1e-5)
        chosen[name] = ops.explain(name, *typical()[name].make("cpu")).chosen
    for leaf, name in ((flat, "nonlocal_attention"), (joints, "pairwise_descriptor")):
        both = [torch.autograd.grad(calls[name](backend).square().sum(), leaf)[0] for backend in ("auto", "reference")]
        torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)
    refused = ""
    try:
        calls["nonlocal_attention"]("triton")
    except ValueError as error:
        refused = str(error)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["doctor"])
told = [str(one.message) for one in seen if "fastpose" in str(one.message)]
print(json.dumps({"told": told, "chosen": chosen, "code": code, "doctor": out.getvalue(), "refused": refused}))
"""


def look(package: Path, *hidden: str, **environment: str) -> dict:
    """Return what a process with this package beside the working folder tells of itself."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOK, *hidden],
        capture_output=True,
        text=True,
        cwd=package,
        env=os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "0"} | environment,
        timeout=SLOWEST,
        check=False,
    )
    assert done.returncode == 0, f"code {done.returncode}: {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def package_with(folder: Path, extension: Callable[[Path, bytes], None]) -> Path:
    """Return a folder that holds the package, its extension made by ``extension(folder, bytes of the real one)``."""
    inside = folder / "fastpose"
    inside.mkdir(parents=True)
    for entry in PACKAGE.iterdir():
        if not entry.name.startswith("_C."):
            (inside / entry.name).symlink_to(entry)
    extension(inside, real_extension().read_bytes())
    return folder


def real_extension() -> Path:
    spec = importlib.util.find_spec("fastpose._C")
    if spec is None or spec.origin is None or _native.missing():
        pytest.skip("the extension is not built")
    return Path(spec.origin)


def shared(content: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    """Return what writes an extension under its right name."""
    return lambda inside, real: (inside / real_extension().name).write_bytes(content(real)) and None


def python(code: str) -> Callable[[Path, bytes], None]:
    """Return what puts a module in Python in the extension's place."""
    return lambda inside, real: (inside / "_C.py").write_text(code) and None


def another_abi(inside: Path, real: bytes) -> None:
    (inside / "_C.cpython-39-aarch64-linux-gnu.so").write_bytes(real)


BROKEN: dict[str, tuple[Callable[[Path, bytes], None], str]] = {
    "absent": (lambda inside, real: None, "there is none in "),
    "of another Python": (another_abi, "there is none in "),
    "half": (shared(lambda real: real[: len(real) // 2]), "is cut short, "),
    "without its end": (shared(lambda real: real[: len(real) // 10 * 9]), "is cut short, "),
    "header alone": (shared(lambda real: real[:64]), "is cut short, "),
    "few bytes": (shared(lambda real: real[:20]), "file too short"),
    "empty": (shared(lambda real: b""), "file too short"),
    "text": (shared(lambda real: b"a note\n" * 1000), "invalid ELF header"),
    "zeros": (shared(lambda real: bytes(len(real))), "invalid ELF header"),
    "of another machine": (shared(lambda real: real[:18] + b"\xb7\x00" + real[20:]), "cannot open shared object"),
    "without its initialiser": (shared(lambda real: real.replace(b"PyInit__C", b"PyInit__D")), "PyInit__C"),
    "of another version": (python("interface = 0\n"), "was built from other sources: interface 1 expected, 0 found"),
    "of no version": (python("def build_info():\n    return {}\n"), "interface 1 expected, None found"),
    "raises ImportError": (python("raise ImportError('libgomp.so.1 is absent')"), "libgomp.so.1 is absent"),
    "raises RuntimeError": (python("raise RuntimeError('no instruction set')"), "no instruction set"),
    "raises OSError": (python("raise OSError('too many open files')"), "too many open files"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_promise_26_a_broken_extension_is_said_once_and_the_reference_serves(name: str, tmp_path: Path) -> None:
    extension, reason = BROKEN[name]
    found = look(package_with(tmp_path / "a b", extension))
    (warning,) = found["told"]
    assert warning.startswith("fastpose: the compiled extension cannot be loaded (")
    assert reason in warning
    assert warning.endswith("the slower reference backend serves instead")
    assert set(found["chosen"].values()) == {"reference"}
    assert found["code"] == 0
    sentence = warning.removeprefix("fastpose: ").removesuffix("; the slower reference backend serves instead")
    assert f"extension fastpose._C\n  {sentence}\n" in found["doctor"]
    assert f"  nonlocal_attention: reference\n    not cpu: {sentence}\n" in found["doctor"]


@pytest.mark.slow
@pytest.mark.parametrize("value", ["avx9", "AVX2", " ", "0", "best"])
def test_promise_26_an_instruction_set_that_is_not_there_is_said_once(value: str) -> None:
    found = look(PACKAGE.parent, FASTPOSE_SIMD=value)
    (warning,) = found["told"]
    assert warning.startswith(f"fastpose: FASTPOSE_SIMD={value}: expected baseline, avx2 or avx512, and one that this ")
    assert set(found["chosen"].values()) == {"cpu"}
    assert f"SIMD {_native.build_info()['widest_simd']}" in found["doctor"]


@pytest.mark.slow
def test_promise_26_without_triton_nothing_is_said() -> None:
    found = look(PACKAGE.parent, "triton", FASTPOSE_SIMD="baseline")
    assert found["told"] == []
    assert set(found["chosen"].values()) == {"cpu"}
    assert "Triton\n  is not installed, and only a GPU needs it: pip install triton\n" in found["doctor"]
    assert "cannot serve this call: Triton is not installed; pip install triton" in found["refused"]


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ImportError('libcuda is absent')", "AttributeError('no attribute jit')"])
def test_promise_26_a_broken_triton_is_said_once_and_the_reference_serves(error: str, tmp_path: Path) -> None:
    folder = package_with(tmp_path, lambda inside, real: None)  # so that Triton's interpreter would have its turn
    (folder / "triton").mkdir()
    (folder / "triton" / "__init__.py").write_text(f"raise {error}\n")
    found = look(folder, TRITON_INTERPRET="1")
    (warning,) = (told for told in found["told"] if "extension" not in told)
    kind, text = error.removesuffix("')").split("('")
    assert warning == (
        f"fastpose: Triton cannot be loaded ({kind}: {text}); reinstall it: pip install triton; another backend serves "
        "instead"
    )
    assert set(found["chosen"].values()) == {"reference"}
    assert f"Triton\n  Triton cannot be loaded ({kind}: {text}); reinstall it: pip install triton\n" in found["doctor"]
    assert f"cannot serve this call: Triton cannot be loaded ({kind}: {text})" in found["refused"]


RECORDED = (1, "7d2d8b02c214bd81")
"""The number of the extension's interface, and the digest of the arguments that its functions take."""


def takes(module: ModuleType) -> list[str]:
    """Each function of an extension's module with its arguments, T for a tensor: pybind's words for others change."""
    said = {name: one.__doc__ for name, one in vars(module).items() if callable(one) and name != "cuda_problem"}
    kinds = {name: re.findall(r"arg\d+: (torch\.Tensor)?", text.splitlines()[0]) for name, text in said.items()}
    return sorted(f"{name} {''.join('T' if kind else '.' for kind in each)}" for name, each in kinds.items())


def test_promise_26_what_the_extension_takes_has_a_number() -> None:
    real_extension()  # or skip
    module = _native.module()
    lines = [line for one in (module, module.cpu, module.direct) for line in takes(one)]
    found = _native._INTERFACE, hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert found == RECORDED, (
        "the extension's functions changed: count interface_number (csrc/bindings/module.cpp) and _INTERFACE "
        f"(fastpose/_native.py) up, then record {found}"
    )


def test_promise_26_an_extension_cut_anywhere_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    whole = real_extension().read_bytes()
    path = tmp_path / "_C.so"
    path.write_bytes(whole)
    _native._check_whole(path)
    for size in (64, 65, 1000, len(whole) // 3, len(whole) // 3 * 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ImportError, match=rf"_C\.so is cut short, {size} of at least \d+ bytes"):
            _native._check_whole(path)
    of_others = [head + bytes(26) + b"\xff" * 200 for head in (b"MZabcd", b"\x7fELF\x01\x01", b"\x7fELF\x02\x02")]
    for content in (b"", b"\x7fELF\x02", *of_others):
        path.write_bytes(content)
        _native._check_whole(path)  # for the loader to judge
