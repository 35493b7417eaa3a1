"""Batches of views: a function of seed, epoch and step alone, whoever computes them."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from cyborgs.data.images import Images
from cyborgs.data.listing import InputError
from cyborgs.errors import UserError
from cyborgs.seeds import numpy_generator
from cyborgs.structures import Batch
from cyborgs.views.config import ViewSpec
from cyborgs.views.micro_batches import Masks, MicroBatches, Task, side_bytes
from cyborgs.views.shared_memory import check_shared_memory
from cyborgs.views.side import Artefact
from cyborgs.views.workers import LARGE, PREFETCH, Board, Failure, Parcel, WorkerWatch


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
        artefacts: Mapping[str, Artefact] | None = None,
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
            artefacts: what was prepared of the photos, by the names that crops and ``rides`` ask for.

        Raises:
            InputError: sizes that do not divide, a batch larger than the data set, or an artefact that is not there or of
                other photos.
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
        self.artefacts = dict(artefacts or {})
        self._check_artefacts(spec.artefacts)
        self._calls = 0
        self._crew: _Crew | None = None  # workers that wait for the next epoch

    def _check_artefacts(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.artefacts:
                have = ", ".join(self.artefacts) or "none"
                raise InputError(f"the views need {name!r} of each photo, which is not prepared (prepared: {have}).")
            if len(self.artefacts[name]) != len(self.images):
                raise InputError(
                    f"{name} is of {len(self.artefacts[name])} images, the photos are {len(self.images)}. Make it anew."
                )

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in an epoch; the incomplete last one is dropped."""
        return len(self.images) // self.batch_size

    @property
    def shared_bytes(self) -> int:
        """Most bytes of shared memory that the workers' batches fill: those made ahead, and two steps in use.

        Pixels, and what rides along where it is large (``workers.LARGE``): small tensors travel by value.
        """
        pixels = sum(3 * self.spec.size_of(v) ** 2 for v in range(len(self.spec.crops)))
        large = sum(each for each in side_bytes(self.spec, self.artefacts) if each * self.micro_batch >= LARGE)
        share = self.batch_size // self.world
        return (pixels + large) * (PREFETCH * self.workers * self.micro_batch + 2 * share) if self.workers else 0

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

    def __call__(
        self, epoch: int, first_step: int = 0, *, rides: Sequence[str] = ("labels",), keep: bool = False
    ) -> Iterator[list[Batch]]:
        """Steps ``first_step`` and later of an epoch, one list of micro-batches each.

        Nothing is read ahead beyond the epoch, so masks may change after it.

        Args:
            epoch: draws and order are its own.
            first_step: the first that is given.
            rides: as ``EpochPlan.rides``; without ``labels`` the label grids are None.
            keep: another epoch follows: the workers wait for it, if this one is taken to its end. They change nothing
                but the time.

        Raises:
            UnreadableImage: a photo that was fine in the scan cannot be read now.
            WorkerLost: a loader process was killed; names the picture that it was reading.
            LoaderError: no file or no shared memory is left.
            InputError: an artefact of ``rides`` is not there, or of other photos.
        """
        names = tuple(name for name in rides if name != "labels")
        self._check_artefacts(names)
        share = self.batch_size // self.world
        open_masks = self.open_masks if "labels" in rides else None
        order = self.order(epoch)
        self._calls += 1
        tasks = []
        for step in range(first_step, self.steps_per_epoch):
            for m in range(0, share, self.micro_batch):
                start = step * self.batch_size + self.rank * share + m
                indices = order[start : start + self.micro_batch]
                tasks.append(Task(self._calls, epoch, start % self.batch_size, indices, open_masks, names))
        crew, self._crew = self._crew or _Crew(self), None
        taken, step_batches = 0, []
        try:
            with crew.watch.over(partial(crew.start, tasks)):
                for _ in tasks:
                    result = crew.watch.next()
                    if isinstance(result, Failure):
                        raise result.error
                    taken += 1
                    step_batches.append(result)
                    if len(step_batches) == share // self.micro_batch:
                        yield step_batches
                        step_batches = []
        except UserError as error:
            error.reports_itself = True  # of this process's photos: the others do not have it
            raise
        finally:
            if keep and self.workers and taken == len(tasks):
                self._crew = crew
            else:
                crew.end()


@final
class _Crew:
    """The workers of a loader, for one epoch after another."""

    def __init__(self, batches: Batches) -> None:
        work = MicroBatches(batches)
        self.watch = WorkerWatch(work.board, batches.images.name, batches.shared_bytes)
        self._tasks: list[Task] = []
        self._loader: DataLoader[Batch | Failure | Parcel] | None
        with _quiet():
            self._loader = DataLoader(
                work,
                batch_size=None,
                sampler=self._tasks,
                num_workers=batches.workers,
                prefetch_factor=PREFETCH if batches.workers else None,
                persistent_workers=batches.workers > 0,
                collate_fn=_as_it_is,
                worker_init_fn=partial(_start_worker, work.board),
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # else it draws from the global one, and a resumed run would differ
            )

    def start(self, tasks: list[Task]) -> Iterator[Batch | Failure | Parcel]:
        """The results of these tasks, in their order."""
        assert self._loader is not None
        self._tasks[:] = tasks
        with _quiet():
            return iter(self._loader)

    def end(self) -> None:
        """The workers end: torch's do where nobody holds the loader."""
        self._loader = None


@contextmanager
def _quiet() -> Iterator[None]:
    """More workers than cores are the user's choice. Python 3.12 warns of every fork of a process with threads; the
    workers use none of them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


def _as_it_is(item: Any) -> Any:
    return item


def _start_worker(board: Board, worker: int) -> None:
    """One thread each; and Ctrl-C is for the main process, which decides when the workers end."""
    board.enter(worker)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
