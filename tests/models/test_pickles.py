"""Whole networks in PyTorch's old files: what Python 2 wrote is read, and nothing else, and nothing runs."""

import random
import sys
import types

import pytest
import torch
from python2_pickles import (
    LIST,
    NET,
    Call,
    Elsewhere,
    Global,
    New,
    Raw,
    Writer,
    as_call,
    as_new,
    as_rebuilt,
    emit,
    module,
    published_weights,
    tensor,
    whole,
)
from torch import nn

from fastpose import models
from fastpose.models import pickles
from fastpose.models.pickles import START, is_module_pickle, read_module_pickle


@pytest.fixture(scope="module")
def weights():
    return published_weights(regressor_modules=1)


@pytest.fixture
def written(tmp_path):
    """Write bytes to a file and return its path."""

    def write(data):
        (tmp_path / "model_30.pth").write_bytes(data)
        return tmp_path / "model_30.pth"

    return write


def sentence(path):
    """The one sentence with which a file is refused."""
    with pytest.raises(ValueError, match=r"^checkpoint .*model_30\.pth: ") as caught:
        read_module_pickle(path)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    return text


# ------------------------------------------------------------------------------------------------- what should be read


@pytest.mark.parametrize("parameter", [as_new, as_call, as_rebuilt])
def test_a_network_of_python_2_comes_back(weights, written, parameter):
    writer = Writer(weights, parameter)
    path = written(whole(writer.network, writer.storages))
    assert is_module_pickle(path)
    found = read_module_pickle(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], t) for key, t in weights.items())


def test_the_network_that_is_read_is_imported_and_gives_the_same(weights, written):
    writer = Writer(weights, as_new)
    image = torch.randn(1, 3, 64, 64)
    state = read_module_pickle(written(whole(writer.network, writer.storages)))
    found, expected = (models.import_published("pose3d.generator", each) for each in (state, weights))
    torch.testing.assert_close(found(image), expected(image))


@pytest.fixture
def hg3d(monkeypatch):
    """Classes of PyTorch under the names of the authors' modules."""
    for name in ("models", "models.hg_3d", "models.layers", "models.layers.Residual"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for place, name in (("hg_3d", "HourglassNet3D"), ("hg_3d", "Hourglass"), ("layers.Residual", "Residual")):
        kind = type(name, (nn.Module,), {"__module__": f"models.{place}"})
        setattr(sys.modules[f"models.{place}"], name, kind)
    return sys.modules["models.hg_3d"]


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_what_this_pytorch_pickles_comes_back_with_shared_parts(hg3d, tmp_path):
    network, relu = hg3d.HourglassNet3D(), nn.ReLU(inplace=True)
    network.relu = relu
    network.lin_ = nn.ModuleList([nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), relu) for _ in range(2)])
    network.hourglass = nn.ModuleList([hg3d.Hourglass()])
    network.hourglass[0].up2, network.hourglass[0].low1 = nn.Upsample(scale_factor=2), nn.MaxPool2d(2)
    network.reg = nn.Linear(4, 3).double()
    path = tmp_path / "whole.pth"
    torch.save(network, path, _use_new_zipfile_serialization=False)
    found, expected = read_module_pickle(path), network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], t) and found[key].dtype == t.dtype for key, t in expected.items())


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"state_dict": state}])
def test_a_state_dict_in_such_a_file_will_do(tmp_path, wrap):
    state = nn.Linear(3, 2).state_dict()
    torch.save(wrap(dict(state)), tmp_path / "state.pth", _use_new_zipfile_serialization=False)
    found = read_module_pickle(tmp_path / "state.pth")
    assert all(torch.equal(found[key], t) for key, t in state.items())


def test_tensors_may_share_a_storage_and_stand_in_any_order(written):
    row = torch.arange(12.0)
    parts = [("turned", tensor("0", 12, (3, 2), (1, 3), 2)), ("one", tensor("0", 12, (), (), 11))]
    found = read_module_pickle(written(whole(module(NET, parts), [("0", row)])))
    assert torch.equal(found["turned"], row[2:8].view(2, 3).T)
    assert found["one"].item() == 11


def test_other_files_are_no_module_pickles(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "zip.pth")
    (tmp_path / "empty.pth").touch()
    assert not any(is_module_pickle(tmp_path / name) for name in ("zip.pth", "empty.pth", "none.pth", "."))
    with pytest.raises(ValueError, match=r"expected a network pickled by PyTorch before 1\.6"):
        read_module_pickle(tmp_path / "zip.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file"):
        read_module_pickle(tmp_path / "none.pth")


