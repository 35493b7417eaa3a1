"""The settings of the protocols; the defaults are the published ones. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


def _positive(name: str, values: Sequence[float]) -> None:
    """Raise ValueError, which names the field, unless all are finite and above 0."""
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{name}: need positive numbers, got {', '.join(map(str, values))}")


@dataclass(frozen=True)
class FineTuneConfig:
    """SGD on all weights, or on the head's alone."""

    epochs: int = 20
    """Passes over the training images; not used where iterations is above 0."""
    iterations: int = 0
    """Steps in all, in place of epochs."""
    batch_size: int = 256
    """Images in a step."""
    lr: float = 0.01
    """Rate of the backbone's weights."""
    head_lr_factor: float = 1.0
    """Rate of the head's weights over that of the backbone's."""
    momentum: float = 0.9
    """Momentum."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    schedule: Literal["step", "poly", "cosine"] = "step"
    """x gamma at the milestones, (1 - t)^0.9, or half a cosine to 0."""
    milestones: tuple[float, ...] = (0.6, 0.8)
    """Shares of all steps at which the rate is multiplied by gamma."""
    gamma: float = 0.2
    """Factor at a milestone."""
    min_lr: float = 0.0
    """The rate does not fall below it (poly)."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the network."""
    checkpoint_every: int = 500
    """Steps between checkpoints, from which the same command goes on."""

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr_factor", "gamma"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}: need a positive number, got {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "min_lr"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"training.{name}: need a number of at least 0, got {getattr(self, name)}")
        for name in ("batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name}: need at least 1, got {getattr(self, name)}")
        if self.iterations < 0 or self.epochs < (0 if self.iterations else 1):
            raise ValueError(f"training.epochs: need at least 1 (or training.iterations), got {self.epochs}")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m <= 1 for m in self.milestones):
            raise ValueError(f"training.milestones: need rising shares from 0 to 1, got {self.milestones}")


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
        _positive("costs", self.costs)
        if self.folds < 2:
            raise ValueError(f"folds: need at least 2, got {self.folds}")
        if self.images < 0:
            raise ValueError(f"images: need at least 0, got {self.images}")


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
        _positive("temperature", (self.temperature,))
        _positive("size", (self.size,))


@dataclass(frozen=True)
class VocKnnSettings(KnnSettings):
    """VOC 2007's classes by the vote of the nearest training images."""

    images: int = 0
    """Images of each list that are used, drawn from the seed; 0: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images < 0:
            raise ValueError(f"images: need at least 0, got {self.images}")


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
    """Images in a step of sgd."""
    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    """Costs C that logistic chooses from."""
    size: int = 224
    """Side of the square that the network sees, in pixels."""
    layer: str = ""
    """Which map is pooled; empty: the network's last."""

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "batch_size", "size"):
            _positive(name, (getattr(self, name),))
        if not self.costs:
            raise ValueError("costs: need at least one")
        _positive("costs", self.costs)


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
            _positive(name, getattr(self, name))
        _positive("size", (self.size,))
        if self.training.batch_size < 2:
            raise ValueError("training.batch_size: need at least 2 (BatchNorm has no statistics of one image)")


@dataclass(frozen=True)
class FcnSettings:
    """FCN fine-tuned end to end."""

    crop: int = 512
    """Side of the training crop, in pixels."""
    resize: tuple[int, int] = (2048, 512)
    """Photos are scaled to fit this box (long side, short side) before the random scale; (0, 0): native size."""
    test_resize: tuple[int, int] = (2048, 512)
    """The same at test time; predictions are brought back to the photo's size."""
    scales: tuple[float, float] = (0.5, 2.0)
    """Range of the random scale."""
    max_class_share: float = 0.75
    """A crop in which a class has more than this share is drawn again, ten times at most."""
    photometric: bool = True
    """Random brightness, contrast, saturation and hue."""
    output_stride: Literal[8, 16, 32] = 8
    """Pixels a cell of the last map: stages after it are dilated (ResNets of torchvision)."""
    head_channels: int = 512
    """Channels of the head."""
    auxiliary_weight: float = 0.4
    """Weight of the loss of the head on the last map but one; 0: none."""
    inference: Literal["whole", "slide"] = "whole"
    """Whole photos, or windows of the crop's size."""
    slide_stride: int = 0
    """Pixels from window to window; 0: two thirds of the crop."""
    align_corners: bool = True
    """How logits are enlarged."""
    classes: int = 0
    """Number of classes of a folder; 0: as the data set says, or the highest label + 1."""
    ignore: int = 255
    """Label of a folder's PNGs that counts nowhere."""
    images: int = 0
    """Training photos that are used, drawn from the seed; 0: all."""
    test_images: int = 0
    """Test photos that are used, drawn from the seed; 0: all."""
    training: FineTuneConfig = field(
        default_factory=lambda: FineTuneConfig(
            iterations=20_000, batch_size=16, lr=0.01, weight_decay=5e-4, schedule="poly", min_lr=1e-4
        )
    )
    """The training."""

    def __post_init__(self) -> None:
        ranges = {
            "crop": (2 * self.output_stride, 1 << 14),  # two cells of the last map: BatchNorm needs more than one
            "head_channels": (2, 1 << 14),
            "auxiliary_weight": (0, 1000),
            "max_class_share": (0, 1),
            "slide_stride": (0, self.crop),  # so that no pixel is passed over
            "classes": (0, 255),
            "ignore": (0, 255),
            **dict.fromkeys(("images", "test_images"), (0, 1 << 40)),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}: need {low} to {high}, got {getattr(self, name)}")
        for name in ("resize", "test_resize"):
            box = getattr(self, name)
            if box != (0, 0) and not box[0] >= box[1] >= 1:
                raise ValueError(f"{name}: need a long and a short side, or (0, 0), got {box}")
        if not 0 < self.scales[0] <= self.scales[1] < float("inf"):
            raise ValueError(f"scales: need 0 < low <= high, got {self.scales}")


