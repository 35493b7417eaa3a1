"""Annotations in memory, with the contract of ``data.annotations.truth.Truth``, and the opener that finds them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from cyborgs.errors import UserError


class FakeTruth:
    def __init__(
        self,
        classes: Sequence[np.ndarray | None],
        annotators: Sequence[list[np.ndarray]] | None = None,
        class_names: tuple[str, ...] = (),
        kind: str = "folder",
    ) -> None:
        self.maps = classes
        self.several = annotators
        self.class_names = class_names
        self.kind = kind

    @property
    def missing(self) -> tuple[int, ...]:
        return tuple(i for i, m in enumerate(self.maps) if m is None)

    def regions(self, i: int) -> np.ndarray:
        return self.annotators(i)[0]

    def annotators(self, i: int) -> list[np.ndarray]:
        return self.several[i] if self.several is not None else [self.classes(i)]

    def classes(self, i: int) -> np.ndarray:
        found = self.maps[i]
        if found is None or self.kind == "bsds":
            raise UserError("no classes")
        return found.astype(np.int32)


def opens(patch: pytest.MonkeyPatch, truth: FakeTruth) -> list[tuple[object, ...]]:
    """Let ``open_truth`` give this; what it was asked for."""
    asked: list[tuple[object, ...]] = []

    def open_truth(spec: str, names: Sequence[str], root: object = None, *, void: int | None = 255) -> FakeTruth:
        asked.append((spec, list(names), root, void))
        return truth

    patch.setattr("cyborgs.quality.of_masks.open_truth", open_truth)
    return asked
