"""Each measure against scikit-learn, scikit-image or a definition written out pixel by pixel."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import variation_of_information as skimage_voi
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score

from cyborgs.metrics import partition
from cyborgs.ops.contingency import Contingency, contingency

maps = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))


def regions(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == value for value in np.unique(labels)]


@given(maps, maps)
@settings(max_examples=80, deadline=None)
def test_against_libraries_and_definitions(s: np.ndarray, g: np.ndarray) -> None:
    table = contingency(s, g)
    flat = g.ravel(), s.ravel()
    assert partition.rand_index(table) == pytest.approx(rand_score(*flat), abs=1e-12)
    assert partition.adjusted_rand(table) == pytest.approx(adjusted_rand_score(*flat), abs=1e-12)
    assert partition.mutual_information(table) == pytest.approx(normalized_mutual_info_score(*flat), abs=1e-12)
    split, joined = partition.conditional_entropies(table)
    merge_first = skimage_voi(s.astype(int), g.astype(int))  # H(G|S), then H(S|G)
    assert (joined, split) == pytest.approx(tuple(merge_first), abs=1e-12)
    covered = sum(b.sum() * max((a & b).sum() / (a | b).sum() for a in regions(s)) for b in regions(g)) / 64
    assert partition.covering(table) == pytest.approx(covered, abs=1e-12)
    best = sum(max((a & b).sum() for b in regions(g)) for a in regions(s)) / 64
    assert partition.achievable_accuracy(table) == pytest.approx(best, abs=1e-12)


@given(maps, maps)
@settings(max_examples=30, deadline=None)
def test_entropies_are_the_right_way_round(s: np.ndarray, g: np.ndarray) -> None:
    """H(S|G) written out: what the truth's regions are cut into."""
    expected = 0.0
    for b in regions(g):
        shares = np.array([(a & b).sum() / b.sum() for a in regions(s)])
        shares = shares[shares > 0]
        expected -= b.sum() / 64 * (shares * np.log2(shares)).sum()
    assert partition.conditional_entropies(contingency(s, g))[0] == pytest.approx(expected, abs=1e-12)
    assert partition.conditional_entropies(contingency(g, s))[1] == pytest.approx(expected, abs=1e-12)


@given(arrays(np.uint8, (3, 3), elements=st.integers(0, 3)), arrays(np.uint8, (3, 3), elements=st.integers(0, 3)))
@settings(max_examples=30, deadline=None)
def test_rand_pair_by_pair(s: np.ndarray, g: np.ndarray) -> None:
    pairs = list(itertools.combinations(range(9), 2))
    agreed = sum((s.flat[i] == s.flat[j]) == (g.flat[i] == g.flat[j]) for i, j in pairs)
    assert partition.rand_index(contingency(s, g)) == pytest.approx(agreed / len(pairs), abs=1e-12)


@given(maps)
@settings(max_examples=30, deadline=None)
def test_equal_maps_have_the_optimum(g: np.ndarray) -> None:
    table = contingency(np.array([9, 4, 7, 0, 2], np.uint8)[g], g)
    for measure in ("rand_index", "adjusted_rand", "mutual_information", "covering", "achievable_accuracy"):
        assert getattr(partition, measure)(table) == pytest.approx(1.0, abs=1e-12), measure
    assert partition.conditional_entropies(table) == pytest.approx((0.0, 0.0), abs=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1)])
def test_one_region_each_is_1(shape: tuple[int, int]) -> None:
    table = contingency(np.zeros(shape, int), np.full(shape, 3))
    for measure in ("rand_index", "adjusted_rand", "mutual_information", "covering", "achievable_accuracy"):
        assert getattr(partition, measure)(table) == 1.0, measure
    assert partition.conditional_entropies(table) == (0.0, 0.0)


def test_one_region_against_many() -> None:
    """scikit-learn's too: a single region tells nothing."""
    table = contingency(np.zeros((4, 4), int), np.arange(16).reshape(4, 4) // 4)
    assert partition.mutual_information(table) == 0.0
    assert partition.adjusted_rand(table) == 0.0
    assert partition.conditional_entropies(table) == (0.0, 2.0)
    assert partition.covering(table) == 0.25


def test_no_pixel_is_nan() -> None:
    table = contingency(np.zeros((2, 3), int), np.zeros((2, 3), int), np.zeros((2, 3), bool))
    for measure in ("rand_index", "adjusted_rand", "mutual_information", "covering", "achievable_accuracy"):
        assert math.isnan(getattr(partition, measure)(table)), measure
    assert all(map(math.isnan, partition.conditional_entropies(table)))


def test_a_picture_of_a_hundred_million_pixels() -> None:
    """Beyond what float64 products hold exactly: against fractions."""
    from fractions import Fraction

    n = np.array([[60_000_001, 3], [11, 39_999_985]])
    i, j = np.indices(n.shape)
    table = Contingency(n.ravel(), i.ravel(), j.ravel(), n.sum(1), n.sum(0), np.arange(2), np.arange(2))

    def pairs(x: int) -> Fraction:
        return Fraction(int(x) * (int(x) - 1), 2)

    both = sum(map(pairs, n.ravel()))
    a, b, every = sum(map(pairs, n.sum(1))), sum(map(pairs, n.sum(0))), pairs(n.sum())
    expected = a * b / every
    assert partition.adjusted_rand(table) == float((both - expected) / ((a + b) / 2 - expected))
    assert partition.rand_index(table) == float((every - a - b + 2 * both) / every)


@given(maps, maps)
@settings(max_examples=30, deadline=None)
def test_best_iou_of_some_regions(s: np.ndarray, g: np.ndarray) -> None:
    table = contingency(s, g)
    kept = table.first_labels != 0
    expected = [max([(a & b).sum() / (a | b).sum() for a in regions(s) if s[a][0]], default=0.0) for b in regions(g)]
    assert partition.best_iou(table, kept) == pytest.approx(expected, abs=1e-12)
