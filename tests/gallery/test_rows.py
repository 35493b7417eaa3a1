"""Maps of the gallery, and the photos that are chosen."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.errors import UserError
from cyborgs.features.clustering import cluster_photos
from cyborgs.gallery import rows as gallery
from tests.features.fakes import FakeBackbone, blocks


@pytest.fixture
def photos(tmp_path: Path) -> Images:
    rng = np.random.default_rng(0)
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"p{i}.png"), blocks(rng, cells=(3, 4 + i % 2))[0])
    return ScannedImages.from_scan(scan(list_images(tmp_path), use_cache=False))


def test_maps_of_the_shown_and_a_clustering_of_more(photos: Images) -> None:
    seen: list[tuple[int, int]] = []
    asked: list[tuple[int, ...]] = []

    def refine(image: np.ndarray, likeness: np.ndarray) -> np.ndarray:
        asked.append(likeness.shape)
        return likeness.argmax(0).astype(np.uint8)

    rows = gallery.gallery_maps(
        FakeBackbone(), photos, [3, 0], layers=["layer2"], clusters=3, refine=refine, progress=lambda *a: seen.append(a)
    )
    assert [labels.shape for labels, _ in rows] == [photos.size(3), photos.size(0)]
    assert asked == [(3, *photos.size(3)), (3, *photos.size(0))]
    for labels, refined in rows:
        assert (labels == refined).mean() > 0.999
    assert seen[-1] == (7, 7)
    expected = cluster_photos(FakeBackbone(), photos, [3], layers=["layer2"])[3]
    assert np.array_equal(rows[0][0], expected.of_pixels(FakeBackbone(), photos.read(3)).labels()[0])
    alone = gallery.gallery_maps(FakeBackbone(), photos, [3], layers=["layer2"], clusters=3, fit=1)
    assert alone[0][1] is None


def test_fitted_photos() -> None:
    assert gallery.fitted_photos(5, [3, 0], 256) == [0, 1, 2, 3, 4]
    assert gallery.fitted_photos(100, [3, 0], 4) == [0, 1, 3, 99]
    assert gallery.fitted_photos(100, [3, 0], 1) == [0, 3]
    assert gallery.fitted_photos(3, [0, 1, 2], 9) == [0, 1, 2]
    for fit in (2, 7, 50, 99, 100):
        assert len(gallery.fitted_photos(100, [7, 50], fit)) == fit


def test_chosen(photos: Images) -> None:
    assert gallery.chosen(photos, (), 3) == [0, 2, 4]
    assert gallery.chosen(photos, (), 99) == [0, 1, 2, 3, 4]
    assert gallery.chosen(photos, ("p3.png", "p1.png"), 1) == [3, 1]
    with pytest.raises(UserError, match=r"x.png is none of the 5 photos \(they are named p0.png"):
        gallery.chosen(photos, ("x.png",), 1)
    with pytest.raises(UserError, match="at least 1 photo"):
        gallery.chosen(photos, (), 0)


def test_the_refiner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "find_spec", lambda name: None)
    refine, why = gallery.refiner()
    assert refine is None
    assert "extra crf" in why
    monkeypatch.setattr(gallery, "refine", lambda image, likeness, config: (config.enabled, config.iterations))
    monkeypatch.setattr(gallery, "find_spec", lambda name: object())
    refine, why = gallery.refiner()
    assert refine is not None
    assert why == ""
    assert refine(np.zeros((1, 1, 3), np.uint8), np.zeros((2, 1, 1), np.float32)) == (True, 10)
