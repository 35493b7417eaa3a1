"""Batches of views: a function of seed, epoch and step alone, whoever computes them."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from cyborgs.data.images import Images
from cyborgs.data.listing import InputError
from cyborgs.errors import UserError
from cyborgs.seeds import numpy_generator
from cyborgs.structures import Batch, View, ViewGeometry
from cyborgs.views.config import ViewSpec
from cyborgs.views.pair import make_views
from cyborgs.views.shared_memory import check_shared_memory
from cyborgs.views.workers import PREFETCH, Board, Failure, Parcel, WorkerWatch


class Masks(Protocol):
    """What the loader needs of a mask store."""

    @property
    def void(self) -> int | None:
        """Label that is never sampled."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """uint8 (h, w) of image ``index``."""


class Batches:
    """``batches(epoch)`` gives, for each global step, this process's micro-batches."""

    def __init__(
        self,
        images: Images,
        spec: ViewSpec,
        *,
        batch_size: int,
        micro_batch: int = 0,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        open_masks: Callable[[], Masks] | None = None,
    ) -> None:
        """Settle the sizes.

        Args:
            images: the usable photos.
            spec: the views.
            batch_size: images of a global step, over all processes.
            micro_batch: images of a process in one Batch; 0: its whole share.
            seed: everything random derives from it, with epoch and image index.
            workers: loader processes; 0: in this one. They change nothing but the time.
            rank: this process's number; it takes the ``rank``-th part of each global batch.
            world: number of processes.
            open_masks: opens the current masks; called anew in every epoch and worker, so it must pickle
                (``functools.partial(MaskStore, path)``). None: there never are any.

        Raises:
            InputError: sizes that do not divide, or a batch larger than the data set.
        """
        if batch_size > len(images):
            raise InputError(
                f"batch_size: {batch_size} is more than the {len(images)} usable photos. Give more photos or a smaller batch."
            )
        if batch_size % world:
            raise InputError(f"batch_size: {batch_size} is no multiple of the {world} processes.")
        share = batch_size // world
        self.micro_batch = micro_batch or share
        if share % self.micro_batch:
            raise InputError(f"micro_batch: {micro_batch} does not divide the {share} images of a process and step.")
        self.images = images
        self.spec = spec
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.rank = rank
        self.world = world
        self.open_masks = open_masks

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch; the incomplete last one is dropped."""
        return len(self.images) // self.batch_size

    @property
    def shared_bytes(self) -> int:
        """Most bytes of shared memory that the workers' batches fill: those made ahead, and two steps in use."""
        pixels = sum(3 * (crop.size or self.spec.size) ** 2 for crop in self.spec.crops)
        share = self.batch_size // self.world
        return pixels * (PREFETCH * self.workers * self.micro_batch + 2 * share) if self.workers else 0

    def check(self, processes: int = 1) -> None:
        """See before the first step that there is room for what the workers will hold.

        Args:
            processes: processes of the run on this machine.

        Raises:
            LoaderError: shared memory is too small; says how much is needed and free, and what to do.
        """
        check_shared_memory(self.shared_bytes * processes)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Image indices in the order of this epoch."""
        return numpy_generator(self.seed, "order", epoch).permutation(len(self.images))

    def indices(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The images of this process in a step of an epoch."""
        share = self.batch_size // self.world
        start = step * self.batch_size + self.rank * share
        return self.order(epoch)[start : start + share]

    def __call__(self, epoch: int, first_step: int = 0, *, rides: Sequence[str] = ("labels",)) -> Iterator[list[Batch]]:
        """Steps ``first_step`` and later of an epoch, one list of micro-batches each.

        ``rides``: as ``EpochPlan.rides``; without ``labels`` the label grids are None. Nothing is read ahead beyond the epoch, so masks may change after it.

        Raises:
            UnreadableImage: a photo that was fine in the scan cannot be read now.
            WorkerLost: a loader process was killed; names the picture that it was reading.
            LoaderError: no file or no shared memory is left.
        """
        share = self.batch_size // self.world
        starts = [
            step * self.batch_size + self.rank * share + m
            for step in range(first_step, self.steps_per_epoch)
            for m in range(0, share, self.micro_batch)
        ]
        work = _MicroBatches(self, epoch, self.open_masks if "labels" in rides else None)
        watch = WorkerWatch(work.board, self.images.name, self.shared_bytes)
        step: list[Batch] = []
        with watch.over(lambda: self._loader(work, starts)):
            try:
                for _ in starts:
                    result = watch.next()
                    if isinstance(result, Failure):
                        raise result.error
                    step.append(result)
                    if len(step) == share // self.micro_batch:
                        yield step
                        step = []
            except UserError as error:
                error.reports_itself = True  # of this process's photos: the others do not have it
                raise

    def _loader(self, work: _MicroBatches, starts: list[int]) -> Iterator[Batch | Failure | Parcel]:
        with warnings.catch_warnings():
            # More workers than cores are the user's choice. Python 3.12 warns of every fork of a process with threads;
            # the workers use none of them.
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            loader: DataLoader[Batch | Failure | Parcel] = DataLoader(
                work,
                batch_size=None,
                sampler=starts,
                num_workers=self.workers,
                prefetch_factor=PREFETCH if self.workers else None,
                collate_fn=_as_it_is,
                worker_init_fn=partial(_start_worker, work.board),
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # else it draws from the global one, and a resumed run would differ
            )
            return iter(loader)


