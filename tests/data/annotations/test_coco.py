"""COCO's files, against pycocotools and by hand."""

from __future__ import annotations

import contextlib
import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_masks

from cyborgs.data.annotations.coco import open_coco
from cyborgs.data.annotations.open import open_truth
from cyborgs.data.annotations.run_lengths import Malformed, counts_of, mask_of, runs_to_mask
from cyborgs.errors import UserError
from tests.data.annotations.contract import TruthContract

CATEGORIES = [{"id": 3, "name": "car"}, {"id": 1, "name": "person"}, {"id": 90, "name": "brush"}]
IMAGES = [
    {"id": 7, "file_name": "a.jpg", "height": 6, "width": 8},
    {"id": 9, "file_name": "b.jpg", "height": 6, "width": 8},
]
LARGE = [[1, 1, 7, 1, 7, 5, 1, 5]]
SMALL = [[2, 2, 4, 2, 4, 4, 2, 4]]


def runs(mask: np.ndarray) -> list[int]:
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [-1]])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    counts[-1] += mask.size - sum(counts)
    return counts


def instances() -> dict:
    crowd = np.zeros((6, 8), bool)
    crowd[5, :] = True
    return {
        "images": copy.deepcopy(IMAGES),
        "categories": copy.deepcopy(CATEGORIES),
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "iscrowd": 0, "segmentation": copy.deepcopy(SMALL)},
            {"id": 2, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": copy.deepcopy(LARGE)},
            {
                "id": 3,
                "image_id": 7,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [6, 8], "counts": runs(crowd)},
            },
            {
                "id": 4,
                "image_id": 9,
                "category_id": 3,
                "iscrowd": 0,
                "segmentation": {
                    "size": [6, 8],
                    "counts": coco_masks.encode(np.asfortranarray(crowd.astype(np.uint8)))["counts"].decode(),
                },
            },
        ],
    }


def saved(tmp_path, document):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    return path


class TestInstances(TruthContract):
    def open(self, tmp_path):
        return open_truth(f"coco:{saved(tmp_path, instances())}", self.NAMES)

    def test_small_lies_over_large_and_crowd_is_void(self, tmp_path):
        truth = self.open(tmp_path)
        classes = truth.classes(0)
        assert truth.class_names == ("person", "car", "brush")  # by id, gaps closed
        assert classes[2, 2] == 2
        assert classes[1, 1] == 0
        assert classes[5, 0] == -1
        regions = truth.regions(0)
        assert regions[0, 0] == 0  # what nothing covers
        assert classes[0, 0] == -1
        assert (regions[5] == -1).all()
        assert set(np.unique(regions)) == {-1, 0, 1, 2}
        assert truth.classes(1)[5].tolist() == [1] * 8

    def test_no_annotation_of_an_image(self, tmp_path):
        document = instances()
        document["annotations"] = []
        truth = open_coco(saved(tmp_path, document), ["a.jpg"])
        assert truth.missing == ()
        assert (truth.regions(0) == 0).all()
        assert (truth.classes(0) == -1).all()

    def test_annotations_of_other_photos_are_let_go(self, tmp_path):
        truth = open_coco(saved(tmp_path, instances()), ["b.jpg"])
        assert truth._document.annotations == []
        assert list(truth._of_image) == [9]
        assert truth.regions(0).max() == 1

    def test_an_object_wholly_covered_has_no_region(self, tmp_path):
        document = instances()
        document["annotations"][1]["segmentation"] = copy.deepcopy(SMALL)
        truth = open_coco(saved(tmp_path, document), ["a.jpg"])
        assert set(np.unique(truth.regions(0))) == {-1, 0, 1}


def broken(change) -> dict:
    document = instances()
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("images"), "has no list 'images'"),
        (lambda d: d["images"][0].pop("height"), "images, entry 0: lacks height"),
        (lambda d: d["images"][0].update(height="6"), "need a whole number, got '6'"),
        (lambda d: d["images"][0].update(width=0), "width is 0"),
        (lambda d: d["annotations"][0].pop("image_id"), "annotations, entry 0: lacks image_id"),
        (lambda d: d["annotations"][0].update(category_id=5), "annotation 1 of image 7: category_id 5 is not among"),
        (lambda d: d["annotations"][0].pop("segmentation"), "annotation 1 of image 7: has no segmentation"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4]]), "at least three points"),
        (lambda d: d["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "no number"),
        (lambda d: d["annotations"][2]["segmentation"].update(size=[8, 6]), r"its mask is for \[8, 6\]"),
        (lambda d: d["annotations"][2]["segmentation"].update(counts=[5]), "add up to 5 pixels, the picture has 8 x 6"),
        (lambda d: d["annotations"][2]["segmentation"].update(counts=[-1, 49]), "no whole number of at least 0"),
        (lambda d: d["annotations"][2]["segmentation"].update(counts="~~"), "the character '~'|add up|middle"),
        (lambda d: d["annotations"][2]["segmentation"].pop("counts"), "its mask has no counts"),
        (lambda d: d["categories"].append({"id": 1, "name": "again"}), "two categories have the same id"),
        (lambda d: d["images"][0].update(id=[7]), r"images, entry 0: id: need a whole number, got \[7\]"),
        (lambda d: d["images"][1].update(id=7), "two images have the same id"),
        (lambda d: d["images"][1].update(file_name="a.png"), r"ids 7 and 9: a\.jpg and a\.png have the same name"),
        (lambda d: d["images"][0].update(height=10**6, width=10**6), "id 7: more than 178956970 pixels"),
        (lambda d: d["annotations"][0].update(image_id={}), "annotations, entry 0: image_id: need a whole number"),
        (lambda d: d["annotations"][0].update(iscrowd="0"), "annotation 1 of image 7: iscrowd is 0 or 1, got '0'"),
        (lambda d: d["annotations"][0].update(category_id=True), "category_id True is not among"),
        (lambda d: d["annotations"][0].update(segmentation=[[10**400] * 6]), "far beyond any picture"),
        (lambda d: d["annotations"][2]["segmentation"].update(size=48), "its mask is for 48"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, change, said):
    path = saved(tmp_path, broken(change))
    with pytest.raises(UserError, match=said) as caught:
        open_coco(path, ["a.jpg"]).regions(0)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "[" * 100_000])
