"""Huge pages: asked for in large results of our own, never in memory of the user's."""

import sys
from pathlib import Path

import pytest
import torch

from fastpose import _native, ops

LARGE = (9, 17, 240, 256)  # 36 MB: beyond what the C library takes from its heap


def advised(tensor):
    """Whether the mapping in whose middle the tensor lies is marked for huge pages."""
    address, inside = tensor.data_ptr() + tensor.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            first, last = (int(end, 16) for end in words[0].split("-"))
            inside = first <= address < last
        elif inside and words[0] == "VmFlags:":
            return "hg" in words[1:]
    raise AssertionError("the tensor lies in no mapping")


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists() or not Path("/proc/self/smaps").exists(),
    reason=f"{sys.platform} has no transparent huge pages to be asked for",
)
def test_large_results_may_lie_in_huge_pages_and_those_of_the_user_stay_as_they_are():
    keypoints = torch.rand(*LARGE[:2], 2)
    assert advised(ops.render_gaussian_heatmaps(keypoints, LARGE[2:], 2.0, backend="cpu"))
    out = torch.empty(LARGE)
    ops.render_gaussian_heatmaps(keypoints, LARGE[2:], 2.0, out=out, backend="cpu")
    assert not advised(out)


def test_memory_that_begins_and_ends_anywhere():
    numbers = torch.arange(2**20)  # 8 MiB
    for first, count in ((0, 2**23), (1, 2**22), (3, 2**22 + 4096), (5, 0), (4095, 2)):
        _native.module().prefer_huge_pages(numbers.view(torch.bool)[first : first + count])
    assert torch.equal(numbers, torch.arange(2**20))
