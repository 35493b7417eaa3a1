"""Colours beside their definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from numpy.typing import NDArray

from cyborgs.evaluation.dense.photometric import Distortion, distort, random_distortion


def image() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)
    noise[:2] = [[0], [255]][0]
    noise[2] = 255
    noise[3, :, 0] = noise[3, :, 1]  # ties of channels
    return noise


def defined(x: NDArray[np.uint8], how: Distortion) -> NDArray[np.uint8]:
    """Each step in float64, then rounded and cut off."""

    def cut(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(np.round(y), 0, 255)

    y = cut(x.astype(np.float64) + how.brightness)
    if how.contrast_first:
        y = cut(y * how.contrast)
    hsv = rgb_to_hsv(y / 255)
    hsv[..., 0] = (hsv[..., 0] + how.hue / 180) % 1
    hsv[..., 1] = np.minimum(hsv[..., 1] * how.saturation, 1)
    y = cut(hsv_to_rgb(hsv) * 255)
    if not how.contrast_first:
        y = cut(y * how.contrast)
    return y.astype(np.uint8)


@pytest.mark.parametrize(
    ("how", "levels"),
    [
        (Distortion(), 0),
        (Distortion(brightness=31.4), 0),
        (Distortion(brightness=-20.7), 0),
        (Distortion(contrast=1.43), 0),
        (Distortion(contrast=0.6, contrast_first=False), 0),
        (Distortion(saturation=0.5), 1),
        (Distortion(saturation=1.5), 1),
        (Distortion(hue=17), 1),
        (Distortion(hue=-18), 1),
        (Distortion(brightness=10, contrast=1.2, saturation=1.3, hue=-9), 1),
        (Distortion(brightness=-9, contrast=1.5, contrast_first=False, saturation=0.7, hue=5), 2),
    ],
)
def test_it_is_its_definition(how: Distortion, levels: int) -> None:
    """Within one level of rounding, which a later contrast enlarges."""
    x = image()
    kept = x.copy()
    found = distort(x, how)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - defined(x, how).astype(int)).max() <= levels
    assert np.array_equal(x, kept)


def test_draws() -> None:
    """Each change in half of the cases, over its whole range; equal generators, equal draws."""
    rng = np.random.default_rng(3)
    draws = [random_distortion(rng) for _ in range(2000)]
    neutral = Distortion()
    for name, low, high in (
        ("brightness", -32, 32),
        ("contrast", 0.5, 1.5),
        ("saturation", 0.5, 1.5),
        ("hue", -18, 18),
    ):
        values = np.array([getattr(d, name) for d in draws], float)
        changed = values[values != getattr(neutral, name)]
        assert 0.45 < len(changed) / len(draws) < 0.55
        assert low <= changed.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < changed.max() <= high
    assert 0.45 < np.mean([d.contrast_first for d in draws]) < 0.55
    assert random_distortion(np.random.default_rng(3)) == draws[0]
