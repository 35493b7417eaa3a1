from __future__ import annotations

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cyborgs.segmenting.parts import parts_of, run_lengths
from cyborgs.structures import PhotoMask


def flooded(labels: np.ndarray, void: int | None) -> list[tuple[int, frozenset[tuple[int, int]]]]:
    """Parts by a flood fill over four neighbours."""
    seen: set[tuple[int, int]] = set()
    out = []
    for start in np.ndindex(labels.shape):
        if start in seen or labels[start] == void:
            continue
        part, queue = {start}, deque([start])
        while queue:
            y, x = queue.popleft()
            for n in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                inside = 0 <= n[0] < labels.shape[0] and 0 <= n[1] < labels.shape[1]
                if inside and n not in part and labels[n] == labels[start]:
                    part.add(n)
                    queue.append(n)
        seen |= part
        out.append((int(labels[start]), frozenset(part)))
    return out


def drawn(counts: list[int], shape: tuple[int, int]) -> np.ndarray:
    assert sum(counts) == shape[0] * shape[1]
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    return flat.reshape(shape[::-1]).T.astype(bool)


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])),
    void=st.sampled_from([None, 0, 255]),
    least=st.integers(0, 5),
)
def test_parts_are_those_of_a_flood_fill(labels: np.ndarray, void: int | None, least: int) -> None:
    cosine = np.linspace(-1, 1, labels.size, dtype=np.float32).reshape(labels.shape)
    parts, smaller = parts_of(PhotoMask(0, "p.jpg", "p.png", labels, cosine, void), least)
    everyone = flooded(labels, void)
    expected = [(label, pixels) for label, pixels in everyone if len(pixels) >= max(1, least)]
    assert smaller == len(everyone) - len(expected)
    found = []
    for part in parts:
        inside = drawn(part.counts, labels.shape)
        pixels = frozenset(zip(*(axis.tolist() for axis in np.nonzero(inside)), strict=True))
        found.append((part.label, pixels))
        assert part.area == len(pixels)
        ys, xs = zip(*pixels, strict=True)
        assert part.box == (min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1)
        assert part.score == pytest.approx(np.mean([float(cosine[p]) for p in pixels]), abs=1e-6)
    assert sorted((k, sorted(p)) for k, p in found) == sorted((k, sorted(p)) for k, p in expected)


def test_without_cosines_there_is_no_score() -> None:
    (part,), smaller = parts_of(PhotoMask(0, "p", "p.png", np.full((3, 4), 7, np.uint8)))
    assert (part.label, part.area, part.box, part.score, smaller) == (7, 12, (0, 0, 4, 3), None, 0)


def test_nothing_but_void() -> None:
    assert parts_of(PhotoMask(0, "p", "p.png", np.full((3, 4), 255, np.uint8), None, 255)) == ([], 0)


def test_run_lengths_begin_outside() -> None:
    numbers = np.array([[1, 2], [1, 1]])
    assert dict(run_lengths(numbers, np.array([1, 2]))) == {1: [0, 2, 1, 1], 2: [2, 1, 1]}
