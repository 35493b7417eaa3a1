"""COCO-Stuff's numberings, by tables written out another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cyborgs.data.annotations.cocostuff import CLASSES, COARSE, NEVER, CocoStuffTruth, coarse_of
from cyborgs.data.annotations.open import open_truth
from cyborgs.errors import UserError
from tests.data.annotations.contract import TruthContract


def png(path: Path, numbers, dtype=np.uint8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(numbers, dtype)).save(path)


def mat(path: Path, numbers, name: str = "S") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: np.array(numbers, np.uint8), "names": np.array(["x"])})


MAP = [[0, 1, 11], [13, 92, 182]]  # of the 10k set: unlabelled, person, fire hydrant -> 10, stop sign, banner, wood
EXPECTED = [[-1, 0, 10], [11, 80, 170]]


class TestMat(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            mat(tmp_path / f"annotations/{name}.mat", MAP)
        return open_truth(f"coco-stuff-10k:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.kind == "coco-stuff"
        assert truth.classes(0).tolist() == EXPECTED
        assert truth.regions(0).tolist() == [[-1, 0, 1], [2, 3, 4]]
        assert [truth.class_names[c] for c in (0, 10, 11, 80, 170)] == [
            "person",
            "fire hydrant",
            "stop sign",
            "banner",
            "wood",
        ]
        assert truth.place(1) == tmp_path / "annotations/sub/b.mat"

    def test_what_is_no_map(self, tmp_path):
        truth = self.open(tmp_path)
        path = tmp_path / "annotations/a.mat"
        mat(path, MAP, "T")
        with pytest.raises(UserError, match=r"a\.mat: holds no map S"):
            truth.classes(0)
        savemat(path, {"S": np.zeros((2, 2)) + 0.5})
        with pytest.raises(UserError, match=r"a\.mat: S is no map of whole numbers"):
            truth.classes(0)
        savemat(path, {"S": np.array([[-1]], np.int16)})
        with pytest.raises(UserError, match=r"a\.mat: S holds -1"):
            truth.classes(0)
        path.write_bytes(b"MATLAB 5.0 cut off")
        with pytest.raises(UserError, match=r"a\.mat: no readable \.mat file"):
            truth.classes(0)


class TestPng10k(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            png(tmp_path / f"annotations/{name}.png", MAP)
        return open_truth(f"coco-stuff-10k:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        assert self.open(tmp_path).classes(1).tolist() == EXPECTED

    @pytest.mark.parametrize("number", [*NEVER, 183, 255])
    def test_numbers_that_do_not_occur(self, tmp_path, number):
        truth = self.open(tmp_path)
        png(tmp_path / "annotations/a.png", [[1, number]])
        with pytest.raises(UserError, match=rf"a\.png: holds {number}, .* 10k set\. Are these numbers of the 164k set"):
            truth.classes(0)


class TestTrainingIds(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            png(tmp_path / f"annotations/{name}_labelTrainIds.png", [[0, 1, 171]])
            png(tmp_path / f"annotations/{name}.png", [[0, 1, 182]])
        return open_truth(f"coco-stuff-10k:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.classes(0).tolist() == [[-1, 0, 170]]
        png(tmp_path / "annotations/a_labelTrainIds.png", [[172]])
        with pytest.raises(UserError, match="holds 172; 0 is unlabelled, classes are 1 to 171"):
            truth.classes(0)


class TestPng164k(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            png(tmp_path / f"{name}.png", [[255, 0, 10], [12, 91, 181]])
        return open_truth(f"coco-stuff-164k:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        assert self.open(tmp_path).classes(0).tolist() == EXPECTED

    @pytest.mark.parametrize("number", [11, 182, 254, 300])
    def test_the_other_numbering(self, tmp_path, number):
        truth = self.open(tmp_path)
        png(tmp_path / "a.png", [[0, number]], np.uint8 if number < 256 else np.uint16)
        with pytest.raises(UserError, match=rf"a\.png: holds {number}, .* 164k set\. Are these numbers of the 10k set"):
            truth.classes(0)


class TestCoarse(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            png(tmp_path / f"{name}.png", [[255, 0, 10], [12, 91, 181]])
        return open_truth(f"coco-stuff-27:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.classes(0).tolist() == [[-1, 9, 8], [8, 17, 24]]
        assert truth.class_names[9] == "person"


def test_tables():
    assert len(CLASSES) == len(set(CLASSES)) == 171
    assert len(COARSE) == len(set(COARSE)) == 27
    coarse = coarse_of()
    assert set(coarse.tolist()) == set(range(27))
    ranges = {0: 9, 8: 11, 14: 8, 24: 7, 32: 6, 42: 10, 50: 5, 60: 2, 70: 3, 76: 0, 82: 1, 90: 4}
    written = [next(c for last, c in ranges.items() if k <= last) for k in range(91)]
    assert coarse[:91].tolist() == written
    # Names tell what they belong to.
    stuff = dict(zip(CLASSES[80:], coarse[91:].tolist(), strict=True))
    for start, name in (("wall-", "wall"), ("floor-", "floor"), ("ceiling-", "ceiling"), ("window-", "window")):
        found = {c for key, c in stuff.items() if key.startswith(start)}
        assert found == {COARSE.index(name)}
    things = [k for k in range(91) if k + 1 not in NEVER]
    by_name = dict(zip(CLASSES[:80], coarse[things].tolist(), strict=True))
    assert [COARSE[by_name[n]] for n in ("zebra", "truck", "pizza", "tv", "oven", "toothbrush", "toilet", "kite")] == [
        "animal",
        "vehicle",
        "food",
        "electronic",
        "appliance",
        "indoor",
        "furniture",
        "sports",
    ]


def test_both_numberings_of_a_photo_give_the_same_classes(tmp_path):
    """A map of all numbers that occur, as both sets hold it."""
    numbers = np.setdiff1d(np.arange(1, 183), NEVER)
    mat(tmp_path / "ten/a.mat", [numbers])
    png(tmp_path / "full/a.png", [numbers - 1])
    ten, full = (CocoStuffTruth(tmp_path / k, ["a.jpg"], n) for k, n in (("ten", "10k"), ("full", "164k")))
    assert ten.classes(0).tolist() == full.classes(0).tolist() == [list(range(171))]
