"""Settings of protocols on photos with a class per pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyborgs.evaluation.training.config import FineTuneConfig, at_least, positive, within


@dataclass(frozen=True)
class LabelMapSettings:
    """What every protocol on label maps is given of them."""

    classes: int = 0
    """Number of classes of a folder; 0: as the data set says, or the highest label + 1."""
    ignore: int = 255
    """Label of a folder's PNGs that counts nowhere."""
    images: int = 0
    """Training photos that are used, drawn from the seed; 0: all."""
    test_images: int = 0
    """Test photos that are used, drawn from the seed; 0: all."""

    def __post_init__(self) -> None:
        within(self, dict.fromkeys(("classes", "ignore"), (0, 255)) | at_least(0, "images", "test_images"))


@dataclass(frozen=True)
class SegmentationSettings(LabelMapSettings):
    """What trains on crops and judges photos, whatever the network is."""

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
    inference: Literal["whole", "slide"] = "whole"
    """Whole photos, or windows of the crop's size."""
    slide_stride: int = 0
    """Pixels from window to window; 0: two thirds of the crop."""
    align_corners: bool = True
    """How logits are enlarged."""
    training: FineTuneConfig = field(
        default_factory=lambda: FineTuneConfig(
            iterations=20_000, batch_size=16, lr=0.01, weight_decay=5e-4, schedule="poly", min_lr=1e-4
        )
    )
    """The training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A stride of the crop at most, so that no pixel is passed over.
        within(self, {"crop": (16, 1 << 14), "max_class_share": (0, 1), "slide_stride": (0, self.crop)})
        for name in ("resize", "test_resize"):
            box = getattr(self, name)
            if box != (0, 0) and not box[0] >= box[1] >= 1:
                raise ValueError(f"{name}: need a long and a short side, or (0, 0), got {box}")
        if not 0 < self.scales[0] <= self.scales[1] < float("inf"):
            raise ValueError(f"scales: need 0 < low <= high, got {self.scales}")


@dataclass(frozen=True)
class FcnSettings(SegmentationSettings):
    """FCN fine-tuned end to end."""

    output_stride: Literal[8, 16, 32] = 8
    """Pixels a cell of the last map: stages after it are dilated (ResNets of torchvision)."""
    head_channels: int = 512
    """Channels of the head."""
    auxiliary_weight: float = 0.4
    """Weight of the loss of the head on the last map but one; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        least = 2 * self.output_stride  # two cells of the last map: BatchNorm needs more than one
        within(self, {"crop": (least, 1 << 14), "head_channels": (2, 1 << 14), "auxiliary_weight": (0, 1000)})


@dataclass(frozen=True)
class StuffProbeSettings(SegmentationSettings):
    """A 1x1 convolution on one frozen map, trained as the FCN is: mask quality in Figure 5b."""

    layer: str = ""
    """The map; empty: layer2.2 of a ResNet-50, elsewhere the last block at stride 8."""


@dataclass(frozen=True)
class DenseProbeSettings(LabelMapSettings):
    """A 1x1 convolution on frozen, whitened maps: quick, not a published protocol."""

    layers: tuple[str, ...] = ()
    """Layers that are joined; empty: the last maps of strides 8, 16 and 32."""
    epochs: int = 10
    """Passes over the training photos."""
    min_steps: int = 300
    """Steps at least."""
    short_side: int = 0
    """Longest allowed short side of a photo in pixels; 0: native size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "epochs")
        within(self, at_least(0, "min_steps", "short_side"))


@dataclass(frozen=True)
class ClusteringSettings(LabelMapSettings):
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
    """Train a 1x1 convolution on the same features too."""
    linear_epochs: int = 10
    """Passes of the linear probe, whose rate falls over them from 0.1 to 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 2 <= k <= 256 for k in self.clusters):
            raise ValueError(f"clusters: need 2 to 256 (a label map is 8-bit), got {self.clusters}")
        if self.side < 0 or (self.crop and not self.side):
            raise ValueError(f"side: need a number above 0 where crop is set, else at least 0, got {self.side}")
        positive(self, "linear_epochs")
