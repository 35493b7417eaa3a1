"""Class folders in every layout, the split, the nested shares, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.classified import open_folders


def photo(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 0)).save(path)


def folders(root: Path, counts: dict[str, int], start: int = 0) -> Path:
    for name, n in counts.items():
        for k in range(start, start + n):
            photo(root / name / f"{k:03d}.png", k)
    return root


def by_class(data, part: str) -> dict[str, int]:
    found = getattr(data, part)
    return {name: int((found.labels == c).sum()) for c, name in enumerate(found.classes)}


@pytest.mark.parametrize("test", ["val", "test"])
def test_class_folders_of_both_splits(tmp_path, test):
    folders(tmp_path / "train", {"cat": 3, "ant": 2})
    folders(tmp_path / test, {"cat": 1, "ant": 2})
    (tmp_path / "train/cat/notes.txt").write_text("x")
    data = open_folders(str(tmp_path), 0)
    assert data.train.classes == ("ant", "cat")
    assert data.train.labels.dtype == np.int64
    assert (by_class(data, "train"), by_class(data, "test")) == ({"ant": 2, "cat": 3}, {"ant": 2, "cat": 1})
    assert data.counts == {"train": 5, "test": 3, "classes": 2, "skipped: files that are no photos": 1}
    assert data.train.name(0) == str(tmp_path / "train/ant/000.png")
    assert data.train.read(4).tolist() == [[[2, 0, 0]] * 6] * 4
    assert data.notes == ()


def test_tiny_imagenet(tmp_path):
    folders(tmp_path / "train", {"n01/images": 2, "n02/images": 3})
    (tmp_path / "train/n01/n01_boxes.txt").write_text("0.png\t0\t0\t1\t1\n")
    for k in range(3):
        photo(tmp_path / f"val/images/val_{k}.JPEG")
    (tmp_path / "val/val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t62\t62\nval_2.JPEG\tn01\t1\t2\t3\t4\n")
    data = open_folders(str(tmp_path), 0)
    assert data.train.classes == ("n01", "n02")
    assert [Path(data.test.name(i)).name for i in range(2)] == ["val_0.JPEG", "val_2.JPEG"]
    assert data.test.labels.tolist() == [1, 0]
    assert data.left_out == {"files that are no photos": 1, "photos that val_annotations.txt does not name": 1}
    (tmp_path / "val/images/val_2.JPEG").unlink()
    with pytest.raises(UserError, match=r"val_2\.JPEG does not exist; 1 of 2 photos are missing"):
        open_folders(str(tmp_path), 0)


def test_lists_with_photos_in_a_folder_beside_them(tmp_path):
    """Caltech's: the first folder of a line is the class."""
    folders(tmp_path / "101_ObjectCategories", {"Faces": 3, "ant": 3})
    (tmp_path / "train.txt").write_text("Faces/000.png\nant/000.png\n\n# no photo\nant/002.png\n")
    (tmp_path / "test.txt").write_text("Faces/001.png\n")
    data = open_folders(str(tmp_path), 0)
    assert (by_class(data, "train"), by_class(data, "test")) == ({"Faces": 1, "ant": 2}, {"Faces": 1, "ant": 0})
    assert data.train.read(0).shape == (4, 6, 3)
    assert data.notes == ("1 classes have no test photo: ant",)


def test_lists_with_labels_and_names_with_blanks(tmp_path):
    for name in ("a.png", "b c.png", "d.png", "e.png"):
        photo(tmp_path / name)
    (tmp_path / "train.txt").write_text("a.png 10\nb c.png\t9\n")
    (tmp_path / "val.txt").write_text("d.png 9\ne.png 10\n")
    data = open_folders(str(tmp_path), 0)
    assert data.train.classes == ("9", "10")  # by value
    assert data.train.labels.tolist() == [1, 0]
    assert data.test.labels.tolist() == [0, 1]


def test_folders_that_all_lines_share_are_no_class(tmp_path):
    folders(tmp_path / "train", {"a": 1, "b": 1})
    folders(tmp_path / "val", {"a": 1})
    (tmp_path / "train.txt").write_text("train/a/000.png\ntrain/b/000.png\n")
    (tmp_path / "val.txt").write_text("val/a/000.png\n")
    data = open_folders(str(tmp_path), 0)
    assert (data.train.classes, data.test.labels.tolist()) == (("a", "b"), [0])


def test_halves_are_stratified_drawn_from_the_seed_and_said(tmp_path):
    folders(tmp_path, {"a": 9, "b": 4})
    data = open_folders(str(tmp_path), 3)
    assert (by_class(data, "train"), by_class(data, "test")) == ({"a": 5, "b": 2}, {"a": 4, "b": 2})
    assert not set(data.train.photos.paths) & set(data.test.photos.paths)
    assert "halves of each class, drawn from seed 3" in data.notes[0]
    again, other = open_folders(str(tmp_path), 3), open_folders(str(tmp_path), 4)
    assert data.train.photos == again.train.photos != other.train.photos
    assert data.fingerprint == again.fingerprint != other.fingerprint


