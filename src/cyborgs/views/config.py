"""Settings of the views. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tyro.conf import Suppress

from cyborgs.views.samplers import AroundBox, Free, Overlapping, Salient, Sampler

LARGEST = 4096
"""Side of a view in pixels, at most: a number typed wrong must not become a demand for memory."""
MOST_CROPS = 64
"""Views of an image, at most, likewise."""


@dataclass(frozen=True)
class Crop:
    """One random view: crop, mirror, colours. Defaults are BYOL's first view."""

    size: int = 0
    """Side in pixels; 0: the size of the ViewSpec."""
    area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Smallest and largest width over height."""
    flip: float = 0.5
    """Probability of a left-right mirror."""
    jitter: float = 0.8
    """Probability of colour jitter."""
    brightness: float = 0.4
    """Brightness is multiplied by 1 - b to 1 + b."""
    contrast: float = 0.4
    """Contrast is multiplied by 1 - c to 1 + c."""
    saturation: float = 0.2
    """Saturation is multiplied by 1 - s to 1 + s."""
    hue: float = 0.1
    """Hue is turned by -h to h of the circle."""
    grey: float = 0.2
    """Probability of greyscale."""
    blur: float = 1.0
    """Probability of Gaussian blur."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Smallest and largest standard deviation of the blur, in pixels."""
    solarise: float = 0.0
    """Probability of inverting all values of at least 128."""
    grid: int = 0
    """Cells a side of the grid for what rides along; 0: the grid of the ViewSpec."""
    photo: Suppress[str] = "own"
    """own, or prepared neighbours (an artefact's name) of which one is shown: all crops that name them show the same."""
    sampler: Suppress[Sampler] = field(default_factory=Free)
    """Where it lies in the photo."""

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"views.crops.{name}: need a probability from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"views.crops.area: need 0 < low <= high <= 1, got {self.area}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"views.crops.ratio: need 0 < low <= high, got {self.ratio}")
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"views.crops.sigma: need 0 < low <= high, got {self.sigma}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"views.crops.hue: need 0 to 0.5, got {self.hue}")
        if not 0 <= self.size <= LARGEST or self.size % 32:
            raise ValueError(f"views.crops.size: need a multiple of 32 from 0 to {LARGEST}, got {self.size}")
        if self.grid < 0:
            raise ValueError(f"views.crops.grid: need at least 0, got {self.grid}")
        if not self.photo:
            raise ValueError("views.crops.photo: need own, or the name of prepared neighbours, got nothing")


@dataclass(frozen=True)
class ViewSpec:
    """How many views, how they look, which maps ride along."""

    size: int = 224
    """Side of a view in pixels, a multiple of 32."""
    grid: int = 7
    """Cells a side of the grid on which regions are pooled."""
    crops: tuple[Crop, ...] = field(default=(Crop(), Crop(blur=0.1, solarise=0.2)))
    """The views of an image, of any number and sizes."""
    interpolation: Literal["linear", "area"] = "linear"
    """Resizing of crops: bilinear without antialiasing (published), or area averages."""

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise ValueError(f"views.size: need a multiple of 32, got {self.size}")
        if self.size > LARGEST:
            raise ValueError(f"views.size: need at most {LARGEST}, got {self.size}")
        if not 1 <= self.grid <= self.size // 8:
            raise ValueError(f"views.grid: need 1 to size/8 = {self.size // 8}, got {self.grid}")
        if not 1 <= len(self.crops) <= MOST_CROPS:
            raise ValueError(f"views.crops: need 1 to {MOST_CROPS}, got {len(self.crops)}")
        for v, crop in enumerate(self.crops):
            self._check(v, crop)

    def _check(self, v: int, crop: Crop) -> None:
        size, grid = self.size_of(v), self.grid_of(v)
        if grid > size // 8:
            raise ValueError(f"views.crops.{v}.grid: need 1 to size/8 = {size // 8}, got {grid}")
        sampler = crop.sampler
        if isinstance(sampler, Overlapping):
            if sampler.crop >= v or self.crops[sampler.crop].photo != crop.photo:
                raise ValueError(
                    f"views.crops.{v}.sampler.crop: need an earlier crop of the same photo, got {sampler.crop}"
                )
        elif isinstance(sampler, AroundBox) and sampler.like >= 0:
            other = self.crops[sampler.like] if sampler.like < v else None
            same = other is not None and isinstance(other.sampler, AroundBox) and other.photo == crop.photo
            if not same:
                raise ValueError(
                    f"views.crops.{v}.sampler.like: need an earlier crop round a box of the same photo, got {sampler.like}"
                )

    def size_of(self, v: int) -> int:
        """Side of view v in pixels."""
        return self.crops[v].size or self.size

    def grid_of(self, v: int) -> int:
        """Cells a side of view v's grid: the crop's, else the spec's, as far as 8 pixels a cell allow."""
        return self.crops[v].grid or min(self.grid, self.size_of(v) // 8)

    @property
    def artefacts(self) -> tuple[str, ...]:
        """Names of the prepared artefacts that the crops are drawn with."""
        drawn = [crop.sampler.artefact for crop in self.crops if isinstance(crop.sampler, AroundBox | Salient)]
        return tuple(dict.fromkeys((*(crop.photo for crop in self.crops if crop.photo != "own"), *drawn)))
