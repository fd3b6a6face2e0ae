"""A pool of generated images: a discriminator is also shown what the generator drew some time ago."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class ImagePool:
    """Exchanges generated images for earlier ones (Shrivastava et al. 2017, as released for system 001).

    The first ``size`` images are kept and returned. After that each image is, with probability 1/2, exchanged for a
    random one of the pool and kept in its place, else returned and forgotten. Images are kept on their device and are
    never written to, so that a state can hold them without a copy.

    Args:
        size: images kept; 0 returns every image as it came.
        seed: non-negative integers; the draws of the n-th query come from ``(*seed, n)`` alone.
    """

    def __init__(self, size: int, seed: tuple[int, ...] = (0,)) -> None:
        if size < 0:
            raise ValueError(f"image pool: expected a size of 0 or more, got {size}")
        self.size, self.seed = size, seed
        self._images: list[Tensor] = []
        self._queries = 0

    def __len__(self) -> int:
        return len(self._images)

    def query(self, images: Tensor) -> Tensor:
        """Return (B, C, H, W) without gradient: some of ``images`` exchanged for earlier ones.

        Args:
            images: (B, C, H, W).

        Raises:
            ValueError: images of another shape than those kept.
        """
        images = images.detach()
        if self.size == 0:
            return images
        if self._images and self._images[0].shape != images.shape[1:]:
            kept = tuple(self._images[0].shape)
            raise ValueError(f"image pool: expected images {kept} as those kept, got {tuple(images.shape[1:])}")
        random = np.random.default_rng((*self.seed, self._queries, 0))
        exchange, places = random.random(len(images)) > 0.5, random.integers(self.size, size=len(images))
        self._queries += 1
        return torch.stack([self._exchange(*item) for item in zip(images, exchange, places, strict=True)])

    def _exchange(self, image: Tensor, exchange: bool, place: int) -> Tensor:
        # Copies: a slice would keep its whole batch in memory.
        if len(self._images) < self.size:
            self._images.append(image.clone())
            return image
        if not exchange:
            return image
        earlier, self._images[place] = self._images[place], image.clone()
        return earlier.to(image)

    def state(self) -> dict[str, Any]:
        """Return the images kept and how many queries there were; what comes after does not change it."""
        return {"images": list(self._images), "queries": self._queries}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` returned; of more images than fit, the first are kept."""
        self._images = list(state["images"])[: self.size]
        self._queries = int(state["queries"])
