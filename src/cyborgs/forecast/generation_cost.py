"""What a generation of masks costs: a few real groups, and the largest that will come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import numpy as np
import torch

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.masks.felzenszwalb import Felzenszwalb
from cyborgs.masks.generate import generate
from cyborgs.masks.ground_truth import GroundTruth
from cyborgs.masks.selective_search import SelectiveSearch
from cyborgs.masks.source import CHUNK, MaskSource, chunks, cores, in_threads
from cyborgs.masks.static import is_found
from cyborgs.masks.store import MaskStore
from cyborgs.methods.method import Method
from cyborgs.runs.build import build_source
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import held_bytes, mask_pixels
from cyborgs.structures import LabelMap

Say = Callable[[str], None]

SHORT_GROUP: Final = 3.0
"""Seconds: groups of bootstrapping that are quicker are timed four times."""


def measure_generation(
    recipe: Recipe,
    method: Method,
    device: torch.device,
    images: Images,
    some: Images,
    folder: Path,
    cycles: int,
    say: Say,
) -> tuple[float, int]:
    """Seconds and bytes of a whole generation; a collective call.

    Args:
        recipe: resolved; it uses masks.
        method: on the device.
        images: all photos.
        some: those for which maps are left in ``folder/masks``.
        folder: a temporary one.
        cycles: how many generations the run will make.
        say: told what is being measured.
    """
    total = len(images)
    if recipe.masks.source in ("felzenszwalb", "selective-search"):
        return _measure_colours(recipe, _source(recipe, method, device, images), images, some, folder, say)
    if recipe.masks.source != "bootstrap":
        source = _source(recipe, method, device, images)
        if isinstance(source, GroundTruth):
            source = _Picked(source, spread(total, len(some)))
        begun = time.perf_counter()
        generate(source, some, folder / "masks", 0, seed=recipe.seed, cycle=0, manifest={})
        share = total / len(some)
        return share * (time.perf_counter() - begun), round(share * held_bytes(folder / "masks"))
    pixels = mask_pixels(recipe, images)
    with draws_at(method, largest=True):
        source = _source(recipe, method, device, images)
        say("measuring the largest group of bootstrapping")
        heavy = images.subset(_heaviest(source, recipe.seed, cycles, pixels))
        method.eval()
        begun = time.perf_counter()
        generate(source, heavy, folder / "heavy", 0, seed=recipe.seed, cycle=0, manifest={})
        quick = not distributed.all_any(time.perf_counter() - begun >= SHORT_GROUP)
    with draws_at(method, largest=False):
        source = _source(recipe, method, device, images)
        say("measuring bootstrapping")
        world = distributed.world_size()
        wanted = (4 if quick else 2) * world * recipe.masks.group_size
        chosen = np.array(spread(total, min(total, wanted)))
        maps = folder / "typical" / "masks"
        moments: dict[int, float] = {}

        def note(done: int, of: int) -> None:
            moments[done] = time.perf_counter()

        generate(source, images.subset(chosen.tolist()), maps, 0, seed=recipe.seed, cycle=0, manifest={}, progress=note)
        closed = time.perf_counter()
    groups = source.groups(len(chosen), recipe.seed, 0)
    # The first group waits for its pictures, the others are decoded beside the clustering.
    skipped = world if len(groups) > world else 0
    timed = np.take(pixels, np.take(chosen, np.concatenate(groups[skipped:]))).sum()
    seconds = (moments[len(groups)] - moments[skipped]) * pixels.sum() / timed + closed - moments[len(groups)]
    generate(_Repeated(MaskStore(maps)), some, folder / "masks", 0, seed=recipe.seed, cycle=0, manifest={})
    return seconds, round(held_bytes(maps) * pixels.sum() / pixels[chosen].sum())


def _measure_colours(
    recipe: Recipe, source: MaskSource, images: Images, some: Images, folder: Path, say: Say
) -> tuple[float, int]:
    """Seconds and bytes of masks that are made of the photos' colours, which take long, from a few photos; 0 seconds
    where an earlier run has made them.
    """
    say("measuring masks")
    total, world = len(images), distributed.world_size()
    found = isinstance(source, Felzenszwalb | SelectiveSearch) and distributed.run_on_rank_zero(
        lambda: is_found(source, images)
    )
    # As many as keep all cores busy for a while: each process labels its group by itself.
    chosen = spread(total, min(total, world * max(4, 2 * cores())))
    size = -(-len(chosen) // world)
    maps = folder / "typical" / "masks"
    begun = time.perf_counter()
    generate(_Regrouped(source, size), images.subset(chosen), maps, 0, seed=recipe.seed, cycle=0, manifest={})
    seconds = time.perf_counter() - begun
    generate(_Repeated(MaskStore(maps)), some, folder / "masks", 0, seed=recipe.seed, cycle=0, manifest={})
    share = total / len(chosen)
    return 0.0 if found else share * seconds, round(share * held_bytes(maps))


def _heaviest(source: MaskSource, seed: int, cycles: int, pixels: np.ndarray) -> list[int]:
    """The photos of the group that will have the most pixels, over the first cycles of the run."""
    groups = [group for cycle in range(min(cycles, 8)) for group in source.groups(len(pixels), seed, cycle)]

    def size(group: np.ndarray) -> float:
        return float(pixels[group].sum())

    return [int(i) for i in max(groups, key=size)]


def _source(recipe: Recipe, method: Method, device: torch.device, images: Images) -> MaskSource:
    source = build_source(recipe, method, device, images)
    assert source is not None
    return source


def spread(total: int, count: int) -> list[int]:
    """``count`` of the indices 0..total-1, evenly spread."""
    return list(map(int, np.linspace(0, total - 1, count).round()))


@contextmanager
def draws_at(method: Method, largest: bool) -> Iterator[None]:
    """What the method draws at random (K of a clustering) fixed at its most expensive, or at its mean."""
    config = method.config
    method.config = config.most_expensive() if largest else config.typical()
    try:
        yield
    finally:
        method.config = config


@final
class _Regrouped:
    """A source whose groups are smaller than its own."""

    def __init__(self, source: MaskSource, size: int) -> None:
        self.name, self.void, self.needs_images = source.name, source.void, source.needs_images
        self.prepare, self.label = source.prepare, source.label
        self._size = size

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count, self._size)


@final
class _Picked:
    """Annotations of a few of the photos they are of."""

    name: Final = "picked"
    needs_images: Final = False

    def __init__(self, source: GroundTruth, photos: list[int]) -> None:
        self.void = source.void
        self._source, self._photos = source, photos

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        start = group * CHUNK
        return in_threads(self._source.map_of, self._photos[start : start + len(images)])


@final
class _Repeated:
    """The maps of a few photos for any number of photos: a map fits every photo, since its cells are shares of it."""

    name: Final = "repeated"
    needs_images: Final = False

    def __init__(self, store: MaskStore) -> None:
        self.void = store.void
        self._maps = [LabelMap(store[i], store.void) for i in range(len(store))]

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        return [self._maps[i % len(self._maps)] for i in range(len(images))]
