"""Pictures of a generator at work: source, poses, target and what it makes of them, and what happens inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from fastpose.training import transfer_data, transfer_explain
from fastpose.training.transfer_data import Inputs, TransferDataConfig


def samples(network: nn.Module, config: Any, dataset: Any, *, pairs: int = 8) -> dict[str, np.ndarray]:
    """Return pictures (RGB uint8) of some pairs of a data set, evenly spread over it.

    Keys: "pairs" (five panels each, as published) and, as the network has them, "features", "gates" and "attention"
    of the first pair.

    Args:
        network: the generator, in evaluation mode.
        config: its configuration, of which the section ``data`` is used.
        dataset: pairs (``transfer_data.validation_dataset``).
        pairs: how many.
    """
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(pairs, len(dataset))).astype(int))
    batch = default_collate([dataset[int(index)] for index in chosen])
    device = next(network.parameters()).device
    inputs = transfer_data.prepare({name: value.to(device) for name, value in batch.items()}, config.data)
    with torch.no_grad():
        generated = transfer_data.to_bytes(network(inputs.source, inputs.guides))  # (P, 3, H, W)
    pictures = {"pairs": _panels(batch, generated.cpu(), config.data)}
    first = (batch["target_keypoints"][0], batch["target_visibility"][0]) if "target_keypoints" in batch else ()
    return {**pictures, **transfer_explain.explain(network, _first(inputs), *first)}


def _first(inputs: Inputs) -> Inputs:
    return Inputs(inputs.source[:1], inputs.target[:1], inputs.source_guide[:1], inputs.target_guide[:1])


def _panels(batch: dict[str, Tensor], generated: Tensor, config: TransferDataConfig) -> np.ndarray:
    from fastpose.visual import transfer

    rows = []
    for index, made in enumerate(generated):
        images = [batch[f"{side}_image"][index] for side in ("source", "target")] + [made]
        source, target, ours = (image.permute(1, 2, 0).numpy() for image in images)  # (H, W, 3) each
        guides = [_guide(batch, side, index, config) for side in ("source", "target")]
        rows.append([source, *guides, target, ours])
    return transfer.panels(rows, transfer.TITLES, columns=2)


def _guide(batch: dict[str, Tensor], side: str, index: int, config: TransferDataConfig) -> np.ndarray:
    """Return the picture of one guide."""
    from fastpose.visual import transfer

    if transfer_data.guide(config) == "semantic":
        return transfer.part_picture(batch[f"{side}_labels"][index])
    if transfer_data.guide(config) == "skeleton":
        return 255 - batch[f"{side}_skeleton"][index].permute(1, 2, 0).repeat(1, 1, 3).numpy()
    size = tuple(batch[f"{side}_image"].shape[-2:])
    return transfer.pose_picture(batch[f"{side}_keypoints"][index], batch[f"{side}_visibility"][index], size)
