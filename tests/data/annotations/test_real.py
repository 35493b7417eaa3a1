"""Published annotations, where CYBORGS_TEST_DATA names the folder of their .tar files."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from scipy.io import loadmat

from cyborgs.data.annotations.open import open_truth


@pytest.fixture
def unpacked(tmp_path):
    def unpack(tar_name: str, *starts: str) -> Path:
        folder = os.environ.get("CYBORGS_TEST_DATA")
        if not folder:
            pytest.skip(f"CYBORGS_TEST_DATA names no folder with {tar_name}")
        with tarfile.open(f"{folder}/{tar_name}") as tar:
            tar.extractall(tmp_path, [m for m in tar if m.name.startswith(starts)], filter="data")
        return tmp_path

    return unpack


def test_coco_instances(unpacked):
    """Painted anew with pycocotools: crowds, then objects from the largest to the smallest."""
    path = unpacked("coco_subset.tar", "coco/annotations/instances_val2017.json")
    path = path / "coco/annotations/instances_val2017.json"
    reader = COCO(path)
    some = [i for i in reader.imgs.values() if reader.getAnnIds(i["id"])][:8]
    crowded = reader.loadImgs([a["image_id"] for a in reader.anns.values() if a["iscrowd"]])[:3]
    some = list({image["id"]: image for image in (*some, *crowded)}.values())
    truth = open_truth(str(path), [f"images/{image['file_name']}" for image in some])
    identifiers = sorted(reader.cats)
    assert truth.class_names == tuple(reader.cats[c]["name"] for c in identifiers)
    for number, image in enumerate(some):
        classes = np.full((image["height"], image["width"]), -1)
        void = np.zeros(classes.shape, bool)
        objects = np.zeros(classes.shape, int)
        masks = [(reader.annToMask(a) > 0, a) for a in reader.loadAnns(reader.getAnnIds(image["id"]))]
        for mask, annotation in masks:
            if annotation["iscrowd"]:
                void |= mask
        things = [(mask, a) for mask, a in masks if not a["iscrowd"]]
        for place in np.argsort([-mask.sum() for mask, _ in things], kind="stable"):
            mask, annotation = things[place]
            classes[mask] = identifiers.index(annotation["category_id"])
            objects[mask] = 1 + place
            void[mask] = False
        assert np.array_equal(truth.classes(number), classes)
        regions = truth.regions(number)
        assert np.array_equal(regions == -1, void)
        pairs = np.unique(np.stack([regions[~void], objects[~void]]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]  # one to one


def test_coco_panoptic(unpacked):
    folder = unpacked("coco_subset.tar", "coco/annotations/panoptic_val2017") / "coco/annotations"
    document = json.loads((folder / "panoptic_val2017.json").read_text())
    files = {image["id"]: image["file_name"] for image in document["images"]}
    some = document["annotations"][:10]
    truth = open_truth(f"coco:{folder}/panoptic_val2017.json", [files[a["image_id"]] for a in some])
    identifiers = sorted(c["id"] for c in document["categories"])
    for i, annotation in enumerate(some):
        regions, classes = truth.regions(i), truth.classes(i)
        infos = annotation["segments_info"]
        assert sorted(np.bincount(regions[regions >= 0])) == sorted(s["area"] for s in infos if not s["iscrowd"])
        expected = np.zeros(len(identifiers), int)
        for segment in infos:
            expected[identifiers.index(segment["category_id"])] += segment["area"]
        assert np.array_equal(np.bincount(classes[classes >= 0], minlength=len(identifiers)), expected)


def test_camvid(unpacked):
    folder = unpacked("camvid.tar", "CamVid/valannot/") / "CamVid/valannot"
    files = sorted(folder.glob("*.png"))[:5]
    truth = open_truth(f"folder:{folder}", [f"val/{file.stem}.jpg" for file in files], void=11)
    for i, file in enumerate(files):
        labels = np.array(Image.open(file)).astype(int)
        assert np.array_equal(truth.classes(i), np.where(labels == 11, -1, labels))
        assert truth.regions(i).max() + 1 == len(np.setdiff1d(labels, [11]))


def test_bsds(unpacked):
    folder = unpacked("bsds500.tar", "BSDS500/data/groundTruth/val/1") / "BSDS500/data/groundTruth/val"
    files = sorted(folder.glob("*.mat"))[:5]
    truth = open_truth(str(folder), [f"val/{file.stem}.jpg" for file in files])
    assert truth.kind == "bsds"
    for i, file in enumerate(files):
        cells = loadmat(file, simplify_cells=True)["groundTruth"]
        found = truth.annotators(i)
        assert len(found) == len(cells) > 1
        for own, cell in zip(found, cells, strict=True):
            assert np.array_equal(own, np.unique(cell["Segmentation"], return_inverse=True)[1].reshape(own.shape))
