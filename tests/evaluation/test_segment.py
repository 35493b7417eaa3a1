import csv
import json

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.palette import palette
from cyborgs.evaluation.clustering import assign
from cyborgs.evaluation.segment import mask_names, segment

from .fakes import FakeBackbone, MemoryPhotos, blocks


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    return MemoryPhotos([blocks(rng)[0], blocks(rng, cells=(3, 5))[0][:45, :70]], ["a/one.jpg", "two.PNG"])


def test_what_is_written(photos, tmp_path):
    seen = []
    clusters = segment(
        photos, FakeBackbone(), tmp_path / "out", layers=["layer2"], clusters=3, progress=lambda *a: seen.append(a)
    )
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == [
        "labels/a/one.png",
        "labels/two.png",
        "overlays/a/one.jpg",
        "overlays/two.jpg",
        "palette.json",
        "segments.csv",
    ]
    with open(tmp_path / "out/segments.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["photo", "mask", "cluster 0", "cluster 1", "cluster 2"]
    for i, name in enumerate(("a/one", "two")):
        with Image.open(tmp_path / f"out/labels/{name}.png") as picture:
            assert picture.mode == "P"
            labels = np.asarray(picture)
            assert picture.getpalette()[:9] == palette(3).ravel().tolist()
        assert labels.shape == photos.size(i)
        assert np.array_equal(labels, assign(FakeBackbone(), clusters, photos.read(i), full_resolution=True))
        shares = np.bincount(labels.ravel(), minlength=3) / labels.size
        assert [float(x) for x in rows[1 + i][2:]] == pytest.approx(shares, abs=1e-6)
        assert rows[1 + i][:2] == [photos.name(i), f"labels/{name}.png"]
        with Image.open(tmp_path / f"out/overlays/{name}.jpg") as picture:
            assert picture.size == photos.size(i)[::-1]
    assert json.loads((tmp_path / "out/palette.json").read_text())["1"] == palette()[1].tolist()
    assert seen == [(n, 4) for n in range(1, 5)]


def test_without_overlays(photos, tmp_path):
    segment(photos, FakeBackbone(), tmp_path, layers=["layer2"], clusters=2, overlays=False)
    assert not (tmp_path / "overlays").exists()


def test_names_that_are_not_utf8(photos, tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    segment(MemoryPhotos(photos.images[:1], [name]), FakeBackbone(), tmp_path, layers=["layer2"], clusters=2)
    assert [p.name for p in (tmp_path / "labels").iterdir()] == [name.replace(".jpg", ".png")]
    assert b"caf\xe9.jpg" in (tmp_path / "segments.csv").read_bytes()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x/a.jpg", "y/a.jpg"], ["x/a.png", "y/a.png"]),
        (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
        (["A.jpg", "a.jpg"], ["A.jpg.png", "a.jpg.2.png"]),
        (["/etc/x.jpg", "../../y.jpg"], ["etc/x.png", "y.png"]),
        (["a.jpg", "/a.jpg"], ["a.jpg.png", "a.jpg.2.png"]),
        (["a.png.jpg", "a.png", "a.jpg"], ["a.png.png", "a.png.2.png", "a.jpg.png"]),
        ([".hidden", ".."], [".hidden.png", "photo.png"]),
    ],
)
def test_mask_names(names, expected):
    assert mask_names(names) == expected
