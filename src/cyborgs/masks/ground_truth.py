"""Annotations as masks (Figure 5a's "ground truth"): what bootstrapping would like to reach."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from cyborgs.data.annotations.matching import walk
from cyborgs.data.annotations.open import guess, split_spec
from cyborgs.data.annotations.truth import Truth
from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.masks.source import CHUNK, chunks, in_threads
from cyborgs.structures import LabelMap

VOID: Final = 255
SKEW: Final = 1.05
"""Largest ratio of the aspects of a photo and its annotation: beyond it the two are not of the same picture."""


@dataclass(frozen=True)
class GroundTruth:
    """A map a photo, at the annotation's size: objects and stuff one by one, 255 where nothing is said.

    A photo without an annotation is void as a whole (one cell): no region of it is ever sampled.
    """

    truth: Truth
    """The annotations of the photos, in their order."""
    count: int
    """How many photos there are."""
    photos: Images | None = None
    """The photos, whose aspects are compared with those of their annotations; None: not compared."""
    digest: str = ""
    """Changes with the annotations (``digest_of``)."""
    threads: int | None = None
    """That label a group; None: one a core. They change nothing but the time."""
    too_many: dict[int, int] = field(default_factory=dict, compare=False)
    """Of the photos labelled so far in this process, those with more regions than labels: photo -> regions left out."""

    name: ClassVar[str] = "ground-truth"
    void: ClassVar[int | None] = VOID
    needs_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.count and len(self.truth.missing) >= self.count:
            raise UserError(
                f"masks.truth: none of the {self.count} photos has an annotation ({self.truth.kind}). "
                "Are these the annotations of these photos? They are found by the photos' names."
            )

    @cached_property
    def missing(self) -> frozenset[int]:
        """Photos without an annotation."""
        return frozenset(self.truth.missing)

    @property
    def identity(self) -> dict[str, Any]:
        """What annotations these are."""
        return {"rules": 1, "kind": self.truth.kind, "digest": self.digest}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        """Consecutive chunks, so that a group's number says which photos are in it."""
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image as it is."""
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        """uint8 (h, w) for each photo of the group, in their order.

        Raises:
            UserError: an annotation is damaged, or of another shape than its photo; names it.
        """
        start = group * CHUNK
        return in_threads(self.map_of, range(start, start + len(images)), self.threads)

    def map_of(self, i: int) -> LabelMap:
        """The map of photo i; raises as ``label``."""
        if i in self.missing:
            return LabelMap(np.full((1, 1), VOID, np.uint8), self.void)
        regions = self.truth.regions(i)
        if self.photos is not None:
            (height, width), (h, w) = self.photos.size(i), regions.shape
            if not 1 / SKEW < (h * width) / (w * height) < SKEW:
                raise UserError(
                    f"masks.truth: the annotation of {self.photos.name(i)} is {w} x {h} pixels (width x height), the "
                    f"photo {width} x {height}: they do not show the same. Correct the annotation, or remove it."
                )
        labels, left_out = as_labels(regions)
        if left_out:
            self.too_many[i] = left_out
        return LabelMap(labels, self.void)


def as_labels(regions: NDArray[np.int32]) -> tuple[NDArray[np.uint8], int]:
    """int32 (h, w), below 0: void -> uint8 with void 255, and the regions left out: of more than 255 the smallest are void.

    Of equally large ones the lower number stays. Labels are 0..n-1 in the order of the numbers, those without a pixel
    left out.
    """
    counts = np.bincount(regions.ravel().clip(-1) + 1)[1:]
    present = np.flatnonzero(counts)
    left_out = max(0, len(present) - VOID)
    if left_out:
        present = np.sort(present[np.argsort(-counts[present], kind="stable")[:VOID]])
    table = np.full(len(counts) + 1, VOID, np.uint8)
    table[present + 1] = np.arange(len(present), dtype=np.uint8)
    return table[regions.clip(-1) + 1], left_out


def digest_of(spec: str, field: str = "masks.truth") -> str:
    """16 hexadecimal digits that change with the annotations KIND:PATH.

    Of a file its bytes, and the folder of the same name without a suffix beside it (the PNGs of panoptic annotations);
    of a folder the names, sizes and times of change of all files below it, which are not read.

    ``field``: what names it in messages.

    Raises:
        UserError: it cannot be read; names it.
    """
    kind, path = split_spec(spec)
    digest = xxhash.xxh64(os.fsencode(kind or guess(path)))
    try:
        if path.is_file():
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
        elif not path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "it is not there")
        below = path.with_suffix("") if path.is_file() else path
        for folder, files in walk(below):
            for name in files:
                stat = Path(folder, name).stat()
                entry = (os.path.relpath(os.path.join(folder, name), below), stat.st_size, stat.st_mtime_ns)  # noqa: PTH118
                digest.update(os.fsencode(repr(entry)))
    except OSError as error:
        raise UserError(f"{field}: {path}: cannot be read: {error.strerror}.") from error
    return digest.hexdigest()
