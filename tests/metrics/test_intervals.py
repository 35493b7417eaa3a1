"""Bootstrap over photos against the formula for means, and draws repeated by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cyborgs.metrics.intervals import figure_interval, mean_interval, weights


def test_the_mean_and_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    found = mean_interval(values, draws=4000)
    assert found.value == pytest.approx(values.mean())
    # Normal theory: 1.96 standard errors either way.
    error = values.std() / math.sqrt(len(values))
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found.photos == 400


def test_what_was_not_measured_is_left_out() -> None:
    values = np.array([1.0, float("nan"), 3.0])
    found = mean_interval(values, draws=200)
    assert (found.value, found.photos) == (2.0, 2)
    assert 1.0 <= found.low <= 2.0 <= found.high <= 3.0
    assert found == mean_interval(values[[0, 2]], draws=200)
    empty = mean_interval(np.array([float("nan")]))
    assert math.isnan(empty.value)
    assert empty.photos == 0


def test_the_seed_alone_decides() -> None:
    values = np.arange(20.0)
    assert mean_interval(values, draws=50, seed=3) == mean_interval(values, draws=50, seed=3)
    assert mean_interval(values, draws=50, seed=3) != mean_interval(values, draws=50, seed=4)
    for drawn in weights(20, 5):
        assert drawn.sum() == 20


def test_one_photo_has_no_width() -> None:
    found = mean_interval(np.array([0.5]), draws=20)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_figures_of_a_set_are_made_anew_of_each_draw() -> None:
    counts = np.random.default_rng(1).integers(0, 50, (30, 2))

    def figure(w: np.ndarray) -> np.ndarray:
        right, of = w @ counts
        return np.array([right / of, float(of)])

    ratio, total = figure_interval(figure, 30, draws=300, level=0.9, seed=7)
    assert total.value == counts[:, 1].sum()
    slow = []
    for w in weights(30, 300, 7):
        photos = np.repeat(np.arange(30), w)
        slow.append(counts[photos, 0].sum() / counts[photos, 1].sum())
    assert (ratio.low, ratio.high) == pytest.approx(tuple(np.quantile(slow, [0.05, 0.95])))


def test_figures_that_a_draw_cannot_give_are_left_out_of_it() -> None:
    def figure(w: np.ndarray) -> np.ndarray:
        return np.array([1.0 if w[0] else float("nan"), float("nan")])

    known, never = figure_interval(figure, 2, draws=50)
    assert (known.value, known.low, known.high) == (1.0, 1.0, 1.0)
    assert math.isnan(never.low)
