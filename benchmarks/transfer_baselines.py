"""What pose transfer must beat: the source image itself, and the mean of the training images, on a recipe's test pairs.

    python benchmarks/transfer_baselines.py NAME --recipe pona/market-small --set data.root=ROOT ...

Writes ``benchmarks/results/training/NAME.json``: the command, the machine, and each baseline under the same protocols
that ``fastpose train`` of the recipe uses.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor
from training_comparison import RESULTS, recorded

from fastpose import training
from fastpose.benchmark import machine
from fastpose.data import create_loader
from fastpose.training import transfer_data, transfer_scores
from fastpose.training.transfer_data import Inputs


def mean_image(config: Any) -> Tensor:
    """Return the mean of all target images of the training pairs, (1, 3, H, W) in [-1, 1]."""
    pairs = transfer_data.train_dataset(config.data, config.run.seed)
    total, count = torch.zeros(()), 0
    for batch in create_loader(pairs, 16, shuffle=False, workers=0):
        total = total + transfer_data.to_network(batch["target_image"]).sum(0, keepdim=True)
        count += len(batch["target_image"])
    return total / count


def scores(config: Any) -> dict[str, list[dict[str, Any]]]:
    """Return the results of each baseline as dicts."""
    mean = mean_image(config)

    def copied(inputs: Inputs) -> Tensor:
        return inputs.source

    def averaged(inputs: Inputs) -> Tensor:
        return mean.expand_as(inputs.target)

    found = {}
    for name, generate in (("copy of the source", copied), ("mean training image", averaged)):
        pairs = transfer_data.validation_dataset(config.data, config.run.seed)
        loader = create_loader(pairs, 16, shuffle=False, workers=0)
        results = transfer_scores.evaluate(generate, loader, config.data, config.test)
        found[name] = [result.as_dict() for result in results]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Score what needs no network.")
    parser.add_argument("name", help="of the result file")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides", help="key=value")
    given = parser.parse_args()
    found = scores(training.load_recipe(given.recipe, given.overrides).config)
    command = recorded("transfer_baselines.py", given.name, "--recipe", given.recipe, "--set", *given.overrides)
    content = {"command": command, "machine": machine.describe(), "baselines": found}
    (RESULTS / f"{given.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    for name, rows in found.items():
        print(name, {row["name"]: round(row["value"], 4) for row in rows})


if __name__ == "__main__":
    main()