@dataclass(frozen=True)
class StuffProbeSettings:
    """A 1x1 convolution on one frozen map, trained as the FCN is: mask quality in Figure 5b."""

    layer: str = ""
    """The map; empty: layer2.2 of a ResNet-50, elsewhere the last block at stride 8."""
    fcn: FcnSettings = field(default_factory=FcnSettings)
    """Crops, scales, training."""


@dataclass(frozen=True)
class DenseProbeSettings:
    """A 1x1 convolution on frozen, whitened maps: quick, not a published protocol."""

    layers: tuple[str, ...] = ()
    """Layers that are joined; empty: the last maps of strides 8, 16 and 32."""
    epochs: int = 10
    """Passes over the training photos."""
    min_steps: int = 300
    """Steps at least."""
    short_side: int = 0
    """Longest allowed short side of a photo in pixels; 0: native size."""
    classes: int = 0
    """Number of classes of a folder; 0: as the data set says, or the highest label + 1."""
    ignore: int = 255
    """Label of a folder's PNGs that counts nowhere."""
    images: int = 0
    """Training photos that are used, drawn from the seed; 0: all."""
    test_images: int = 0
    """Test photos that are used, drawn from the seed; 0: all."""

    def __post_init__(self) -> None:
        _positive("epochs", (self.epochs,))
        if min(self.min_steps, self.short_side) < 0:
            raise ValueError(f"min_steps, short_side: need at least 0, got {self.min_steps}, {self.short_side}")


@dataclass(frozen=True)
class ClusteringSettings:
    """One spherical k-means over the training photos' cells; clusters are matched to classes on the test photos."""

    clusters: tuple[int, ...] = ()
    """Numbers of clusters; empty: as many as classes. Matched one to one where K is the number of classes, by majority
    of the training photos where it is more."""
    layers: tuple[str, ...] = ()
    """Layers that are joined; empty: the network's last map."""
    side: int = 320
    """Short side in pixels, and side of the centre crop where crop is set; 0: native size."""
    crop: bool = True
    """Cut out the middle square."""
    linear: bool = True
    """Train a 1x1 convolution on the same maps too."""
    linear_epochs: int = 10
    """Passes of the linear probe."""
    classes: int = 0
    """Number of classes of a folder; 0: as the data set says, or the highest label + 1."""
    ignore: int = 255
    """Label of a folder's PNGs that counts nowhere."""
    images: int = 0
    """Training photos that are used, drawn from the seed; 0: all."""
    test_images: int = 0
    """Test photos that are used, drawn from the seed; 0: all."""

    def __post_init__(self) -> None:
        if any(not 2 <= k <= 256 for k in self.clusters):
            raise ValueError(f"clusters: need 2 to 256 (a label map is 8-bit), got {self.clusters}")
        if self.side < 0 or (self.crop and not self.side):
            raise ValueError(f"side: need a number above 0 where crop is set, else at least 0, got {self.side}")
        _positive("linear_epochs", (self.linear_epochs,))


Settings = (
    Voc07Settings
    | KnnSettings
    | VocKnnSettings
    | LinearClassificationSettings
    | ClassificationSettings
    | FcnSettings
    | StuffProbeSettings
    | DenseProbeSettings
    | ClusteringSettings
)