def test_no_json(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        open_coco(path, ["a.jpg"])


SEGMENTS = {(0, 0): 5, (0, 1): 70000, (1, 0): 0, (1, 1): 300}


class TestPanoptic(TruthContract):
    def document(self) -> dict:
        infos = [
            {"id": 5, "category_id": 1, "iscrowd": 0},
            {"id": 70000, "category_id": 90, "iscrowd": 0},
            {"id": 300, "category_id": 3, "iscrowd": 1},
        ]
        return {
            "images": [{**image, "height": 2, "width": 2} for image in IMAGES],
            "categories": copy.deepcopy(CATEGORIES),
            "annotations": [
                {"image_id": image["id"], "file_name": f"{name}.png", "segments_info": copy.deepcopy(infos)}
                for image, name in zip(IMAGES, "ab", strict=True)
            ],
        }

    def open(self, tmp_path, change=lambda document: None):
        folder = tmp_path / "panoptic"
        folder.mkdir(exist_ok=True)
        rgb = np.zeros((2, 2, 3), np.uint8)
        for place, identifier in SEGMENTS.items():
            rgb[place] = identifier % 256, identifier // 256 % 256, identifier // 65536
        for name in "ab":
            Image.fromarray(rgb).save(folder / f"{name}.png")
        document = self.document()
        change(document)
        path = tmp_path / "panoptic.json"
        path.write_text(json.dumps(document))
        return open_truth(str(path), self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.regions(0).tolist() == [[0, 1], [-1, -1]]
        assert truth.classes(0).tolist() == [[0, 2], [-1, 1]]

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda d: d["annotations"][0]["segments_info"].pop(0), "holds segment 5, which"),
            (lambda d: d["annotations"][0].update(file_name="../a.png"), "leads out of its folder"),
            (lambda d: d["annotations"][0].update(file_name="/etc/passwd"), "leads out of its folder"),
            (lambda d: d["annotations"][0].update(file_name="a\0.png"), "leads out of its folder"),
            (lambda d: d["annotations"][0].update(file_name="\ud800.png"), "leads out of its folder"),
            (lambda d: d["annotations"].append(copy.deepcopy(d["annotations"][0])), "two annotations of image 7"),
            (lambda d: d["annotations"][0]["segments_info"][0].update(iscrowd=2), "iscrowd is 0 or 1, got 2"),
            (lambda d: d["annotations"][0].update(file_name="z.png"), r"z\.png: cannot be read"),
            (lambda d: d["images"][0].update(height=9), "has 2 x 2 pixels, .* says 2 x 9"),
            (lambda d: d["annotations"][1].pop("segments_info"), "entry 1: lacks segments_info"),
            (lambda d: d["annotations"][0]["segments_info"][0].update(id=300), "two have the same"),
            (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=4), "category_id 4 is not among"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, change, said):
        with pytest.raises(UserError, match=said):
            self.open(tmp_path, change).regions(0)

    def test_no_folder_of_pngs(self, tmp_path):
        path = tmp_path / "other.json"
        path.write_text(json.dumps(self.document()))
        with pytest.raises(UserError, match="holds the PNGs of"):
            open_truth(str(path), self.NAMES)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_run_lengths_as_pycocotools(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    text = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(runs_to_mask(counts_of(text), (height, width)), mask)
    assert np.array_equal(mask_of({"size": [height, width], "counts": runs(mask)}, (height, width)), mask)


def test_long_runs_as_pycocotools():
    mask = np.zeros((700, 900), bool)
    mask[100:600, 50:800] = True
    text = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(mask_of({"size": [700, 900], "counts": text}, (700, 900)), mask)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=30))
def test_any_text_is_a_mask_or_refused(text):
    with contextlib.suppress(Malformed):
        assert mask_of({"size": [3, 4], "counts": text}, (3, 4)).shape == (3, 4)