def test_the_fingerprint_knows_names_not_places(tmp_path):
    one, two = (open_folders(str(folders(tmp_path / place, {"a": 4, "b": 4})), 0) for place in ("x", "y/z"))
    assert one.fingerprint == two.fingerprint
    (tmp_path / "x/a/000.png").rename(tmp_path / "x/a/aaa.png")
    assert open_folders(str(tmp_path / "x"), 0).fingerprint != one.fingerprint


def test_shares_are_stratified_nested_and_have_every_class(tmp_path):
    folders(tmp_path / "train", {"a": 40, "b": 10, "c": 1})
    folders(tmp_path / "val", {"a": 1})
    data = open_folders(str(tmp_path), 0)
    sizes = {}
    before: set[Path] = set()
    for share in (0.01, 0.05, 0.25, 0.5, 1.0):
        part = data.share(share, 7)
        sizes[share] = np.bincount(part.labels, minlength=3).tolist()
        assert before <= set(part.photos.paths)
        before = set(part.photos.paths)
        assert [p.parent.name for p in part.photos.paths] == [part.classes[c] for c in part.labels]
    assert sizes == {0.01: [1, 1, 1], 0.05: [2, 1, 1], 0.25: [10, 3, 1], 0.5: [20, 5, 1], 1.0: [40, 10, 1]}
    assert data.share(0.25, 7).photos == data.share(0.25, 7).photos != data.share(0.25, 8).photos
    for share in (0, 1.5, float("nan")):
        with pytest.raises(UserError, match="share: need more than 0 and at most 1"):
            data.share(share, 0)


def test_what_is_refused(tmp_path):
    def refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            open_folders(str(tmp_path), 0)

    with pytest.raises(UserError, match="nowhere: no such folder"):
        open_folders(str(tmp_path / "nowhere"), 0)
    refused("need a subfolder for each class, at least 2; found 0")
    folders(tmp_path, {"a": 3, "b": 1})
    refused(r"/b: need at least two photos of each class")
    (tmp_path / "b/000.png").unlink()
    refused(r"class b is empty")
    folders(tmp_path / "train", {"a": 2, "b": 2})
    refused("has train/, but neither val/ nor test/")
    folders(tmp_path / "val", {"a": 2, "c": 2, "d": 1})
    refused(r"val: class c is unknown to .*train \(2 such classes\)")


def test_lists_that_are_refused(tmp_path):
    folders(tmp_path, {"a": 3, "b": 3})
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"

    def refused(first: str, second: str, message: str) -> None:
        train.write_text(first)
        test.write_text(second)
        with pytest.raises(UserError, match=message):
            open_folders(str(tmp_path), 0)

    refused("a/000.png\nb/000.png\nb/009.png\nb/008.png\n", "a/001.png\n", r"b/009\.png does not exist; 2 of 4 photos")
    refused("x/000.png\n", "a/001.png\n", r"x/000\.png does not exist \(looked beside the list")
    refused("a/000.png\na/001.png\n", "a/002.png\n", "need photos of at least two classes, found a alone")
    refused("# none\n", "a/002.png\n", "lists no photo")
    refused("a/000.png\nb/000.png cat\n", "a/002.png\n", r"line 2: all lines name a photo alone")
    refused("a/000.png\nb/000.png\nb/000.png\n", "a/002.png\n", r"b/000\.png is listed twice \(1 such")
    refused("a/000.png\nb/000.png\n", "a/002.png\nb/000.png\n", r"b/000\.png is in .*train\.txt and in .*test\.txt")
    photo(tmp_path / "loose.png")
    refused("a/000.png\nloose.png\n", "a/002.png\n", r"loose\.png lies in no class folder")


def test_a_class_that_is_named_train(tmp_path):
    folders(tmp_path, {"bus": 4, "car": 4, "train": 4})
    data = open_folders(str(tmp_path), 0)
    assert by_class(data, "train") == {"bus": 2, "car": 2, "train": 2}
    (tmp_path / "val").mkdir()
    with pytest.raises(UserError, match="train: need a subfolder for each class"):
        open_folders(str(tmp_path), 0)


def test_folders_of_label_maps_are_no_classes(tmp_path):
    folders(tmp_path / "a", {"images": 2, "masks": 2})
    folders(tmp_path / "b/train", {"JPEGImages": 2, "SegmentationClass": 2})
    folders(tmp_path / "b/val", {"JPEGImages": 2, "SegmentationClass": 2})
    for name, words in (
        ("a", "images and masks are no classes"),
        ("b", "train: JPEGImages and SegmentationClass are no"),
    ):
        with pytest.raises(UserError, match=words):
            open_folders(str(tmp_path / name), 0)
    folders(tmp_path / "c", {"masks": 2, "helmets": 2})
    assert open_folders(str(tmp_path / "c"), 0).train.classes == ("helmets", "masks")
