"""Whole photos, windows, and what is counted of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.errors import NotFiniteError
from cyborgs.evaluation.dense.inference import Inference, confusions, pixel_logits, predicted, starts

UInt8 = NDArray[np.uint8]


def coarse(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> 3 classes at stride 8: the colours, averaged, with an edge that depends on the window."""
    x = F.avg_pool2d(images.float(), 8, ceil_mode=True)
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), torch.ones(3, 1, 3, 3) / 9, groups=3)


def photo(height: int = 50, width: int = 71) -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor(image: UInt8) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_windows_cover_every_pixel() -> None:
    for length in range(1, 60):
        for window in (1, 7, 16, 60):
            for stride in range(1, window + 1):
                found = starts(length, window, stride)
                covered = {p for s in found for p in range(s, min(s + window, length))}
                assert covered == set(range(length))
                assert all(b - a <= stride for a, b in itertools.pairwise(found))
                assert found[-1] == max(0, length - window)
    assert starts(1025, 769, 513) == [0, 256]
    assert starts(2049, 769, 513) == [0, 513, 1026, 1280]


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_window_as_large_as_the_photo_is_the_whole(align_corners: bool) -> None:
    image = tensor(photo())
    whole = pixel_logits(coarse, image, Inference(3, 255, align_corners=align_corners))
    for window in (71, 100):
        how = Inference(3, 255, window=window, stride=40, align_corners=align_corners)
        assert torch.equal(pixel_logits(coarse, image, how), whole)
    wanted = F.interpolate(coarse(image), (50, 71), mode="bilinear", align_corners=align_corners)
    assert torch.equal(whole, wanted)


def test_overlapping_windows_are_averaged() -> None:
    """Beside the mean, pixel by pixel, of all windows that hold it."""
    image = photo()
    held: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for top in (0, 18):
        for left in (0, 20, 39):
            window = tensor(image[top : top + 32, left : left + 32])
            logits = F.interpolate(coarse(window), (32, 32), mode="bilinear", align_corners=True)[0].double().numpy()
            for y in range(32):
                for x in range(32):
                    held.setdefault((top + y, left + x), []).append(logits[:, y, x])
    found = pixel_logits(coarse, tensor(image), Inference(3, 255, window=32, stride=20))
    wanted = np.array([[np.mean(held[y, x], axis=0) for x in range(71)] for y in range(50)]).transpose(2, 0, 1)
    np.testing.assert_allclose(found[0].numpy(), wanted, rtol=1e-5, atol=1e-3)


def test_windows_of_a_photo_narrower_than_they() -> None:
    image = photo(20, 100)
    found = pixel_logits(coarse, tensor(image), Inference(3, 255, window=32, stride=20))
    assert found.shape == (1, 3, 20, 100)
    assert torch.isfinite(found).all()


def test_the_answer_has_the_photos_size() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, :30, 0] = 200
    image[:, 30:, 2] = 200
    for how in (
        Inference(3, 255),
        Inference(3, 255, box=(120, 80)),
        Inference(3, 255, box=(120, 80), window=64, stride=32),
    ):
        found = predicted(coarse, image, how)
        assert found.shape == (40, 60)
        assert found.dtype == np.uint8
        assert (found[:, :24] == 0).all()
        assert (found[:, 36:] == 2).all()


def test_enlarged_twice_where_photos_are_scaled() -> None:
    image = photo()
    how = Inference(3, 255, box=(142, 100), align_corners=True)
    seen: list[Tensor] = []

    def watching(images: Tensor) -> Tensor:
        seen.append(images)
        return coarse(images)

    found = predicted(watching, image, how)
    assert seen[0].shape == (1, 3, 100, 142)
    once = F.interpolate(coarse(seen[0]), (100, 142), mode="bilinear", align_corners=True)
    twice = F.interpolate(once, (50, 71), mode="bilinear", align_corners=True)
    assert np.array_equal(found, twice[0].argmax(0).numpy())


class Labelled:
    def __init__(self) -> None:
        self.images = [photo(), photo(30, 40)]
        rng = np.random.default_rng(1)
        self.labels = [rng.integers(0, 3, x.shape[:2]).astype(np.uint8) for x in self.images]
        self.labels[0][:9] = 255

    def __len__(self) -> int:
        return 2

    def name(self, i: int) -> str:
        return f"photo-{i}.png"

    def pair(self, i: int) -> tuple[UInt8, UInt8]:
        return self.images[i], self.labels[i]


def test_counts_of_each_photo() -> None:
    photos, how = Labelled(), Inference(3, 255)
    for threads in (0, 2):
        for i, counts in enumerate(confusions(coarse, photos, how, "cpu", threads)):
            found = predicted(coarse, photos.images[i], how)
            wanted = np.zeros((3, 3), np.int64)
            for p, t in zip(found.ravel(), photos.labels[i].ravel(), strict=True):
                if t != 255:
                    wanted[p, t] += 1
            assert np.array_equal(counts, wanted)


def test_logits_that_are_not_finite_name_the_photo() -> None:
    def broken(images: Tensor) -> Tensor:
        return coarse(images) * float("nan")

    with pytest.raises(NotFiniteError, match=r"photo-0\.png: logits hold NaN"):
        list(confusions(broken, Labelled(), Inference(3, 255), "cpu", 0))
