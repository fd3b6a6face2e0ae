"""``fastpose export``: a trained network for other runtimes, held to the eager one."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TOLERANCE = 1e-4
EXAMPLE_BATCH = 2  # traced with; CHECK_BATCH shows that the batch is free
CHECK_BATCH = 3


def export(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe of the weights.")],
    weights: Annotated[Path, typer.Option(metavar="W", help="A .safetensors file of this recipe.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="model.onnx or model.pt2.")],
) -> None:
    """Export weights to ONNX or .pt2; refused above 1e-4 from eager."""
    if out.suffix not in (".onnx", ".pt2"):
        raise ValueError(f"--out {out}: expected a name that ends in .onnx or .pt2")
    from fastpose.training import load_recipe, systems

    _, config, network = systems.load_network(weights, recipe=load_recipe(recipe).name)
    side = config.data.image_size
    difference = export_network(network, (3, side, side), out)
    typer.echo(f"{out}: (batch, 3, {side}, {side}), batch free; largest difference from eager {difference:.1e}")


def export_network(network: nn.Module, shape: tuple[int, ...], out: Path) -> float:
    """Write ``network`` (evaluation mode) to ``out`` and return its largest difference from eager.

    Args:
        network: (B, *shape) -> list of tensors.
        shape: of one input.
        out: ``.onnx`` or ``.pt2``; appears only when the difference is at most 1e-4.

    Raises:
        ImportError: the ``export`` extra is missing.
        ValueError: the exported program differs by more.
    """
    import torch

    network = network.eval()
    generator = torch.Generator().manual_seed(0)
    example = torch.rand(EXAMPLE_BATCH, *shape, generator=generator)
    check = torch.rand(CHECK_BATCH, *shape, generator=generator)
    part = out.with_name(f"{out.stem}.part{out.suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        expected = list(network(check))
        try:
            found = (_onnx if out.suffix == ".onnx" else _pt2)(network, example, check, part)
            difference = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"export {out}: differs from eager by {difference:.1e}, at most {TOLERANCE:.0e} wanted"
                )
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
    return difference


def _program(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    import torch

    batch = torch.export.Dim("batch", min=1, max=4096)
    return torch.export.export(network, (example,), dynamic_shapes=({0: batch},), strict=False)


def _pt2(network: nn.Module, example: Tensor, check: Tensor, path: Path) -> list[Tensor]:
    import torch

    torch.export.save(_program(network, example), path)
    return list(torch.export.load(path).module()(check))


def _onnx(network: nn.Module, example: Tensor, check: Tensor, path: Path) -> list[Tensor]:
    import torch

    onnxruntime = _extra()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it reports that torchvision, not used here, is absent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about its own exporter
        program = torch.onnx.export(_program(network, example), (example,), input_names=["image"], verbose=False)
    program.save(str(path), external_data=False)  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(array) for array in session.run(None, {session.get_inputs()[0].name: check.numpy()})]


def _extra() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"export to ONNX needs {error.name}; install it: pip install 'fastpose[export]'") from None
    return onnxruntime
