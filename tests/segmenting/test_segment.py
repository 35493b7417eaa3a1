import csv
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from cyborgs.data.palette import nearest, palette
from cyborgs.errors import UserError
from cyborgs.features.extraction import layer_maps
from cyborgs.masks.config import CrfConfig
from cyborgs.segmenting.names import mask_names
from cyborgs.segmenting.segment import segment
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


@pytest.fixture
def photos():
    rng = np.random.default_rng(0)
    return MemoryPhotos([blocks(rng)[0], blocks(rng, cells=(3, 5))[0][:45, :70]], ["a/one.jpg", "two.PNG"])


def test_what_is_written(photos, tmp_path):
    seen = []
    found = segment(
        photos, FakeBackbone(), tmp_path / "out", layers=["layer2"], clusters=3, progress=lambda *a: seen.append(a)
    )
    clusters = found[3]
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert files == [
        "centroids.safetensors",
        "labels/a/one.png",
        "labels/two.png",
        "overlays/a/one.jpg",
        "overlays/two.jpg",
        "palette.json",
        "segmentation.json",
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
        assert np.array_equal(labels, clusters.of_pixels(FakeBackbone(), photos.read(i)).labels()[0])
        shares = np.bincount(labels.ravel(), minlength=3) / labels.size
        assert [float(x) for x in rows[1 + i][2:]] == pytest.approx(shares, abs=1e-6)
        assert rows[1 + i][:2] == [photos.name(i), f"labels/{name}.png"]
        with Image.open(tmp_path / f"out/overlays/{name}.jpg") as picture:
            assert picture.size == photos.size(i)[::-1]
    assert json.loads((tmp_path / "out/palette.json").read_text())["1"] == palette()[1].tolist()
    assert seen == [(n, 4) for n in range(1, 5)]
    about = json.loads((tmp_path / "out/segmentation.json").read_text())
    expected = {"source": "clusters", "ids": "dataset", "void": None, "clusters": 3, "layers": ["layer2"], "photos": 2}
    assert about.items() >= {"format": 1, "complete": True, "points": clusters.points, **expected}.items()
    assert about["settings"]["seed"] == 0
    assert torch.equal(load_file(tmp_path / "out/centroids.safetensors")["centroids"], clusters.centroids)


def label_of(folder, name):
    with Image.open(folder / "labels" / name) as picture:
        return np.asarray(picture)


def test_without_overlays(photos, tmp_path):
    segment(photos, FakeBackbone(), tmp_path, layers=["layer2"], clusters=2, overlays=False)
    assert not (tmp_path / "overlays").exists()


def test_names_that_are_not_utf8(photos, tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    segment(MemoryPhotos(photos.images[:1], [name]), FakeBackbone(), tmp_path, layers=["layer2"], clusters=2)
    assert [p.name for p in (tmp_path / "labels").iterdir()] == [name.replace(".jpg", ".png")]
    assert b"caf\xe9.jpg" in (tmp_path / "segments.csv").read_bytes()


@pytest.mark.parametrize("resolution", ["full", "nearest"])
def test_an_id_means_the_same_in_all_photos(tmp_path, resolution):
    """A scene that comes again, whole or cut at whole cells, has the same labels in every photo."""
    rng = np.random.default_rng(2)
    scenes = [blocks(rng)[0] for _ in range(3)]
    crops = [scenes[0][32:80, 16:112], scenes[1][:48, 64:], scenes[0]]
    some = MemoryPhotos([*scenes, *crops])
    options = {"layers": ["layer2"], "clusters": 5, "resolution": resolution, "short_side": 0}
    segment(some, FakeBackbone(), tmp_path, **options)
    first, second, again = (label_of(tmp_path, f"p{i}.png") for i in (0, 1, 5))
    assert np.array_equal(first, again)
    assert len(np.unique(first)) > 2
    # A pixel within half a cell of a cut sees no neighbour beyond it.
    assert np.array_equal(label_of(tmp_path, "p3.png")[4:-4, 4:-4], first[36:76, 20:108])
    assert np.array_equal(label_of(tmp_path, "p4.png")[4:-4, 4:-4], second[4:44, 68:-4])


def test_several_numbers_of_clusters_share_the_passes(photos, tmp_path):
    backbone, alone = FakeBackbone(), FakeBackbone()
    found = segment(photos, backbone, tmp_path / "all", layers=["layer2"], clusters=[2, 5, 2])
    segment(photos, alone, tmp_path / "k5", layers=["layer2"], clusters=5)
    assert backbone.calls == alone.calls == 4
    assert sorted(found) == [2, 5]
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["k2", "k5"]
    for name in ("a/one.png", "two.png"):
        assert np.array_equal(label_of(tmp_path / "all/k5", name), label_of(tmp_path / "k5", name))
    assert json.loads((tmp_path / "all/k2/segmentation.json").read_text())["clusters"] == 2


def test_nearest_gives_the_labels_of_cells(photos, tmp_path):
    clusters = segment(photos, FakeBackbone(), tmp_path, layers=["layer2"], clusters=4, resolution="nearest")[4]
    for i, name in enumerate(("a/one.png", "two.png")):
        cells = clusters.of_cells(FakeBackbone(), photos.read(i))
        assert np.array_equal(label_of(tmp_path, name), nearest(cells, *photos.size(i)))


def test_threads_change_nothing(photos, tmp_path):
    for threads in (0, 3):
        segment(photos, FakeBackbone(), tmp_path / str(threads), layers=["layer2"], clusters=4, threads=threads)
    for file in (p for p in (tmp_path / "0").rglob("*") if p.is_file()):
        assert file.read_bytes() == (tmp_path / "3" / file.relative_to(tmp_path / "0")).read_bytes()


def test_more_clusters_than_cells(photos, tmp_path):
    tiny = MemoryPhotos([photos.images[0][:16, :24]])
    with pytest.raises(UserError, match=r"clusters: 9 were asked for, but the photos have 6 cells of layer2 in all"):
        segment(tiny, FakeBackbone(), tmp_path / "a", layers=["layer2"], clusters=9)
    segment(tiny, FakeBackbone(), tmp_path / "b", layers=["layer2"], clusters=6)  # one photo, a cluster a cell
    with pytest.raises(UserError, match="2 to 256"):
        segment(tiny, FakeBackbone(), tmp_path / "c", layers=["layer2"], clusters=[3, 257])
    with pytest.raises(UserError, match="no photo"):
        segment(MemoryPhotos([]), FakeBackbone(), tmp_path / "d", layers=["layer2"], clusters=2)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_photo_of_one_colour_is_one_region(tmp_path, value):
    flat = MemoryPhotos([np.full((40, 56, 3), value, np.uint8)])
    segment(flat, FakeBackbone(), tmp_path, layers=["layer2"], clusters=3)
    assert len(np.unique(label_of(tmp_path, "p0.png"))) == 1


def test_crf_is_given_true_cosines_of_the_labels_that_are_present(photos, tmp_path, monkeypatch):
    given = []

    def refine(image, cosines, config):
        given.append((image, cosines, config))
        return np.full(image.shape[:2], len(cosines) - 1, np.uint8)

    monkeypatch.setattr("cyborgs.segmenting.segment.refine", refine)
    monkeypatch.setattr("cyborgs.segmenting.segment.require_crf", lambda: None)
    config = CrfConfig(iterations=3)
    found = segment(photos, FakeBackbone(), tmp_path, layers=["layer2"], clusters=9, crf=config, threads=0)[9]
    assert len(given) == 2
    for i, (image, cosines, passed) in enumerate(given):
        assert np.array_equal(image, photos.read(i))
        assert passed == config
        height, width = image.shape[:2]
        joined = layer_maps(FakeBackbone(), [image], ["layer2"])["layer2"]
        large = F.normalize(F.interpolate(joined, size=(height, width), mode="bilinear")[0], dim=0)
        every = torch.einsum("kd,dhw->khw", found.centroids, large).numpy()
        present = np.unique(every.argmax(0))
        assert len(present) == len(cosines)
        assert np.abs(cosines - every[present]).max() < 1e-4
        assert (label_of(tmp_path, ("a/one.png", "two.png")[i]) == present[-1]).all()
    with pytest.raises(UserError, match="crf: works on pixels"):
        segment(photos, FakeBackbone(), tmp_path / "b", layers=["layer2"], clusters=2, crf=config, resolution="nearest")


def test_the_missing_extra_is_named_before_any_photo_is_read(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setattr(type(photos), "read", lambda self, i: pytest.fail("read"))
    with pytest.raises(UserError, match=r"pip install 'cyborgs\[crf\]'"):
        segment(photos, FakeBackbone(), tmp_path / "out", layers=["layer2"], clusters=2, crf=CrfConfig(), threads=0)
    assert not (tmp_path / "out").exists()


def resident():
    """MB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux' /proc")
def test_memory_does_not_grow_with_the_photos(tmp_path):
    """120 maps of 600 x 512 are 147 MB; the sample may take 4."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (160, 240, 3), dtype=np.uint8)
    backbone = FakeBackbone(widths=(512, 1, 1))
    most = {}
    for count in (30, 120):
        some = MemoryPhotos([image] * count)
        seen = []
        options = {"clusters": 4, "sample_bytes": 2**22, "overlays": False}
        out = tmp_path / str(count)
        segment(some, backbone, out, layers=["layer2"], progress=lambda *a, s=seen: s.append(resident()), **options)
        most[count] = max(seen)
        clusters = json.loads((out / "segmentation.json").read_text())
        assert clusters["points"] == 2**22 // (4 * 512)
    assert most[120] - most[30] < 40


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
