"""Settings of the masks. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

SourceName = Literal["bootstrap", "grid", "whole", "felzenszwalb", "selective-search", "ground-truth", "none"]


@dataclass(frozen=True)
class FelzenszwalbConfig:
    """Felzenszwalb and Huttenlocher's graph-based segmentation (IJCV 2004); the defaults are DetCon's."""

    scale: float = 1000.0
    """k of the paper: the larger, the larger the regions."""
    sigma: float = 0.8
    """Standard deviation of the blur before, in pixels; 0: none."""
    min_size: int = 1000
    """Smallest region, in pixels: smaller ones join their neighbour."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"masks.felzenszwalb.scale: need a number above 0, got {self.scale}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"masks.felzenszwalb.sigma: need a number of at least 0, got {self.sigma}")
        if self.min_size < 1:
            raise ValueError(f"masks.felzenszwalb.min_size: need at least 1 pixel, got {self.min_size}")


@dataclass(frozen=True)
class SelectiveSearchConfig:
    """Boxes of selective search (Uijlings et al., IJCV 2013), painted small over large; the filter is ORL's."""

    mode: Literal["fast", "quality"] = "fast"
    """fast: two colour spaces, three scales; quality: more of both, several times slower."""
    boxes: int = 100
    """Boxes that are kept at most, in the order of their rank; 1 to 254."""
    min_side: int = 96
    """Shortest side of a box, in pixels."""
    max_aspect: float = 3.0
    """Longest side over the shortest, at most."""
    max_iou: float = 0.5
    """Overlap (IoU) with a box that is kept already, at most."""

    def __post_init__(self) -> None:
        if not 1 <= self.boxes <= 254:
            raise ValueError(f"masks.selective_search.boxes: need 1 to 254, got {self.boxes}")
        if self.min_side < 1:
            raise ValueError(f"masks.selective_search.min_side: need at least 1 pixel, got {self.min_side}")
        if not self.max_aspect >= 1:
            raise ValueError(f"masks.selective_search.max_aspect: need at least 1, got {self.max_aspect}")
        if not 0 < self.max_iou <= 1:
            raise ValueError(f"masks.selective_search.max_iou: need above 0 and at most 1, got {self.max_iou}")


@dataclass(frozen=True)
class CrfConfig:
    """Dense CRF (Kraehenbuehl and Koltun, NeurIPS 2011) over bootstrapped masks; needs the extra ``crf``."""

    enabled: bool = False
    """Refine each mask before it is stored (Table 2b); the same as --crf."""
    iterations: int = 10
    """Steps of mean field."""
    smoothness: float = 3.0
    """Weight of the kernel of places."""
    smoothness_position: float = 1.0
    """Its standard deviation, in pixels."""
    appearance: float = 4.0
    """Weight of the kernel of places and colours."""
    appearance_position: float = 67.0
    """Its standard deviation of places, in pixels."""
    appearance_colour: float = 3.0
    """Its standard deviation of colours, in levels of 0 to 255."""
    kappa: float = 10.0
    """Concentration: the unary is -log softmax(kappa * cosine with the prototype)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"masks.crf.iterations: need at least 1, got {self.iterations}")
        for name in ("smoothness", "appearance"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"masks.crf.{name}: need a number of at least 0, got {getattr(self, name)}")
        for name in ("smoothness_position", "appearance_position", "appearance_colour", "kappa"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"masks.crf.{name}: need a number above 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class MaskConfig:
    """Where the regions come from."""

    source: SourceName = "bootstrap"
    """bootstrap: clusters of the network's features; grid: n x n cells; whole: one region; felzenszwalb, selective-search: of the photo's colours, made once; ground-truth: annotations (see truth); none: no masks. ``--masks NAME`` is the same, ``--masks KIND:PATH`` is ground truth."""
    group_size: int = 16
    """Images that are clustered together in bootstrapping (Section 4.1)."""
    short_side: int = 0
    """Longest allowed short side, in pixels, of an image that is bootstrapped; 0: native size."""
    border: int = 0
    """Pixels, a multiple of 32, by which a photo is mirrored beyond its edges before the network sees it in bootstrapping; 0: the network's own padding with zeros."""
    position: float = 0.0
    """Weight of a pixel's place beside its features (unit length) in bootstrapping; 0: features alone, as in the paper."""
    grid: int = 5
    """n of the n x n grid."""
    felzenszwalb: FelzenszwalbConfig = field(default_factory=FelzenszwalbConfig)
    selective_search: SelectiveSearchConfig = field(default_factory=SelectiveSearchConfig)
    truth: str = ""
    """Annotations for ground-truth, KIND:PATH: coco:FILE.json (instances or panoptic), voc:DIR, cityscapes:DIR, ade20k:DIR, folder:DIR of PNGs."""
    crf: CrfConfig = field(default_factory=CrfConfig)
    keep_generations: int = 0
    """Generations of masks that are kept; 0: all."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"masks.group_size: need at least 1, got {self.group_size}")
        if self.short_side != 0 and self.short_side < 32:
            raise ValueError(f"masks.short_side: need 0 (native size) or at least 32, got {self.short_side}")
        if not 0 <= self.border <= 512 or self.border % 32:
            raise ValueError(f"masks.border: need a multiple of 32 from 0 to 512, got {self.border}")
        if not 0 <= self.position < float("inf"):
            raise ValueError(f"masks.position: need a number of at least 0, got {self.position}")
        if not 1 <= self.grid <= 15:
            raise ValueError(f"masks.grid: need 1 to 15 (at most 225 cells), got {self.grid}")
        if self.source == "ground-truth" and not self.truth:
            raise ValueError("masks.truth: ground-truth needs annotations, for example coco:instances_train2017.json")
        if self.crf.enabled and self.source != "bootstrap":
            raise ValueError(f"masks.crf: refines bootstrapped masks, not those of {self.source}; leave it out")
        if self.keep_generations < 0:
            raise ValueError(f"masks.keep_generations: need 0 (all) or more, got {self.keep_generations}")

    def located(self) -> MaskConfig:
        """The same with an absolute path in ``truth``, so that a run can go on from another working directory."""
        kind, colon, path = self.truth.partition(":")
        if not colon:
            kind, path = "", self.truth  # a path alone, whose kind is guessed
        return replace(self, truth=f"{kind}{colon}{Path(path).expanduser().absolute()}") if path else self
