"""Loss functions of the published systems: they take tensors and callables, never a model class."""

from __future__ import annotations

from fastpose.losses.adversarial import discriminator_loss, generator_loss, reconstruction_loss
from fastpose.losses.equilibrium import Equilibrium
from fastpose.losses.pose import pose_loss

__all__ = ["Equilibrium", "discriminator_loss", "generator_loss", "pose_loss", "reconstruction_loss"]
