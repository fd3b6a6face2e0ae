"""Every CUDA kernel once or twice on small ragged tensors: what compute-sanitizer watches.

Run it with PYTORCH_NO_CUDA_MEMORY_CACHING=1, so that each tensor is an allocation of its own whose ends are known.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import heatmap_cases
from gpu import bodies

from fastpose import ops

SHAPE = (2, 3, 21, 35)


def main(device: str = "cuda", backend: str = "cuda") -> int:
    """Run everything; return how many calls failed."""
    failed = 0
    for name, call in calls(device, backend).items():
        try:
            call()
        except Exception as error:  # the rest is to be watched all the same
            failed += 1
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            print(f"{name}: done", flush=True)
    if device == "cuda":
        torch.cuda.synchronize()
    return failed


def calls(device: str, backend: str) -> dict:
    """Return the calls by name."""
    found = {}
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for name in heatmap_cases.CASES:
            layout = "sliced" if dtype == torch.bfloat16 else "contiguous"
            found[f"{name} {dtype}"] = lambda n=name, t=dtype, y=layout: bodies.heatmap(n, SHAPE, y, t, device).run(
                backend
            )
        for points in (16, 17):
            found[f"descriptor {points} {dtype}"] = lambda p=points, t=dtype: bodies.descriptor(
                (3, p, 3), t, device
            ).run(backend)
        for method in ("argmax", "quarter", "dark", "dark_udp"):
            found[f"decode {method} {dtype}"] = lambda m=method, t=dtype: ops.decode_heatmaps(
                bodies.decode_planes(device, "contiguous", t), m, backend=backend
            )
    for profile in ("gaussian_rounded", "msra", "udp", "binary"):
        found[f"render {profile}"] = lambda p=profile: bodies.check_render(device, backend, p, torch.float32)
    return found


if __name__ == "__main__":
    raise SystemExit(min(main(*sys.argv[1:]), 1))
