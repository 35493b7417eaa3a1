"""Squares of photos: what they show, beside Pillow's and torchvision's own."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cyborgs.features.transforms import Drawn, Square, Squash, centre, drawn_crop, middle, resized, to_short_side


def smooth(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def test_the_middle_is_cut_out() -> None:
    image = np.zeros((40, 90, 3), np.uint8)
    image[:, 25:65] = 200  # the middle
    for size in (32, 70):
        assert Square(size)(image).shape == (size, size, 3)
        assert (Square(size)(image) == 200).all()
    assert Square(32)(np.zeros((1, 500, 3), np.uint8)).shape == (32, 32, 3)
    assert Square(32)(np.zeros((500, 1, 3), np.uint8)).shape == (32, 32, 3)


@pytest.mark.parametrize("shape", [(480, 640), (375, 500), (500, 333), (120, 160)])
def test_as_torchvision_does_it(shape: tuple[int, int]) -> None:
    """Not to the bit (its filter is a triangle, ours a box): to a few grey levels on a smooth photo."""
    image = smooth(*shape)
    wanted = v2.Compose([v2.Resize(256), v2.CenterCrop(224)])(Image.fromarray(image))
    assert np.abs(Square(224, 256)(image).astype(int) - np.asarray(wanted)).max() <= 6
    wanted = v2.Compose([v2.Resize(256), v2.Resize((224, 224))])(Image.fromarray(image))
    assert np.abs(Squash(224, 256)(image).astype(int) - np.asarray(wanted)).max() <= 6


@pytest.mark.parametrize(
    "shape",
    [(480, 640), (375, 500), (120, 160), (30, 40), (64, 64), (20, 900), (900, 20), (7, 3001), (1, 700), (700, 3)],
)
def test_the_middle_is_that_of_the_whole(shape: tuple[int, int]) -> None:
    """To the bit in ordinary shapes, to one grey level in long ones, noise being the hardest photo."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for size, short in ((64, 64), (60, 64), (56, 64.0), (32, 32 * 8 / 7)):
        whole = centre(to_short_side(image, short), size, size)
        off = np.abs(middle(image, short, size).astype(int) - whole).max()
        assert off <= (1 if max(shape) > 10 * min(shape) else 0)
        assert np.array_equal(middle(image, short, size), Square(size, short)(image))


def test_a_line_of_a_photo_takes_no_time() -> None:
    """Whole it would be 256 x 3,840,000 pixels."""
    started = time.perf_counter()
    assert Square(224)(np.zeros((2, 30_000, 3), np.uint8)).shape == (224, 224, 3)
    assert Square(224)(np.zeros((30_000, 2, 3), np.uint8)).shape == (224, 224, 3)
    assert time.perf_counter() - started < 1


def test_sizes() -> None:
    assert to_short_side(smooth(300, 451), 256).shape == (256, 385, 3)
    assert to_short_side(smooth(451, 300), 256).shape == (385, 256, 3)
    assert resized(smooth(9, 7), 9, 7).shape == (9, 7, 3)
    assert Squash(224, 256)(smooth(20, 900)).shape == (224, 224, 3)
    assert centre(np.arange(30).reshape(5, 6), 3, 2).tolist() == [[8, 9], [14, 15], [20, 21]]


def test_a_shrunk_checkerboard_is_grey() -> None:
    board = np.indices((256, 256)).sum(0) % 2 * 255
    image = np.repeat(board[..., None], 3, 2).astype(np.uint8)
    assert np.abs(resized(image, 64, 64).astype(int) - 128).max() <= 1
    crop = drawn_crop(image, 32, np.random.default_rng(0), (1.0, 1.0))
    assert np.abs(crop.astype(int) - 128).max() <= 20


def test_a_drawn_crop_depends_on_seed_and_photo_alone() -> None:
    image = smooth(60, 80)
    one = Drawn(32, 1)(image, 5)
    assert one.shape == (32, 32, 3)
    np.random.default_rng(0).random()
    torch.rand(1)
    assert np.array_equal(one, Drawn(32, 1)(image, 5))
    assert not np.array_equal(one, Drawn(32, 1)(image, 6))
    assert not np.array_equal(one, Drawn(32, 2)(image, 5))
