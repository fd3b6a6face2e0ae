"""``fastpose export``: a trained network for other runtimes, held to the eager one."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fastpose.training.systems import System

    Inputs = Mapping[str, Tensor]
    Draw = Callable[[str, Sequence[int], torch.Generator], Tensor]

TOLERANCE = 1e-4
EXAMPLE_BATCH = 2  # traced with; CHECK_BATCH shows that the batch is free
CHECK_BATCH = 3


def export(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe of the weights.")],
    weights: Annotated[Path, typer.Option(metavar="W", help="A .safetensors file of this recipe.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="model.onnx or model.pt2; must not exist.")],
) -> None:
    """Export weights to ONNX or .pt2; refused above 1e-4 from eager."""
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"--out {out}: expected a name that ends in .onnx or .pt2")
    from fastpose.training import load_recipe, prediction, systems

    prediction.check_new(out, folders=(out.parent,))
    system, config, network = systems.load_network(weights, recipe=load_recipe(recipe).name)
    prediction.check_finite(network, weights)
    shapes = input_shapes(system, config)
    draw = _uniform if system.generator is None else _of_captions(config.text.scale)
    difference = export_network(network, shapes, out, draw=draw)
    described = ", ".join(f"{name} (batch, {', '.join(map(str, shape))})" for name, shape in shapes.items())
    typer.echo(f"{out}: {described}, batch free; largest difference from eager {difference:.1e}")
    if system.generator is not None:
        text = f"text: the encoder's vectors times {config.text.scale:g}; " if "text" in shapes else ""
        typer.echo(f"noise: drawn from N(0, 1); {text}heatmaps come out in [-1, 1]")


def input_shapes(system: System, config: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape, without the batch, of each input of a system's network; ``ValueError`` for other jobs."""
    if system.transfer is not None:
        from fastpose.training import transfer_data

        size = transfer_data.image_size(config.data)
        return {"image": (3, *size), "guides": (2 * transfer_data.guide_channels(config.data), *size)}
    if system.estimator is not None:
        return {"image": (3, config.data.image_size, config.data.image_size)}
    if system.generator is not None:
        from fastpose.training import caption_text

        text = {"text": (caption_text.size(config.text),)} if config.model.conditional else {}
        return {"noise": (config.model.noise,), **text}
    raise ValueError(
        f"system {system.name}: is not exported; expected a pose network, pose transfer or poses from captions"
    )


def _uniform(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return numbers in [0, 1], as images and heatmaps have them."""
    import torch

    return torch.rand(*shape, generator=generator)


def _of_captions(scale: float) -> Draw:
    """Return what draws noise, and vectors of the length ``scale`` in place of captions'."""
    import torch

    def draw(name: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        numbers = torch.randn(*shape, generator=generator)
        return scale * torch.nn.functional.normalize(numbers) if name == "text" else numbers

    return draw


def export_network(
    network: nn.Module, shapes: Mapping[str, tuple[int, ...]], out: Path, *, draw: Draw = _uniform
) -> float:
    """Write ``network`` (evaluation mode) to ``out`` and return its largest difference from eager.

    Args:
        network: inputs (B, *shape) -> a tensor, or a list of them.
        shapes: name and shape of each input, in order.
        out: ``.onnx`` or ``.pt2``; appears only when the difference is at most 1e-4.
        draw: (name, shape, random numbers) -> an input such as the network sees; the two are compared on some.

    Raises:
        ImportError: the ``export`` extra is missing.
        OSError: the folder cannot be written to.
        ValueError: the exported program differs by more.
    """
    import torch

    network = network.eval()
    generator = torch.Generator().manual_seed(0)
    example, check = (
        {name: draw(name, (batch, *shape), generator) for name, shape in shapes.items()}
        for batch in (EXAMPLE_BATCH, CHECK_BATCH)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        part = Path(folder) / out.name
        expected = _listed(network(*check.values()))
        try:
            found = (_onnx if out.suffix == ".onnx" else _pt2)(network, example, check, part)
        except OSError as error:
            raise OSError(f"{out}: could not be written ({error.strerror or error})") from error
        pairs = zip(expected, found, strict=True)
        difference = float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())  # NaN where one of them is NaN
        if not difference <= TOLERANCE:
            raise ValueError(f"export {out}: differs from eager by {difference:.1e}, at most {TOLERANCE:.0e} wanted")
        part.replace(out)
    return difference


def _listed(output: Any) -> list[Tensor]:
    """Return the tensors of an output in order, however they are grouped."""
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in _listed(part)]
    return [output]


def _program(network: nn.Module, example: Inputs) -> torch.export.ExportedProgram:
    import torch

    batch = torch.export.Dim("batch", min=1, max=4096)
    inputs = tuple(example.values())
    return torch.export.export(network, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False)


def _pt2(network: nn.Module, example: Inputs, check: Inputs, path: Path) -> list[Tensor]:
    import torch

    written = io.BytesIO()  # torch reports a full disk by an error of its own
    torch.export.save(_program(network, example), written)
    path.write_bytes(written.getvalue())
    program = torch.export.load(io.BytesIO(path.read_bytes()))  # torch takes no path that is not UTF-8
    return _listed(program.module()(*check.values()))


def _onnx(network: nn.Module, example: Inputs, check: Inputs, path: Path) -> list[Tensor]:
    import torch

    onnxruntime = _extra()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision, not used here, is absent
    inputs = tuple(example.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own exporter
        program = torch.onnx.export(_program(network, example), inputs, input_names=list(example), verbose=False)
    program.save(str(path), external_data=False)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    fed = {name: value.numpy() for name, value in zip(names, check.values(), strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, fed)]


def _extra() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export to ONNX needs {error.name}; install it: pip install 'fastpose[export]'") from None
    return onnxruntime
