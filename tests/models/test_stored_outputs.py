"""The tiny networks give the outputs stored beside this file: a change of architecture or of a key name shows.

Weights and inputs are waves of their position, not random numbers, so that the outputs hold on every machine and for
every version of torch. ``python tests/models/test_stored_outputs.py`` writes the file anew, after an intended change.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from fastpose import models

STORED = Path(__file__).with_name("stored_outputs.json")
IMAGE, HEATMAPS, FEATURES = (2, 3, 32, 32), (2, 5, 8, 8), (2, 16, 4, 4)
POSES, PAIR = (2, 36, 32, 32), (2, 6, 32, 32)
NOISE, TEXT, EIGHT = (2, 8), (2, 12), [(8, 17, 64, 64), (8, 12)]
POSES_3D = [(8, 3, 32, 32), (8, 5, 8, 8), (8, 5, 3)]
CAPTIONED = {"conditional": True, "self_attention": True}
PAPER = {"norm": "batch", "activation": "leaky_relu", "self_attention": True, "spectral_norm": False, "sigmoid": True}
CASES = {
    "hourglass.tiny": ({}, [IMAGE]),
    "hourglass.tiny, pytorch_pose": ({"stem": "pytorch_pose", "skip": "bn_relu_conv"}, [IMAGE]),
    "sagan.generator.tiny": ({}, [IMAGE]),
    "sagan.generator.tiny, released": ({"flavour": "released"}, [IMAGE]),
    "sagan.discriminator.tiny": ({}, [HEATMAPS, IMAGE]),
    "sagan.discriminator.tiny, B": ({"sarm": "B"}, [HEATMAPS, IMAGE]),
    "sagan.discriminator.tiny, released": ({"flavour": "released"}, [HEATMAPS, IMAGE]),
    "sagan.sarm.tiny": ({}, [FEATURES]),
    "pona.generator.tiny": ({}, [IMAGE, POSES]),
    "pona.generator.tiny, batch": ({"norm": "batch", "fusion": "tail"}, [IMAGE, POSES]),
    "pona.block.tiny": ({}, [FEATURES, FEATURES]),
    "pona.discriminator.tiny": ({}, [PAIR]),
    "pona.discriminator.tiny, paper": (PAPER, [PAIR]),
    "multiscale.generator.tiny": ({}, [IMAGE, POSES]),
    "multiscale.generator.tiny, cat": ({"fusion": "cat"}, [IMAGE, POSES]),
    "multiscale.discriminator.tiny": ({}, [PAIR]),
    "pose3d.generator.tiny": ({}, [IMAGE]),
    "pose3d.generator.tiny, flatten": ({"depth_head": "flatten", "image_size": 64}, [(2, 3, 64, 64)]),
    "pose3d.discriminator.tiny": ({}, POSES_3D),
    "pose3d.discriminator.tiny, conv": ({"geometry": "conv", "norm": "none", "depth_maps": "onehot"}, POSES_3D),
    "caption.generator.tiny": ({}, [NOISE]),
    "caption.generator.tiny, captioned": (CAPTIONED, [NOISE, TEXT]),
    "caption.discriminator.tiny": ({"batch_norm": True, "sigmoid": True}, EIGHT[:1]),
    "caption.discriminator.tiny, captioned": (CAPTIONED, EIGHT),
}


def wave(shape, phase):
    """A tensor whose entry i is sin(0.7 i + phase)."""
    count = torch.Size(shape).numel()
    return torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + phase).reshape(shape)


def fill(network):
    """Set every weight by its place, convolutions scaled to keep the signal's size, norms and gamma near one."""
    for phase, (name, tensor) in enumerate(network.state_dict().items()):
        if tensor.is_floating_point():
            centre = 1.0 if tensor.dim() == 1 and not name.endswith(("bias", "mean")) else 0.0
            tensor.copy_(centre + wave(tensor.shape, phase) / max(tensor[0].numel(), 4) ** 0.5)


def without_squash(network):
    """The network with the images it would squash: most of theirs are far outside of -1..1."""
    for name in [name for name, module in network.named_modules() if isinstance(module, nn.Tanh)]:
        network.set_submodule(name, nn.Identity())
    return network


def summary(case):
    """Size of the network, and of each of its outputs the shape, the mean, the deviation and a few values."""
    options, shapes = CASES[case]
    network = without_squash(models.create(case.split(",")[0], **options).double().eval())
    fill(network)
    with torch.no_grad():
        outputs = network(*(wave(shape, phase) for phase, shape in enumerate(shapes)))
    return {
        "parameters": models.count_parameters(network),
        "keys": len(network.state_dict()),
        "outputs": [
            {"shape": list(out.shape), "mean": out.mean().item(), "std": out.std().item(), "values": probe(out)}
            for out in flat(outputs)
        ],
    }


def flat(outputs):
    """The outputs in one list, such as heatmaps of all stacks and then the depth."""
    return [out for part in outputs for out in flat(part)] if isinstance(outputs, list | tuple) else [outputs]


def probe(output):
    values = output.flatten()
    return values[:: values.numel() // 7].tolist()


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_the_stored_ones(case):
    stored, found = json.loads(STORED.read_text())[case], summary(case)
    assert (found["parameters"], found["keys"]) == (stored["parameters"], stored["keys"])
    assert len(found["outputs"]) == len(stored["outputs"])
    for out, expected in zip(found["outputs"], stored["outputs"], strict=True):
        assert out["shape"] == expected["shape"]
        numbers = [[entry["mean"], entry["std"], *entry["values"]] for entry in (out, expected)]
        torch.testing.assert_close(*map(torch.tensor, numbers), rtol=1e-6, atol=1e-6 * expected["std"])


@pytest.mark.parametrize("case", CASES)
def test_stored_outputs_tell_networks_apart(case):
    """A stored output that were constant or vanishing would prove nothing."""
    for out in json.loads(STORED.read_text())[case]["outputs"]:
        assert out["std"] > 1e-3
        assert len(set(out["values"])) >= len(out["values"]) // 2  # rectified features have zeros


if __name__ == "__main__":
    STORED.write_text(json.dumps({case: summary(case) for case in CASES}, indent=1) + "\n")
