"""Loss functions of the published systems: they take tensors and callables, never a model class."""

from __future__ import annotations

from fastpose.losses.adversarial import discriminator_loss, generator_loss, reconstruction_loss
from fastpose.losses.equilibrium import Equilibrium
from fastpose.losses.gan import gan_loss
from fastpose.losses.perceptual import perceptual_losses
from fastpose.losses.pose import pose_loss

__all__ = [
    "Equilibrium",
    "discriminator_loss",
    "gan_loss",
    "generator_loss",
    "perceptual_losses",
    "pose_loss",
    "reconstruction_loss",
]
