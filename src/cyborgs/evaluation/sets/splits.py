"""Parts of labelled sets: drawn from the seed, nested, and told apart by a fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import xxhash
from numpy.typing import NDArray

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.seeds import numpy_generator

_CHOICE: Final = 16
"""Photos of which ``balanced_order`` takes the best."""


def fingerprint(
    photos: Mapping[str, Images], more: Sequence[str], labels: Mapping[str, Sequence[Path]] | None = None
) -> str:
    """SHA-256, in hexadecimal, that tells labelled sets apart.

    Of the files' names below their common folder, by part; of the sizes of photos, in bytes, of the bytes of label
    files, which are the ones that people mend in place; and of ``more``. A copy of the folder elsewhere has the same
    one. No photo is read.

    Raises:
        UserError: a file cannot be read; names it.
    """

    def size(images: Images, i: int) -> tuple[str, bytes]:
        return images.name(i), str(images.file_size(i)).encode()

    files = [(part, *size(images, i)) for part, images in photos.items() for i in range(len(images))]
    files += [(part, str(path), _hash(path)) for part, paths in (labels or {}).items() for path in paths]
    folders = {name.rpartition(os.sep)[0] for _, name, _ in files}
    start = len(os.path.commonpath(folders)) if folders else 0
    digest = hashlib.sha256()
    for part, name, known in files:
        digest.update(b"\0".join((part.encode(), os.fsencode(name[start:].lstrip(os.sep)), known, b"")))
    for text in more:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()


def _hash(path: Path) -> bytes:
    try:
        return xxhash.xxh3_128(path.read_bytes()).digest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def part_of(number: int, share: float) -> int:
    """``share x number``, halves up, at least one. Raises UserError unless 0 < share <= 1."""
    if not 0 < share <= 1:
        raise UserError(f"share: need more than 0 and at most 1, got {share}.")
    return max(1, int(share * number + 0.5))


def stratified(labels: NDArray[np.int64], share: float, seed: int, stream: int) -> NDArray[np.int64]:
    """Positions, rising, of a share of each class: round(share x its photos), halves up, at least one.

    Nested: each class is put in an order drawn from (seed, stream, class) and its first are taken, so that a smaller
    share lies in a larger one. Raises UserError unless 0 < share <= 1.
    """
    chosen: list[int] = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        order = numpy_generator(seed, "evaluation", stream, label).permutation(len(members))
        chosen += members[order[: part_of(len(members), share)]].tolist()
    return np.array(sorted(chosen), np.int64)


def balanced_order(present: NDArray[np.bool_], seed: int, stream: int) -> NDArray[np.int64]:
    """All positions in an order drawn from (seed, stream) whose every beginning has the classes' shares of the whole.

    For photos with several classes each. Until each class that occurs has a photo the next one has the rarest that
    lacks it, so as many photos as classes have all of them; then the next one has the class that lags most behind its
    share. Of the first 16 such photos in a drawn order the one is taken that brings all classes nearest to their
    shares. Photos of no class keep their share too, but none of them is among those of the beginning. The first k of
    the order lie in the first k + 1.

    Args:
        present: (N, C), which classes each photo has.
    """
    number = len(present)
    shuffled = numpy_generator(seed, "evaluation", stream).permutation(number)
    rows = present[shuffled]
    rows = np.concatenate([rows, ~rows.any(axis=1, keepdims=True)], axis=1)  # of no class: one more
    total = rows.sum(axis=0, dtype=np.int64)
    # Whole numbers, so that equal photos tie on every machine: N^2 times how far a class is behind, over its share.
    weight = number // np.maximum(total, 1)
    count = np.zeros_like(total)
    free = np.ones(number, bool)
    order = np.empty(number, np.int64)
    unseen = np.append(total[:-1] > 0, False)
    for step in range(number):
        if step % (number // 32 + 1) == 0:  # so that few of those that wait are taken already
            waiting = [np.flatnonzero(column & free).astype(np.int32) for column in rows.T]
            start = [0] * len(waiting)
        behind = weight * ((step + 1) * total - number * count)
        if unseen.any():
            label = int(np.where(unseen, total, number + 1).argmin())
        else:
            label = int(np.where(count < total, behind, -(number**2) - 1).argmax())
        near = _next_free(waiting[label], start, label, free)
        best = int(near[(rows[near] @ (number * weight - 2 * behind)).argmin()])
        order[step] = shuffled[best]
        free[best] = False
        count += rows[best]
        unseen &= ~rows[best]
    return order


def _next_free(waiting: NDArray[np.int32], start: list[int], label: int, free: NDArray[np.bool_]) -> NDArray[np.int32]:
    """The first of ``waiting`` from ``start[label]`` that are free, at most ``_CHOICE``; moves the start up."""
    while True:
        window = waiting[start[label] : start[label] + 2 * _CHOICE]
        found: NDArray[np.int32] = window[free[window]][:_CHOICE]
        if len(found):
            return found
        start[label] += 2 * _CHOICE


def first_of(number: int, kept: int, seed: int, stream: int) -> NDArray[np.int64]:
    """Positions, rising, of ``kept`` of ``number`` in an order drawn from (seed, stream): fewer lie in more."""
    order = numpy_generator(seed, "evaluation", stream).permutation(number)
    chosen: NDArray[np.int64] = np.sort(order[:kept])
    return chosen
