"""A small judge of whether a pose fits a caption, trained on real pairs: two towers and a contrastive loss.

System 004 has no such measure; this one is ours. It sees positions and presence of the joints, as generated poses have
them too, and vectors of captions from any encoder. What it can tell at best is what it tells of unseen real poses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fastpose.metrics import two_sample
from fastpose.metrics.retrieval import Similarity
from fastpose.models.looking import evaluating
from fastpose.skeletons import COCO

BATCH = 256
STEPS = 300
WIDTH = 128
_SIDE = 64.0
_JITTER = 0.02  # of half the map's side; stands in for how exactly joints are found


class Matcher(nn.Module):
    """Poses and captions as points of one sphere: those that fit are near.

    Args:
        joints: K of a pose.
        text_size: T of a caption's vector.
        width: hidden units and numbers of an embedding.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, joints: int, text_size: int, width: int = WIDTH) -> None:
        super().__init__()
        self.pose = _tower(3 * joints, width)
        self.text = _tower(text_size, width)
        self.temperature = nn.Parameter(torch.tensor(0.1).log())
        self.register_buffer("mean", torch.zeros(text_size))
        self.register_buffer("spread", torch.ones(()))

    def embed_poses(self, points: Tensor, present: Tensor) -> Tensor:
        """Return embeddings (N, W) of length 1 of points (N, K, 2) in map pixels, with presence (N, K)."""
        return functional.normalize(self.pose(_features(points, present)), dim=-1)

    def embed_texts(self, vectors: Tensor) -> Tensor:
        """Return embeddings (N, W) of length 1 of captions' vectors (N, T)."""
        return functional.normalize(self.text((vectors - self.mean) / self.spread), dim=-1)


def _tower(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
    )


def _features(points: Tensor, present: Tensor) -> Tensor:
    """Return positions in [-1, 1], absent ones in the middle, and presence, (N, 3 K)."""
    there = present > 0
    places = (two_sample.positions(points, there) - two_sample.CENTRE[0]) / (_SIDE / 2)
    return torch.cat([places.flatten(1), there.to(places).flatten(1)], dim=1)


def fit(
    points: Tensor,
    present: Tensor,
    table: Tensor,
    captions: tuple[Tensor, Tensor],
    images: Tensor,
    *,
    flip: Sequence[int] = COCO.flip_permutation,
    steps: int = STEPS,
    width: int = WIDTH,
    seed: int = 0,
) -> Matcher:
    """Return a matcher of real poses and their captions, in evaluation mode; the same for one ``seed``.

    Each step takes ``BATCH`` poses, mirrored at random, and a caption of each; a pose is to fit its own caption better
    than those of the other photographs, and a caption its own pose. Seconds on one core.

    Args:
        points, present: (N, K, 2) in map pixels and (N, K).
        table: (M, T), the captions' vectors.
        captions: first and count, int64 (N,): pose i has the captions ``first[i]`` to ``first[i] + count[i] - 1``.
        images: int64 (N,), the photograph of each pose.
        flip: order of the joints in a mirrored pose.
        steps, width: of the training, and of the embedding.
        seed: of weights and draws.

    Raises:
        ValueError: fewer than two poses, or a pose without caption.
    """
    first, count = captions
    if len(points) < 2 or bool((count < 1).any()):
        raise ValueError(f"captions: expected two or more poses, each with a caption, got {len(points)} poses")
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)  # weights and dropout
        matcher = Matcher(points.shape[1], table.shape[1], width).train()
        _standardise(matcher, table)
        optimizer = torch.optim.Adam(matcher.parameters(), lr=1e-3, weight_decay=1e-4)
        for _ in range(steps):
            chosen = torch.randperm(len(points), generator=draw)[:BATCH]
            own = first[chosen] + (torch.rand(len(chosen), generator=draw) * count[chosen]).long()
            seen = _varied(points[chosen], present[chosen], flip, draw)
            loss = _loss(matcher, *seen, table[own], images[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return matcher.eval().requires_grad_(False)


def _standardise(matcher: Matcher, table: Tensor) -> None:
    """Centre the vectors and give them one size: their numbers have the spread 1 in the mean, whatever the encoder."""
    matcher.mean.copy_(table.mean(0))
    matcher.spread.copy_((table - table.mean(0)).square().mean().sqrt().clamp(min=1e-12))


def _varied(points: Tensor, present: Tensor, flip: Sequence[int], draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return poses mirrored at random, their joints moved a little."""
    order = list(flip)
    mirrored = points[:, order] * points.new_tensor([-1.0, 1.0]) + points.new_tensor([_SIDE, 0.0])
    turned = torch.rand(len(points), generator=draw) < 0.5
    moved = torch.where(turned[:, None, None], mirrored, points)
    moved = moved + torch.randn(moved.shape, generator=draw) * (_JITTER * _SIDE / 2)
    return moved, torch.where(turned[:, None], present[:, order], present)


def _loss(matcher: Matcher, points: Tensor, present: Tensor, vectors: Tensor, images: Tensor) -> Tensor:
    """Return the symmetric contrastive loss; captions of the same photograph are nobody's mistake."""
    logits = matcher.embed_poses(points, present) @ matcher.embed_texts(vectors).T / matcher.temperature.exp()
    shared = (images[:, None] == images) & ~torch.eye(len(images), dtype=torch.bool)
    logits = logits.masked_fill(shared, -torch.inf)
    own = torch.arange(len(images))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def similarity(matcher: Matcher, points: Tensor, present: Tensor, table: Tensor) -> Similarity:
    """Return how well poses (N, K, 2) with presence (N, K) fit captions of a table (M, T), by the cosine."""
    with evaluating(matcher):
        poses, texts = matcher.embed_poses(points, present), matcher.embed_texts(table)  # (N, W), (M, W)
    return lambda chosen, captions: (poses[chosen, None] * texts[captions]).sum(-1)
