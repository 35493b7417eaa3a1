"""The table of two maps against counting pixel by pixel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cyborgs.ops import contingency as module
from cyborgs.ops.contingency import Contingency, adjusted_rand, contingency, pair_counts

maps = arrays(np.int32, (6, 7), elements=st.sampled_from([-3, 0, 1, 5, 70_000]))


def counted(table: Contingency) -> dict[tuple[int, int], int]:
    return {
        (int(table.first_labels[i]), int(table.second_labels[j])): int(n)
        for n, i, j in zip(table.shared, table.i, table.j, strict=True)
    }


@given(maps, maps, arrays(bool, (6, 7)) | st.none(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_counts(first: np.ndarray, second: np.ndarray, kept: np.ndarray | None, sorting: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if sorting:
            patch.setattr(module, "_DENSE", 0)
        table = contingency(first, second, kept)
    chosen = np.ones(first.shape, bool) if kept is None else kept
    pairs = zip(first[chosen].tolist(), second[chosen].tolist(), strict=True)
    assert counted(table) == Counter(pairs)
    assert table.pixels == chosen.sum()
    for labels, sums, values in (
        (first, table.first, table.first_labels),
        (second, table.second, table.second_labels),
    ):
        assert dict(zip(values.tolist(), sums.tolist(), strict=True)) == Counter(labels[chosen].tolist())
        assert (np.diff(values) > 0).all()


def test_noise_takes_no_square_of_memory() -> None:
    every = np.arange(40_000).reshape(200, 200)
    table = contingency(every, every[::-1].copy())
    assert len(table.shared) == 40_000
    assert adjusted_rand(table) == 1.0


def test_no_overflow() -> None:
    """Sums of pairs whose products are beyond int64: against whole numbers of Python."""
    n = [[1_000_000_000, 7], [3, 900_000_000]]
    i, j = (np.repeat([0, 1], 2), np.tile([0, 1], 2))
    shared = np.array(n)
    table = Contingency(shared.ravel(), i, j, shared.sum(1), shared.sum(0), np.arange(2), np.arange(2))

    def pairs(x: int) -> int:
        return x * (x - 1) // 2

    both = sum(pairs(x) for row in n for x in row)
    a, b = sum(pairs(sum(row)) for row in n), sum(pairs(n[0][c] + n[1][c]) for c in range(2))
    every = pairs(sum(map(sum, n)))
    assert pair_counts(table) == (both, a, b, every)
    assert adjusted_rand(table) == (both - a * b / every) / ((a + b) / 2 - a * b / every)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="shape"):
        contingency(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="whole numbers"):
        contingency(np.zeros((2, 2)), np.zeros((2, 2), int))
    assert contingency(np.zeros((2, 2), int), np.ones((2, 2), int), np.zeros((2, 2), bool)).pixels == 0
