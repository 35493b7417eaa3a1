"""Published sets with labels, where CYBORGS_TEST_DATA names the folder of their .tar files."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.annotations.cocostuff import CLASSES, NEVER
from cyborgs.evaluation.sets.classified import open_folders
from cyborgs.evaluation.sets.pixel_sets import open_pixels


@pytest.fixture
def unpacked(tmp_path):
    def unpack(tar_name: str, wanted) -> Path:
        folder = os.environ.get("CYBORGS_TEST_DATA")
        if not folder:
            pytest.skip(f"CYBORGS_TEST_DATA names no folder with {tar_name}")
        with tarfile.open(f"{folder}/{tar_name}") as tar:
            tar.extractall(tmp_path, [m for m in tar if wanted(m.name)], filter="data")
        return tmp_path

    return unpack


@pytest.mark.slow
def test_tiny_imagenet(unpacked):
    root = unpacked("tiny_imagenet_20.tar", lambda name: True) / "tiny-imagenet-200"
    data = open_folders(str(root), 0)
    assert data.counts == {"train": 8000, "test": 1000, "classes": 20}
    assert set(data.train.classes) == set((root / "wnids.txt").read_text().split())
    for share, each in ((0.01, 4), (0.1, 40)):
        assert np.bincount(data.share(share, 3).labels).tolist() == [each] * 20
    assert data.test.read(0).shape == (64, 64, 3)


def test_caltech(unpacked):
    root = unpacked("caltech101_30.tar", lambda name: True) / "caltech101"
    data = open_folders(str(root), 0)
    assert data.counts == {"train": 894, "test": 417, "classes": 30}
    for part, photos in (("train", data.train), ("test", data.test)):
        listed = (root / f"{part}.txt").read_text().split()
        assert [f"{p.parent.name}/{p.name}" for p in photos.photos.paths] == listed
        assert [photos.classes[c] for c in photos.labels] == [name.split("/")[0] for name in listed]


def test_camvid(unpacked):
    root = unpacked("camvid.tar", lambda name: True)
    data = open_pixels(str(root), "camvid", seed=0)
    assert data.counts == {"train": 367, "test": 101, "classes": 11}
    assert data.notes == ()
    first = (root / "CamVid/val.txt").read_text().split()[1]
    assert np.array_equal(data.test.truth(0), np.asarray(Image.open(root / first)))


@pytest.mark.slow
def test_coco_panoptic(unpacked):
    root = unpacked("coco_subset.tar", lambda name: "/images/" in name or "/panoptic_" in name) / "coco"
    (root / "panoptic.yaml").write_text(
        "\n".join(
            f"{part}: {{photos: images/{part}2017, labels: 'coco:annotations/panoptic_{part}2017.json'}}"
            for part in ("train", "val")
        )
    )
    data = open_pixels(str(root / "panoptic.yaml"), "", seed=0)
    assert data.counts == {
        "train": 100,
        "test": 100,
        "classes": 133,
        "skipped: photos that the JSON files do not annotate": 429,
    }
    assert data.train.names[0] == "person"


def test_coco_stuff(unpacked):
    """The few photos that have a map of the 164k set: 171 classes, and PiCIE's 27."""
    root = unpacked("coco_subset.tar", lambda name: "/images/" in name or "/stuffthingmaps/" in name) / "coco"
    for part in ("train2017", "val2017"):
        labelled = {p.stem for p in (root / "annotations/stuffthingmaps" / part).glob("*.png")}
        for photo in (root / "images" / part).iterdir():
            if photo.stem not in labelled:
                photo.unlink()
    data = open_pixels(str(root), "coco-stuff-164k", seed=0)
    assert (len(data.train), len(data.test), data.train.classes) == (13, 8, 171)
    known = np.setdiff1d(np.arange(1, 183), NEVER) - 1
    for i in range(8):
        name = Path(data.test.name(i)).stem
        numbers = np.asarray(Image.open(root / f"annotations/stuffthingmaps/val2017/{name}.png"))
        expected = np.where(numbers == 255, 255, np.searchsorted(known, numbers))
        assert np.array_equal(data.test.truth(i), expected)
    assert len(CLASSES) == 171
    coarse = open_pixels(str(root), "coco-stuff-27", seed=0)
    assert coarse.train.classes == 27
    assert coarse.notes[0].startswith("not PiCIE's photos")
