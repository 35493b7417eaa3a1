"""What travels between the rooms of the house: dtype and shape, said once.

Nothing here imports torch when it is loaded, so that recipes and ``--help`` stay fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

MAX_LABELS = 256
"""A label map is uint8: labels 0..255."""


@dataclass(frozen=True)
class EpochPlan:
    """What an epoch does. A pure function of the epoch: see ``methods/settings.py``."""

    epoch: int
    refresh: tuple[str, ...]
    """Artefacts to make anew before the first step, e.g. ``("masks",)``."""
    losses: Mapping[str, float]
    """Weight of each loss that is computed; a loss that is absent is not computed."""
    phase: str = "training"
    """``warm-up`` or ``training``: what the progress line says."""
    rides: tuple[str, ...] = ()
    """What comes with the views: ``labels`` (of the masks), or names of prepared artefacts."""


@dataclass(frozen=True)
class LabelMap:
    """Regions of one image."""

    labels: np.ndarray
    """uint8 (h, w). Cell i of h covers [i/h, (i+1)/h) of the image's height; columns alike."""
    void: int | None = None
    """A label that is never sampled as a region, or None."""

    def __post_init__(self) -> None:
        if self.labels.ndim != 2 or self.labels.dtype.name != "uint8" or not self.labels.size:
            raise ValueError(
                f"a label map is uint8 (h, w) with at least one cell, got {self.labels.dtype} {self.labels.shape}"
            )


@dataclass(frozen=True)
class PhotoMask:
    """The finished mask of one photo, at its size: what is written and exported."""

    index: int
    """The photo's number in its data set."""
    name: str
    """The photo's path below its folder, as ``os.fsdecode`` gives it."""
    mask: str
    """Path of its mask below the folder of masks; ends in ``.png``."""
    labels: np.ndarray
    """uint8 (H, W), as the photo is displayed."""
    cosine: np.ndarray | None = None
    """float32 (H, W): cosine of a pixel's feature and the prototype of its label, where that is known."""
    void: int | None = None
    """A label that is no region, or None."""
    orientation: int = 1
    """EXIF orientation 1 to 8 of the photo's file, which the mask has applied."""


class ViewGeometry(NamedTuple):
    """Where a view lies in its image: the crop box in image pixels and whether it was mirrored.

    The box covers [y0, y0 + h) x [x0, x0 + w); after the crop the view is mirrored left-right where ``flip``.
    """

    y0: int
    x0: int
    h: int
    w: int
    flip: bool
    image_h: int
    image_w: int

    @staticmethod
    def stack(views: Sequence[ViewGeometry]) -> Geometries:
        """The geometries of a batch."""
        import torch

        return Geometries(torch.tensor([tuple(map(float, view)) for view in views], dtype=torch.float64))


@dataclass(frozen=True)
class Geometries:
    """The geometry of one view of each image of a batch: as ``ViewGeometry``, a row an image."""

    table: Tensor
    """float64 (B, 7): the fields of ``ViewGeometry`` in their order, ``flip`` as 0 or 1."""

    @property
    def y0(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 0]

    @property
    def x0(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 1]

    @property
    def h(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 2]

    @property
    def w(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 3]

    @property
    def flip(self) -> Tensor:
        """bool (B,)."""
        return self.table[:, 4] != 0

    @property
    def image_h(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 5]

    @property
    def image_w(self) -> Tensor:
        """float64 (B,)."""
        return self.table[:, 6]

    def __getitem__(self, images: slice) -> Geometries:
        return Geometries(self.table[images])

    def __len__(self) -> int:
        return len(self.table)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Geometries:
        """The same on another device."""
        return Geometries(self.table.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Geometries:
        """The same in page-locked memory."""
        return Geometries(self.table.pin_memory())


@dataclass(frozen=True)
class View:
    """One view of each image of a batch."""

    images: Tensor
    """uint8 (B, 3, S, S), RGB; normalised on the device, at the last moment."""
    geometry: Geometries
    """Where the views lie in their images."""
    labels: Tensor | None = None
    """uint8 (B, g, g): the majority label of each grid cell, or None where there are no maps."""

    def __getitem__(self, images: slice) -> View:
        return View(self.images[images], self.geometry[images], None if self.labels is None else self.labels[images])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> View:
        """The same view on another device."""
        return View(
            self.images.to(device, non_blocking=non_blocking),
            self.geometry.to(device, non_blocking=non_blocking),
            None if self.labels is None else self.labels.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> View:
        """The same view in page-locked memory."""
        labels = None if self.labels is None else self.labels.pin_memory()
        return View(self.images.pin_memory(), self.geometry.pin_memory(), labels)


@dataclass(frozen=True)
class Batch:
    """What a method is given: the part of one global batch that this process handles at once."""

    views: tuple[View, ...]
    indices: Tensor
    """int64 (B,): positions of the images in the scan's ``images.csv``."""
    first: int
    """Position of the first image within the global batch; slices are counted from it."""
    label_order: Tensor | None = None
    """uint8 (B, 256): a random order of all labels per image, from its sample generator."""
    void: int | None = None
    """The label that is never sampled, if the maps have one."""
    side: Mapping[str, Tensor] = field(default_factory=dict)
    """What rides along beside label maps (saliency, boxes, neighbours), by name, images along the first axis."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, images: slice) -> Batch:
        return Batch(
            tuple(view[images] for view in self.views),
            self.indices[images],
            self.first + (images.start or 0),
            None if self.label_order is None else self.label_order[images],
            self.void,
            {name: side[images] for name, side in self.side.items()},
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            tuple(v.to(device, non_blocking) for v in self.views),
            self.indices.to(device, non_blocking=non_blocking),
            self.first,
            None if self.label_order is None else self.label_order.to(device, non_blocking=non_blocking),
            self.void,
            {name: side.to(device, non_blocking=non_blocking) for name, side in self.side.items()},
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return Batch(
            tuple(v.pin_memory() for v in self.views),
            self.indices.pin_memory(),
            self.first,
            None if self.label_order is None else self.label_order.pin_memory(),
            self.void,
            {name: side.pin_memory() for name, side in self.side.items()},
        )


@dataclass(frozen=True)
class StepSeed:
    """The coordinates from which a step draws: never a rank, never a worker."""

    seed: int
    epoch: int
    step: int
    """Step within the epoch."""


StepPart = Literal["whole", "embed", "rest"]


class StepWork:
    """The arguments of a step in one opaque object.

    Not a dataclass: wrappers for precision and processes look into those, copy them and move their tensors.
    """

    def __init__(
        self, batch: Batch, plan: EpochPlan, seed: StepSeed, measure: bool = False, part: StepPart = "whole"
    ) -> None:
        self.batch = batch
        self.plan = plan
        self.seed = seed
        self.measure = measure
        """Whether the step is logged: figures that cost time are computed then alone."""
        self.part = part
        """``whole``, or one of the two passes of a step whose losses span several micro-batches."""


@dataclass(frozen=True)
class StepOutput:
    """What ``training_step`` returns."""

    losses: Mapping[str, Tensor]
    """Scalars with gradient, by the names of ``EpochPlan.losses``; the trainer weighs and adds them."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars without gradient, for the log."""
