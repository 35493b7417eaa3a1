"""Paired comparisons, beside loops written out."""

from __future__ import annotations

import numpy as np
import pytest

from cyborgs.metrics.intervals import weights
from cyborgs.metrics.paired import difference, few_images, mean_over, seed_draws, span


def _draws(hits: np.ndarray, draws: int = 400) -> np.ndarray:
    return np.array([w @ hits / len(hits) for w in weights(len(hits), draws, 0)])


def test_a_loop_over_draws_and_seeds_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 60)) < 0.7, rng.random((3, 60)) < 0.5
    chosen = seed_draws(3, 400)
    found = []
    for d, w in enumerate(weights(60, 400, 0)):
        found.append(np.mean([(w @ a[s] - w @ b[s]) / 60 for s in chosen[d]]))
    got = difference(a.mean(1), b.mean(1), [_draws(x) for x in a], [_draws(x) for x in b], 60)
    assert got.value == pytest.approx(a.mean() - b.mean())
    np.testing.assert_allclose([got.low, got.high], np.quantile(found, [0.025, 0.975]))
    tail = min(np.sum(np.array(found) <= 0), np.sum(np.array(found) >= 0))
    assert got.p == pytest.approx(min(1, 2 * (tail + 1) / 401))
    assert (got.images, got.seeds) == (60, 3)


def test_pairing_makes_a_small_gain_visible() -> None:
    rng = np.random.default_rng(1)
    b = rng.random(400) < 0.5
    a = b.copy()
    a[np.flatnonzero(~b)[:12]] = True  # three points more, on the same images
    got = difference([a.mean()], [b.mean()], [_draws(a)], [_draws(b)], 400)
    own, other = mean_over([a.mean()], [_draws(a)], 400), mean_over([b.mean()], [_draws(b)], 400)
    assert own.low < other.high  # the intervals of the two overlap
    assert got.low > 0
    assert got.p < 0.02


def test_the_same_twice_differs_by_nothing() -> None:
    a = _draws(np.arange(10) % 2 == 0)
    got = difference([0.5], [0.5], [a], [a], 10)
    assert (got.value, got.low, got.high, got.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("images", [1, 2, 3, 5, 6])
def test_few_images_show_little(images: int) -> None:
    """Always right against always wrong: signs of n images cannot be less likely than 2 / 2^n."""
    right, wrong = _draws(np.ones(images)), _draws(np.zeros(images))
    got = difference([1.0], [0.0], [right], [wrong], images)
    assert got.value == 1
    if images == 1:
        assert np.isnan([got.low, got.high, got.p]).all()
        assert np.isnan(mean_over([1.0], [right], 1).low)
    else:
        assert got.p == pytest.approx(2 / 2**images)
    assert got.shows is (images == 6)
    assert few_images(images)
    assert not few_images(20)


def test_intervals_in_percent() -> None:
    assert span(-0.0123, 0.5) == "-1.2 to 50.0"
    assert span(0.01, 0.5, "+") == "+1.0 to +50.0"
    assert span(np.nan, np.nan) == "–"


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        hits = rng.random(150) < 0.6
        found = mean_over([hits.mean()], [_draws(hits, 200)], 150)
        inside += found.low <= 0.6 <= found.high
    assert 0.89 <= inside / 200 <= 0.99


def test_other_numbers_of_seeds_or_draws_are_refused() -> None:
    a = _draws(np.ones(4), 10)
    with pytest.raises(ValueError, match="same seeds and draws"):
        difference([1.0], [1.0, 1.0], [a], [a, a], 4)
    with pytest.raises(ValueError, match="same seeds and draws"):
        difference([1.0], [1.0], [a], [a[:5]], 4)
    with pytest.raises(ValueError, match="same seeds and draws"):
        difference([], [], [], [], 4)
