"""Generations whose maps say whose they are. No torch here: spawned readers load this file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cyborgs.masks.store import GenerationWriter, MaskStore
from cyborgs.structures import LabelMap


def picture(index: int, generation: int) -> np.ndarray:
    """A map that says whose it is."""
    labels = np.full((3 + index % 4, 5), generation, np.uint8)
    labels[0, 0] = index
    return labels


def write(path: Path, generation: int, count: int = 12, ranks: int = 1, void: int | None = None) -> None:
    writers = [GenerationWriter(path, generation, count, rank, {"photos": "abc"}) for rank in range(ranks)]
    # Out of order, as groups are.
    for place, index in enumerate(np.random.default_rng(generation).permutation(count).tolist()):
        writers[place % ranks].write(index, LabelMap(picture(index, generation), void))
    for writer in writers:
        writer.close()
    writers[0].publish()


def check(store: MaskStore, generation: int, count: int = 12) -> None:
    assert (store.generation, len(store)) == (generation, count)
    for index, labels in enumerate(store):  # type: ignore[arg-type, var-annotated]
        assert np.array_equal(labels, picture(index, generation))
