"""Where crops lie: each sampler keeps its promise, on cases whose answer is known without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from cyborgs.structures import ViewGeometry
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.geometry import random_geometry
from cyborgs.views.samplers import AroundBox, Free, Overlapping, Salient
from cyborgs.views.sampling import covered, draw_geometries

H, W = 120, 200


def draw(*crops: Crop, seed: int = 0, **prepared: np.ndarray) -> list[ViewGeometry]:
    known: Mapping[str, Any] = prepared
    return draw_geometries(np.random.default_rng(seed), crops, [(H, W)] * len(crops), [known] * len(crops))


def pixels(g: ViewGeometry) -> np.ndarray:
    """The pixels that a crop shows: bool (H, W)."""
    shown = np.zeros((H, W), bool)
    shown[g.y0 : g.y0 + g.h, g.x0 : g.x0 + g.w] = True
    return shown


def inside(g: ViewGeometry) -> bool:
    return 0 <= g.y0 < g.y0 + g.h <= H and 0 <= g.x0 < g.x0 + g.w <= W and (g.image_h, g.image_w) == (H, W)


def test_free_is_what_it_was() -> None:
    crops = (Crop(), Crop(area=(0.2, 0.5)))
    rng = np.random.default_rng(4)
    assert draw(*crops, seed=4) == [random_geometry(rng, H, W, crop) for crop in crops]


@pytest.mark.parametrize("of", ["larger", "own"])
def test_the_overlap_reaches_the_share(of: Any) -> None:
    first, second = Crop(area=(0.4, 1)), Crop(area=(0.4, 1), sampler=Overlapping(0, 0.6, of=of))
    free = []
    for seed in range(60):
        a, b = (pixels(g) for g in draw(first, second, seed=seed))
        assert (a & b).sum() >= 0.6 * (max(a.sum(), b.sum()) if of == "larger" else b.sum())
        a, b = (pixels(g) for g in draw(first, first, seed=seed))
        free.append((a & b).sum() / max(a.sum(), b.sum()))
    assert np.mean(np.array(free) >= 0.6) < 0.6  # else it would say nothing


def test_out_of_reach_the_most_overlap_is_kept() -> None:
    small, whole = Crop(area=(0.01, 0.01), ratio=(1, 1)), Crop(area=(1, 1), ratio=(W / H, W / H))
    for seed in range(20):
        few = draw(small, Crop(area=(0.08, 0.3), sampler=Overlapping(0, 1.0, tries=1)), seed=seed)
        many = draw(small, Crop(area=(0.08, 0.3), sampler=Overlapping(0, 1.0, tries=50)), seed=seed)
        shares = [(pixels(a) & pixels(b)).sum() / pixels(b).sum() for a, b in (few, many)]
        assert shares[1] >= shares[0]
    assert inside(draw(whole, Crop(sampler=Overlapping(0, 1.0)))[1])


def test_jitter_stays_near_the_box_and_inside() -> None:
    box = np.array([[20, 30, 60, 40]])
    found = set()
    for seed in range(200):
        (g,) = draw(Crop(sampler=AroundBox()), seed=seed, boxes=box)
        assert inside(g)
        one = np.zeros((H, W), bool)
        one[30:70, 20:80] = True
        both = pixels(g)
        assert (one & both).sum() / (one | both).sum() > 0.5
        assert 0.5 - 0.05 <= g.h * g.w / 2400 <= 2 + 0.05
        assert 0.5 - 0.05 <= g.w / g.h <= 2 + 0.05
        assert abs(g.x0 + g.w / 2 - 50) <= 30.5
        assert abs(g.y0 + g.h / 2 - 50) <= 20.5
        found.add(tuple(g))
    assert len(found) > 150
    assert {g[4] for g in found} == {True, False}


def test_no_jitter_is_the_box_and_another_crop_may_take_the_same() -> None:
    boxes = np.array([[0, 0, 50, 40], [100, 60, 70, 60], [10, 20, 30, 90]])
    seen = set()
    for seed in range(60):
        exact, near = draw(
            Crop(flip=0, sampler=AroundBox(tries=0)), Crop(sampler=AroundBox(like=0)), seed=seed, boxes=boxes
        )
        assert [exact.x0, exact.y0, exact.w, exact.h] in boxes.tolist()
        assert (pixels(exact) & pixels(near)).sum() / (pixels(exact) | pixels(near)).sum() > 0.5
        seen.add(exact)
    assert len(seen) == 3


def test_where_no_jitter_fits_the_box_stays() -> None:
    (g,) = draw(Crop(flip=0, sampler=AroundBox(area=(3, 3))), boxes=np.array([[0, 0, W, H]]))
    assert g == ViewGeometry(0, 0, H, W, False, H, W)


def test_a_photo_without_boxes_is_one() -> None:
    (g,) = draw(Crop(flip=0, sampler=AroundBox(tries=0)), boxes=np.empty((0, 4), np.int32))
    assert g == ViewGeometry(0, 0, H, W, False, H, W)


def test_saliency_is_covered() -> None:
    saliency = np.zeros((H, W), np.uint8)
    saliency[80:110, 150:190] = 200
    saliency[:40] = 128  # not above
    hit = []
    for seed in range(100):
        (g,) = draw(Crop(area=(0.08, 0.4), sampler=Salient(share=0.2)), seed=seed, saliency=saliency)
        assert inside(g)
        shown = pixels(g) & (saliency > 128)
        assert shown.sum() >= 0.2 * 1200
        assert covered(saliency > 128, g) == pytest.approx(shown.sum() / 1200)
        (free,) = draw(Crop(area=(0.08, 0.4)), seed=seed)
        hit.append((pixels(free) & (saliency > 128)).sum() >= 0.2 * 1200)
    assert np.mean(hit) < 0.6


def test_much_saliency_asks_for_less() -> None:
    """Salient is 3/4 of the photo: 0.2 / 0.75 of it would be more than the share, 0.2 is asked for."""
    saliency = np.full((4, 4), 255, np.uint8)
    saliency[0] = 0
    for seed in range(50):
        (g,) = draw(Crop(area=(0.1, 0.3), sampler=Salient(share=0.2)), seed=seed, saliency=saliency)
        assert (pixels(g)[30:]).sum() >= 0.2 * 90 * W


def test_the_box_round_it_where_no_try_covers_enough() -> None:
    saliency = np.zeros((12, 20), np.uint8)
    saliency[1, 2] = saliency[10, 17] = 255
    (g,) = draw(Crop(area=(0.01, 0.01), flip=1, sampler=Salient(share=1.0)), saliency=saliency)
    assert g == ViewGeometry(10, 20, 100, 160, True, H, W)


def test_without_saliency_a_free_crop() -> None:
    boxes = [draw(Crop(sampler=Salient()), seed=s, saliency=np.zeros((9, 9), np.uint8))[0] for s in range(50)]
    assert all(map(inside, boxes))
    assert len(set(boxes)) == 50


@pytest.mark.parametrize(
    "first", [Crop(sampler=AroundBox()), Crop(sampler=AroundBox(tries=3)), Crop(sampler=Salient(tries=1))]
)
def test_what_comes_of_a_crop_moves_no_other(first: Crop) -> None:
    boxes = np.array([[20, 30, 60, 40]])
    draws = [
        draw(crop, Crop(), seed=3, boxes=boxes, saliency=np.full((3, 3), value, np.uint8))[1]
        for crop in (Crop(sampler=AroundBox(tries=0)), first)
        for value in (0, 255)
    ]
    assert len(set(draws)) == 1


@pytest.mark.parametrize(
    ("crops", "said"),
    [
        ((Crop(sampler=Overlapping(0)),), r"crops\.0\.sampler\.crop: need an earlier crop"),
        ((Crop(photo="near"), Crop(sampler=Overlapping(0))), r"crops\.1\.sampler\.crop: .* same photo"),
        ((Crop(), Crop(sampler=AroundBox(like=0))), r"crops\.1\.sampler\.like"),
        ((), "need 1 to 64"),
        ((Crop(grid=9, size=64),), r"crops\.0\.grid: need 1 to size/8 = 8"),
    ],
)
def test_crops_that_make_no_sense(crops: tuple[Crop, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ViewSpec(size=64, grid=4, crops=crops)


def test_what_the_crops_need() -> None:
    spec = ViewSpec(crops=(Crop(), Crop(photo="near", sampler=AroundBox("b")), Crop(sampler=Salient("s"))))
    assert spec.artefacts == ("near", "b", "s")
    assert ViewSpec().artefacts == ()
    assert Crop().sampler == Free()
