"""Small folders in the layouts as they are published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cyborgs.data.annotations.ade20k import Ade20kTruth
from cyborgs.data.annotations.bsds import BsdsTruth
from cyborgs.data.annotations.cityscapes import CLASSES, LABEL_IDS, CityscapesTruth
from cyborgs.data.annotations.folder import FolderTruth
from cyborgs.data.annotations.open import open_truth
from cyborgs.data.annotations.voc import VocTruth
from cyborgs.errors import UserError
from tests.data.annotations.contract import TruthContract


def write(path: Path, values: object, kind: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, kind)).save(path)
    return path


A = [[0, 0, 3], [255, 3, 7]]
B = [[1, 1], [1, 1]]


class TestFolder(TruthContract):
    def open(self, tmp_path):
        write(tmp_path / "labels/a.png", A)
        write(tmp_path / "labels/sub/b.png", B)
        return open_truth(f"folder:{tmp_path / 'labels'}", self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.classes(0).tolist() == [[0, 0, 3], [-1, 3, 7]]
        assert truth.regions(0).tolist() == [[0, 0, 1], [-1, 1, 2]]

    def test_void_is_a_setting(self, tmp_path):
        self.open(tmp_path)
        truth = FolderTruth(tmp_path / "labels", self.NAMES, void=0)
        assert truth.classes(0).tolist() == [[-1, -1, 3], [255, 3, 7]]
        assert FolderTruth(tmp_path / "labels", self.NAMES, void=None).regions(0).max() == 3

    def test_sixteen_bits(self, tmp_path):
        write(tmp_path / "a.png", [[0, 700], [65535, 256]], np.uint16)
        truth = FolderTruth(tmp_path, ["a.jpg"])
        assert truth.classes(0).tolist() == [[0, 700], [65535, 256]]

    def test_palette_gives_numbers_not_colours(self, tmp_path):
        picture = Image.fromarray(np.array(A, np.uint8), mode="P")
        picture.putpalette([i // 3 for i in range(768)])
        picture.save(tmp_path / "a.png")
        assert FolderTruth(tmp_path, ["a.jpg"]).classes(0).tolist() == [[0, 0, 3], [-1, 3, 7]]

    def test_one_bit(self, tmp_path):
        Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
        assert FolderTruth(tmp_path, ["a.jpg"]).classes(0).tolist() == [[1, 0]]

    def test_colours_are_refused(self, tmp_path):
        write(tmp_path / "a.png", np.zeros((2, 2, 3)))
        with pytest.raises(UserError, match=r"a\.png: holds RGB pixels, not labels.*convert colours"):
            FolderTruth(tmp_path, ["a.jpg"]).classes(0)

    def test_what_compresses_with_loss_is_refused(self, tmp_path):
        Image.fromarray(np.array(A, np.uint8)).save(tmp_path / "a.png", format="JPEG")
        with pytest.raises(UserError, match=r"a\.png: is a JPEG, which changes labels"):
            FolderTruth(tmp_path, ["a.jpg"]).classes(0)

    def test_damaged(self, tmp_path):
        path = write(tmp_path / "a.png", A)
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(UserError, match=r"a\.png: no readable picture"):
            FolderTruth(tmp_path, ["a.jpg"]).regions(0)

    def test_a_photo_without_annotation_is_named(self, tmp_path):
        with pytest.raises(UserError, match=r"has nothing of the photo c\.jpg"):
            self.open(tmp_path).regions(2)


class TestBsds(TruthContract):
    has_classes = False

    def open(self, tmp_path):
        for name, maps in (("a", [[[1, 2], [2, 2]], [[1, 1], [1, 300]]]), ("sub/b", [[[5, 5], [5, 9]]])):
            cells = np.empty((1, len(maps)), object)
            for k, one in enumerate(maps):
                cells[0, k] = {"Segmentation": np.array(one, np.uint16), "Boundaries": np.zeros((2, 2), np.uint8)}
            path = tmp_path / f"gt/{name}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            savemat(path, {"groundTruth": cells})
        return open_truth(str(tmp_path / "gt"), self.NAMES)

    def test_annotators(self, tmp_path):
        truth = self.open(tmp_path)
        assert truth.kind == "bsds"
        assert [m.tolist() for m in truth.annotators(0)] == [[[0, 1], [1, 1]], [[0, 0], [0, 1]]]
        with pytest.raises(UserError, match="segments, not classes"):
            truth.classes(0)

    @pytest.mark.parametrize("content", [b"nothing", None])
    def test_damaged(self, tmp_path, content):
        path = tmp_path / "a.mat"
        if content is None:
            savemat(path, {"other": np.zeros(3)})
        else:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.mat: no ground truth of BSDS"):
            BsdsTruth(tmp_path, ["a.jpg"]).regions(0)


class TestVoc(TruthContract):
    def open(self, tmp_path):
        for name in ("a", "sub/b"):
            write(tmp_path / f"SegmentationClass/{name}.png", [[0, 15, 255], [20, 15, 255]])
            write(tmp_path / f"SegmentationObject/{name}.png", [[0, 1, 255], [2, 3, 255]])
        return open_truth(str(tmp_path), self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert isinstance(truth, VocTruth)
        assert truth.classes(0).tolist() == [[0, 15, -1], [20, 15, -1]]
        assert truth.regions(0).tolist() == [[0, 1, -1], [2, 3, -1]]
        assert truth.class_names[15] == "person"

    def test_a_number_beyond(self, tmp_path):
        truth = self.open(tmp_path)
        write(tmp_path / "SegmentationClass/a.png", [[21]])
        with pytest.raises(UserError, match=r"a\.png: holds a number that is no class of VOC"):
            truth.classes(0)


def test_voc_without_objects(tmp_path):
    write(tmp_path / "SegmentationClass/a.png", [[0, 15, 255]])
    truth = VocTruth(tmp_path, ["a.jpg"], objects=False)
    assert truth.classes(0).tolist() == [[0, 15, -1]]
    with pytest.raises(UserError, match=r"SegmentationObject: has nothing of the photo a\.jpg"):
        truth.regions(0)
    with pytest.raises(UserError, match="SegmentationObject: no such folder"):
        VocTruth(tmp_path, ["a.jpg"])


class TestCityscapes(TruthContract):
    NAMES = ("train/ulm/ulm_0_1_leftImg8bit.png", "train/ulm/ulm_0_2_leftImg8bit.png", "val/x/x_0_0_leftImg8bit.png")
    training_ids = True

    def open(self, tmp_path):
        folder = tmp_path / "gtFine/train/ulm"
        for name in ("ulm_0_1", "ulm_0_2"):
            if self.training_ids:
                write(folder / f"{name}_gtFine_labelTrainIds.png", [[0, 13, 13], [255, 13, 255]])
            write(folder / f"{name}_gtFine_labelIds.png", [[7, 26, 26], [3, 26, 0]])
            write(folder / f"{name}_gtFine_instanceIds.png", [[7, 26000, 26001], [3, 26000, 0]], np.uint16)
        return open_truth(str(tmp_path), self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert isinstance(truth, CityscapesTruth)
        assert truth.classes(0).tolist() == [[0, 13, 13], [-1, 13, -1]]
        assert truth.regions(0).tolist() == [[0, 1, 2], [-1, 1, -1]]

    def test_the_published_table(self):
        assert dict(zip(LABEL_IDS, CLASSES, strict=True))[24] == "person"
        assert LABEL_IDS[0] == 7
        assert LABEL_IDS[18] == 33

    def test_label_ids_taken_for_training_ids(self, tmp_path):
        self.open(tmp_path)
        write(tmp_path / "gtFine/train/ulm/ulm_0_1_gtFine_labelTrainIds.png", [[26]])
        with pytest.raises(UserError, match=r"holds 26, training ids are 0 to 18 and 255\. Are these labelIds"):
            CityscapesTruth(tmp_path, self.NAMES).classes(0)


class TestCityscapesByLabelIds(TestCityscapes):
    training_ids = False

    def test_label_ids_taken_for_training_ids(self, tmp_path):
        self.open(tmp_path)
        write(tmp_path / "gtFine/train/ulm/ulm_0_1_gtFine_labelIds.png", [[99]])
        with pytest.raises(UserError, match=r"holds 99, this layout knows 0 to 34"):
            CityscapesTruth(tmp_path, self.NAMES).classes(0)


def test_training_ids_of_one_split_alone(tmp_path):
    names = ["train/ulm/ulm_0_1_leftImg8bit.png", "val/x/x_0_0_leftImg8bit.png"]
    for name in ("train/ulm/ulm_0_1", "val/x/x_0_0"):
        write(tmp_path / f"gtFine/{name}_gtFine_labelIds.png", [[7, 26], [3, 33]])
    write(tmp_path / "gtFine/train/ulm/ulm_0_1_gtFine_labelTrainIds.png", [[0, 13], [255, 18]])
    truth = CityscapesTruth(tmp_path, names)
    assert truth.missing == ()
    assert [truth.classes(i).tolist() for i in (0, 1)] == [[[0, 13], [-1, 18]]] * 2
    val = CityscapesTruth(tmp_path, names[1:])
    assert val.classes(0).tolist() == [[0, 13], [-1, 18]]
    assert val.place(0).name == "x_0_0_gtFine_labelIds.png"


class TestAde20k(TruthContract):
    def open(self, tmp_path):
        write(tmp_path / "annotations/training/a.png", [[0, 1], [150, 1]])
        write(tmp_path / "annotations/training/b.png", [[2, 2], [2, 2]])
        return open_truth(f"ade20k:{tmp_path}", self.NAMES)

    def test_values(self, tmp_path):
        truth = self.open(tmp_path)
        assert isinstance(truth, Ade20kTruth)
        assert truth.classes(0).tolist() == [[-1, 0], [149, 0]]
        assert truth.regions(0).tolist() == [[-1, 0], [1, 0]]
        assert truth.class_names[149] == "class 149"

    def test_names(self, tmp_path):
        lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"] + [f"{i}\t0\t1\t1\t1\tthing{i}, other" for i in range(1, 151)]
        (tmp_path / "objectInfo150.txt").write_text("\n".join(lines))
        assert self.open(tmp_path).class_names[0] == "thing1"

    def test_beyond(self, tmp_path):
        truth = self.open(tmp_path)
        write(tmp_path / "annotations/training/a.png", [[151]])
        with pytest.raises(UserError, match="holds 151, this layout knows 0 to 150"):
            truth.classes(0)


def test_unknown_kind_lists_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"no kind of annotations is named 'pascal'\. There are: coco, voc"):
        open_truth("pascal:x", ["a.jpg"])


@pytest.mark.parametrize("spec", ["folder:nowhere", "nowhere", "voc:nowhere", "nowhere.json", "coco:nowhere.json"])
def test_nothing_there(tmp_path, spec, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nowhere"):
        open_truth(spec, ["a.jpg"])


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"neither a folder nor a \.json"):
        open_truth(str(tmp_path / "a.txt"), ["a.jpg"])


def test_names_that_fit_nowhere(tmp_path):
    write(tmp_path / "z.png", A)
    with pytest.raises(UserError, match=r"has nothing of any of the 1 photos \(the first is a\.jpg\)"):
        open_truth(str(tmp_path), ["a.jpg"])
