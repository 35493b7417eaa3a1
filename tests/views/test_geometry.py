"""Crops: torchvision's sampling and pixels, a numpy box filter, extreme shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop
from cyborgs.views.geometry import crop_resize, random_geometry


def noise(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@st.composite
def crops(draw: st.DrawFn) -> tuple[np.ndarray, ViewGeometry, int]:
    h, w = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    ch, cw = draw(st.integers(1, h)), draw(st.integers(1, w))
    y0, x0 = draw(st.integers(0, h - ch)), draw(st.integers(0, w - cw))
    geometry = ViewGeometry(y0, x0, ch, cw, draw(st.booleans()), h, w)
    return noise(h, w, draw(st.integers(0, 3))), geometry, draw(st.sampled_from([32, 64]))


def levels(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    assert a.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def torchvision_crop(image: np.ndarray, g: ViewGeometry, size: int) -> np.ndarray:
    planes = torch.from_numpy(image).permute(2, 0, 1)
    result = F.resized_crop(planes, g.y0, g.x0, g.h, g.w, [size, size], antialias=False)
    return (F.horizontal_flip(result) if g.flip else result).permute(1, 2, 0).numpy()


@settings(deadline=None, max_examples=150)
@given(crops())
def test_linear_is_torchvisions(case: tuple[np.ndarray, ViewGeometry, int]) -> None:
    image, g, size = case
    before = image.copy()
    got = crop_resize(image, g, size)
    assert levels(got, torchvision_crop(image, g, size)) <= 1
    assert not np.shares_memory(got, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    "box", [(0, 0, 480, 640), (10, 20, 448, 448), (100, 33, 224, 224), (7, 9, 131, 97), (3, 300, 470, 340)]
)
def test_linear_at_the_real_size(box: tuple[int, int, int, int]) -> None:
    g = ViewGeometry(*box, False, 480, 640)
    assert levels(crop_resize(noise(480, 640), g, 224), torchvision_crop(noise(480, 640), g, 224)) <= 1


def box_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Row o: the share of each input pixel in [o, o + 1) n_in / n_out; where the axis grows, bilinear weights."""
    matrix = np.zeros((n_out, n_in))
    if n_out >= n_in:
        at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = np.floor(at).astype(int)
        for o, (i, f) in enumerate(zip(low, at - low, strict=True)):
            matrix[o, i] += 1 - f
            matrix[o, min(i + 1, n_in - 1)] += f
        return matrix
    for o in range(n_out):
        start, stop = o * n_in / n_out, (o + 1) * n_in / n_out
        for i in range(n_in):
            matrix[o, i] = max(0.0, min(stop, i + 1) - max(start, i))
    return matrix * n_out / n_in


@settings(deadline=None, max_examples=100)
@given(crops())
def test_area_is_a_box_filter(case: tuple[np.ndarray, ViewGeometry, int]) -> None:
    image, g, size = case
    pixels = image[g.y0 : g.y0 + g.h, g.x0 : g.x0 + g.w].astype(float)
    rows, columns = box_matrix(g.h, size), box_matrix(g.w, size)
    expected = np.einsum("oi,pj,ijc->opc", rows, columns, pixels)
    expected = expected[:, ::-1] if g.flip else expected
    assert levels(crop_resize(image, g, size, "area"), expected) <= 1


def test_area_and_linear_differ_where_an_axis_shrinks() -> None:
    whole = ViewGeometry(0, 0, 200, 30, False, 200, 30)
    assert levels(crop_resize(noise(200, 30), whole, 32, "area"), crop_resize(noise(200, 30), whole, 32)) > 30
    small = ViewGeometry(0, 0, 20, 30, False, 200, 30)
    assert levels(crop_resize(noise(200, 30), small, 32, "area"), crop_resize(noise(200, 30), small, 32)) == 0


