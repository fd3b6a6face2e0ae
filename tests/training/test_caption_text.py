"""Captions as vectors: which encoder fits, each caption encoded once, and a hint where it takes long."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fastpose.data import captions
from fastpose.training import caption_text
from fastpose.training.caption_config import CaptionConfig, GeneratorConfig, TextConfig


class Encoder:
    """Vectors of three numbers; notes what it was asked."""

    name, size, fingerprint = "three", 3, "0123abcd"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), ord(text[0]), 1.0] for text in texts], np.float32)


def config(**text: Any) -> CaptionConfig:
    return CaptionConfig(text=TextConfig(**text))


def test_vectors_are_scaled_and_each_caption_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_text, "BLOCK", 2)
    encoder = Encoder()
    found = caption_text.encode(encoder, ["bb", "a", "bb", "ccc", "a"], TextConfig(scale=10.0))
    assert encoder.asked == ["bb", "a", "ccc"]
    assert found.dtype == np.float32
    assert found[:, 0].tolist() == [20, 10, 20, 30, 10]
    assert found[:, 2].tolist() == [10] * 5
    assert caption_text.encode(encoder, [], TextConfig()).shape == (0, 3)


def test_a_long_wait_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(caption_text, "BLOCK", 1)
    monkeypatch.setattr(caption_text, "PATIENCE", -1.0)
    with caplog.at_level(logging.WARNING, "fastpose.training"):
        caption_text.encode(Encoder(), ["a", "b", "c"], TextConfig(), what="captions of coco val")
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "captions of coco val: 1 of 3 are vectors",
        "captions of coco val: 2 of 3 are vectors",
    ]


@pytest.mark.parametrize("vectors", [np.zeros((1, 3), np.float32), np.full((2, 3), np.nan, np.float32), None])
def test_an_encoder_that_gives_something_else_is_one_sentence(vectors: Any) -> None:
    encoder = Encoder()
    encoder.__class__ = type("Bad", (Encoder,), {"__call__": lambda self, texts: vectors})
    with pytest.raises(ValueError, match=r"text encoder three: expected finite vectors \(2, 3\), got"):
        caption_text.encode(encoder, ["a", "b"], TextConfig())


def test_a_table_is_made_once_for_each_data_set() -> None:
    encoder, source = Encoder(), captions.sample("val")
    tables = caption_text.Tables(encoder, TextConfig())
    table = tables.of(source)
    assert table.shape == (len(source.captions), 3)
    assert len(encoder.asked) == len(set(source.captions))
    assert table[7, 0] == 30 * len(source.captions[7])
    assert tables.of(source) is table
    assert tables.of(source, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    assert len(encoder.asked) == len(set(source.captions))
    with pytest.raises(ValueError, match="text encoder: expected one"):
        caption_text.Tables(None, TextConfig()).of(source)


def test_the_encoder_of_the_training_is_asked_for() -> None:
    caption_text.check_encoder(Encoder(), config())
    caption_text.check_encoder(Encoder(), config(size=3, fingerprint="0123abcd"))
    caption_text.check_encoder(None, replace(config(), model=GeneratorConfig(conditional=False)))


@pytest.mark.parametrize(
    ("encoder", "text", "sentence"),
    [
        (None, {"encoder": "minilm"}, r"expected the one of the training \(text\.encoder=minilm\), got none; pass it"),
        (Encoder(), {"size": 384}, r"expected vectors of 384 numbers, as the model knows, got 3 of three; pass"),
        (Encoder(), {"fingerprint": "ff"}, r"of the training, fingerprint ff, got three, fingerprint 0123abcd; pass"),
    ],
)
def test_another_encoder_is_one_sentence(encoder: Any, text: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        caption_text.check_encoder(encoder, config(**text))


def test_an_unconditional_model_wants_none() -> None:
    with pytest.raises(ValueError, match="expected none, as the model sees no captions, got three"):
        caption_text.check_encoder(Encoder(), replace(config(), model=GeneratorConfig(conditional=False)))


def test_a_configuration_is_completed_by_the_encoder() -> None:
    found = caption_text.completed(config(), Encoder()).text
    assert (found.size, found.fingerprint) == (3, "0123abcd")
    assert caption_text.completed(config(), None) == config()
    assert [caption_text.size(text) for text in (TextConfig(), found)] == [300, 3]
