"""``fastpose import``: the authors' published checkpoints into our format."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

IMAGE = "RGB in 0..1, nothing subtracted"
"""What networks see that `to_rgb` turned."""


def import_checkpoint(
    model: Annotated[str, typer.Argument(metavar="SYSTEM", help="The network, such as hourglass or sagan.generator.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Their .pth, .pt or .safetensors file.")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="W", help="The .safetensors file to write; neither it nor its .json may exist."
        ),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The network's options, such as stacks=2.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="The recipe (name or YAML file) whose network this is, for eval and predict.")
    ] = None,
) -> None:
    """Translate a published checkpoint; no code in it is run."""
    from fastpose import models
    from fastpose.metrics.keypoints_3d import RELEASED_BONE_SUM
    from fastpose.models.published import published_options, to_rgb
    from fastpose.training import prediction
    from fastpose.training.checkpoint import save_weights

    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: expected a name that ends in .safetensors")
    for path in (out, out.with_suffix(".json")):
        prediction.check_new(path, folders=(out.parent,))
    chosen = _options(options or [])
    state = _weights(model, checkpoint)
    network = _published(model, state, chosen)
    used = published_options(model, state, **chosen)
    about: dict[str, Any] = {"model": model, "options": used, "step": 0, "source": checkpoint.name}
    turned = to_rgb(model, network)
    if turned:
        about["image"] = IMAGE
    if recipe is not None:
        network, described = _fitted(recipe, network, checkpoint, plain=turned)
        about |= described
        if turned:
            about["measured"] = {"test.bone_sum": RELEASED_BONE_SUM}  # its authors' Human3.6M, which need not be there
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(out, network, about)
    typer.echo(f"{out}: {model}, {models.count_parameters(network):,} parameters")
    if turned:
        typer.echo(f"its authors gave it BGR over 256; the first convolution was turned, so that it expects {IMAGE}")
    if recipe is None:
        typer.echo(f"for models.create({_call(model, used)}); for fastpose predict and eval, import with --recipe")
    else:
        words = ["fastpose", "predict", recipe, "--weights", str(out), *_inputs(**about), "-o", "out"]
        typer.echo(f"next: {shlex.join(words)}")


def _call(model: str, options: Mapping[str, Any]) -> str:
    """Return the arguments of `models.create` as one writes them."""
    return ", ".join((f'"{model}"', *(f"{option}={value!r}" for option, value in options.items())))


def _inputs(system: str, config: Mapping[str, Any], **_: Any) -> list[str]:
    """Return what predict wants besides weights that say this of their recipe."""
    from fastpose.training import systems

    known = systems.get(system)
    if known.transfer is not None:
        return ["PERSON.jpg", "--keypoints", "K.json", "--pose", "POSE.json"]
    if known.generator is None:
        return ["PHOTO.jpg"]
    if not config["model"]["conditional"]:
        return ["--count", "16"]
    return ["a man playing tennis", *([] if config["text"]["encoder"] else ["--encoder", "wiki.en.bin"])]


def _weights(model: str, checkpoint: Path) -> Any:
    """Return a published file's tensors; those of system 002 are networks that were pickled whole."""
    from fastpose.models import pickles
    from fastpose.training.checkpoint import load_foreign

    if model.startswith("pose3d.") and pickles.is_module_pickle(checkpoint):
        return pickles.read_module_pickle(checkpoint)
    return load_foreign(checkpoint)


def _published(model: str, state: Any, options: dict[str, Any]) -> Any:
    """Return the network with these weights; an option's value of a wrong type is the user's mistake."""
    from fastpose import models
    from fastpose.cli._errors import is_own

    try:
        return models.import_published(model, state, **options)
    except TypeError as error:
        if is_own(error) or not options:
            raise
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"{model}: the options {given} build no network ({error}); correct their values") from error


def _options(words: Sequence[str]) -> dict[str, Any]:
    """Return ``key=value`` words as keyword arguments; values are YAML scalars and lists."""
    from fastpose.training.config import read_yaml

    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"option {word!r}: expected key=value, such as stacks=2")
        options[key] = read_yaml(value, f"option {key}")
    return options


def _fitted(recipe: str, network: Any, source: Path, *, plain: bool) -> tuple[Any, dict[str, Any]]:
    """Return the recipe's own network with these weights, and what a weights file says of its recipe.

    ``plain`` networks were trained on images of which nothing was subtracted, and no weight could make up for it.
    """
    from fastpose.training import systems
    from fastpose.training.checkpoint import load_into
    from fastpose.training.config import to_dict

    loaded = _recipe(recipe, network)
    own = systems.get(loaded.system).network(loaded.config)
    _check_alike(recipe, own, network)
    if plain:
        _check_plain(recipe, loaded.config.data)
    load_into(own, network.state_dict(), source=source)
    return own, {"recipe": loaded.name, "system": loaded.system, "config": to_dict(loaded.config)}


def _recipe(name: str, network: Any) -> Any:
    """Return a recipe; where it leaves the size of texts to their encoder, it is that of the network."""
    from fastpose.training.config import load_recipe

    loaded = load_recipe(name)
    size = getattr(network, "text_size", 0)
    left = size and loaded.system == "caption" and not loaded.config.text.size
    return load_recipe(name, [f"text.size={size}"]) if left else loaded


def _check_alike(recipe: str, own: Any, network: Any) -> None:
    """Raise where weights would fit but mean something else: gates and sums have no weights of their own."""
    ours, theirs = ({name: type(part).__name__ for name, part in one.named_modules()} for one in (own, network))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        raise ValueError(
            f"--recipe {recipe}: its network differs from the published one at {differing[0]!r}; name a recipe that "
            "fits, or the options of its network (gates=[4])"
        )


def _check_plain(recipe: str, data: Any) -> None:
    """Raise where a recipe would subtract or divide what the published network was not trained with."""
    if any(data.mean) or any(part != 1 for part in data.std):
        raise ValueError(
            f"--recipe {recipe}: data.mean, data.std: expected 0, 0, 0 and 1, 1, 1, as the published network was "
            f"trained, found {_numbers(data.mean)} and {_numbers(data.std)}; name pose3d/zhou, or set them"
        )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
