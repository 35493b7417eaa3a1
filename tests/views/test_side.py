"""What rides along follows crop and mirror; hand-made cases, and a loop over pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.micro_batches import made_up_batch
from cyborgs.views.sample import Photo, make_views
from cyborgs.views.side import Artefact, MadeUp, boxes_in_view, grid_means, side_data

QUARTERS = np.array([[0, 51], [102, 255]], np.uint8)


def test_means_of_a_map_by_hand() -> None:
    whole = ViewGeometry(0, 0, 64, 64, False, 64, 64)
    np.testing.assert_allclose(grid_means(QUARTERS, whole, 32, 2), [[0, 0.2], [0.4, 1]], atol=1e-7)
    np.testing.assert_allclose(grid_means(QUARTERS, whole._replace(flip=True), 32, 2), [[0.2, 0], [1, 0.4]], atol=1e-7)
    assert grid_means(QUARTERS, whole, 32, 1) == pytest.approx(0.4)
    top = ViewGeometry(0, 0, 32, 64, False, 64, 64)
    np.testing.assert_allclose(grid_means(QUARTERS, top, 32, 2), [[0, 0.2], [0, 0.2]], atol=1e-7)
    # A quarter of each cell's width in the left column: cells of 8 pixels, the border after 4 of them.
    shifted = ViewGeometry(0, 28, 32, 16, False, 64, 64)
    np.testing.assert_allclose(grid_means(QUARTERS, shifted, 32, 4)[0], [0, 0.2, 0.2, 0.2], atol=1e-7)


def test_means_as_a_loop_over_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = rng.integers(0, 256, (int(rng.integers(1, 40)), int(rng.integers(1, 40))), dtype=np.uint8)
        g = ViewGeometry(
            *map(int, rng.integers(0, 20, 2)), *map(int, rng.integers(5, 40, 2)), bool(rng.integers(2)), 60, 60
        )
        sums, counts = np.zeros((3, 3)), np.zeros((3, 3))
        for i in range(32):
            for j in range(32):
                jj = 31 - j if g.flip else j
                y, x = g.y0 + (i + 0.5) / 32 * g.h, g.x0 + (jj + 0.5) / 32 * g.w
                value = values[int(y / 60 * values.shape[0]), int(x / 60 * values.shape[1])]
                sums[i * 3 // 32, j * 3 // 32] += value / 255
                counts[i * 3 // 32, j * 3 // 32] += 1
        np.testing.assert_allclose(grid_means(values, g, 32, 3), sums / counts, atol=1e-6)


def test_boxes_in_a_mirrored_view() -> None:
    boxes = np.array([[10, 20, 30, 10], [0, 0, 100, 100], [90, 90, 5, 5]])  # x, y, width, height
    g = ViewGeometry(20, 10, 40, 80, False, 100, 100)
    made, valid = boxes_in_view(boxes, g, 160, 4)
    assert valid.tolist() == [True, True, False, False]
    np.testing.assert_allclose(made, [[0, 0, 60, 40], [0, 0, 160, 160], [0] * 4, [0] * 4])
    made, _ = boxes_in_view(boxes, g._replace(flip=True), 160, 4)
    np.testing.assert_allclose(made[:2], [[100, 0, 160, 40], [0, 0, 160, 160]])
    assert made.dtype == np.float32
    none, valid = boxes_in_view(np.empty((0, 4), np.int32), g, 160, 2)
    assert not none.any()
    assert not valid.any()


def test_the_pixels_of_a_box_are_where_it_says() -> None:
    picture = np.zeros((90, 120, 3), np.uint8)
    picture[30:60, 40:90] = 255
    plain = Crop(area=(0.5, 1), jitter=0, grey=0, blur=0)
    spec = ViewSpec(size=96, grid=4, crops=(plain, plain))
    photo = Photo(picture, prepared={"boxes": np.array([[40, 30, 50, 30]])})
    rides: dict[str, Artefact] = {"boxes": MadeUp("boxes", 2)}
    for seed in range(10):
        views, _ = make_views(photo, spec, np.random.default_rng(seed))
        side = side_data(rides, photo, views, spec)
        for v, view in enumerate(views):
            y, x = np.nonzero(view.image[0] > 127)
            np.testing.assert_allclose(side[f"boxes/{v}"][0], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1)
            assert side[f"boxes/{v}/valid"].tolist() == [True, False]


def test_crops_of_a_neighbour_show_it_with_what_is_known_of_it() -> None:
    def known(index: int) -> Photo:
        image = np.full((40, 50 + index, 3), 10 * index, np.uint8)
        saliency = np.full((2, 2), 51 * index, np.uint8)
        labels = np.full((3, 3), index, np.uint8)
        return Photo(image, labels, {"near": np.array([2, 3]), "saliency": saliency}, index)

    plain = Crop(jitter=0, grey=0, blur=0)
    near = Crop(size=32, jitter=0, grey=0, blur=0, photo="near")
    spec = ViewSpec(size=64, grid=4, crops=(plain, near, near))
    rides: dict[str, Artefact] = {"near": MadeUp("neighbours", 3), "saliency": MadeUp("saliency", 0)}
    seen = set()
    for seed in range(20):
        views, _ = make_views(known(1), spec, np.random.default_rng(seed), read=known)
        shown = views[1].photo.index
        seen.add(shown)
        assert [view.photo.index for view in views] == [1, shown, shown]
        assert [int(view.image[0, 0, 0]) for view in views] == [10, 10 * shown, 10 * shown]
        assert [view.geometry.image_w for view in views] == [51, 50 + shown, 50 + shown]
        assert views[1].labels is not None
        assert (views[1].labels == shown).all()
        side = side_data(rides, known(1), views, spec)
        assert side["near"].tolist() == [2, 3, -1]
        assert side["near/shown"] == shown
        assert side["saliency/0"].shape == (4, 4)
        np.testing.assert_allclose(side["saliency/1"], np.full((4, 4), 0.2 * shown), atol=1e-6)
    assert seen == {2, 3}


def test_a_made_up_batch_has_what_rides_along() -> None:
    spec = ViewSpec(size=64, grid=4, crops=(Crop(), Crop(size=32, grid=2), Crop(photo="near")))
    rides: dict[str, Any] = {"b": MadeUp("boxes", 5), "s": MadeUp("saliency", 0), "near": MadeUp("neighbours", 2, 9)}
    batch = made_up_batch(spec, 3, rides)
    assert [tuple(view.images.shape) for view in batch.views] == [(3, 3, 64, 64), (3, 3, 32, 32), (3, 3, 64, 64)]
    assert {name: tuple(tensor.shape) for name, tensor in batch.side.items()} == {
        **{f"b/{v}": (3, 5, 4) for v in range(3)},
        **{f"b/{v}/valid": (3, 5) for v in range(3)},
        "s/0": (3, 4, 4), "s/1": (3, 2, 2), "s/2": (3, 4, 4),
        "near": (3, 2), "near/shown": (3,),
    }  # fmt: skip
    half = batch[1:3]
    assert all(len(tensor) == 2 for tensor in half.side.values())
