"""Training state without pickle: any nest of dicts, lists, numbers and tensors as JSON plus named tensors.

``encode`` serves every optimizer and scheduler of torch, because it knows their values and not their classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tree = Any


def encode(value: Any, tensors: dict[str, Tensor], path: str = "") -> Tree:
    """Return ``value`` as JSON; its tensors go into ``tensors`` under their dotted path.

    Mappings keep their order and their keys (text or whole numbers), tuples stay tuples, numbers keep every bit.

    Raises:
        TypeError: something else (an object, a function) is inside; the message names where.
    """
    if isinstance(value, Tensor):
        tensors[path] = value.detach()
        return {"tensor": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(np.ascontiguousarray(value))
        return {"array": path}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {kind: [[_key(k, path), encode(v, tensors, _join(path, k))] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        entries = [encode(entry, tensors, _join(path, i)) for i, entry in enumerate(value)]
        return {"tuple": entries} if isinstance(value, tuple) else entries
    raise TypeError(
        f"training state {path}: a {type(value).__name__} cannot be saved; "
        "expected tensors, numbers, text, lists or dicts"
    )


def decode(tree: Tree, tensors: Mapping[str, Tensor]) -> Any:
    """Return what ``encode`` was given; raises ``ValueError`` where the tree or a tensor of it is missing."""
    if isinstance(tree, list):
        return [decode(entry, tensors) for entry in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise ValueError(f"training state: expected one tag per node, found {sorted(tree)[:5]}")
    ((tag, content),) = tree.items()
    if tag in ("tensor", "array"):
        if content not in tensors:
            raise ValueError(f"training state: the tensor {content!r} is missing")
        return tensors[content] if tag == "tensor" else tensors[content].numpy()
    if tag == "tuple":
        return tuple(decode(entry, tensors) for entry in content)
    if tag in ("dict", "counter"):
        pairs = {key: decode(entry, tensors) for key, entry in content}
        return Counter(pairs) if tag == "counter" else pairs
    raise ValueError(f"training state: unknown tag {tag!r}")


def _key(key: Any, path: str) -> str | int:
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return key
    raise TypeError(f"training state {path}: a key of type {type(key).__name__} cannot be saved; expected text or int")


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
