"""Read back by pycocotools, and by an own check of the panoptic format's rules."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from cyborgs.segmenting.export_coco import CocoInstances, CocoPanoptic
from cyborgs.segmenting.parts import parts_of
from cyborgs.structures import PhotoMask
from tests.segmenting.fakes import export, masks

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation does:DeprecationWarning")  # in pycocotools


def load(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("void", [None, 5])
def test_instances_are_the_parts(tmp_path: Path, void: int | None) -> None:
    some = masks(void)
    export(CocoInstances(6, min_area=9), some, tmp_path)
    coco = load(tmp_path / "instances.json")
    assert coco.getCatIds() == [1, 2, 3, 4, 5, 6]
    assert [c["name"] for c in coco.loadCats([1, 6])] == ["cluster 0", "cluster 5"]
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    left_out = 0
    for mask in some:
        height, width = mask.labels.shape
        (image,) = coco.loadImgs(mask.index + 1)
        assert (image["width"], image["height"], image["file_name"]) == (width, height, mask.name)
        assert image.get("exif_orientation", 1) == mask.orientation
        covered = np.zeros(mask.labels.shape, int)
        anns = coco.loadAnns(coco.getAnnIds(imgIds=[mask.index + 1]))
        for ann in anns:
            inside = coco.annToMask(ann).astype(bool)
            assert (mask.labels[inside] == ann["category_id"] - 1).all()
            assert ann["area"] == inside.sum() >= 9
            assert ann["area"] == coco_mask.area(ann["segmentation"])
            assert ann["bbox"] == coco_mask.toBbox(ann["segmentation"]).tolist()
            assert ann["iscrowd"] == 0
            assert ann["score"] == pytest.approx(mask.cosine[inside].mean(dtype=float), abs=1e-5)
            covered += inside
        assert covered.max() <= 1
        parts, smaller = parts_of(mask, 9)
        assert len(anns) == len(parts)
        left_out += smaller
        assert covered.sum() == sum(p.area for p in parts)
        if void is not None:
            assert not covered[mask.labels == void].any()
    assert coco.dataset["info"]["smaller_parts_left_out"] == left_out > 0


def test_annotations_load_as_results(tmp_path: Path) -> None:
    """``loadRes`` is how detections are evaluated; given a box, it would take the box's area for the mask's."""
    export(CocoInstances(6, min_area=1), masks(), tmp_path)
    coco = load(tmp_path / "instances.json")
    with contextlib.redirect_stdout(io.StringIO()):
        keys = ("image_id", "category_id", "segmentation", "score")
        results = coco.loadRes([{key: ann[key] for key in keys} for ann in coco.dataset["annotations"]])
    for i, ann in coco.anns.items():
        assert results.anns[i]["area"] == ann["area"]
        assert list(results.anns[i]["bbox"]) == ann["bbox"]
    assert sum(a["area"] for a in results.anns.values()) == sum(m.labels.size for m in masks())


def test_labels_of_one_photo_share_a_category(tmp_path: Path) -> None:
    export(CocoInstances(0, min_area=1), masks(cosine=False), tmp_path)
    coco = load(tmp_path / "instances.json")
    assert [(c["id"], c["name"]) for c in coco.dataset["categories"]] == [(1, "region")]
    for ann in coco.anns.values():
        assert ann["category_id"] == 1
        assert "score" not in ann
        mask = masks(cosine=False)[ann["image_id"] - 1]
        assert (mask.labels[coco.annToMask(ann).astype(bool)] == ann["label"]).all()


def check_panoptic(path: Path, folder: Path) -> dict[str, Any]:
    """The rules of COCO's format; the file."""
    data = json.loads(path.read_text())
    categories = {c["id"]: c for c in data["categories"]}
    assert len(categories) == len(data["categories"])
    assert all(c["isthing"] in (0, 1) for c in categories.values())
    images = {i["id"]: i for i in data["images"]}
    assert sorted(a["image_id"] for a in data["annotations"]) == sorted(images)
    for annotation in data["annotations"]:
        image = images[annotation["image_id"]]
        with Image.open(folder / annotation["file_name"]) as picture:
            assert picture.mode == "RGB"
            assert picture.format == "PNG"
            assert picture.size == (image["width"], image["height"])
            colours = np.asarray(picture).astype(np.int64)
        ids = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
        segments = {s["id"]: s for s in annotation["segments_info"]}
        assert len(segments) == len(annotation["segments_info"])
        assert 0 not in segments
        assert set(np.unique(ids).tolist()) - {0} == set(segments)
        for number, segment in segments.items():
            ys, xs = np.nonzero(ids == number)
            assert segment["area"] == len(ys)
            assert segment["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
            assert segment["iscrowd"] == 0
            assert segment["category_id"] in categories
        stuff = [s["category_id"] for s in segments.values() if not categories[s["category_id"]]["isthing"]]
        assert len(stuff) == len(set(stuff))  # at most one segment of a kind of stuff
    return data


@pytest.mark.parametrize("void", [None, 5])
@pytest.mark.parametrize("clusters", [6, 0])
def test_panoptic(tmp_path: Path, void: int | None, clusters: int) -> None:
    some = masks(void)
    export(CocoPanoptic(clusters), some, tmp_path)
    data = check_panoptic(tmp_path / "panoptic.json", tmp_path / "panoptic")
    for mask, annotation in zip(some, data["annotations"], strict=True):
        with Image.open(tmp_path / "panoptic" / annotation["file_name"]) as picture:
            ids = np.asarray(picture)[..., 0].astype(int) + 256 * np.asarray(picture)[..., 1].astype(int)
        outside = mask.labels == void
        assert np.array_equal(ids[~outside], mask.labels[~outside].astype(int) + 1)
        assert not ids[outside].any()
        for segment in annotation["segments_info"]:
            assert segment["category_id"] == (segment["id"] if clusters else 1)
            inside = mask.labels == segment["id"] - 1
            assert segment["score"] == pytest.approx(mask.cosine[inside].mean(dtype=float), abs=1e-5)


def test_panoptic_of_label_255(tmp_path: Path) -> None:
    labels = np.array([[0, 255], [254, 255]], np.uint8)
    export(CocoPanoptic(256), [PhotoMask(0, "p.jpg", "p.png", labels)], tmp_path)
    data = check_panoptic(tmp_path / "panoptic.json", tmp_path / "panoptic")
    assert [s["id"] for s in data["annotations"][0]["segments_info"]] == [1, 255, 256]
