"""From captions and noise to poses: seeds, batches, interpolations, encoders, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from caption_weights import Encoder, captioned, plain
from drawing_weights import save

from fastpose import ops
from fastpose.training import caption_data, caption_generation, caption_pictures
from fastpose.training.caption_generation import PoseGenerator

TEXTS = ["a man playing tennis", "a woman doing yoga"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("captions")


@pytest.fixture(scope="module")
def weights(folder) -> Path:
    return captioned(folder)


@pytest.fixture(scope="module")
def generator(weights) -> PoseGenerator:
    return PoseGenerator.from_weights(weights, Encoder())


@pytest.fixture(scope="module")
def free(folder) -> PoseGenerator:
    """An unconditional one."""
    return PoseGenerator.from_weights(plain(folder))


def test_a_caption_and_a_seed_give_the_same_poses_whatever_else_is_asked(generator):
    few = generator(TEXTS[:1], 3, seed=7)
    torch.manual_seed(99)
    many = generator([TEXTS[1], TEXTS[0]], 40, seed=7)  # more than a batch
    assert (len(few), len(many)) == (3, 80)
    assert many.captions == (TEXTS[1],) * 40 + (TEXTS[0],) * 40
    assert np.array_equal(few.keypoints, many.keypoints[40:43])
    assert np.allclose(few.scores, many.scores[40:43], atol=1e-6)
    assert not np.array_equal(few.keypoints, many.keypoints[:3])  # the caption counts
    assert not np.array_equal(few.keypoints, generator(TEXTS[0], 3, seed=8).keypoints)  # so does the seed
    assert not np.array_equal(few.keypoints[0], few.keypoints[1])


def test_noise_is_normal_and_a_longer_one_begins_like_a_shorter_one(generator):
    noise = generator.noise(4000, seed=3)
    assert noise.shape == (4000, 8)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert torch.equal(noise[:5], generator.noise(5, seed=3))
    assert not torch.equal(noise[:5], generator.noise(5, seed=4))


def test_an_unconditional_network_takes_no_caption(free):
    assert not free.conditional
    poses = free(None, 5)
    assert poses.keypoints.shape == (5, 17, 2)
    assert poses.captions == ("",) * 5
    assert len(free.interpolate_noise()) == 5
    for call in (lambda: free(TEXTS), lambda: free.encode(TEXTS), lambda: free.interpolate_captions(*TEXTS)):
        with pytest.raises(ValueError, match="captions: the network is unconditional"):
            call()


def test_heatmaps_are_read_by_their_maximum_and_low_ones_are_absent():
    points = torch.rand(2, 17, 2).mul(60).round()
    heatmaps = ops.render_gaussian_heatmaps(points, (64, 64), 2.0)
    heatmaps[1, 3] *= 0.19
    heatmaps[1, 4] *= 0.21
    poses = caption_generation.read(heatmaps, ["a", "b"])
    assert poses.visibility.sum() == 2 * 17 - 1
    assert not poses.visibility[1, 3]
    assert poses.keypoints[1, 3].tolist() == [0, 0]
    seen = poses.visibility
    assert np.array_equal(poses.keypoints[seen], points.numpy()[seen])
    assert poses.scores[1, 3:5].tolist() == pytest.approx([0.19, 0.21])
    assert poses.captions == ("a", "b")
    assert (poses.keypoints.dtype, poses.visibility.dtype, poses.scores.dtype) == (np.float32, bool, np.float32)


def test_an_interpolation_begins_and_ends_with_what_it_lies_between(generator):
    two = generator(TEXTS[0], 2, seed=5)
    line = generator.interpolate_noise(TEXTS[0], seed=5)
    assert np.array_equal(line.keypoints[[0, -1]], two.keypoints)
    assert line.captions == (TEXTS[0],) * 5
    ends = generator(TEXTS, 1, seed=5)
    line = generator.interpolate_captions(*TEXTS, 7, seed=5, spherical=True)
    assert np.array_equal(line.keypoints[[0, -1]], ends.keypoints)
    assert line.captions == (TEXTS[0], *[""] * 5, TEXTS[1])
    inputs = generator.caption_inputs(*TEXTS, 3)
    assert torch.allclose(inputs.vectors[1], generator.encode(TEXTS).mean(0), atol=1e-6)
    assert torch.equal(inputs.noise[0], inputs.noise[2])


def test_between_goes_along_a_line_or_an_arc():
    first, last = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    line = caption_generation.between(first, last, 5)
    assert torch.allclose(line, torch.tensor([[2 - x, x, 0.0] for x in (0, 0.5, 1, 1.5, 2)]))
    arc = caption_generation.between(first, last, 5, spherical=True)
    assert torch.allclose(arc.norm(dim=1), torch.full((5,), 2.0))
    assert torch.allclose(arc[2], torch.tensor([2**0.5, 2**0.5, 0.0]))
    assert torch.equal(arc[[0, -1]], torch.stack([first, last]))
    back = caption_generation.between(first, -first, 3, spherical=True)  # no arc is the shortest
    assert back.isfinite().all()
    with pytest.raises(ValueError, match="steps: expected a whole number of 2 or more, got 1"):
        caption_generation.between(first, last, 1)


def test_the_vectors_are_scaled_as_in_the_training(generator):
    assert np.allclose(generator.encode(TEXTS).numpy(), 30 * Encoder()(TEXTS))


def test_modes_and_random_state_stay_as_they_were(generator):
    generator.network.train()
    generator.network.last.eval()
    state = torch.get_rng_state()
    first = generator(TEXTS, 2)
    assert generator.network.training
    assert not generator.network.last.training
    assert torch.equal(torch.get_rng_state(), state)
    generator.network.eval()
    assert np.array_equal(first.keypoints, generator(TEXTS, 2).keypoints)


@pytest.mark.parametrize(
    ("captions", "count", "seed", "sentence"),
    [
        (None, 1, 0, "expected at least one, got none"),
        ([], 1, 0, "expected at least one, got none"),
        (["a", "  "], 1, 0, "captions: expected texts with a word in each, got '  '"),
        ([3], 1, 0, "captions: expected texts with a word in each, got 3"),
        (["a"], 0, 0, "count: expected a whole number of 1 or more, got 0"),
        (["a"], True, 0, "count: expected a whole number"),
        (["a"], 2.0, 0, "count: expected a whole number"),
        (["a"], 1, -1, "seed: expected a whole number of 0 or more, got -1"),
        (["a"], 1, 2**63, "seed: expected a whole number"),
    ],
)
def test_bad_arguments_are_one_sentence(generator, captions, count, seed, sentence):
    with pytest.raises(ValueError, match=sentence):
        generator(captions, count, seed)


def test_the_encoder_is_that_of_the_training(folder, weights):
    with pytest.raises(ValueError, match=r"text.encoder: captions need a text encoder; pass minilm"):
        PoseGenerator.from_weights(weights)
    with pytest.raises(ValueError, match="fingerprint 0123456789abcdef, got toy, fingerprint fedcba9876543210"):
        PoseGenerator.from_weights(weights, Encoder("fedcba9876543210"))
    with pytest.raises(ValueError, match=r"expected vectors of 12 numbers, .*got 384 of minilm"):
        PoseGenerator.from_weights(weights, "sample")
    generator = PoseGenerator.from_weights(weights, Encoder())
    config = replace(generator.config, text=replace(generator.config.text, size=0, fingerprint=""))
    with pytest.raises(ValueError, match="encoder toy: gives 9 numbers, the network takes 12"):
        PoseGenerator(generator.network, config, Encoder(size=9))


def test_an_unconditional_network_takes_no_encoder(free):
    with pytest.raises(ValueError, match="encoder: the network is unconditional, and reads no captions"):
        PoseGenerator(free.network, free.config, Encoder())


def test_a_network_that_gives_nan_is_refused(tmp_path):
    broken = PoseGenerator.from_weights(captioned(tmp_path, value=float("nan")), Encoder())
    with pytest.raises(ValueError, match="network: gives NaN or infinite values"):
        broken(TEXTS)


def test_weights_of_another_system_make_no_poses(tmp_path):
    with pytest.raises(ValueError, match="system sagan: makes no poses; expected weights of poses from captions"):
        PoseGenerator.from_weights(save(tmp_path, "sagan/tiny"))


# ---- pictures --------------------------------------------------------------------------------------------------


def test_pictures_of_a_run_show_what_the_thesis_shows(generator, free):
    dataset = caption_data.validation_dataset(
        caption_data.source(generator.config.data, "validation", True), generator.config.data, 0
    )
    pictures = caption_pictures.samples(generator, dataset, captions=3)
    assert set(pictures) == {"captions", "noise", "between_captions"}
    others = caption_pictures.samples(free, dataset)
    assert set(others) == {"poses", "noise"}
    for picture in (*pictures.values(), *others.values()):
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
    again = caption_pictures.samples(generator, dataset, captions=3)
    assert all(np.array_equal(again[name], picture) for name, picture in pictures.items())
