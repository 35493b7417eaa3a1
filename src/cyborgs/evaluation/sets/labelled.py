"""Labelled photos, and their split into those to learn from and those to be judged by: the same for all kinds of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.splits import balanced_order, fingerprint, part_of, stratified

UInt8 = NDArray[np.uint8]
Int = NDArray[np.int64]
_SEVERAL: Final = 56
_ONE: Final = 60  # streams of numpy_generator(seed, "evaluation", ...) for shares


@dataclass(frozen=True)
class Labelled:
    """Photos by number and what is known of each, here which of several classes it holds. Nothing that is read is kept."""

    photos: Images
    labels: NDArray[Any]
    """(N, C): 1 the photo holds the class, -1 it does not, 0 does not count; (N, 0) where nothing is known."""

    def __len__(self) -> int:
        return len(self.photos)

    def name(self, i: int) -> str:
        """What messages call photo i."""
        return self.photos.name(i)

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3). Raises ``data.decode.UnreadableImage`` naming the file."""
        return self.photos.read(i)

    def part(self, numbers: Iterable[int]) -> Self:
        """The photos of these numbers, in their order."""
        chosen = np.fromiter(numbers, np.int64)
        return replace(self, photos=self.photos.subset(chosen.tolist()), labels=self.labels[chosen])

    def drawn(self, share: float, seed: int) -> Int:
        """Numbers, rising, of a part that is drawn from the seed; a smaller share lies in a larger.

        round(share x photos), at least one, of which each class keeps its share (``splits.balanced_order``).
        """
        return balanced_share(self.labels == 1, share, seed, _SEVERAL)

    def class_count(self) -> int:
        """How many classes there are, where each photo or pixel has one; else 0."""
        return 0

    def label_files(self) -> tuple[Path, ...]:
        """Files that hold the labels of single photos, each once."""
        return ()

    def identity(self) -> list[str]:
        """What tells the labels from others, beside photos and label files."""
        return [self.labels.tobytes().hex()]


@dataclass(frozen=True)
class Classified(Labelled):
    """Photos with a class each: ``labels`` are numbers of ``classes``, int64 (N,)."""

    classes: tuple[str, ...]

    def drawn(self, share: float, seed: int) -> Int:
        """As of ``Labelled``, of each class its share, one at least (``splits.stratified``)."""
        return stratified(self.labels, share, seed, _ONE)

    def class_count(self) -> int:
        """Of ``classes``."""
        return len(self.classes)

    def identity(self) -> list[str]:
        """Names of the classes too."""
        return [*self.classes, *super().identity()]


def balanced_share(present: NDArray[np.bool_], share: float, seed: int, stream: int) -> Int:
    """Numbers, rising, of a share of photos with classes ``present`` (N, C): the first of a balanced order."""
    kept = part_of(len(present), share)
    chosen: Int = np.sort(balanced_order(present, seed, stream)[:kept])
    return chosen


L = TypeVar("L", bound=Labelled)


@dataclass(frozen=True)
class Split(Generic[L]):
    """Photos to learn from and photos to be judged by."""

    train: L
    test: L
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Photos and files that are not used, by reason."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know: a split of our own, classes without photos."""

    @property
    def counts(self) -> Mapping[str, int]:
        """``train``, ``test``, ``classes`` where a photo or pixel has one each, and ``skipped: REASON``."""
        classes = self.test.class_count()
        return {
            "train": len(self.train),
            "test": len(self.test),
            **({"classes": classes} if classes else {}),
            **{f"skipped: {reason}": n for reason, n in self.left_out.items()},
        }

    @cached_property
    def fingerprint(self) -> str:
        """See ``splits.fingerprint``: of photos and labels, and of which are for what."""
        parts = {"train": self.train, "test": self.test}
        return fingerprint(
            {name: part.photos for name, part in parts.items()},
            [text for part in parts.values() for text in part.identity()],
            {f"{name} labels": part.label_files() for name, part in parts.items()},
        )

    def chosen(self, share: float, seed: int) -> Int:
        """Numbers, rising, of the training photos that are a share of the labels."""
        return np.arange(len(self.train)) if share == 1 else self.train.drawn(share, seed)

    def share(self, share: float, seed: int) -> L:
        """These photos."""
        return self.train.part(self.chosen(share, seed))


def check_once(where: object, photos: Sequence[Path], part: str = "") -> None:
    """Raises UserError where a photo is listed twice."""
    twice = [photo for photo, n in Counter(photos).items() if n > 1]
    if twice:
        within = f" in {part}" if part else ""
        raise UserError(f"{where}: {twice[0]} is listed twice{within} ({len(twice)} such photos).")


def check_apart(
    first: Sequence[Path], second: Sequence[Path], names: tuple[object, object] = ("train", "test")
) -> None:
    """Raises UserError where a photo is in both."""
    both = sorted(set(first) & set(second))
    if both:
        raise UserError(f"{both[0]} is in {names[0]} and in {names[1]}; {len(both)} photos are in both.")
