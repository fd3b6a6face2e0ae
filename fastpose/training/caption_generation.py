"""From captions, or from noise alone, to poses: a generator with its text encoder, and what its heatmaps say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastpose import _checks
from fastpose.models.looking import evaluating
from fastpose.skeletons import COCO
from fastpose.training import caption_data
from fastpose.training.estimation import device_of

if TYPE_CHECKING:
    from fastpose.data.text import TextEncoder
    from fastpose.models.caption import Generator

BATCH = 64
"""Poses generated at a time."""

STEPS = 5
"""Poses of an interpolation (system 004, section 4.4.1)."""

_UNCONDITIONAL = "captions: the network is unconditional, and makes poses from noise alone; leave them out"


@dataclass(frozen=True)
class GeneratedPoses:
    """N generated poses.

    Attributes:
        keypoints: float32 (N, 17, 2) as (x, y) in pixels of the 64 x 64 map; 0 where a joint is absent.
        visibility: bool (N, 17), whether a joint is present.
        scores: float32 (N, 17), heights of the heatmap maxima in [0, 1].
        captions: of each pose; empty where it has none: without a condition, and between two captions.
    """

    keypoints: np.ndarray
    visibility: np.ndarray
    scores: np.ndarray
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)


class Inputs(NamedTuple):
    """What N poses are made of: ``generator.poses(*inputs)``.

    Attributes:
        noise: float32 (N, Z).
        vectors: float32 (N, T), the captions' as the network wants them; None for an unconditional one.
        captions: of each pose, as `GeneratedPoses` has them.
    """

    noise: Tensor
    vectors: Tensor | None
    captions: tuple[str, ...]


class PoseGenerator:
    """A generator of poses with everything that its captions and its heatmaps need.

    Args:
        network: noise (B, Z), and of a conditional one vectors of captions (B, T) -> heatmaps (B, 17, 64, 64) in
            [-1, 1]. It is put in evaluation mode for each call; each of its modules is given back in the mode it had.
        config: the configuration it was trained with; its section ``text`` is used.
        encoder: of captions: what `data.text.create` takes, or such an encoder; None takes the one that the
            configuration names. It must be the one of the training.

    Raises:
        ValueError: a conditional network without an encoder or with another one, an encoder for an unconditional one.

    Example::

        generator = PoseGenerator.from_weights("runs/caption/wgan-lp/run/weights/best.safetensors")
        poses = generator(["a man playing tennis"], count=16, seed=1)
    """

    skeleton = COCO
    size = caption_data.SIZE

    def __init__(self, network: Generator, config: Any, encoder: TextEncoder | str | None = None) -> None:
        self.network = network
        self.config = config
        self.encoder = _encoder(network, config, encoder)

    @classmethod
    def from_weights(
        cls, path: str | Path, encoder: TextEncoder | str | None = None, *, device: str | torch.device = "cpu"
    ) -> PoseGenerator:
        """Return the generator of weights that a training run wrote; ``ValueError`` where they make no poses."""
        from fastpose.training import systems

        system, config, network = systems.load_network(path)
        return systems.generator(system, network.to(device), config, encoder)

    @property
    def conditional(self) -> bool:
        """Whether the network wants captions."""
        return self.network.text_size > 0

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return device_of(self.network)

    @property
    def origin(self) -> dict[str, str | None]:
        """What its captions mean, as JSON values: ``encoder`` and its ``fingerprint``, None without one."""
        encoder = self.encoder
        if encoder is None:
            return {"encoder": None, "fingerprint": None}
        return {"encoder": encoder.name, "fingerprint": encoder.fingerprint}

    def __call__(self, captions: Sequence[str] | str | None = None, count: int = 1, seed: int = 0) -> GeneratedPoses:
        """Return ``count`` poses of each caption, those of the first caption first.

        Args:
            captions: texts; None for an unconditional network.
            count: poses of each caption, 1 or more.
            seed: of the noise, 0 or more. Pose k of every caption is made of the same noise, which depends on
                ``seed`` and k alone.

        Raises:
            ValueError: no or an empty caption, captions for an unconditional network, a count or a seed that is none,
                or a network that gives NaN or infinite values.
        """
        return self.poses(*self.inputs(captions, count, seed))

    def interpolate_noise(
        self, caption: str | None = None, steps: int = STEPS, seed: int = 0, *, spherical: bool = False
    ) -> GeneratedPoses:
        """Return poses of one caption whose noise goes from that of pose 0 to that of pose 1, ends included.

        In a straight line (system 004, figure 19), or with ``spherical`` along the arc between them.
        """
        return self.poses(*self.noise_inputs(caption, steps, seed, spherical=spherical))

    def interpolate_captions(
        self, first: str, second: str, steps: int = STEPS, seed: int = 0, *, spherical: bool = False
    ) -> GeneratedPoses:
        """Return poses of one noise whose caption vector goes from one caption to another, ends included.

        In a straight line (system 004, figure 20), or with ``spherical`` along the arc between them. Poses between the
        two have the caption "", as no text has their vector.
        """
        return self.poses(*self.caption_inputs(first, second, steps, seed, spherical=spherical))

    def inputs(self, captions: Sequence[str] | str | None = None, count: int = 1, seed: int = 0) -> Inputs:
        """Return what the generator makes the poses of a call of; raises as the call, but for the network's."""
        texts = self._texts(captions)
        noise = self.noise(count, seed).repeat(max(1, len(texts)), 1)  # (N, Z), by caption
        vectors = self.encode(texts).repeat_interleave(count, 0) if texts else None  # (N, T)
        return Inputs(noise, vectors, tuple(text for text in texts or [""] for _ in range(count)))

    def noise_inputs(
        self, caption: str | None = None, steps: int = STEPS, seed: int = 0, *, spherical: bool = False
    ) -> Inputs:
        """Return what `interpolate_noise` makes its poses of."""
        texts = self._texts(caption)
        first, last = self.noise(2, seed)
        noise = between(first, last, steps, spherical=spherical)  # (S, Z)
        vectors = self.encode(texts).expand(steps, -1) if texts else None
        return Inputs(noise, vectors, (texts[0] if texts else "",) * steps)

    def caption_inputs(
        self, first: str, second: str, steps: int = STEPS, seed: int = 0, *, spherical: bool = False
    ) -> Inputs:
        """Return what `interpolate_captions` makes its poses of."""
        ends = self.encode(self._texts([first, second]))  # (2, T)
        vectors = between(ends[0], ends[1], steps, spherical=spherical)  # (S, T)
        return Inputs(self.noise(1, seed).expand(steps, -1), vectors, (first, *[""] * (steps - 2), second))

    def noise(self, count: int, seed: int = 0) -> Tensor:
        """Return the noise (count, Z) of a seed, float32 on the CPU; row k is the same whatever ``count`` is."""
        _checks.whole("count", count, 1)
        _checks.whole("seed", seed, 0)
        source = torch.Generator().manual_seed(seed)
        # One draw per pose: torch fills a longer tensor with other numbers where its length is no multiple of 16.
        return torch.stack([torch.randn(self.network.noise, generator=source) for _ in range(count)])

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Return the vectors (C, T) of captions as the network wants them: scaled, float32 on the CPU."""
        from fastpose.training import caption_text

        if self.encoder is None:
            raise ValueError(_UNCONDITIONAL)
        return torch.from_numpy(caption_text.encode(self.encoder, captions, self.config.text))

    def heatmaps(self, noise: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Return heatmaps (N, 17, 64, 64) in [0, 1], float32 on the CPU, of noise (N, Z) and vectors (N, T).

        Raises ``ValueError`` where the network gives NaN or infinite values.
        """
        return torch.cat(list(self._heatmaps(noise, vectors)))

    def poses(
        self, noise: Tensor, vectors: Tensor | None = None, captions: Sequence[str] | None = None
    ) -> GeneratedPoses:
        """Return the poses of noise (N, Z) and vectors (N, T), one of each row; their heatmaps are not kept.

        ``captions`` (N,) are noted; none are known otherwise. Raises as `heatmaps`.
        """
        texts = tuple([""] * len(noise) if captions is None else captions)
        parts, done = [], 0
        for heatmaps in self._heatmaps(noise, vectors):
            parts.append(read(heatmaps, texts[done : done + len(heatmaps)]))
            done += len(heatmaps)
        return joined(parts)

    def _heatmaps(self, noise: Tensor, vectors: Tensor | None) -> Iterator[Tensor]:
        for at in range(0, len(noise), BATCH):
            inputs = [part[at : at + BATCH].to(self.device) for part in (noise, vectors) if part is not None]
            with evaluating(self.network):
                heatmaps = (self.network(*inputs).float().cpu() + 1) / 2  # (B, 17, 64, 64)
            if not bool(heatmaps.isfinite().all()):
                raise ValueError("network: gives NaN or infinite values; expected finite ones, take other weights")
            yield heatmaps

    def _texts(self, captions: Sequence[str] | str | None) -> list[str]:
        """Return the captions of a conditional network, or none for another."""
        texts = [captions] if isinstance(captions, str) else list(captions or ())
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"captions: expected texts with a word in each, got {text!r}")
        if self.conditional and not texts:
            raise ValueError("captions: the network makes poses from captions; expected at least one, got none")
        if texts and not self.conditional:
            raise ValueError(_UNCONDITIONAL)
        return texts


