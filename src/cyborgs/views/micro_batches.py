"""The work of a loader process: one micro-batch from a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, get_worker_info

from cyborgs.data.images import Images
from cyborgs.data.listing import InputError
from cyborgs.seeds import numpy_generator
from cyborgs.structures import MAX_LABELS, Batch, View, ViewGeometry
from cyborgs.views.config import ViewSpec
from cyborgs.views.sample import OneView, Photo, make_views
from cyborgs.views.side import Artefact, side_data
from cyborgs.views.workers import Board, Failure, Parcel


class Masks(Protocol):
    """What the loader needs of a mask store."""

    @property
    def void(self) -> int | None:
        """Label that is never sampled."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """uint8 (h, w) of image ``index``."""


@dataclass(frozen=True)
class Task:
    """One micro-batch. It travels to a worker, which is older than the epoch."""

    call: int
    """Number of the epoch among all that the loader was asked for: masks are opened anew in each."""
    epoch: int
    first: int
    """Position of the first image within the global batch."""
    indices: NDArray[np.int64]
    """The images."""
    open_masks: Callable[[], Masks] | None
    rides: tuple[str, ...]
    """Names of the artefacts that ride along."""


class Settings(Protocol):
    """What ``views/loader.py: Batches`` hands on."""

    images: Images
    spec: ViewSpec
    seed: int
    workers: int
    artefacts: dict[str, Artefact]

    @property
    def shared_bytes(self) -> int:
        """Of shared memory, at most."""


class MicroBatches(Dataset["Batch | Failure | Parcel"]):
    """Micro-batches by their tasks."""

    def __init__(self, batches: Settings) -> None:
        self.images = batches.images
        self.spec = batches.spec
        self.seed = batches.seed
        self.artefacts = batches.artefacts
        self.shared_bytes = batches.shared_bytes
        self.board = Board(batches.workers)
        self._call = -1
        self._masks: Masks | None = None  # opened where it is read: an open file does not travel between processes

    def __getitem__(self, task: Task) -> Batch | Failure | Parcel:
        packed = get_worker_info() is not None
        try:
            batch = self._make(task)
            return Parcel(batch) if packed else batch
        except Exception as error:
            failure = Failure(error, self.shared_bytes)
            return Parcel(failure) if packed else failure

    def _open(self, task: Task) -> None:
        self._masks = None
        if task.open_masks is not None:
            self._masks = task.open_masks()
            if len(self._masks) != len(self.images):
                raise InputError(
                    f"the masks are of {len(self._masks)} images, the photos are {len(self.images)}. "
                    "Make the masks anew from these photos."
                )
        self._call = task.call

    def _make(self, task: Task) -> Batch:
        if task.call != self._call:
            self._open(task)
        shared = get_worker_info() is not None
        count, views = len(task.indices), range(len(self.spec.crops))
        pixels = [_empty(count, self.spec.size_of(v), shared) for v in views]
        arrays = [tensor.numpy() for tensor in pixels]
        rides = {name: self.artefacts[name] for name in task.rides}
        read = _Reader(self, tuple(dict.fromkeys((*self.spec.artefacts, *rides))))
        made, sides = [], []
        for b, index in enumerate(task.indices.tolist()):
            rng = numpy_generator(self.seed, "sample", task.epoch, index)
            photo = read(index)
            sample, order = make_views(photo, self.spec, rng, read=read, into=[a[b] for a in arrays])
            made.append((sample, order))
            sides.append(side_data(rides, photo, sample, self.spec))
        return Batch(
            views=tuple(_view(pixels[v], [sample[v] for sample, _ in made]) for v in views),
            indices=torch.from_numpy(task.indices.astype(np.int64)),
            first=task.first,
            label_order=torch.from_numpy(np.stack([order for _, order in made])),
            void=None if self._masks is None else self._masks.void,
            side={name: torch.from_numpy(np.stack([side[name] for side in sides])) for name in sides[0]},
        )


@dataclass(frozen=True)
class _Reader:
    """Gives photos with what is needed of them."""

    work: MicroBatches
    names: tuple[str, ...]
    """Artefacts."""

    def __call__(self, index: int) -> Photo:
        work = self.work
        with work.board.reading(index):
            labels = None if work._masks is None else work._masks[index]
            prepared = {name: work.artefacts[name][index] for name in self.names}
            return Photo(work.images.read(index), labels, prepared, index)


def _view(pixels: torch.Tensor, made: Sequence[OneView]) -> View:
    grids = [view.labels for view in made if view.labels is not None]
    labels = torch.from_numpy(np.stack(grids)) if grids else None
    return View(pixels, ViewGeometry.stack([view.geometry for view in made]), labels)


def _empty(count: int, size: int, shared: bool) -> torch.Tensor:
    """uint8 (count, 3, size, size); in a worker already where the main process can see it, which saves a copy."""
    tensor = torch.empty(count, 3, size, size, dtype=torch.uint8)
    if shared:
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def made_up_batch(spec: ViewSpec, images: int, side: Mapping[str, Artefact] | None = None) -> Batch:
    """Random pixels whose views hold as many regions as their grid has cells, all matched.

    ``side``: artefacts that ride along, by name.
    """
    generator = torch.Generator().manual_seed(0)
    rides = dict(side or {})
    views, sample = [], []
    photo = Photo(np.zeros((1, 1, 3), np.uint8), None, {name: artefact[0] for name, artefact in rides.items()})
    for v in range(len(spec.crops)):
        size, grid = spec.size_of(v), spec.grid_of(v)
        whole = ViewGeometry(0, 0, size, size, False, size, size)
        labels = (torch.arange(grid**2) % MAX_LABELS).to(torch.uint8).view(1, grid, grid)
        pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
        views.append(View(pixels, ViewGeometry.stack([whole] * images), labels.repeat(images, 1, 1)))
        sample.append(OneView(photo.image, whole, None, photo))
    order = torch.arange(MAX_LABELS, dtype=torch.uint8).repeat(images, 1)
    made = {
        name: torch.from_numpy(np.repeat(value[None], images, axis=0))
        for name, value in side_data(rides, photo, sample, spec).items()
    }
    return Batch(tuple(views), torch.arange(images), 0, order, side=made)


def side_bytes(spec: ViewSpec, artefacts: Mapping[str, Artefact]) -> Iterator[int]:
    """Bytes of one image in each tensor that may ride along: label grids and artefacts."""
    for v in range(len(spec.crops)):
        cells = spec.grid_of(v) ** 2
        yield cells
        for artefact in artefacts.values():
            yield {"saliency": 4 * cells, "boxes": 16 * artefact.width, "neighbours": 0}[artefact.kind]
    for artefact in artefacts.values():
        if artefact.kind == "neighbours":
            yield 8 * artefact.width