# ----------------------------------------------------------------------------------------------- what should be refused


def shell(tmp_path):
    return f"touch {tmp_path / 'ran'}"


HOSTILE = {
    "os.system": lambda line: Call(Global("os", "system"), (line,)),
    "posix.system": lambda line: Call(Global("posix", "system"), (line,)),
    "builtins.eval": lambda line: Call(Global("builtins", "eval"), (f"__import__('os').system({line!r})",)),
    "__builtin__.eval": lambda line: Call(Global("__builtin__", "eval"), ("1",)),
    "__builtin__.getattr": lambda line: Call(Global("__builtin__", "getattr"), (Global(*NET), "__init__")),
    "torch.load": lambda line: Call(Global("torch", "load"), (line,)),
    "torch.hub.load": lambda line: Global("torch.hub", "load"),
    "torch._utils._rebuild_device_tensor_from_numpy": lambda line: Global(
        "torch._utils", "_rebuild_device_tensor_from_numpy"
    ),
    "torch.nn.modules.conv.Conv1d": lambda line: module(("torch.nn.modules.conv", "Conv1d")),
    "models.hg_3d.os.system": lambda line: Call(Global("models.hg_3d", "os.system"), (line,)),
    "subprocess.Popen": lambda line: module(NET, __reduce__=Global("subprocess", "Popen")),
    "os.path": lambda line: Elsewhere(("module", Global("os", "path"), line, line)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_other_names_are_refused_by_name_and_nothing_runs(written, tmp_path, name):
    text = sentence(written(whole(HOSTILE[name](shell(tmp_path)))))
    assert f"names {name}, which is none of the classes and functions that are read" in text
    assert not (tmp_path / "ran").exists()


def doubled(levels):
    """A pair of a pair of ..., each remembered and taken twice: 5 bytes a level, twice as many leaves."""
    return b"NN\x86q\x00" + b"".join(bytes((*b"h", n, *b"\x86q", n + 1)) for n in range(levels))


EMPTY = Call(Global("collections", "OrderedDict"), ())
ODD = {
    "a class called": Call(Global(*NET), ("x",)),
    "a class called without arguments": Call(Global(*NET), ()),
    "a class instantiated with arguments": New(Global(*NET), ("x",)),
    "a function instantiated": New(Global("torch._utils", "_rebuild_tensor"), ()),
    "a dict with odd arguments": Call(Global("collections", "OrderedDict"), ("ab",)),
    "a dict with unhashable keys": Call(Global("collections", "OrderedDict"), ([[[], 1]],)),
    "a function with too few arguments": Call(Global("torch._utils", "_rebuild_tensor"), ()),
    "a tensor over a string": Call(Global("torch._utils", "_rebuild_tensor"), ("x", 0, (1,), (1,))),
    "a parameter around a string": Call(Global("torch.nn.parameter", "Parameter"), ("x",)),
    "attributes of a class": Raw(emit(Global(*NET)) + emit({"__setstate__": Global(*NET)}) + b"b"),
    "attributes of a dict": Raw(emit(EMPTY) + emit({"a": 1}) + b"b"),
    "attributes in slots": New(Global(*NET), (), (None, {"__class__": Global(*NET)})),
    "attributes that are no dict": New(Global(*NET), (), "x"),
    "attributes twice": Raw(emit(module(NET)) + emit({"_modules": EMPTY}) + b"b"),
    "a call of a string": Call("x", ()),
    "a call with a list": Raw(emit(Global("collections", "OrderedDict")) + emit([]) + b"R"),
    "a module without parts": New(Global(*NET), (), {"training": True}),
    "a module with strings for tensors": module(NET, [("weight", "x")]),
    "a module with a tensor for a module": module(NET, modules=[("part", 3)]),
    "a number alone": 3,
    "a dict of numbers": {"a": 3},
    "a dict in a dict": {"state_dict": 3},
    "a word elsewhere": Elsewhere("storage"),
    "nothing elsewhere": Elsewhere(()),
    "a storage without a type": Elsewhere(("storage", "FloatStorage", "0", "cpu", 1, None)),
    "a storage of a class": Elsewhere(("storage", Global(*NET), "0", "cpu", 1, None)),
    "a part of a storage": Elsewhere(("storage", Global("torch", "FloatStorage"), "0", "cpu", 1, ("1", 0, 1))),
    "a storage of -1": tensor("0", -1, (1,)),
    "a storage of text": tensor("0", "9", (1,)),
    "a storage of True": tensor("0", True, (1,)),
    "instructions of other protocols": Raw(b"\x8c\x01a"),
    "an instance of protocol 0": Raw(b"(imodels.hg_3d\nHourglassNet3D\n"),
    "an extension": Raw(b"\x82\x01"),
    "bytes that are no instruction": Raw(b"\xff"),
    "an empty stack": Raw(b"0"),
    "a tuple of nothing": Raw(b"t"),
    "what was not remembered": Raw(b"h\x07"),
    "two results": Raw(b"NN"),
    "a mark taken": Raw(b"N(\x85"),
    "half a pair": Raw(b"}(Nu"),
    "a number of 5,000 digits": Raw(b"L" + b"9" * 5000 + b"L\n"),
    "pairs that double elsewhere": Raw(doubled(60) + b"\x85Q"),
    "tuples 5,000 deep elsewhere": Raw(b"N" + b"\x85" * 5000 + b"\x85Q"),
    "pairs that double as a size": Call(Global("torch._utils", "_rebuild_tensor"), (3, 0, Raw(doubled(60)), ())),
    "pairs that double as a key": Raw(b"}" + doubled(60) + b"Ns"),
    "a list of what is no pair": Call(Global("collections", "OrderedDict"), (["abc"],)),
    "names that collide": Raw(b"}(" + b"".join(b"L%dL\nN" % (n * (2**61 - 1)) for n in range(9)) + b"u"),
    "a long name": {"a" * 201: None},
    "a place far away": Raw(b"Np9999999999\n"),
    "a place below none": Raw(b"Np-1\n"),
    "a name that a terminal obeys": module(NET, [("\x1b[31m", tensor("0", 1))]),
    "a name of half a character": Raw(b"X\x03\x00\x00\x00\xed\xa0\x80"),
    "a key that a terminal obeys": {"\x1b[31m": tensor("0", 1)},
    "a key of two lines": {"a\nb": tensor("0", 1)},
    "a part's name with dots": module(NET, modules=[("a.b", module(LIST, [("c", tensor("0", 1))]))]),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_uses_of_known_names_get_one_sentence(written, what):
    row = torch.zeros(1)
    for storages in ((), [("0", row)]):
        sentence(written(whole(ODD[what], storages)))


def test_a_setstate_among_the_attributes_is_a_word_like_any_other(written):
    network = module(NET, [("a", tensor("0", 2))], __setstate__=Global(*NET), __class__=Global(*NET))
    assert read_module_pickle(written(whole(network, [("0", torch.ones(2))])))["a"].tolist() == [1, 1]


LYING = {
    "leaves": (tensor("0", 4, (5,)), "a tensor of 5 elements leaves its storage of 4"),
    "behind": (tensor("0", 4, (2,), (1,), 3), "a tensor of 2 elements leaves its storage of 4"),
    "stretched": (tensor("0", 4, (10**6, 10**6), (0, 0)), "a tensor of 1000000000000 elements leaves"),
    "wide": (tensor("0", 4, (2,), (10**15,)), "a tensor of 2 elements leaves"),
    "empty": (tensor("0", 4, (0, 10**18), (1, 1)), "a tensor of 0 elements leaves"),
    "negative": (tensor("0", 4, (-1, -4), (1, 1)), "expected sizes that are whole numbers from 0"),
    "backwards": (tensor("0", 4, (4,), (-1,), 3), "expected sizes that are whole numbers from 0"),
    "uneven": (tensor("0", 4, (2, 2), (1,)), "a tensor has 2 sides and 1 strides"),
    "many sides": (tensor("0", 4, (1,) * 9, (1,) * 9), "a tensor has 9 sides and 9 strides"),
    "announced larger": (tensor("0", 2**50), "is truncated at"),
    "announced smaller": (tensor("0", 3), "storage '0' has not the 3 elements"),
    "another key": (tensor("1", 4), "the list of its storages differs"),
}


@pytest.mark.parametrize("what", LYING)
def test_sizes_that_do_not_fit_the_file_get_one_sentence(written, what):
    part, expected = LYING[what]
    assert expected in sentence(written(whole(module(NET, [("a", part)]), [("0", torch.ones(4))])))


def test_a_storage_announced_twice_differently_gets_one_sentence(written):
    network = module(NET, [("a", tensor("0", 4)), ("b", tensor("0", 2))])
    assert "announced twice, and differently" in sentence(written(whole(network, [("0", torch.ones(4))])))


def test_another_version_or_byte_order_gets_one_sentence(written):
    assert "expected version 1001" in sentence(written(whole(module(NET), version=7)))
    assert "little-endian" in sentence(written(whole(module(NET), little=False)))


def nested(levels):
    """A module that holds another twice, which holds another twice ...: the second of each is only remembered."""
    network = module(LIST)
    for level in range(levels):
        place = bytes([level])
        twice = [("a", Raw(emit(network) + b"q" + place)), ("b", Raw(b"h" + place))]
        network = module(LIST, modules=twice)
    return network


@pytest.mark.parametrize("levels", [30, 40])
def test_modules_that_multiply_are_refused_before_they_fill_the_memory(written, levels):
    assert "found a larger one" in sentence(written(whole(nested(levels))))


def test_a_module_within_itself_is_refused(written):
    code = (
        emit(New(Global(*NET), ()))
        + b"q\x00"
        + emit({"_parameters": {}, "_buffers": {}, "_modules": {"a": Raw(b"h\x00")}})
    )
    assert "found a larger one" in sentence(written(whole(Raw(code + b"b"))))


def test_lists_copied_over_and_over_are_refused(written):
    copy = emit(Global("collections", "OrderedDict")) + b"h\x00\x85R"
    code = emit([["key", 1]] * 2000) + b"q\x00" + b"(" + copy * 2000 + b"t\x86"
    assert "copies lists over and over" in sentence(written(whole(Raw(code))))


def test_long_names_around_many_parts_are_refused_before_they_fill_the_memory(written):
    inner = [("0", Raw(emit(module(LIST)) + b"q\x00")), *((str(n), Raw(b"h\x00")) for n in range(1, 5000))]
    network = module(LIST, modules=[("a" * 150, module(LIST, modules=[("b" * 47, module(LIST, modules=inner))]))])
    assert "expected keys of at most 200 letters" in sentence(written(whole(network)))
    long = module(LIST, modules=[("a" * 100_000, module(LIST, modules=inner))])
    assert "a name has 100,000 characters" in sentence(written(whole(long)))


def test_calls_with_one_long_tuple_over_and_over_are_refused(written):
    for first, again in ((Global("__builtin__", "set"), b"R"), (Global("torch.nn.parameter", "Parameter"), b"\x81")):
        code = b"(" + emit(tensor("0", 1)) + b"N" * 2000 + b"tq\x00" + (emit(first) + b"h\x00" + again) * 2000
        assert "copies lists over and over" in sentence(written(whole(Raw(code), [("0", torch.zeros(1))])))


def test_tensors_larger_than_the_file_together_are_refused(written):
    part = Raw(emit(tensor("0", 1000)) + b"q\x00")
    network = module(NET, [("a", part), *((f"a{n}", Raw(b"h\x00")) for n in range(99))])
    assert "are together larger than it" in sentence(written(whole(network, [("0", torch.zeros(1000))])))


def test_more_operations_than_any_network_needs_are_refused(written, monkeypatch):
    monkeypatch.setattr(pickles, "OPERATIONS", 1000)
    assert "at most 1,000 operations" in sentence(written(whole(Raw(b"}" * 1001))))


def test_every_truncation_gets_one_sentence(weights, written):
    few = {key: t for key, t in weights.items() if key.startswith(("conv1_", "bn1", "reg."))}
    writer = Writer(few, as_new)
    data = whole(writer.network, writer.storages)
    assert read_module_pickle(written(data)).keys() == few.keys()
    for end in [*range(len(START), len(data), 17), len(data) - 1]:
        assert any(word in sentence(written(data[:end])) for word in ("truncated", "damaged"))


def test_changed_bytes_are_read_or_get_one_sentence(weights, written):
    few = {key: t for key, t in weights.items() if key.startswith(("conv1_", "bn1"))}
    writer = Writer(few, as_call)
    data = whole(writer.network, writer.storages)
    rng, refused = random.Random(0), 0
    for _ in range(600):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(START), len(data))] = rng.randrange(256)
        try:
            read_module_pickle(written(bytes(changed)))
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017 - most files are refused, not all
            refused += 1
    assert refused > 100
