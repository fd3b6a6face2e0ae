"""``fastpose augment``: a training set in which a portion of the images is real and the others are generated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastpose.cli import _errors, _print

app = _errors.group("Replace a part of a training set by generated images.")


@app.command("market")
def market(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Market-1501 with train/ and its key points.")],
    recipe: Annotated[str, typer.Option(metavar="R", help="The recipe of the weights, such as pona/market.")],
    weights: Annotated[Path, typer.Option(metavar="W", help="Weights of pose transfer.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="A new folder outside ROOT.")],
    portion: Annotated[float, typer.Option("--portion", "-p", help="Share of the images that stay real.")] = 0.4,
    seed: Annotated[int, typer.Option(help="Chooses the images that stay.")] = 0,
) -> None:
    """Write a mixed training set: same persons, names and counts."""
    from fastpose import models
    from fastpose.training import augment, distributed, load_recipe, reid_data, systems

    folder = reid_data.folder(root, "train")  # absent: augment.market says so
    system, config, network = systems.load_network(weights, recipe=load_recipe(recipe).name)
    device = distributed.choose_device(config.run.device)
    # Thousands of images repay a copy made for speed.
    network = models.for_inference(network) if device.type == "cpu" else network.to(device)
    transfer = systems.transfer(system, network, config)
    if transfer.guide != "pose":
        raise ValueError(f"--weights {weights}: are guided by {transfer.guide} maps; expected weights guided by poses")
    about = {"recipe": recipe, "weights": weights.name}
    count = sum(1 for _ in folder.iterdir()) if folder is not None else 0
    with _print.bar(count) as done:
        mixed = augment.market(root, out, transfer, portion=portion, seed=seed, about=about, report=done)
    total = mixed.real + mixed.generated
    typer.echo(f"{out}: {_images(total)}, {mixed.real} real ({mixed.reached:.1%}), {mixed.generated} generated")
    if mixed.real > round(portion * total):
        typer.echo(
            f"more than the {portion:.1%} asked for: one image of each person must stay, since his others are "
            f"generated from it ({mixed.persons}), and what cannot be generated ({mixed.fixed})"
        )
    if mixed.fixed:
        typer.echo(f"real in any case: {_images(mixed.fixed)} without key points or identity")
    typer.echo("next, without and with the generated images:")
    for only_real in ("yes", "no"):
        typer.echo(f"  fastpose train reid/small data.root={out} data.test_root={root} data.only_real={only_real}")


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
