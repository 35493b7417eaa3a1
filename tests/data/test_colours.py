"""Colours of maps side by side: the same thing the same number, and painting that tells regions apart."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cyborgs.data.colours import SAFE, by_size, colour_name, matched, paint, renumbered
from cyborgs.data.palette import palette

maps = arrays(np.int32, (6, 6), elements=st.integers(-1, 3))


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_matching_is_the_best_of_all(labels: np.ndarray, reference: np.ndarray) -> None:
    numbers = matched(labels, reference)
    present = [int(v) for v in np.unique(labels) if v >= 0]
    assert sorted(numbers) == present
    assert len(set(numbers.values())) == len(numbers)
    mine = renumbered(labels, numbers)
    agreed = int(((mine == reference) & (reference >= 0)).sum())
    targets = [*range(4), *[-9] * 4]
    best = max(
        sum(int(((labels == v) & (reference == t)).sum()) for v, t in zip(present, perm, strict=True))
        for perm in set(itertools.permutations(targets, len(present)))
    )
    assert agreed == best
    # What fits nothing takes no number of the reference's.
    for label, number in numbers.items():
        if not ((labels == label) & (reference == number)).any():
            assert number > reference.max()


def test_largest_first_and_renumbering() -> None:
    labels = np.array([[7, 7, 7, 2], [2, 9, -1, -1]])
    assert by_size(labels) == {7: 0, 2: 1, 9: 2}
    assert renumbered(labels, by_size(labels)).tolist() == [[0, 0, 0, 1], [1, 2, -1, -1]]
    assert renumbered(labels, {7: 5}).tolist() == [[5, 5, 5, -1], [-1] * 4]
    assert by_size(np.full((2, 2), -1)) == {}
    assert matched(labels, np.full((2, 4), -1, np.int32)) == {7: 0, 2: 1, 9: 2}


def test_names() -> None:
    assert [colour_name(i) for i in (0, 7, 8)] == ["orange", "grey", "number 9"]
    assert len(SAFE) == 8


def test_paint() -> None:
    numbers = np.zeros((40, 60), np.int32)
    numbers[:, 30:] = 1
    numbers[:10, :10] = -1
    plain = paint(numbers)
    assert plain[30, 5].tolist() == palette()[0].tolist()
    assert plain[30, 50].tolist() == palette()[1].tolist()
    assert plain[30, 29].tolist() == [255, 255, 255]
    assert plain[2, 2].tolist() == [90, 90, 90]
    image = np.full((40, 60, 3), 200, np.uint8)
    over = paint(numbers, image, alpha=0.5)
    assert np.abs(over[30, 50].astype(int) - (palette()[1].astype(int) + 200) // 2).max() <= 1
    assert len(set(over[2, 2].tolist())) == 1
    written = paint(numbers, written=True)
    changed = (written != plain).any(2)
    assert changed[:, :29].any()
    assert changed[:, 30:].any()
    assert not (changed & (numbers < 0)).any()
    # A sliver has no room for a figure.
    thin = np.zeros((40, 60), np.int32)
    thin[:, :3] = 1
    assert np.array_equal(paint(thin, written=True)[:, :3], paint(thin)[:, :3])


def test_more_numbers_than_colours() -> None:
    numbers = np.arange(600, dtype=np.int32).reshape(20, 30)
    assert paint(numbers, borders=False).shape == (20, 30, 3)
