"""Colours against torchvision's functional results; probabilities; what each augmentation changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from cyborgs.views.config import Crop
from cyborgs.views.photometric import (
    Photometry,
    apply_photometry,
    gaussian_kernel,
    kernel_size,
    random_photometry,
    turn_hue,
)

NEUTRAL = Crop(flip=0, jitter=0, grey=0, blur=0, solarise=0)


def pictures() -> list[np.ndarray]:
    """Noise, a smooth picture, and one with dark, grey and saturated parts."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    smooth = cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (224, 224), interpolation=cv2.INTER_CUBIC)
    special = noise.copy()
    special[:40] //= 16
    special[40:80] = special[40:80, :, :1]
    special[80:120] = np.where(special[80:120] < 128, 0, 255)
    return [noise, smooth, special]


def torchvision(image: np.ndarray, function: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
    return function(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def levels(how: Photometry, function: Callable[[torch.Tensor], torch.Tensor]) -> int:
    worst = 0
    for image in pictures():
        before = image.copy()
        got = apply_photometry(image, how)
        np.testing.assert_array_equal(image, before)
        assert not np.shares_memory(got, image)
        assert got.dtype == np.uint8
        assert got.shape == image.shape
        worst = max(worst, int(np.abs(got.astype(int) - torchvision(image, function)).max()))
    return worst


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.93, 1.25, 1.4, 2.0])
def test_brightness_contrast_saturation(factor: float) -> None:
    assert levels(Photometry(brightness=factor), lambda x: F.adjust_brightness(x, factor)) <= 1
    assert levels(Photometry(contrast=factor), lambda x: F.adjust_contrast(x, factor)) <= 1
    assert levels(Photometry(saturation=factor), lambda x: F.adjust_saturation(x, factor)) <= 1


@pytest.mark.parametrize("turn", [-1 / 6, -0.1, -0.033, 0.001, 0.07, 0.1, 1 / 6])
def test_hue(turn: float) -> None:
    assert levels(Photometry(hue=turn), lambda x: F.adjust_hue(x, turn)) <= 1


@pytest.mark.parametrize("turn", [-0.5, -0.3, 0.2, 0.5])
def test_large_turns_go_in_steps(turn: float) -> None:
    assert levels(Photometry(hue=turn), lambda x: F.adjust_hue(x, turn)) <= 3


def test_a_third_of_the_circle_exchanges_channels() -> None:
    image = pictures()[0]
    once = turn_hue(turn_hue(image, 1 / 6), 1 / 6)
    np.testing.assert_array_equal(once, image[..., [2, 0, 1]])  # red goes to green


def test_grey_and_solarise() -> None:
    assert levels(Photometry(grey=True), lambda x: F.rgb_to_grayscale(x, 3)) <= 1
    assert levels(Photometry(solarise=True), lambda x: F.solarize(x, 128)) == 0
    grey = apply_photometry(pictures()[0], Photometry(grey=True, sigma=1.3, solarise=True))
    assert (grey == grey[..., :1]).all()


@pytest.mark.parametrize("sigma", [0.1, 0.3, 0.5, 0.8, 1.0, 1.3, 1.7, 2.0])
def test_blur_equals_the_full_kernel(sigma: float) -> None:
    assert levels(Photometry(sigma=sigma), lambda x: F.gaussian_blur(x, [23, 23], [sigma, sigma])) <= 1


def test_kernel() -> None:
    assert [kernel_size(side) for side in (224, 128, 96, 32)] == [23, 13, 9, 3]
    assert len(gaussian_kernel(2.0, 224)) == 13
    assert len(gaussian_kernel(2.0, 96)) == 9
    assert len(gaussian_kernel(100.0, 224)) == 23
    assert len(gaussian_kernel(0.1, 224)) == 1
    assert gaussian_kernel(1.5, 224).sum() == pytest.approx(1, abs=1e-6)


STEPS: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@pytest.mark.parametrize("seed", range(12))
def test_the_whole_jitter_in_its_order(seed: int) -> None:
    """torchvision cuts off after every step and we round less often: 9 levels at most, 2 on average."""
    how = replace(random_photometry(np.random.default_rng(seed), Crop(jitter=1, grey=0, blur=0)), grey=seed % 4 == 0)

    def chain(x: torch.Tensor) -> torch.Tensor:
        for step in how.order:
            x = STEPS[step](x, getattr(how, step))
        return F.rgb_to_grayscale(x, 3) if how.grey else x

    for image in pictures():
        difference = np.abs(apply_photometry(image, how).astype(int) - torchvision(image, chain))
        assert difference.max() <= 9
        assert difference.mean() <= 2


def test_order_matters() -> None:
    how = Photometry(brightness=1.4, contrast=0.6)
    other = replace(how, order=("contrast", "brightness", "saturation", "hue"))
    assert (apply_photometry(pictures()[0], how) != apply_photometry(pictures()[0], other)).any()


@pytest.mark.parametrize(
    "change",
    [
        {"brightness": 1.2},
        {"contrast": 0.8},
        {"saturation": 1.2},
        {"hue": 0.05},
        {"grey": True},
        {"sigma": 1.0},
        {"solarise": True},
    ],
)
def test_each_augmentation_changes_the_pixels(change: dict[str, object]) -> None:
    image = pictures()[1]
    np.testing.assert_array_equal(apply_photometry(image, Photometry()), image)
    assert (apply_photometry(image, Photometry(**change)) != image).mean() > 0.2  # type: ignore[arg-type]


def draws(crop: Crop, count: int = 400) -> list[Photometry]:
    rng = np.random.default_rng(0)
    return [random_photometry(rng, crop) for _ in range(count)]


def test_probabilities_of_zero_and_one() -> None:
    plain = Photometry()
    for how in draws(NEUTRAL):
        assert replace(how, order=plain.order) == plain
    for how in draws(replace(NEUTRAL, jitter=1, grey=1, blur=1, solarise=1)):
        assert how.grey
        assert how.solarise
        assert 0.1 <= how.sigma <= 2.0
        assert how.brightness != 1 != how.contrast
        assert how.saturation != 1
        assert how.hue != 0


def test_probabilities_and_ranges() -> None:
    some = draws(Crop(jitter=0.8, grey=0.2, blur=0.1, solarise=0.2), 3000)
    for share, expected in (
        (np.mean([how.brightness != 1 for how in some]), 0.8),
        (np.mean([how.grey for how in some]), 0.2),
        (np.mean([how.sigma > 0 for how in some]), 0.1),
        (np.mean([how.solarise for how in some]), 0.2),
    ):
        assert abs(share - expected) < 0.03
    assert len({how.order for how in some}) == 24
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.8, 1.2),
        ("hue", -0.1, 0.1),
    ):
        values = [getattr(how, name) for how in some]
        slack = 0.02 * (high - low)
        assert low <= min(values) < low + slack
        assert high - slack < max(values) <= high


SETTINGS = {
    "jitter": 1.0,
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.5,
    "hue": 0.2,
    "grey": 1.0,
    "blur": 0.0,
    "solarise": 1.0,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_moves_its_own_draw_alone(name: str) -> None:
    base = Crop(jitter=0.9, solarise=0.5)
    touched = {"jitter": {"brightness", "contrast", "saturation", "hue"}, "blur": {"sigma"}}.get(name, {name})
    pairs = list(zip(draws(base), draws(replace(base, **{name: SETTINGS[name]})), strict=True))
    differing = {f.name for a, b in pairs for f in fields(Photometry) if getattr(a, f.name) != getattr(b, f.name)}
    assert differing == touched
