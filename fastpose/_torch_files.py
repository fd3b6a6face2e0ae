"""Files of ``torch.save`` by others, read as tensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

OLD = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""How a file begins that is no zip file: the number that marks it as PyTorch's, and the version of its format."""
_ZIP = b"PK\x03\x04"


def load(path: Path) -> Any:
    """Return what a file holds, on the CPU, read with ``weights_only=True``.

    Anything that is no such file is refused by its first bytes: torch would write what it found in their place into its
    message, and a few lists in lists can be made to fill any memory as text. Raises nearly anything for a damaged file.
    """
    with path.open("rb") as file:
        start = file.read(len(OLD))
    if not start.startswith(_ZIP) and start != OLD:
        raise ValueError("neither a zip file nor one of PyTorch's before 1.6")
    return torch.load(path, map_location="cpu", weights_only=True)
