"""Selective search: the library's boxes, an order that is the picture's own, ORL's filter, and boxes as a map."""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from cyborgs.masks.config import SelectiveSearchConfig
from cyborgs.masks.selective_search import SelectiveSearch, boxes, depths, iou, paint, ranked
from cyborgs.masks.source import MaskSource
from tests.masks.contract import SourceContract, random_images


class TestSelectiveSearch(SourceContract):
    def make(self) -> MaskSource:
        return SelectiveSearch(SelectiveSearchConfig(min_side=12))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Blurred noise with a bright square: boxes of many sizes."""
    coarse = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
    picture[30:70, 40:90] = (250, 240, 20)
    return picture


def library(image: np.ndarray, quality: bool = False) -> np.ndarray:
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image[..., ::-1]))
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    return search.process()


def test_boxes_are_the_librarys(image: np.ndarray):
    theirs = library(image)
    found = ranked(image)
    assert found.dtype == np.int32
    assert found.shape == theirs.shape
    assert len(found) > 20
    assert set(map(tuple, found.tolist())) == set(map(tuple, theirs.tolist()))
    quality = ranked(image, "quality")
    assert set(map(tuple, quality.tolist())) == set(map(tuple, library(image, True).tolist()))
    assert len(quality) > len(found)


def test_order_depends_on_the_picture_alone(image: np.ndarray):
    """The library draws from the C library's generator, which every thread of the process moves on."""
    before = ranked(image)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.srand(1)
        first = library(image)
        libc.srand(2)
        assert not np.array_equal(library(image), first)  # so there is something to fear
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: ranked(image), range(6)))
    assert all(np.array_equal(one, before) for one in found)
    other = image.copy()
    other[0, 0] ^= 1
    assert ranked(other).tolist() != before.tolist()


def test_nothing_of_the_library_is_left_changed(image: np.ndarray):
    before = cv2.getNumThreads(), cv2.useOptimized()
    cv2.setRNGSeed(5)
    expected = cv2.randu(np.zeros(3), 0, 1).tolist()
    cv2.setRNGSeed(5)
    SelectiveSearch().label([image, image], 0, 0, 0)
    assert cv2.randu(np.zeros(3), 0, 1).tolist() == expected
    assert (cv2.getNumThreads(), cv2.useOptimized()) == before


def test_depths_by_hand():
    found = np.array([[0, 0, 100, 100], [0, 0, 50, 50], [10, 10, 20, 20], [12, 12, 5, 5], [60, 60, 10, 10]], np.int32)
    assert depths(found).tolist() == [4, 3, 2, 1, 1]
    draw = np.random.default_rng(0)
    many = np.unique(np.concatenate([draw.integers(0, 20, (60, 2)), draw.integers(1, 20, (60, 2))], 1), axis=0)

    def holds(a: np.ndarray, b: np.ndarray) -> bool:
        return all(a[i] <= b[i] and a[i] + a[i + 2] >= b[i] + b[i + 2] for i in (0, 1)) and a.tolist() != b.tolist()

    def depth(box: np.ndarray) -> int:
        return 1 + max((depth(other) for other in many if holds(box, other)), default=0)

    assert depths(many.astype(np.int32)).tolist() == [depth(box) for box in many]


def by_hand(candidates: np.ndarray, config: SelectiveSearchConfig) -> list[list[int]]:
    """ORL's filter, box by box and pixel by pixel."""
    kept: list[list[int]] = []

    def cells(box: list[int]) -> set[tuple[int, int]]:
        x, y, w, h = box
        return {(u, v) for u in range(x, x + w) for v in range(y, y + h)}

    for box in candidates.tolist():
        w, h = box[2:]
        if min(w, h) < config.min_side or max(w, h) / min(w, h) > config.max_aspect:
            continue
        own = cells(box)
        if any(len(own & cells(k)) / len(own | cells(k)) > config.max_iou for k in kept):
            continue
        kept.append(box)
        if len(kept) == config.boxes:
            break
    return kept or candidates[:1].tolist()


@pytest.mark.parametrize(
    "config",
    [
        SelectiveSearchConfig(min_side=20),
        SelectiveSearchConfig(min_side=12, max_aspect=1.5),
        SelectiveSearchConfig(min_side=5, max_iou=0.2),
        SelectiveSearchConfig(min_side=5, boxes=3),
        SelectiveSearchConfig(min_side=5, max_iou=1.0, max_aspect=100.0, boxes=254),
        SelectiveSearchConfig(),
    ],
    ids=["side", "aspect", "iou", "count", "all", "too small a photo"],
)
def test_filter(image: np.ndarray, config: SelectiveSearchConfig):
    if config.boxes == 254:
        image = image[:60, :80]  # all of them by hand takes long
    found = boxes(image, config)
    assert found.dtype == np.int32
    assert found.tolist() == by_hand(ranked(image), config)


def test_a_photo_smaller_than_the_least_side_keeps_the_first_box():
    image = random_images((64, 90))[0]
    assert boxes(image).tolist() == ranked(image)[:1].tolist()
    labels = SelectiveSearch().label([image], 0, 0, 0)[0].labels
    x, y, w, h = ranked(image)[0].tolist()
    expected = np.zeros((64, 90), int)
    expected[y : y + h, x : x + w] = 1
    assert labels.tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 50), (64, 64)])
def test_one_colour_is_one_box(shape: tuple[int, int]):
    image = np.full((*shape, 3), 90, np.uint8)
    assert boxes(image).tolist() == [[0, 0, shape[1], shape[0]]]
    assert SelectiveSearch().label([image], 0, 0, 0)[0].labels.tolist() == np.ones(shape, int).tolist()


def test_iou():
    one = np.array([2, 3, 10, 20], np.int32)
    others = np.array([[2, 3, 10, 20], [12, 3, 5, 5], [2, 13, 10, 20], [4, 5, 2, 2], [0, 0, 1000, 1000]], np.int32)
    assert iou(one, others).tolist() == [1.0, 0.0, 100 / 300, 4 / 200, 200 / 1e6]
    assert iou(one, others[:0]).tolist() == []
    huge = np.array([0, 0, 60_000, 60_000], np.int32)
    assert iou(huge, huge[None]).tolist() == [1.0]


def test_small_boxes_lie_over_large_ones():
    kept = np.array([[2, 2, 3, 3], [0, 0, 6, 8], [1, 1, 2, 2], [4, 0, 2, 2]], np.int32)
    expected = np.zeros((9, 7), int)
    for y in range(9):
        for x in range(7):
            here = [
                (w * h, rank) for rank, (u, v, w, h) in enumerate(kept.tolist()) if u <= x < u + w and v <= y < v + h
            ]
            expected[y, x] = min(here)[1] + 1 if here else 0
    assert paint(kept, 9, 7).tolist() == expected.tolist()
    assert 0 in expected  # covered by no box


def test_a_box_that_others_cover_has_no_region():
    kept = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [0, 2, 4, 2]], np.int32)
    assert np.unique(paint(kept, 4, 4)).tolist() == [2, 3]


def test_of_equally_large_boxes_the_better_rank_lies_above():
    kept = np.array([[0, 0, 2, 2], [1, 0, 2, 2]], np.int32)
    assert paint(kept, 2, 3).tolist() == [[1, 1, 2], [1, 1, 2]]


def test_254_boxes_fit_into_a_map():
    kept = np.array([[i, 0, 1, 1] for i in range(254)], np.int32)
    assert paint(kept, 1, 255).ravel().tolist() == [*range(1, 255), 0]
