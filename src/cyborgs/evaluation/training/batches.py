"""Batches of labelled images for training: shuffled passes, augmented by coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyborgs.seeds import numpy_generator

UInt8 = NDArray[np.uint8]
_ORDER: Final = 40
_DRAW: Final = 41  # streams of numpy_generator(seed, "evaluation", ...)


class Samples(Protocol):
    """Training images by number, augmented by what they are given to draw from."""

    def __len__(self) -> int: ...

    def sample(self, i: int, draw: np.random.Generator) -> tuple[UInt8, NDArray[Any]]:
        """Image uint8 (S, S, 3) and target (a class, or uint8 (S, S)); all of one shape. Runs in loader processes."""
        ...


@dataclass(frozen=True)
class LabelledBatch:
    """Images uint8 (B, 3, S, S) and their targets (B, ...)."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> LabelledBatch:
        """The same batch on another device."""
        return LabelledBatch(
            self.images.to(device, non_blocking=non_blocking), self.targets.to(device, non_blocking=non_blocking)
        )

    def pin_memory(self) -> LabelledBatch:
        """The same batch in page-locked memory."""
        return LabelledBatch(self.images.pin_memory(), self.targets.pin_memory())


class _Draws(Dataset[tuple[Tensor, Tensor]]):
    """Samples by (pass, number): what is drawn for one depends on nothing else."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image, target = self.samples.sample(place[1], numpy_generator(self.seed, "evaluation", _DRAW, *place))
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.as_tensor(target)


def _collate(samples: Sequence[tuple[Tensor, Tensor]]) -> LabelledBatch:
    images, targets = zip(*samples, strict=True)
    return LabelledBatch(torch.stack(images), torch.stack(targets))


def _alone(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


@final
class LabelledBatches:
    """Batches of endless shuffled passes: image n of all is image n mod N of pass n // N, whatever the batch size."""

    def __init__(
        self, samples: Samples, batch_size: int, steps_per_epoch: int, seed: int, workers: int, pin: bool
    ) -> None:
        self._draws = _Draws(samples, seed)
        self._batch = batch_size
        self._steps = steps_per_epoch
        self._seed = seed
        self._workers = workers
        self._pin = pin
        self._orders: dict[int, NDArray[np.int64]] = {}

    def places(self, epoch: int, step: int) -> list[tuple[int, int]]:
        """(pass, number) of each image of a step."""
        n = len(self._draws.samples)
        first = (epoch * self._steps + step) * self._batch
        return [(k // n, int(self._order(k // n)[k % n])) for k in range(first, first + self._batch)]

    def indices(self, epoch: int, step: int) -> list[int]:
        """Numbers of the images of a step."""
        return [number for _, number in self.places(epoch, step)]

    def _order(self, passed: int) -> NDArray[np.int64]:
        if passed not in self._orders:
            self._orders = {k: v for k, v in self._orders.items() if k >= passed - 1}
            order = numpy_generator(self._seed, "evaluation", _ORDER, passed).permutation(len(self._draws.samples))
            self._orders[passed] = order
        return self._orders[passed]

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[list[LabelledBatch]]:
        """The batch of each step of an epoch, from ``first_step`` on."""
        with warnings.catch_warnings():
            # More workers than cores are the user's choice. Python 3.12 warns of every fork of a process with threads;
            # loader processes use none of them.
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            loader = DataLoader(
                self._draws,
                batch_sampler=_Places(self, epoch, first_step, self._steps),
                num_workers=self._workers,
                collate_fn=_collate,
                worker_init_fn=_alone,
                pin_memory=self._pin,
                multiprocessing_context="fork" if self._workers else None,
            )
            batches = iter(loader)
        for batch in batches:
            yield [batch]


@dataclass(frozen=True)
class _Places:
    batches: LabelledBatches
    epoch: int
    first: int
    steps: int

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.steps):
            yield self.batches.places(self.epoch, step)

    def __len__(self) -> int:
        return self.steps - self.first