class _MicroBatches(Dataset["Batch | Failure | Parcel"]):
    """Micro-batches of one epoch by the position of their first image in the epoch."""

    def __init__(self, batches: Batches, epoch: int, open_masks: Callable[[], Masks] | None) -> None:
        self.images = batches.images
        self.spec = batches.spec
        self.seed = batches.seed
        self.epoch = epoch
        self.order = batches.order(epoch)
        self.count = batches.micro_batch
        self.batch_size = batches.batch_size
        self.open_masks = open_masks
        self.shared_bytes = batches.shared_bytes
        self.board = Board(batches.workers)
        self._masks: Masks | None = None  # opened where it is read: an open file does not travel between processes

    def __getitem__(self, start: int) -> Batch | Failure | Parcel:
        packed = get_worker_info() is not None
        try:
            batch = self._make(start)
            return Parcel(batch) if packed else batch
        except Exception as error:
            failure = Failure(error, self.shared_bytes)
            return Parcel(failure) if packed else failure

    def _make(self, start: int) -> Batch:
        if self._masks is None and self.open_masks is not None:
            self._masks = self.open_masks()
            if len(self._masks) != len(self.images):
                raise InputError(
                    f"the masks are of {len(self._masks)} images, the photos are {len(self.images)}. "
                    "Make the masks anew from these photos."
                )
        masks = self._masks
        indices = self.order[start : start + self.count]
        shared = get_worker_info() is not None
        pixels = [self._empty(crop.size or self.spec.size, shared) for crop in self.spec.crops]
        arrays = [tensor.numpy() for tensor in pixels]
        made = []
        for b, index in enumerate(indices.tolist()):
            rng = numpy_generator(self.seed, "sample", self.epoch, index)
            with self.board.reading(index):
                label_map = None if masks is None else masks[index]
                made.append(make_views(self.images.read(index), label_map, self.spec, rng, into=[a[b] for a in arrays]))
        views = []
        for v, tensor in enumerate(pixels):
            geometry = ViewGeometry.stack([sample[v].geometry for sample, _ in made])
            grids = [sample[v].labels for sample, _ in made]
            labels = None if masks is None else torch.from_numpy(np.stack([g for g in grids if g is not None]))
            views.append(View(tensor, geometry, labels))
        return Batch(
            views=tuple(views),
            indices=torch.from_numpy(indices.astype(np.int64)),
            first=start % self.batch_size,
            label_order=torch.from_numpy(np.stack([order for _, order in made])),
            void=None if masks is None else masks.void,
        )

    def _empty(self, size: int, shared: bool) -> torch.Tensor:
        """uint8 (count, 3, size, size); in a worker already where the main process can see it, which saves a copy."""
        tensor = torch.empty(self.count, 3, size, size, dtype=torch.uint8)
        if shared:
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        return tensor


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(board: Board, worker: int) -> None:
    """One thread each; and Ctrl-C is for the main process, which decides when the workers end."""
    board.enter(worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
