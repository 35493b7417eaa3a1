"""Settings of ``cyborgs segment``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyborgs.errors import UserError
from cyborgs.masks.config import MaskConfig

SegmentSource = Literal["clusters", "bootstrap", "grid", "whole", "felzenszwalb", "selective-search", "ground-truth"]
ExportName = Literal["coco", "panoptic", "label-studio", "none"]
NETWORK = ("clusters", "bootstrap")
"""Sources that look through a network."""


@dataclass(frozen=True)
class SegmentConfig:
    """All that decides what is written, but for photos and weights."""

    source: SegmentSource = "clusters"
    """Where the regions come from."""
    clusters: tuple[int, ...] = ()
    """K, or several; none: 27 for clusters, drawn for bootstrap."""
    layers: tuple[str, ...] = ()
    """Layers that are clustered."""
    resolution: Literal["full", "nearest"] | None = None
    """None: full for clusters, nearest for all others."""
    short_side: int = 0
    """Longest allowed short side for the network, in pixels; 0: native size."""
    seed: int = 0
    """Of clusterings, groups and random weights."""
    masks: MaskConfig = field(default_factory=MaskConfig)
    """Settings of the sources and of the CRF."""
    crf: bool = False
    """Refine the masks of clusters."""
    overlays: bool = True
    """Write them."""
    export: tuple[ExportName, ...] = ("coco",)
    """Formats beside the label PNGs."""
    min_area: int = 64
    """Smallest part that is an instance, in pixels."""

    def __post_init__(self) -> None:
        if self.clusters and self.source not in NETWORK:
            raise UserError(f"clusters: {self.source} has none; leave --clusters out")
        low = 2 if self.source == "clusters" else 1
        for k in self.clusters:
            if not low <= k <= 256:
                raise UserError(f"clusters: need {low} to 256 (a label map is 8-bit), got {k}")
        if self.source not in NETWORK and (self.layers or self.short_side):
            raise UserError(f"layers, short_side: {self.source} has no network; leave them out")
        if self.short_side != 0 and self.short_side < 32:
            raise UserError(f"short_side: need 0 (native size) or at least 32, got {self.short_side}")
        if self.source != "clusters" and self.resolution == "full":
            raise UserError(
                f"resolution: {self.source} labels cells or pixels, so only 'nearest' is possible; 'full' is for clusters"
            )
        if self.source not in NETWORK and self.crf:
            raise UserError(f"crf: works on the cosines of clusters, which {self.source} does not give; leave it out")
        if self.source == "clusters" and self.crf and self.resolution == "nearest":
            raise UserError("crf: works on pixels; leave --resolution nearest out")
        if self.min_area < 0:
            raise UserError(f"min_area: need at least 0 pixels, got {self.min_area}")
        if "none" in self.export and len(self.export) > 1:
            raise UserError(f"export: 'none' goes alone, got {' '.join(self.export)}")
        if self.source == "ground-truth" and not self.masks.truth:
            raise UserError("truth: ground-truth needs annotations, for example --truth coco:instances_train2017.json")
