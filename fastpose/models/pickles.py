"""Whole networks that old PyTorch pickled, read without running anything of them.

The hg3d branch of pytorch-pose-hg-3d publishes ``torch.save(model)`` of Python 2: four pickles (magic number, version,
machine, network), the list of storages, their numbers. The pickles are walked here by a machine that knows the few
operations that such a file needs: what it builds are plain dicts and notes of where tensors lie; no class is imported,
no function called, and a name outside of `ADMITTED` ends the reading.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""The first pickle: the number that marks a file as PyTorch's, before it wrote zip files."""
VERSION = 1001
DEEPEST, MOST, DIMENSIONS = 32, 20_000, 8
"""Levels of modules in modules, parts of a network, and sides of a tensor: hg3d's has 9, fewer than 10,000, and 4."""
OPERATIONS = 2_000_000
"""Operations of a pickle, each of which may lay down an object: hg3d's has fewer than 300,000."""
LONGEST_KEY = 200
"""Characters of a name, and of a weight's key: hg3d's have fewer than 100."""

_TYPES = {
    "Half": torch.float16,
    "Float": torch.float32,
    "Double": torch.float64,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Short": torch.int16,
    "Int": torch.int32,
    "Long": torch.int64,
}
STORAGES = {f"{place} {name}Storage": dtype for place in ("torch", "torch.cuda") for name, dtype in _TYPES.items()}
_LAYERS = (
    "conv Conv2d",
    "batchnorm BatchNorm2d",
    "activation ReLU",
    "pooling MaxPool2d",
    "upsampling Upsample",
    "upsampling UpsamplingNearest2d",
    "container ModuleList",
    "container Sequential",
    "linear Linear",
)
MODULES = frozenset(
    (
        "models.hg_3d HourglassNet3D",
        "models.hg_3d Hourglass",
        "models.layers.Residual Residual",
        *(f"torch.nn.modules.{layer}" for layer in _LAYERS),
    )
)
LONGEST = 500
"""Characters of a message, which may hold names that the file gives."""
PARAMETER = "torch.nn.parameter Parameter"
_VALUES = re.compile("(BIN)?INT[12]?|LONG1?|(BIN)?FLOAT|(SHORT_)?(BIN)?STRING|(BIN)?UNICODE")
"""Operations that lay down the number or string behind them."""
_KEY = re.compile(r"[A-Za-z0-9_.]+")
_PARTS = ("_parameters", "_buffers", "_modules")


class _Refused(ValueError):
    """What is wrong with a file, without its name."""


@dataclass(frozen=True)
class _Name:
    """A class or function that the file names."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A row of numbers that stands behind the pickles."""

    key: str
    dtype: torch.dtype
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: where its numbers lie in a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass
class _Module:
    """A module: its attributes, and nothing that could run."""

    name: str
    state: dict[str, Any] = field(default_factory=dict)


def is_module_pickle(path: str | Path) -> bool:
    """Return whether a file begins as `torch.save` of PyTorch before 1.6 wrote it: no zip file, no tar file."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(START)) == START


def read_module_pickle(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict, under the authors' keys, of a network of the hg3d branch that was pickled whole.

    Read are the classes models.hg_3d.HourglassNet3D and Hourglass, models.layers.Residual.Residual, the layers of
    torch.nn in them, OrderedDict, set, tensors and parameters, strings in latin1; no code runs, none of the file's and
    none of these classes'. A state dict in such a file will do as well. Sizes are checked against the file's before
    memory is taken; operations, parts and names, which may be repeated at no cost to the file, have limits. Raises
    ``FileNotFoundError``, and ``ValueError`` in one sentence for a file of another kind, a truncated or damaged one,
    and one that names anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of odd backslashes, which no name that is read has
            return _read(data)
    except _Refused as error:
        raise ValueError(f"checkpoint {path}: {_line(error)}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError):
        raise ValueError(f"checkpoint {path}: is damaged or truncated at {len(data):,} bytes; fetch it again") from None


def _line(error: _Refused) -> str:
    """One short line that no terminal takes for more than text."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(error).split())[:LONGEST])


