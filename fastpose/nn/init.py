"""First weights of image-to-image networks."""

from __future__ import annotations

from torch import nn

DEVIATION = 0.02


def normal_(network: nn.Module, *, zero_bias: bool) -> None:
    """Draw the weights of all convolutions from N(0, 0.02) and of all batch norms from N(1, 0.02), their biases 0.

    ``zero_bias`` also sets the biases of the convolutions to 0, as pix2pix and system 003 do; without it they keep
    PyTorch's, as in PATN and system 001.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, DEVIATION)
            if zero_bias and module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, DEVIATION)
            nn.init.zeros_(module.bias)
