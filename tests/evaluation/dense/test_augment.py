"""Training crops beside numpy definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cyborgs.evaluation.dense.augment import Crops, fitted, random_corner, resized, resized_labels, varied

UInt8 = NDArray[np.uint8]


class Pairs:
    """A photo whose red is its label times 40, with a border of void."""

    def __init__(self, height: int = 60, width: int = 90) -> None:
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 4, (-(-height // 10), -(-width // 10)))
        self.labels = np.kron(blocks, np.ones((10, 10))).astype(np.uint8)[:height, :width]
        self.image = np.stack([self.labels * 40, self.labels * 0 + 7, self.labels * 0 + 9], axis=2)
        self.labels[0] = 255

    def __len__(self) -> int:
        return 1

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        return self.image, self.labels


CROPS = Crops(Pairs(), 255, 32, (0, 0), (1.0, 1.0), 0.75, False, (123, 116, 104))


def test_fitting_a_box() -> None:
    assert fitted((480, 640), (0, 0)) == (480, 640)
    assert fitted((480, 640), (0, 0), 0.5) == (240, 320)
    assert fitted((480, 640), (2048, 512)) == (512, 683)  # the short side decides
    assert fitted((100, 1000), (2048, 512)) == (205, 2048)  # the long one
    assert fitted((640, 480), (2048, 512), 2.0) == (1365, 1024)  # upright too
    assert fitted((1024, 2048), (2049, 1025), 1.0) == (1025, 2049)
    assert fitted((2, 90), (0, 0), 0.1) == (1, 9)  # never nothing


@pytest.mark.parametrize("size", [(33, 61), (100, 131), (20, 30)])
def test_resizing(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    labels = rng.integers(0, 9, (50, 70), dtype=np.uint8)
    y, x = ((np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(size, (50, 70), strict=True))
    y, x = np.clip(y, 0, 49), np.clip(x, 0, 69)
    y0, x0 = np.minimum(y.astype(int), 48), np.minimum(x.astype(int), 68)
    fy, fx = (y - y0)[:, None, None], (x - x0)[None, :, None]
    i = image.astype(float)
    top = i[y0][:, x0] * (1 - fx) + i[y0][:, x0 + 1] * fx
    bottom = i[y0 + 1][:, x0] * (1 - fx) + i[y0 + 1][:, x0 + 1] * fx
    assert np.abs(resized(image, size) - (top * (1 - fy) + bottom * fy)).max() <= 1
    rows, columns = ((2 * np.arange(n) + 1) * old // (2 * n) for n, old in zip(size, (50, 70), strict=True))
    assert np.array_equal(resized_labels(labels, size), labels[rows][:, columns])


def test_same_size_passes_through() -> None:
    image, labels = CROPS.pairs.pair(0)
    assert resized(image, (60, 90)) is image
    assert resized_labels(labels, (60, 90)) is labels


def test_labels_go_with_the_photo() -> None:
    for seed in range(20):
        image, labels = CROPS.sample(0, np.random.default_rng(seed))
        assert image.shape == (32, 32, 3)
        assert image.dtype == labels.dtype == np.uint8
        known = labels != 255
        assert np.array_equal(image[known][:, 0], labels[known] * 40)
        assert varied(labels, 255, 0.75)


def test_half_are_flipped() -> None:
    whole = replace(CROPS, crop=90, max_class_share=1.0)
    plain = CROPS.pairs.pair(0)[1]
    found = [whole.sample(0, np.random.default_rng(seed))[1][:60] for seed in range(200)]
    flipped = [np.array_equal(x, plain[:, ::-1]) for x in found]
    assert 70 < sum(flipped) < 130
    assert all(f or np.array_equal(x, plain) for f, x in zip(flipped, found, strict=True))


def test_a_photo_smaller_than_the_crop_is_padded() -> None:
    image, labels = replace(CROPS, crop=128, photometric=True).sample(0, np.random.default_rng(0))
    assert image.shape == (128, 128, 3)
    assert (labels[60:] == 255).all()
    assert (labels[:, 90:] == 255).all()
    assert (labels[1:60, :90] != 255).all()
    for padded in (image[60:], image[:, 90:]):
        assert (padded == np.array([123, 116, 104])).all()  # distortion leaves it alone


def test_scales_reach_from_low_to_high() -> None:
    crops = replace(CROPS, crop=256, scales=(0.5, 2.0))
    heights = [(crops.sample(0, np.random.default_rng(s))[1] != 255).any(1).sum() for s in range(60)]
    assert 29 <= min(heights) < 40
    assert 110 < max(heights) <= 120


def test_varied() -> None:
    labels = np.array([[0, 0, 0, 1]], np.uint8)
    assert varied(labels, 255, 0.75)
    assert not varied(labels, 255, 0.7)
    assert not varied(np.array([[0, 0, 255]], np.uint8), 255, 1.0)
    assert not varied(np.full((2, 2), 255, np.uint8), 255, 0.75)


def test_corners_are_drawn_again_ten_times_at_most() -> None:
    class Counting(np.random.Generator):
        drawn = 0

        def integers(self, *arguments: int) -> int:  # type: ignore[override]
            self.drawn += 1
            return 0

    counting = Counting(np.random.PCG64(0))
    full = np.zeros((64, 64), np.uint8)
    assert random_corner(full, 32, 255, 0.75, counting) == (0, 0)
    assert counting.drawn == 2 * 11
    counting.drawn = 0
    random_corner(full, 32, 255, 1.0, counting)
    assert counting.drawn == 2


def test_corners_avoid_what_one_class_fills() -> None:
    labels = np.zeros((32, 320), np.uint8)
    labels[:, 150:] = np.random.default_rng(0).integers(0, 5, (32, 170))
    lefts = [random_corner(labels, 32, 255, 0.75, np.random.default_rng(s))[1] for s in range(100)]
    assert np.mean(np.array(lefts) < 125) < 0.02
    assert max(lefts) > 250


def test_every_corner_can_be_drawn() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (34, 33)).astype(np.uint8)
    rng = np.random.default_rng(1)
    assert {random_corner(labels, 32, 255, 0.75, rng) for _ in range(200)} == {
        (t, s) for t in range(3) for s in range(2)
    }


def test_equal_generators_give_equal_crops() -> None:
    crops = replace(CROPS, photometric=True, scales=(0.5, 2.0))
    one, two, other = (crops.sample(0, np.random.default_rng(s)) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not np.array_equal(one[0], other[0])


def test_a_photo_without_a_labelled_pixel() -> None:
    pairs = Pairs()
    pairs.labels[:] = 255
    _, labels = replace(CROPS, pairs=pairs).sample(0, np.random.default_rng(0))
    assert (labels == 255).all()
