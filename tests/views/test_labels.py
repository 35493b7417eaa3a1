"""The majority labels of a view's grid against a slow reference that goes pixel by pixel."""

from __future__ import annotations

import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop
from cyborgs.views.geometry import random_geometry
from cyborgs.views.labels import grid_labels


def slow(label_map: np.ndarray, g: ViewGeometry, size: int, grid: int) -> np.ndarray:
    """Nearest-neighbour view of size x size, then counting, in exact fractions."""
    map_h, map_w = label_map.shape
    half = Fraction(1, 2)
    rows = [math.floor((g.y0 + (i + half) / size * g.h) / g.image_h * map_h) for i in range(size)]
    columns = [math.floor((g.x0 + (i + half) / size * g.w) / g.image_w * map_w) for i in range(size)]
    view = label_map[np.ix_(rows, columns)]
    view = view[:, ::-1] if g.flip else view
    cells: dict[tuple[int, int], Counter[int]] = {}
    for i in range(size):
        for j in range(size):
            cells.setdefault((i * grid // size, j * grid // size), Counter())[int(view[i, j])] += 1
    result = np.zeros((grid, grid), np.uint8)
    for cell, counter in cells.items():
        most = max(counter.values())
        result[cell] = min(label for label, count in counter.items() if count == most)
    return result


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, ViewGeometry, int, int]:
    h, w = draw(st.integers(1, 100)), draw(st.integers(1, 100))
    ch, cw = draw(st.integers(1, h)), draw(st.integers(1, w))
    y0, x0 = draw(st.integers(0, h - ch)), draw(st.integers(0, w - cw))
    g = ViewGeometry(y0, x0, ch, cw, draw(st.booleans()), h, w)
    labels = draw(st.sampled_from([2, 5, 256]))
    shape = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    label_map = np.random.default_rng(draw(st.integers(0, 99))).integers(0, labels, shape).astype(np.uint8)
    size = draw(st.sampled_from([32, 64]))
    return label_map, g, size, draw(st.integers(1, size // 8))


@settings(deadline=None, max_examples=120)
@given(cases())
def test_equals_the_slow_reference(case: tuple[np.ndarray, ViewGeometry, int, int]) -> None:
    got = grid_labels(*case)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, slow(*case))


def test_at_the_real_size() -> None:
    rng = np.random.default_rng(0)
    for size, grid in ((224, 7), (224, 14), (128, 8), (96, 6), (160, 7)):
        label_map = rng.integers(0, 256, (15, 20), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        g = random_geometry(rng, 480, 640, Crop())
        np.testing.assert_array_equal(grid_labels(label_map, g, size, grid), slow(label_map, g, size, grid))


def test_whole_image_flip_and_ties() -> None:
    whole = ViewGeometry(0, 0, 64, 64, False, 64, 64)
    mirrored = ViewGeometry(0, 0, 64, 64, True, 64, 64)
    quarters = np.array([[1, 200], [255, 3]], np.uint8)
    np.testing.assert_array_equal(grid_labels(quarters, whole, 32, 2), quarters)
    np.testing.assert_array_equal(grid_labels(quarters, mirrored, 32, 2), quarters[:, ::-1])
    assert grid_labels(quarters, whole, 32, 1) == 1  # four equals: the lowest
    assert grid_labels(np.array([[9, 7]], np.uint8), whole, 32, 1) == 7


def test_crop_picks_its_part() -> None:
    label_map = np.arange(256, dtype=np.uint8).reshape(16, 16)
    g = ViewGeometry(40, 80, 40, 40, False, 160, 160)
    np.testing.assert_array_equal(grid_labels(label_map, g, 32, 4), label_map[4:8, 8:12])


def test_fast_enough() -> None:
    """About 0.1 ms; asserted with tenfold slack, since the machine may be busy."""
    rng = np.random.default_rng(0)
    label_map = rng.integers(0, 30, (60, 80), dtype=np.uint8)
    some = [random_geometry(rng, 480, 640, Crop()) for _ in range(100)]
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        for g in some:
            grid_labels(label_map, g, 224, 7)
        best = min(best, (time.process_time() - start) / len(some))
    assert best < 1e-3