@pytest.mark.parametrize("interpolation", ["linear", "area"])
@pytest.mark.parametrize(("h", "w"), [(33, 20_000), (20_000, 33), (1, 5000), (5000, 1), (1, 1)])
def test_extreme_shapes(h: int, w: int, interpolation: str) -> None:
    image = np.full((h, w, 3), (10, 20, 30), np.uint8)
    rng = np.random.default_rng(0)
    for crop in (Crop(), Crop(ratio=(0.01, 100.0))):
        for _ in range(20):
            g = random_geometry(rng, h, w, crop)
            assert 0 <= g.y0 <= g.y0 + g.h <= h
            assert 0 <= g.x0 <= g.x0 + g.w <= w
            assert g.h >= 1
            assert g.w >= 1
            assert levels(crop_resize(image, g, 32, interpolation), np.tile((10, 20, 30), (32, 32, 1))) == 0  # type: ignore[arg-type]


def geometries(crop: Crop, count: int = 3000, h: int = 480, w: int = 640) -> list[ViewGeometry]:
    rng = np.random.default_rng(1)
    return [random_geometry(rng, h, w, crop) for _ in range(count)]


def test_sampling_is_torchvisions() -> None:
    """Quantiles of area, ratio and centre against torchvision's RandomResizedCrop, 3,000 draws of each."""
    from torchvision.transforms.v2 import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.zeros(1, 480, 640)
    reference = RandomResizedCrop(224, antialias=False)
    boxes = [reference.make_params([image]) for _ in range(3000)]
    theirs = np.array([(b["top"], b["left"], b["height"], b["width"]) for b in boxes], float)
    ours = np.array([(g.y0, g.x0, g.h, g.w) for g in geometries(Crop())], float)
    for measure in (
        lambda b: b[:, 2] * b[:, 3] / (480 * 640),
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: (b[:, 0] + b[:, 2] / 2) / 480,
        lambda b: (b[:, 1] + b[:, 3] / 2) / 640,
    ):
        quantiles = np.linspace(0.05, 0.95, 10)
        spread = np.ptp(measure(theirs))
        assert (
            np.abs(np.quantile(measure(ours), quantiles) - np.quantile(measure(theirs), quantiles)).max()
            < 0.04 * spread
        )
    flips = np.mean([g.flip for g in geometries(Crop())])
    assert abs(flips - 0.5) < 0.04


def test_settings_of_the_crop() -> None:
    areas = [g.h * g.w / (480 * 640) for g in geometries(Crop(area=(0.2, 0.3)), 300)]
    assert 0.19 < min(areas) < 0.21
    assert 0.29 < max(areas) < 0.31
    ratios = [g.w / g.h for g in geometries(Crop(ratio=(0.5, 0.6), area=(0.2, 0.3)), 300)]
    assert 0.49 < min(ratios) < 0.52
    assert 0.58 < max(ratios) < 0.61
    assert not any(g.flip for g in geometries(Crop(flip=0.0), 100))
    assert all(g.flip for g in geometries(Crop(flip=1.0), 100))


@pytest.mark.parametrize(
    ("h", "w", "box"), [(40, 400, (0, 173, 40, 53)), (400, 40, (173, 0, 53, 40)), (30, 40, (0, 0, 30, 40))]
)
def test_central_fallback(h: int, w: int, box: tuple[int, int, int, int]) -> None:
    rng = np.random.default_rng(0)
    found = {
        (g.y0, g.x0, g.h, g.w) for g in (random_geometry(rng, h, w, Crop(area=(1.0, 1.0), flip=0)) for _ in range(50))
    }
    assert box in found
    if h != 30:
        assert found == {box}


def test_as_many_draws_whatever_the_image() -> None:
    states = []
    for h, w, crop in ((480, 640, Crop()), (20, 20_000, Crop()), (33, 35, Crop(flip=0, area=(1.0, 1.0)))):
        rng = np.random.default_rng(5)
        random_geometry(rng, h, w, crop)
        states.append(rng.random())
    assert len(set(states)) == 1
