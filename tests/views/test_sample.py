"""The views of one image: what is drawn when, and what follows what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.geometry import crop_resize
from cyborgs.views.labels import grid_labels
from cyborgs.views.photometric import random_photometry
from cyborgs.views.sample import OneView, Photo, make_views

SPEC = ViewSpec(size=64, grid=4)
PLAIN = Crop(jitter=0, grey=0, blur=0, solarise=0)


def image(h: int = 90, w: int = 120) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (h, w, 3), dtype=np.uint8)


def label_map() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 9, (12, 15), dtype=np.uint8)


def views(
    spec: ViewSpec = SPEC, maps: np.ndarray | None = None, seed: int = 0, pixels: np.ndarray | None = None
) -> tuple[tuple[OneView, ...], np.ndarray]:
    return make_views(Photo(image() if pixels is None else pixels, maps), spec, np.random.default_rng(seed))


def test_shapes_and_dtypes() -> None:
    made, order = views(maps=label_map())
    assert len(made) == 2
    for view in made:
        assert (view.image.shape, view.image.dtype) == ((3, 64, 64), np.uint8)
        assert view.labels is not None
        assert (view.labels.shape, view.labels.dtype) == ((4, 4), np.uint8)
        assert (view.geometry.image_h, view.geometry.image_w) == (90, 120)
    assert order.dtype == np.uint8
    assert sorted(order.tolist()) == list(range(256))


def test_the_map_follows_the_geometry_and_the_pixels_too() -> None:
    plain = replace(SPEC, crops=(PLAIN, PLAIN))
    for seed in range(10):
        for view in views(plain, label_map(), seed)[0]:
            pixels = crop_resize(image(), view.geometry, 64)
            np.testing.assert_array_equal(view.image, pixels.transpose(2, 0, 1))
            assert view.labels is not None
            np.testing.assert_array_equal(view.labels, grid_labels(label_map(), view.geometry, 64, 4))


def test_pixels_and_labels_agree_on_the_same_scene() -> None:
    """A picture that shows its own label map: every cell of the view has the colour of its label."""
    labels = np.arange(1, 5, dtype=np.uint8).reshape(2, 2)
    picture = (labels * 50).repeat(45, 0).repeat(60, 1)[..., None].repeat(3, 2)
    spec = ViewSpec(size=64, grid=4, crops=(PLAIN, PLAIN), interpolation="area")
    for seed in range(20):
        for view in views(spec, labels, seed, picture)[0]:
            cells = view.image[0].reshape(4, 16, 4, 16).transpose(0, 2, 1, 3).reshape(4, 4, -1)
            assert view.labels is not None
            pure = (cells == cells[..., :1]).all(-1)
            np.testing.assert_array_equal(cells[..., 0][pure], view.labels[pure] * 50)


def test_same_generator_same_views() -> None:
    (a, order_a), (b, order_b) = views(seed=5), views(seed=5)
    np.testing.assert_array_equal(order_a, order_b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.image, y.image)
        assert x.geometry == y.geometry
    assert (views(seed=6)[0][0].image != a[0].image).any()
    assert a[0].geometry != a[1].geometry


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, crops=(PLAIN, PLAIN)),
        replace(SPEC, crops=(Crop(blur=0, jitter=0.1), Crop(grey=1.0))),
        replace(SPEC, interpolation="area"),
        replace(SPEC, size=96),
    ],
)
def test_colours_and_maps_leave_the_crops_where_they_are(spec: ViewSpec) -> None:
    expected, order = views()
    for maps in (None, label_map()):
        made, other = views(spec, maps)
        assert [v.geometry for v in made] == [v.geometry for v in expected]
        np.testing.assert_array_equal(order, other)


def test_the_second_view_does_not_depend_on_the_first_ones_settings() -> None:
    other = replace(SPEC, crops=(PLAIN, SPEC.crops[1]))
    np.testing.assert_array_equal(views(other)[0][1].image, views()[0][1].image)


def test_views_of_different_sizes() -> None:
    made, _ = views(replace(SPEC, crops=(Crop(), Crop(size=32))))
    assert [v.image.shape for v in made] == [(3, 64, 64), (3, 32, 32)]


@pytest.mark.parametrize(("h", "w"), [(32, 32), (33, 20_000), (20_000, 33)])
def test_extreme_images(h: int, w: int) -> None:
    pixels = np.zeros((h, w, 3), np.uint8)
    maps = np.full((max(1, h // 8), max(1, w // 8)), 7, np.uint8)
    for view in views(maps=maps, pixels=pixels)[0]:
        assert view.labels is not None
        assert (view.labels == 7).all()


def test_published_blur_and_solarise_differ_between_the_views() -> None:
    first, second = ViewSpec().crops
    rng = np.random.default_rng(0)
    assert all(random_photometry(rng, first).sigma > 0 for _ in range(200))
    assert np.mean([random_photometry(rng, second).sigma > 0 for _ in range(1000)]) < 0.15
    assert not any(random_photometry(rng, first).solarise for _ in range(200))
