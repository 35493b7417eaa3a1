"""What a source of label maps is: bootstrapped clusters, a grid, the whole crop, or what comes later.

A source cuts the data set into groups and labels one group at a time. What a group is given depends on
(seed, cycle, group) alone, so any process may label any group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol, TypeVar

import numpy as np

from cyborgs.machine.cores import usable_cores
from cyborgs.structures import LabelMap

T = TypeVar("T")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)

CHUNK: Final = 256
"""Images in a group of a source that labels each image by itself."""


class GroupMaker(Protocol[T_co]):
    """Makes something of each photo of a data set, group by group."""

    @property
    def needs_images(self) -> bool:
        """False: pictures are not decoded for it."""

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Indices 0..count-1 cut in groups, int64 each, every index in exactly one."""

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """What :meth:`label` needs of an image, uint8 (H, W, 3) -> uint8 (H', W', 3).

        Called once an image, in the threads that decode: the place to shrink it before a whole group is held in
        memory. Applied to its own result it changes nothing, so :meth:`label` takes both kinds.
        """

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> Sequence[T_co]:
        """Something for each image of a group (of masks: a map), in their order.

        Args:
            images: uint8 (H, W, 3) each, of any sizes; where ``needs_images`` is False only their number counts
                (they may be empty arrays).
            seed: the run's seed.
            cycle: the number of the bootstrapping.
            group: the group's position in what :meth:`groups` gave.
        """


class MaskSource(GroupMaker[LabelMap], Protocol):
    """The contract of all sources; ``tests/masks/contract.py`` is its suite."""

    @property
    def name(self) -> str:
        """As in ``MaskConfig.source``."""

    @property
    def void(self) -> int | None:
        """The label that is never sampled in this source's maps, or None."""

    @property
    def identity(self) -> dict[str, Any] | None:
        """What the maps depend on beside the photos, as JSON holds it: settings, versions of libraries, annotations.

        Given by a source whose maps are worth keeping for other runs: they cost time, and do not depend on weights,
        seed or cycle. None: they do, or they cost nothing.
        """

    @property
    def missing(self) -> frozenset[int]:
        """Photos that it has nothing for: void as a whole."""

    @property
    def too_many(self) -> Mapping[int, int]:
        """Of the photos labelled so far in this process, those with more regions than labels: photo -> regions left out."""


class SourceDefaults:
    """What most sources answer."""

    @property
    def identity(self) -> dict[str, Any] | None:
        """Not worth keeping."""
        return None

    @property
    def missing(self) -> frozenset[int]:
        """None."""
        return frozenset()

    @property
    def too_many(self) -> Mapping[int, int]:
        """None."""
        return {}


def chunks(count: int, size: int = CHUNK) -> list[np.ndarray]:
    """0..count-1 in order, cut in pieces of ``size``: groups for a source whose images are independent."""
    return [np.arange(start, min(start + size, count), dtype=np.int64) for start in range(0, count, size)]


def cores() -> int:
    """Cores for this process: those that it may use, shared with the other processes of a run on this machine."""
    return max(1, usable_cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def in_threads(work: Callable[[T], R], items: Sequence[T], threads: int | None = None) -> list[R]:
    """``work`` of each item, in their order, by several threads: for libraries that release the interpreter.

    ``threads``: None: one a core. The first failure is raised, and what has not begun by then is left.
    """
    threads = min(threads or cores(), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads, thread_name_prefix="label") as pool:
        return list(pool.map(work, items))
