"""Which part of a photo a crop shows: settings. What they draw is in ``views/sampling.py``. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Free:
    """Anywhere, of the crop's ``area`` and ``ratio``: torchvision's RandomResizedCrop."""

    kind: Literal["free"] = field(default="free", init=False)


@dataclass(frozen=True)
class Overlapping:
    """As ``Free``, redrawn until it overlaps an earlier crop of the same photo (PLRC: 0.5 of the larger; SlotCon: 0.01).

    Where no try reaches the share, the one that overlaps most.
    """

    crop: int = 0
    """Number of the earlier crop."""
    share: float = 0.5
    """Common area over the area of ``of``, at least."""
    of: Literal["larger", "own"] = "larger"
    """The larger of both crops, or this one."""
    tries: int = 100
    kind: Literal["overlapping"] = field(default="overlapping", init=False)

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"views.crops.sampler.crop: need the number of an earlier crop, got {self.crop}")
        if not 0 < self.share <= 1:
            raise ValueError(f"views.crops.sampler.share: need above 0 and at most 1, got {self.share}")
        if self.tries < 1:
            raise ValueError(f"views.crops.sampler.tries: need at least 1, got {self.tries}")


@dataclass(frozen=True)
class AroundBox:
    """A box of the photo, jittered (ORL's intra-image pair): redrawn until it is inside the photo and near the box.

    Where no try is, or ``tries`` is 0, the box itself. A photo without boxes has one: the photo.
    """

    artefact: str = "boxes"
    """Prepared boxes, of which one is drawn."""
    like: int = -1
    """Number of an earlier crop, an ``AroundBox`` of the same photo and artefact, whose box this takes too; -1: none."""
    area: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest area over that of the box."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest width over height."""
    shift: float = 0.5
    """Largest distance of the centres, over the sides of the box."""
    iou: float = 0.5
    """Intersection over union with the box: above this."""
    tries: int = 200
    kind: Literal["around-box"] = field(default="around-box", init=False)

    def __post_init__(self) -> None:
        for name in ("area", "ratio"):
            low, high = getattr(self, name)
            if not 0 < low <= high < float("inf"):
                raise ValueError(f"views.crops.sampler.{name}: need 0 < low <= high, got {(low, high)}")
        if not 0 <= self.shift < float("inf"):
            raise ValueError(f"views.crops.sampler.shift: need a number of at least 0, got {self.shift}")
        if not 0 <= self.iou < 1:
            raise ValueError(f"views.crops.sampler.iou: need from 0 to below 1, got {self.iou}")
        if self.tries < 0:
            raise ValueError(f"views.crops.sampler.tries: need at least 0, got {self.tries}")


@dataclass(frozen=True)
class Salient:
    """Of the crop's ``area`` and ``ratio``, round a centre near that of the salient pixels, redrawn until enough of them
    are in it (CAST); then the box round all of them. A photo without salient pixels has a ``Free`` crop.

    Covered must be min(share, share x area of the photo / salient area) of the salient area. The centre is that of the
    salient pixels plus Gaussian noise with the photo's sides as deviations, cut off where the crop would leave the photo.
    """

    artefact: str = "saliency"
    """Prepared saliency maps; salient is what is above 128."""
    share: float = 0.2
    tries: int = 10
    kind: Literal["salient"] = field(default="salient", init=False)

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"views.crops.sampler.share: need above 0 and at most 1, got {self.share}")
        if self.tries < 1:
            raise ValueError(f"views.crops.sampler.tries: need at least 1, got {self.tries}")


Sampler = Free | Overlapping | AroundBox | Salient
SAMPLERS: tuple[type[Sampler], ...] = (Free, Overlapping, AroundBox, Salient)
"""By their ``kind`` in recipe.yaml."""
