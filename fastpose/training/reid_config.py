"""The configuration of the re-identification baseline; defaults follow the published ResNet-50 baseline."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastpose import _checks
from fastpose.metrics.reid import PRECISIONS
from fastpose.models.reid import BACKBONES
from fastpose.training.config import RunConfig
from fastpose.training.reid_data import ReidDataConfig


@dataclass(frozen=True)
class EmbedderConfig:
    """The network: ``models.create("reid.embedder", ...)``.

    Attributes:
        name: "reid.embedder".
        backbone: "resnet50", "resnet18" or "small".
        widths: channels of the levels of "small".
        features: length of the compared features.
        identities: persons in the training set: 751 in Market-1501.
        dropout: before the classifier.
        last_stride: of a resnet's last level, 2 or 1.
        weights: torchvision's weights of the resnet to begin with (.pth or .safetensors); empty begins from scratch.
    """

    name: str = "reid.embedder"
    backbone: str = "resnet50"
    widths: tuple[int, ...] = (32, 64, 128, 256)
    features: int = 512
    identities: int = 751
    dropout: float = 0.5
    last_stride: int = 2
    weights: str = ""

    def __post_init__(self) -> None:
        _checks.choice("model.name", self.name, ("reid.embedder",))
        _checks.choice("model.backbone", self.backbone, BACKBONES)
        if self.weights and self.backbone == "small":
            raise ValueError("model.weights: backbone 'small' has no published weights; leave them out")


@dataclass(frozen=True)
class ReidLossConfig:
    """Cross-entropy over the identities; ``smoothing`` of the labels is 0 in the published baseline."""

    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"loss.smoothing: expected a share from 0 up to 1, got {self.smoothing}")


@dataclass(frozen=True)
class ReidOptimizerConfig:
    """One optimizer for the whole network.

    Attributes:
        name: "sgd" (Nesterov momentum 0.9) or "adam".
        lr: learning rate of bottleneck and classifier.
        backbone_factor: the backbone's rate over ``lr``; 0.1 where it begins with ImageNet's weights.
        weight_decay: of all parameters.
    """

    name: str = "sgd"
    lr: float = 0.05
    backbone_factor: float = 0.1
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        _checks.choice("optimizer.name", self.name, ("sgd", "adam"))
        for key in ("lr", "backbone_factor"):
            if not getattr(self, key) > 0:
                raise ValueError(f"optimizer.{key}: expected a positive number, got {getattr(self, key)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"optimizer.weight_decay: expected 0 or more, got {self.weight_decay}")


@dataclass(frozen=True)
class ReidScheduleConfig:
    """Learning rate over epochs: x ``factor`` at ``milestones`` (published), "cosine" to zero, or "constant"."""

    name: str = "milestones"
    milestones: tuple[int, ...] = (40,)
    factor: float = 0.1

    def __post_init__(self) -> None:
        _checks.choice("schedule.name", self.name, ("milestones", "cosine", "constant"))
        if not self.factor > 0:
            raise ValueError(f"schedule.factor: expected a positive number, got {self.factor}")
        if self.milestones and min(self.milestones) <= 0:
            raise ValueError(f"schedule.milestones: expected epochs from 1 on, got {self.milestones}")


@dataclass(frozen=True)
class ReidTestConfig:
    """How features are compared.

    Attributes:
        flip: average the features with those of the mirrored image.
        similarity: "cosine" or "euclidean".
        precision: average precision by "trapezoid" (Market-1501's own evaluation) or "hits".
    """

    flip: bool = True
    similarity: str = "cosine"
    precision: str = "trapezoid"

    def __post_init__(self) -> None:
        _checks.choice("test.similarity", self.similarity, ("cosine", "euclidean"))
        _checks.choice("test.precision", self.precision, tuple(PRECISIONS))


@dataclass(frozen=True)
class ReidConfig:
    """Everything that defines a run of the re-identification baseline."""

    run: RunConfig = field(default_factory=lambda: RunConfig(epochs=60, batch_size=32))
    data: ReidDataConfig = field(default_factory=ReidDataConfig)
    model: EmbedderConfig = EmbedderConfig()
    loss: ReidLossConfig = ReidLossConfig()
    optimizer: ReidOptimizerConfig = ReidOptimizerConfig()
    schedule: ReidScheduleConfig = ReidScheduleConfig()
    test: ReidTestConfig = ReidTestConfig()
