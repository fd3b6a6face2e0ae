"""Loss functions of the published systems: they take tensors and callables, never a model class."""

from __future__ import annotations

from fastpose.losses.adversarial import discriminator_loss, generator_loss, reconstruction_loss
from fastpose.losses.bones import bone_ratio_loss
from fastpose.losses.equilibrium import Equilibrium
from fastpose.losses.gan import gan_loss, wasserstein_loss
from fastpose.losses.penalties import gradient_penalty
from fastpose.losses.perceptual import perceptual_losses
from fastpose.losses.pose import depth_loss, pose_loss

__all__ = [
    "Equilibrium",
    "bone_ratio_loss",
    "depth_loss",
    "discriminator_loss",
    "gan_loss",
    "generator_loss",
    "gradient_penalty",
    "perceptual_losses",
    "pose_loss",
    "reconstruction_loss",
    "wasserstein_loss",
]
