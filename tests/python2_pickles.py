"""Files as PyTorch wrote them under Python 2: networks pickled whole, and what else one may put into such a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from fastpose import models
from fastpose.models import _formats, _registry, published
from fastpose.models.pickles import START

NET, LIST = ("models.hg_3d", "HourglassNet3D"), ("torch.nn.modules.container", "ModuleList")


@dataclass
class Global:
    module: str
    name: str


@dataclass
class Call:
    function: Any
    arguments: tuple
    state: Any = None


@dataclass
class New:
    kind: Any
    arguments: tuple
    state: Any = None


@dataclass
class Elsewhere:
    words: Any


@dataclass
class Raw:
    code: bytes


def emit(value) -> bytes:
    """The code of protocol 2 that lays down a value; strings are those of Python 2, in latin1."""
    match value:
        case Raw():
            return value.code
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
            return b"\x8a" + bytes([len(data)]) + data
        case str():
            data = value.encode("latin1")
            return (b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + len(data).to_bytes(4, "little")) + data
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case dict():
            return b"}(" + b"".join(emit(part) for pair in value.items() for part in pair) + b"u"
        case Global():
            return f"c{value.module}\n{value.name}\n".encode()
        case Elsewhere():
            return emit(value.words) + b"Q"
        case Call() | New():
            first = value.function if isinstance(value, Call) else value.kind
            code = emit(first) + emit(value.arguments) + (b"R" if isinstance(value, Call) else b"\x81")
            return code if value.state is None else code + emit(value.state) + b"b"
    raise TypeError(value)


def pickled(value) -> bytes:
    return b"\x80\x02" + emit(value) + b"."


def whole(content, storages=(), *, little=True, version=1001) -> bytes:
    """A file: four pickles, the keys of the storages, the storages."""
    facts = {"protocol_version": version, "little_endian": little, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = START + pickled(version) + pickled(facts) + pickled(content) + pickled([key for key, _ in storages])
    return head + b"".join(t.numel().to_bytes(8, "little") + t.numpy().tobytes() for _, t in storages)


def ordered(pairs) -> Call:
    return Call(Global("collections", "OrderedDict"), ([list(pair) for pair in pairs],))


def storage(key, count, place="torch.cuda", kind="FloatStorage") -> Elsewhere:
    return Elsewhere(("storage", Global(place, kind), key, "cuda:0", count, None))


def tensor(key, count, size=None, stride=(1,), offset=0) -> Call:
    arguments = (storage(key, count), offset, (count,) if size is None else tuple(size), tuple(stride))
    return Call(Global("torch._utils", "_rebuild_tensor"), arguments)


def module(kind, parameters=(), buffers=(), modules=(), **attributes) -> New:
    state = {
        "_backend": Call(Global("torch.nn.backends.thnn", "_get_thnn_function_backend"), ()),
        "_parameters": ordered(parameters),
        "_buffers": ordered(buffers),
        "_modules": ordered(modules),
        "_backward_hooks": ordered(()),
        "training": True,
        **attributes,
    }
    return New(Elsewhere(("module", Global(*kind), "hg_3d.py", "class Stra\xdfe")), (), state)


class Writer:
    """A network under the authors' keys as the modules that they pickled."""

    def __init__(self, weights, parameter) -> None:
        self.storages, self.parameter = [], parameter
        tree: dict[str, Any] = {}
        for key, value in weights.items():
            *path, last = key.split(".")
            node = tree
            for part in path:
                node = node.setdefault(part, {})
            node[last] = value
        self.network = self.module(tree, NET)

    def module(self, node, kind=None):
        tensors = {name: self.tensor(part) for name, part in node.items() if isinstance(part, torch.Tensor)}
        parts = {name: self.module(part) for name, part in node.items() if isinstance(part, Mapping)}
        if kind is None:
            conv, inner = ("torch.nn.modules.conv", "Conv2d"), ("models.layers.Residual", "Residual")
            kind = conv if tensors else inner if "conv1" in parts else LIST
        running = [name for name in tensors if name.startswith("running")]
        parameters = [(name, self.parameter(t)) for name, t in tensors.items() if name not in running]
        return module(kind, parameters, [(name, tensors[name]) for name in running], parts.items(), bias=None, n=-3)

    def tensor(self, value) -> Call:
        key = str(94000 + len(self.storages))
        self.storages.append((key, value.detach().contiguous().flatten()))
        return tensor(key, value.numel(), value.shape, value.contiguous().stride())


def as_new(t):  # PyTorch 0.1.12
    return New(Global("torch.nn.parameter", "Parameter"), (t,), (True, False, ordered(())))


def as_call(t):  # PyTorch 0.2 and 0.3
    return Call(Global("torch.nn.parameter", "Parameter"), (t,), (True, False, ordered(())))


def as_rebuilt(t):  # PyTorch 0.4
    return Call(Global("torch._utils", "_rebuild_parameter"), (t, True, ordered(())))


def published_weights(**options) -> dict[str, torch.Tensor]:
    """A tiny network under the authors' keys, without the batch counters that they did not write."""
    options = {"depth_head": "flatten", "image_size": 64, **options}
    network = models.create("pose3d.generator.tiny", **options)
    _, tiny = _registry.resolve("pose3d.generator.tiny")
    rules = _formats._hg3d({**_registry.defaults("pose3d.generator"), **tiny, **options})
    state = {published.rename(key, rules): t for key, t in network.state_dict().items()}
    return {key: t for key, t in state.items() if not key.endswith("num_batches_tracked")}
