"""What is wrong or doubtful in photos with a class per pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.cocostuff import CocoStuffTruth
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.labelled import check_apart, check_once
from cyborgs.evaluation.sets.pixel_folder import Annotated, Classes, Layout

Bool = NDArray[np.bool_]
VOID_COLUMN: Final = 256
"""Of a survey: pixels that count nowhere."""
_SHOWN: Final = 5
"""Classes that a note names."""


def check_ignore(ignore: int, data_set: str, layout: Layout) -> None:
    """Raises UserError where the label that counts nowhere is none, or a published layout has another one."""
    if not 0 <= ignore <= 255:
        raise UserError(f"--ignore: need 0 to 255, got {ignore}.")
    if data_set and ignore not in (255, layout.ignore):
        raise UserError(f"--ignore: {data_set} says itself which pixels count nowhere; leave it out (got {ignore}).")


def check_listed(data: str, splits: Mapping[str, Annotated]) -> None:
    """Raises UserError where a split is empty, a photo has no labels, is listed twice or in both splits."""
    for name, split in splits.items():
        if split.missing:
            first = split.photos[split.missing[0]]
            raise UserError(
                f"{first}: has no labels; {len(split.missing)} of {len(split.photos)} {name} photos have none."
            )
        if not split.photos:
            raise UserError(f"{data}: has no {name} photo.")
        check_once(data, split.photos, name)
    check_apart(splits["train"].photos, splits["test"].photos)


def check_labelled(data: str, name: str, survey: Bool) -> None:
    """Raises UserError where no pixel of a split is of a class; ``survey`` as ``PixelSet.survey`` gives it."""
    if not survey[:, :VOID_COLUMN].any():
        raise UserError(
            f"{data}: every pixel of the {len(survey)} {name} photos counts nowhere, so there is nothing to learn from "
            "or to be judged by. Are these their label maps, and is --ignore right?"
        )


def numbering_notes(parts: Sequence[tuple[Classes, Bool]]) -> list[str]:
    """Doubts in COCO-Stuff's numbering (``CocoStuffTruth.doubt``) of (annotations, survey of them).

    Of all parts with the same numbering together: a small one alone says little.
    """
    alike: dict[str, list[tuple[CocoStuffTruth, Bool]]] = {}
    for truth, survey in parts:
        if isinstance(truth, CocoStuffTruth):
            alike.setdefault(truth.numbering, []).append((truth, survey))
    notes = []
    for found in alike.values():
        rows = np.concatenate([survey for _, survey in found])
        notes.append(found[0][0].doubt(rows[:, :VOID_COLUMN], rows[:, VOID_COLUMN]))
    return [note for note in notes if note]


def lacking_classes(train: Bool, test: Bool, names: Sequence[str]) -> list[str]:
    """Notes on classes without a pixel in a split; ``train`` and ``test`` (C,) say which have some."""

    def shown(which: Bool) -> str:
        found = [names[c] if names else str(c) for c in np.flatnonzero(which).tolist()]
        return f"{', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}"

    notes = []
    if (test & ~train).any():
        notes.append(
            f"{(test & ~train).sum()} classes of the test photos have no training pixel: {shown(test & ~train)}"
        )
    if not test.all():
        notes.append(f"{(~test).sum()} classes have no test pixel and do not count: {shown(~test)}")
    return notes