def read(heatmaps: Tensor, captions: Sequence[str] = ()) -> GeneratedPoses:
    """Return the poses that heatmaps (N, 17, 64, 64) in [0, 1] show: each joint at the maximum, absent below 0.2."""
    points, present = caption_data.decode(2 * heatmaps - 1)  # (N, 17, 2), (N, 17)
    scores = heatmaps.float().amax((-2, -1))  # (N, 17)
    keypoints, visibility, heights = (array.cpu().numpy() for array in (points, present, scores))
    return GeneratedPoses(keypoints, visibility, heights, tuple(captions) or ("",) * len(heatmaps))


def joined(parts: Sequence[GeneratedPoses]) -> GeneratedPoses:
    """Return several sets of poses as one."""
    names = [field.name for field in fields(GeneratedPoses) if field.name != "captions"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return GeneratedPoses(**arrays, captions=tuple(text for part in parts for text in part.captions))


def between(first: Tensor, last: Tensor, steps: int = STEPS, *, spherical: bool = False) -> Tensor:
    """Return vectors (steps, D) from one (D,) to another, ends included, evenly spaced.

    Along a line, or with ``spherical`` at even angles; two vectors on one line through the origin have no arc between
    them that is shorter than all others, and keep the line.
    """
    _checks.whole("steps", steps, 2)
    at = torch.linspace(0, 1, steps)[:, None]  # (S, 1)
    weights = (1 - at, at)
    if spherical:
        angle = torch.nn.functional.cosine_similarity(first.double(), last.double(), dim=0).clamp(-1, 1).arccos()
        if angle.sin() > 1e-6:
            weights = (((1 - at) * angle).sin() / angle.sin(), (at * angle).sin() / angle.sin())
    points = (weights[0] * first + weights[1] * last).float()
    points[0], points[-1] = first, last  # exactly
    return points


def _encoder(network: Generator, config: Any, encoder: TextEncoder | str | None) -> TextEncoder | None:
    """Return the encoder of a network's captions, checked; None for an unconditional one."""
    from fastpose.data import text
    from fastpose.training import caption_text

    if network.text_size == 0:
        if encoder is not None:
            raise ValueError("encoder: the network is unconditional, and reads no captions; leave it out")
        return None
    if encoder is None:
        found = _own_encoder(config)
    else:
        found = text.create(encoder, lower=config.text.lower) if isinstance(encoder, str) else encoder
    caption_text.check_encoder(found, config)
    if found.size != network.text_size:
        raise ValueError(
            f"encoder {found.name}: gives {found.size} numbers, the network takes {network.text_size}; pass the "
            "encoder that it was trained with"
        )
    return found


def _own_encoder(config: Any) -> TextEncoder:
    """Return the encoder that the configuration of weights names; where its file is missing, no other will do."""
    from fastpose.training import caption_text

    try:
        return caption_text.create(config.text)
    except FileNotFoundError:
        known = f" (fingerprint {config.text.fingerprint})" if config.text.fingerprint else ""
        raise FileNotFoundError(
            f"text.encoder: {config.text.encoder}: no such file here; pass the one that the weights were trained "
            f"with{known} as encoder (--encoder FILE)"
        ) from None
