"""Boundary F against a definition that looks at every pair of border pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cyborgs.metrics.boundary import boundary_score, edge_score, reach

blobs = arrays(np.uint8, (4, 4), elements=st.integers(0, 2)).map(lambda m: np.kron(m, np.ones((3, 4), np.uint8)))


def border(labels: np.ndarray, known: np.ndarray) -> list[tuple[int, int]]:
    found = []
    for y, x in np.ndindex(labels.shape):
        near = [(y, x + 1), (y + 1, x)]
        inside = [(v, u) for v, u in near if v < labels.shape[0] and u < labels.shape[1]]
        if any(known[y, x] and known[p] and labels[p] != labels[y, x] for p in inside):
            found.append((y, x))
    return found


def share(mine: list[tuple[int, int]], theirs: list[tuple[int, int]], limit: float) -> float:
    return float(np.mean([any((y - v) ** 2 + (x - u) ** 2 <= limit**2 for v, u in theirs) for y, x in mine]))


@given(blobs, blobs, arrays(bool, (12, 16)) | st.none(), st.sampled_from([0.0, 0.1, 0.15]))
@settings(max_examples=60, deadline=None)
def test_definition(pred: np.ndarray, truth: np.ndarray, known: np.ndarray | None, tolerance: float) -> None:
    score = boundary_score(pred, truth, known, tolerance=tolerance)
    seen = np.ones(truth.shape, bool) if known is None else known
    mine, theirs = border(pred, seen), border(truth, seen)
    if not mine or not theirs:
        same = float(bool(mine) == bool(theirs))
        assert (score.precision, score.recall, score.f) == (same, same, same)
        return
    limit = max(1.0, tolerance * 20)  # the diagonal of 12 x 16
    p, r = share(mine, theirs, limit), share(theirs, mine, limit)
    assert score.precision == pytest.approx(p)
    assert score.recall == pytest.approx(r)
    assert score.f == pytest.approx(2 * p * r / (p + r) if p + r else 0.0)


@given(blobs)
@settings(max_examples=20, deadline=None)
def test_equal_maps_are_perfect(truth: np.ndarray) -> None:
    assert boundary_score(truth + 3, truth).f == 1.0


def test_empty_borders() -> None:
    one, two = np.zeros((6, 6), int), np.repeat([0, 1], 18).reshape(6, 6)
    assert boundary_score(one, one).f == 1.0
    assert boundary_score(one, two).f == boundary_score(two, one).f == 0.0


def test_the_tolerance_counts_to_its_end() -> None:
    """0.0075 times the diagonal of 240 x 320 is 3 pixels: 3 away is a hit, 4 is not."""
    assert reach((240, 320)) == pytest.approx(3.0)
    assert reach((30, 40)) == 1.0
    base = np.zeros((240, 320), np.uint8)
    base[:, 100:] = 1
    for shift, expected in ((3, 1.0), (4, 0.0)):
        moved = np.zeros_like(base)
        moved[:, 100 + shift :] = 1
        assert boundary_score(moved, base).f == expected


def test_several_may_hit_the_same() -> None:
    """What makes it looser than one-to-one matching."""
    mine = np.zeros((5, 5), bool)
    mine[2, 1:4] = True
    theirs = np.zeros((5, 5), bool)
    theirs[2, 2] = True
    assert edge_score(mine, theirs, 1.0).precision == 1.0


def test_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        boundary_score(np.zeros((2, 2), int), np.zeros((2, 3), int))