def _read(data: bytes) -> dict[str, Tensor]:
    if not data.startswith(START):
        raise _Refused("expected a network pickled by PyTorch before 1.6, found something else")
    stream = io.BytesIO(data)
    stream.seek(len(START))
    if _Machine(stream).run() != VERSION:
        raise _Refused(f"expected version {VERSION} of PyTorch's format, found another")
    machine_facts = _Machine(stream).run()
    if not isinstance(machine_facts, dict) or machine_facts.get("little_endian") is not True:
        raise _Refused("expected numbers in little-endian order, found no such mark")
    machine = _Machine(stream)
    content = machine.run()
    keys = _Machine(stream).run()
    storages = _storages(keys, machine.storages, data, stream.tell())
    weights = dict(_weights(content))
    if sum(math.prod(view.size) * view.storage.dtype.itemsize for view in weights.values()) > len(data):
        raise _Refused(
            "is damaged: its tensors, which share their numbers, are together larger than it; fetch it again"
        )
    return {
        key: storages[view.storage.key].as_strided(view.size, view.stride, view.offset)  # memory is not taken twice
        for key, view in weights.items()
    }


# ------------------------------------------------------------------------------------------------- numbers and networks


def _storages(keys: Any, wanted: dict[str, _Storage], data: bytes, start: int) -> dict[str, Tensor]:
    """Return the storages (N,), which stand in the order of their keys, each behind the number of its elements."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(wanted):
        raise _Refused("is damaged: the list of its storages differs from those its tensors name; fetch it again")
    storages = {}
    for key in keys:
        storage = wanted[key]
        begin, end = start + 8, start + 8 + storage.count * storage.dtype.itemsize
        if end > len(data):
            raise _Refused(f"is truncated at {len(data):,} bytes, where {end:,} or more are expected; fetch it again")
        if int.from_bytes(data[start:begin], "little") != storage.count:
            raise _Refused(f"is damaged: storage {key!r} has not the {storage.count} elements that are announced")
        numbers = bytearray(data[begin:end])  # own memory, which may be written to
        storages[key] = torch.frombuffer(numbers, dtype=storage.dtype) if numbers else torch.empty(0)
        start = end
    return storages


def _weights(content: Any) -> Iterator[tuple[str, _View]]:
    """The keys and tensors of a network, or of a state dict."""
    if isinstance(content, dict):
        inner = _expect(content.get("state_dict", content), dict, "a state dict")
        for key, view in inner.items():
            yield _key("", key), _expect(view, _View, f"a tensor at {key}")
    elif isinstance(content, _Module):
        yield from _walk(content)
    else:
        raise _Refused(f"expected a network or its state dict, found {type(content).__name__}")


def _walk(network: _Module) -> Iterator[tuple[str, _View]]:
    """Parameters and buffers of a module and of those in it, each behind the names of the modules around it."""
    left, seen = [("", network, 0)], 0
    while left:
        prefix, module, level = left.pop()
        own, kept, parts = (_expect(module.state.get(kind), dict, f"{kind} of each module") for kind in _PARTS)
        seen += 1 + len(own) + len(kept) + len(parts)
        if level > DEEPEST or seen > MOST:
            raise _Refused(f"expected a network of at most {MOST:,} parts and {DEEPEST} levels, found a larger one")
        for name, view in (*own.items(), *kept.items()):
            key = _key(prefix, _part(name))
            if view is not None:
                yield key, _expect(view, _View, f"a tensor at {key}")
        for name, part in reversed(parts.items()):
            key = _key(prefix, _part(name))
            if part is not None:
                left.append((f"{key}.", _expect(part, _Module, f"a module at {key}"), level + 1))


def _part(name: str) -> str:
    """The name of one part, which makes no key that another part has too."""
    if "." in name:
        raise _Refused(f"is damaged: expected names of parts without dots, found {name!r}; fetch it again")
    return name


def _key(prefix: str, name: str) -> str:
    """A key of letters that fit a line; it is held once for each tensor, so it is short too."""
    key = prefix + name
    if len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        raise _Refused(
            f"is damaged: expected keys of at most {LONGEST_KEY} letters, digits, _ and dots, "
            f"found {key[:40]!r} of {len(key):,}; fetch it again"
        )
    return key


# ---------------------------------------------------------------------------------------------------------- the machine


class _Machine:
    """Walks one pickle of a stream and returns what it describes, in plain values and the notes above."""

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, _Storage] = {}
        self.copied = 0

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
            if count > OPERATIONS:
                raise _Refused(f"expected a pickle of at most {OPERATIONS:,} operations, found a larger one")
            if _VALUES.fullmatch(opcode.name):
                self.push(argument)
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            elif opcode.name != "PROTO" and opcode.name != "STOP":
                raise _Refused(f"its pickle uses {opcode.name}, which no such file needs; nothing of it was run")
        (value,) = self.stack
        return value

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise _Refused("is damaged: its pickle takes more than it laid down; fetch it again")
        return self.stack.pop()

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def marked(self) -> list[Any]:
        """Take what was laid down since the last mark."""
        place = self.marks.pop()
        values = self.stack[place:]
        del self.stack[place:]
        return values

    def name(self, argument: str) -> None:
        """A class or function."""
        if argument not in ADMITTED:
            raise _Refused(
                f"names {argument.replace(' ', '.')}, which is none of the classes and functions that are read; "
                "expected a network of the hg3d branch; nothing of the file was run"
            )
        self.push(_Name(argument))

    def persistent(self, _: Any) -> None:
        """A storage, or the class of a module beside its source text."""
        words = _expect(self.pop(), tuple, "a tuple for what stands elsewhere")
        kind = words[0] if words else None
        if kind == "module" and len(words) == 4 and isinstance(words[1], _Name) and words[1].name in MODULES:
            return self.push(words[1])
        if kind == "storage" and len(words) in (5, 6) and words[5:] in ((), (None,)):
            return self.push(self.storage(*words[1:5]))
        what = (
            repr(kind[:40]) if isinstance(kind, str) else f"a {type(kind).__name__.strip('_')}"
        )  # nested ones multiply
        raise _Refused(f"is damaged: {what} is neither a whole storage nor a known class; fetch it again")

    def storage(self, kind: Any, key: Any, _: Any, count: Any) -> _Storage:
        if not isinstance(kind, _Name) or kind.name not in STORAGES or not isinstance(key, str):
            raise _Refused("is damaged: a storage is expected to have a type and a key; fetch it again")
        found = _Storage(key, STORAGES[kind.name], _natural(count))
        if self.storages.setdefault(key, found) != found:
            raise _Refused(f"is damaged: storage {key!r} is announced twice, and differently; fetch it again")
        return found

    def new(self, _: Any) -> None:
        """An instance without arguments of a module's class, or a parameter around its tensor."""
        arguments = self.arguments()
        kind = _expect(self.pop(), _Name, "a class")
        if kind.name in MODULES and not arguments:
            self.push(_Module(kind.name))
        elif kind.name == PARAMETER:
            self.push(_parameter(*arguments))
        else:
            _refuse_call(kind)

    def call(self, _: Any) -> None:
        """A function that is known here and done by us."""
        arguments = self.arguments()
        function = _expect(self.pop(), _Name, "a function")
        if function.name not in _CALLS:
            _refuse_call(function)
        self.push(_CALLS[function.name](*arguments))

    def arguments(self) -> tuple[Any, ...]:
        """Take the arguments of a call; remembered ones may come again, so that their number is summed up."""
        arguments = _expect(self.pop(), tuple, "a tuple of arguments")
        self.copied += len(arguments) + sum(len(argument) for argument in arguments if isinstance(argument, list))
        if self.copied > self.stream.getbuffer().nbytes:
            raise _Refused("is damaged: it copies lists over and over; fetch it again")
        return arguments

    def build(self, _: Any) -> None:
        """The attributes of a module; those of a parameter (whether it wants a gradient) mean nothing here."""
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, _Module) and isinstance(state, dict) and not target.state:
            target.state = state
        elif not (isinstance(target, _View) and isinstance(state, tuple)):
            raise _Refused("sets attributes in a way that no such file needs; nothing of it was run")

    def remember(self, place: int) -> None:
        """Keep what lies on top; places count up, from 0 or 1, and others could be chosen to collide in a dict."""
        if not 0 <= place <= len(self.memo) + 1:
            raise _Refused("is damaged: it remembers things in no order; fetch it again")
        self.memo[place] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        _expect(self.stack[-1], list, "a list to append to").extend(values)

    def update(self, values: list[Any]) -> None:
        target = _expect(self.stack[-1], dict, "a dict to fill")
        for key, value in _pairs(zip(values[::2], values[1::2], strict=True)):
            target[key] = value


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "MARK": _Machine.mark,
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE1": lambda machine, _: machine.push((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.push((machine.pop(), machine.pop())[::-1]),
    "TUPLE3": lambda machine, _: machine.push((machine.pop(), machine.pop(), machine.pop())[::-1]),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.marked())),
    "LIST": lambda machine, _: machine.push(machine.marked()),
    "DICT": lambda machine, _: machine.push(_dict(list(zip(*[iter(machine.marked())] * 2, strict=True)))),
    "APPEND": lambda machine, _: machine.extend([machine.pop()]),
    "APPENDS": lambda machine, _: machine.extend(machine.marked()),
    "SETITEM": lambda machine, _: machine.update([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.update(machine.marked()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, place: machine.push(machine.memo[place])),
    "GLOBAL": _Machine.name,
    "BINPERSID": _Machine.persistent,
    "NEWOBJ": _Machine.new,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise _Refused(f"is damaged: expected {what}, found {type(value).__name__.strip('_')}; fetch it again")
    return value


def _refuse_call(function: _Name) -> NoReturn:
    name = function.name.replace(" ", ".")
    raise _Refused(f"calls {name} in a way that no such file needs; nothing of it was run")


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise _Refused("is damaged: expected sizes that are whole numbers from 0; fetch it again")
    return value


def _pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    """Keys, which are short strings, and values: numbers can be chosen to collide, and long strings are compared."""
    for key, value in items:
        if len(_expect(key, str, "names as keys")) > LONGEST_KEY:
            raise _Refused(f"is damaged: a name has {len(key):,} characters; fetch it again")
        yield key, value


def _dict(*entries: Any) -> dict[Any, Any]:
    """An ordered dict; Python 2 writes its entries as a list of lists."""
    return dict(pair for items in entries for pair in _pairs(_expect(items, list, "a list of entries")))


def _view(storage: Any, offset: Any, size: Any, stride: Any) -> _View:
    """A tensor that lies within its storage and is no larger, so that none takes more memory than the file."""
    row = _expect(storage, _Storage, "a storage below a tensor")
    if not len(_expect(size, tuple, "sizes")) == len(_expect(stride, tuple, "strides")) <= DIMENSIONS:
        raise _Refused(f"is damaged: a tensor has {len(size)} sides and {len(stride)} strides; fetch it again")
    sides = [(_natural(n), _natural(step) if n > 1 else 0) for n, step in zip(size, stride, strict=True)]
    last = _natural(offset) + sum((n - 1) * step for n, step in sides)
    count = math.prod(size)
    if not 0 < count <= row.count or last >= row.count:
        raise _Refused(f"is damaged: a tensor of {count} elements leaves its storage of {row.count}; fetch it again")
    return _View(row, offset, size, tuple(step for _, step in sides))


def _parameter(data: Any, *_: Any) -> _View:
    return _expect(data, _View, "a tensor in a parameter")


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _dict,
    "__builtin__ set": lambda *_: (),
    "torch._utils _rebuild_tensor": _view,
    "torch._utils _rebuild_tensor_v2": lambda storage, offset, size, stride, *_: _view(storage, offset, size, stride),
    "torch._utils _rebuild_parameter": _parameter,
    "torch.nn.backends.thnn _get_thnn_function_backend": lambda: None,
    PARAMETER: _parameter,
}
"""What is done where the file calls: for the names on the left, by the functions on the right."""
ADMITTED = frozenset((*MODULES, *STORAGES, *_CALLS))
"""All names that a file may hold, as "module name"."""
