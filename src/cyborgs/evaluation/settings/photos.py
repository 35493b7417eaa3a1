"""Settings of protocols on photos with classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyborgs.evaluation.training.config import FineTuneConfig, at_least, positive, within


@dataclass(frozen=True)
class Voc07Settings:
    """VOC 2007 classification: a linear SVM for each class on frozen features."""

    variant: Literal["virtex", "openselfsup"] = "virtex"
    """Which published code: transform, feature, norm, costs and AP."""
    costs: tuple[float, ...] = ()
    """Costs C to choose from; empty: the variant's."""
    folds: int = 3
    """Folds of the cross-validation that chooses C."""
    difficult_in_training: Literal["negative", "drop"] = "negative"
    """What a training image with difficult objects alone is."""
    images: int = 0
    """Images of each list that are used, drawn from the seed; 0: all."""
    layer: str = ""
    """Which map is pooled; empty: the network's last."""

    def __post_init__(self) -> None:
        positive(self, "costs")
        within(self, at_least(2, "folds") | at_least(0, "images"))


@dataclass(frozen=True)
class KnnSettings:
    """The classes of the nearest training images, by weighted vote."""

    neighbours: tuple[int, ...] = (20, 10, 100, 200)
    """Numbers of voters; the first is the main figure."""
    temperature: float = 0.07
    """T of exp(cosine / T)."""
    size: int = 224
    """Side of the square that the network sees, in pixels."""
    layer: str = ""
    """Which map is pooled; empty: the network's last."""

    def __post_init__(self) -> None:
        if not self.neighbours or min(self.neighbours) < 1:
            raise ValueError(f"neighbours: need numbers of at least 1, got {self.neighbours}")
        positive(self, "temperature", "size")


@dataclass(frozen=True)
class LabelFreeSettings:
    """How widely the features of photos without labels are spread."""

    images: int = 2000
    """Photos that are used at most, drawn from the seed: all their pairs are compared."""
    size: int = 224
    """Side of the square that the network sees, in pixels."""
    layer: str = ""
    """Which map is pooled; empty: the network's last."""

    def __post_init__(self) -> None:
        if not 2 <= self.images <= 5000:
            raise ValueError(f"images: need 2 to 5000 (all pairs are held at once), got {self.images}")
        positive(self, "size")


@dataclass(frozen=True)
class VocKnnSettings(KnnSettings):
    """VOC 2007's classes by the vote of the nearest training images."""

    images: int = 0
    """Images of each list that are used, drawn from the seed; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        within(self, at_least(0, "images"))


@dataclass(frozen=True)
class LinearClassificationSettings:
    """A linear classifier on frozen features."""

    solver: Literal["sgd", "logistic"] = "sgd"
    """sgd: crops and flips, rate 0.3, 100 epochs; logistic: on the features of the middle square, C by cross-validation."""
    epochs: int = 100
    """Passes of sgd."""
    lr: float = 0.3
    """Rate of sgd, for a batch of 256."""
    batch_size: int = 256
    """Images in a step of sgd; all of them where there are fewer, at the same rate."""
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Costs C that logistic chooses from."""
    size: int = 224
    """Side of the square that the network sees, in pixels."""
    layer: str = ""
    """Which map is pooled; empty: the network's last."""

    def __post_init__(self) -> None:
        positive(self, "epochs", "lr", "batch_size", "size", "costs")
        if not self.costs:
            raise ValueError("costs: need at least one")


@dataclass(frozen=True)
class ClassificationSettings:
    """Fine-tuning for classification on a share of the labels."""

    labels: str = ""
    """File with the names of the training images, one a line (1percent.txt); empty: a stratified share, drawn from the seed."""
    share: float = 1.0
    """Share of the training labels where no file is given."""
    rates: tuple[float, ...] = (0.001, 0.01, 0.1)
    """Base rates of the grid."""
    head_factors: tuple[float, ...] = (1.0, 10.0, 100.0)
    """Factors of the head's rate of the grid."""
    choose_on: Literal["val", "train-tenth"] = "val"
    """Where the best point of the grid is chosen: on val, as the peers do (optimistic), or on a tenth of the training list."""
    size: int = 224
    """Side of the square that the network sees, in pixels."""
    training: FineTuneConfig = field(default_factory=FineTuneConfig)
    """The training; its lr and head_lr_factor are the grid's."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share: need more than 0 and at most 1, got {self.share}")
        for name in ("rates", "head_factors"):
            if not getattr(self, name):
                raise ValueError(f"{name}: need at least one")
        positive(self, "rates", "head_factors", "size")
        if self.training.batch_size < 2:
            raise ValueError("training.batch_size: need at least 2 (BatchNorm has no statistics of one image)")
