"""Felzenszwalb's regions are the library's, and as many as a map holds."""

from __future__ import annotations

import threading

import cv2
import numpy as np
import pytest
from skimage.segmentation import felzenszwalb

from cyborgs.masks.config import FelzenszwalbConfig
from cyborgs.masks.felzenszwalb import Felzenszwalb, merge_smallest, segments
from cyborgs.masks.source import MaskSource
from tests.masks.contract import SourceContract, random_images


class TestFelzenszwalb(SourceContract):
    def make(self) -> MaskSource:
        return Felzenszwalb(FelzenszwalbConfig(scale=50, min_size=20))


class TestFelzenszwalbAsInDetCon(SourceContract):
    def make(self) -> MaskSource:
        return Felzenszwalb()


def partition(labels: np.ndarray) -> list[list[int]]:
    """Labels by the order in which they first occur: equal for equal partitions, whatever the names."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape).tolist()


def patches() -> np.ndarray:
    """Nine flat patches of clearly different colours, 30 x 30 pixels each."""
    colours = np.array([[c * 25, 255 - c * 25, (c * 97) % 256] for c in range(9)], np.uint8).reshape(3, 3, 3)
    return np.kron(colours, np.ones((30, 30, 1), np.uint8))


def test_flat_patches_are_found_as_by_scikit_image():
    image = patches()
    config = FelzenszwalbConfig(scale=100, sigma=0, min_size=50)
    theirs = felzenszwalb(image, scale=100, sigma=0, min_size=50)
    (ours,) = Felzenszwalb(config).label([image], 0, 0, 0)
    assert ours.labels.shape == (90, 90)
    assert partition(ours.labels) == partition(theirs)
    assert ours.labels.max() == 8


def test_settings_are_the_librarys():
    image = random_images((80, 96))[0]
    config = FelzenszwalbConfig(scale=30, sigma=0.5, min_size=11)
    theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.5, 30, 11).processImage(image)
    assert np.array_equal(segments(image, config), theirs)
    counts = [
        segments(image, FelzenszwalbConfig(scale=scale, min_size=size)).max() for scale, size in ((10, 5), (10, 500))
    ]
    assert counts[0] > counts[1]
    assert np.bincount(segments(image, FelzenszwalbConfig(scale=1, min_size=70)).ravel()).min() >= 70


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (32, 32)])
def test_one_colour_is_one_region(shape: tuple[int, int]):
    (found,) = Felzenszwalb().label([np.full((*shape, 3), 7, np.uint8)], 0, 0, 0)
    assert found.labels.tolist() == np.zeros(shape, int).tolist()


def test_threads_change_nothing_and_are_used():
    images = random_images(*[(48 + i, 64) for i in range(12)])
    one, four = (Felzenszwalb(FelzenszwalbConfig(10, 0.8, 5), threads=n).label(images, 0, 0, 0) for n in (1, 4))
    assert all(np.array_equal(a.labels, b.labels) for a, b in zip(one, four, strict=True))

    class Watched(Felzenszwalb):
        def _label(self, image: np.ndarray):
            gate.wait(timeout=10)  # passes only where as many threads are at work at once
            return super()._label(image)

    gate = threading.Barrier(4)
    assert len(Watched(threads=4).label(images, 0, 0, 0)) == 12


def by_hand(labels: np.ndarray, most: int) -> np.ndarray:
    """The rule of ``merge_smallest``, region by region."""
    regions = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    while (count := int(regions.max()) + 1) > most:
        sizes = [(int((regions == r).sum()), r) for r in range(count)]
        chosen = [r for _, r in sorted(sizes)[: min(count - most, (count + 1) // 2)]]
        leader = list(range(count))

        def head(r: int, leader: list[int] = leader) -> int:
            while leader[r] != r:
                r = leader[r]
            return r

        for region in chosen:
            border: dict[int, int] = {}
            for y, x in np.argwhere(regions == region).tolist():
                for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if 0 <= v < regions.shape[0] and 0 <= u < regions.shape[1] and regions[v, u] != region:
                        border[int(regions[v, u])] = border.get(int(regions[v, u]), 0) + 1
            other = min(border, key=lambda r: (-border[r], r))
            low, high = sorted((head(region), head(other)))
            leader[high] = low
        heads = [head(r) for r in range(count)]
        numbers = {r: n for n, r in enumerate(sorted(set(heads)))}
        regions = np.array([numbers[r] for r in heads])[regions]
    return regions.astype(np.uint8)


@pytest.mark.parametrize("most", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_join_the_neighbour_with_the_longest_border(most: int, seed: int):
    labels = np.random.default_rng(seed).integers(0, 12, (9, 13)) * 3  # numbers with gaps, regions in pieces
    assert merge_smallest(labels, most).tolist() == by_hand(labels, most).tolist()


def test_few_regions_stay_as_they_are():
    labels = np.arange(256).reshape(16, 16)
    merged = merge_smallest(labels)
    assert merged.dtype == np.uint8
    assert merged.tolist() == labels.tolist()


def test_more_than_256_regions_are_merged():
    """A region a pixel: 3,072 of them. What is left is a coarser partition, no region lost."""
    labels = np.arange(48 * 64).reshape(48, 64)
    merged = merge_smallest(labels)
    left = np.unique(merged)
    assert 128 < len(left) <= 256
    assert left.tolist() == list(range(len(left)))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    config = FelzenszwalbConfig(scale=1, sigma=0, min_size=1)
    assert segments(noise, config).max() > 1000
    (found,) = Felzenszwalb(config).label([noise], 0, 0, 0)
    assert len(np.unique(found.labels)) <= 256
    # Every region of the library lies in one of ours.
    pairs = np.unique(np.stack([segments(noise, config).ravel(), found.labels.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1]
