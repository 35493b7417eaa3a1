"""Figures of masks against sklearn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from cyborgs.masks.statistics import SAMPLE, adjusted_rand, evenness, label_counts, mask_figures


@pytest.mark.parametrize("labels", [2, 5, 200])
@pytest.mark.parametrize("shape", [(7, 9), (1, 2), (30, 20)], ids=str)
def test_adjusted_rand_is_sklearns(labels: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(labels)
    for _ in range(5):
        first = rng.integers(0, labels, shape, dtype=np.uint8)
        second = np.where(rng.random(shape) < 0.5, first, rng.integers(0, labels, shape)).astype(np.uint8)
        expected = adjusted_rand_score(first.ravel(), second.ravel())
        assert adjusted_rand(first, second) == pytest.approx(expected, abs=1e-12)


def halves() -> np.ndarray:
    return np.repeat(np.array([[0, 255]], np.uint8), 6, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (halves(), 255 - halves()),  # other names
        (halves(), halves().T.copy().reshape(6, 8)),
        (np.zeros((3, 3), np.uint8), np.full((3, 3), 9, np.uint8)),  # one label each
        (np.zeros((3, 3), np.uint8), np.arange(9, dtype=np.uint8).reshape(3, 3)),
        (np.arange(9, dtype=np.uint8).reshape(3, 3), np.arange(9, 0, -1, dtype=np.uint8).reshape(3, 3)),
        (np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8)),
    ],
)
def test_edges_are_sklearns_too(first: np.ndarray, second: np.ndarray) -> None:
    assert adjusted_rand(first, second) == pytest.approx(adjusted_rand_score(first.ravel(), second.ravel()), abs=1e-12)


def test_evenness() -> None:
    assert evenness(label_counts(halves())) == pytest.approx(1)
    assert evenness(label_counts(np.zeros((2, 2), np.uint8))) == 0
    assert evenness(np.zeros(256, np.int64)) == 0  # nothing but void
    counts = np.array([6, 3, 1])
    p = counts / 10
    assert evenness(counts) == pytest.approx(-(p * np.log(p)).sum() / np.log(3))
    assert label_counts(halves(), void=255).nonzero()[0].tolist() == [0]


def test_figures_by_hand() -> None:
    maps = [halves(), np.zeros((6, 8), np.uint8), halves(), np.arange(48, dtype=np.uint8).reshape(6, 8)]
    groups = [np.array([2, 0]), np.array([1, 3])]
    found = mask_figures(groups, maps.__getitem__, clusters=lambda group: (4, 96)[group])
    assert found["masks/regions"] == (2 + 2 + 1 + 48) / 4
    assert found["masks/one_label_share"] == 1 / 4
    assert found["masks/entropy"] == pytest.approx(3 / 4)
    assert found["masks/used_clusters"] == pytest.approx((2 / 4 + 48 / 96) / 2)
    assert "masks/stability" not in found
    before = [255 - maps[0], maps[1], np.zeros((3, 4), np.uint8), maps[3].T.reshape(6, 8)]
    stable = mask_figures(groups, maps.__getitem__, before=before.__getitem__)
    # The third map had another size: it is not compared.
    assert stable["masks/stability"] == pytest.approx((1 + 1 + adjusted_rand(before[3], maps[3])) / 3)
    assert "masks/used_clusters" not in stable


def test_k_beyond_the_cells_counts_as_the_cells() -> None:
    maps = [np.arange(4, dtype=np.uint8).reshape(2, 2)]
    assert mask_figures([np.array([0])], maps.__getitem__, clusters=lambda _: 200)["masks/used_clusters"] == 1


def test_a_sample_of_whole_groups_is_looked_at() -> None:
    seen: list[int] = []

    def read(index: int) -> np.ndarray:
        seen.append(index)
        return halves()

    mask_figures([np.arange(300), np.arange(300, 600), np.arange(600, 900)], read)
    assert seen == list(range(300))
    seen.clear()
    mask_figures([np.arange(SAMPLE + 5)], read)  # the first one whole, however large
    assert len(seen) == SAMPLE + 5
