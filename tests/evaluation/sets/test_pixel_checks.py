"""What is wrong or doubtful in photos with a class per pixel is said at opening, not by a figure after training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyborgs.errors import UserError
from tests.evaluation.sets.test_pixel_sets import A, B, labels, opened, pairs, photo

VOID = [[255] * 3] * 2


@pytest.mark.parametrize(("train", "val", "part"), [(VOID, A, "train"), (A, VOID, "test"), (VOID, VOID, "train")])
def test_a_split_without_a_labelled_pixel(tmp_path, train, val, part):
    pairs(tmp_path, "train", [train] * 2)
    pairs(tmp_path, "val", [val] * 2)
    with pytest.raises(UserError, match=f"every pixel of the 2 {part} photos counts nowhere.*is --ignore right"):
        opened(tmp_path)


def test_one_class(tmp_path):
    for part in ("train", "val"):
        pairs(tmp_path, part, [[[0, 255, 0]] * 2])
    with pytest.raises(UserError, match="need at least two classes, found 1"):
        opened(tmp_path)


def test_a_photo_listed_twice_or_in_both_splits(tmp_path):
    for k in range(3):
        photo(tmp_path / f"{k}.jpg")
        labels(tmp_path / f"{k}.png", A)

    def refused(train: str, val: str, message: str) -> None:
        for name, numbers in (("train", train), ("val", val)):
            (tmp_path / f"{name}.txt").write_text("".join(f"{k}.jpg {k}.png\n" for k in numbers))
        with pytest.raises(UserError, match=message):
            opened(tmp_path)

    refused("011", "2", r"1\.jpg is listed twice in train \(1 such photos\)")
    refused("01", "22", r"2\.jpg is listed twice in test")
    refused("012", "12", r"1\.jpg is in train and in test; 2 photos are in both")


def described(root: Path, kind: str, numbers=((0, 1, 255), (0, 1, 2))) -> Path:
    for part in ("train", "val"):
        photo(root / f"photos/{part}/a.png")
        labels(root / f"maps/{part}/a.png", numbers)
    parts = (f"{part}: {{photos: photos/{part}, labels: '{kind}maps/{part}'}}\n" for part in ("train", "val"))
    (root / "set.yaml").write_text("".join(parts))
    return root / "set.yaml"


def test_annotations_that_know_their_void_pixels_take_no_label_for_them(tmp_path):
    path = described(tmp_path, "coco-stuff-164k:")
    assert opened(path).train.truth(0).tolist() == [[0, 1, 255], [0, 1, 2]]
    with pytest.raises(UserError, match=r"train: coco-stuff-164k:maps/train says itself which .*leave --ignore out"):
        opened(path, ignore=0)  # class 0 and void pixels would be the same label
    plain = described(tmp_path / "plain", "", [[0, 1, 2]] * 2)
    assert (opened(plain, ignore=2).train.classes, opened(plain, ignore=2).train.ignore) == (2, 2)
    with pytest.raises(UserError, match="--ignore: need 0 to 255, got 300"):
        opened(plain, ignore=300)


def test_published_layouts_take_no_label_for_void_pixels(tmp_path):
    for part in ("train", "val"):
        pairs(tmp_path, part, [[[0, 1, 11]] * 2], "{}", "{}annot")
    assert opened(tmp_path, "camvid").counts == opened(tmp_path, "camvid", ignore=11).counts
    with pytest.raises(UserError, match="--ignore: camvid says itself which pixels count nowhere"):
        opened(tmp_path, "camvid", ignore=0)


def stuff(root: Path, maps, numbering: str) -> Path:
    """``maps`` in turn for 30 training and 30 test photos, in a set that a file describes."""
    for part in ("train", "val"):
        for k in range(30):
            photo(root / f"photos/{part}/{k}.png")
            labels(root / f"maps/{part}/{k}.png", maps[k % len(maps)])
    said = (f"{p}: {{photos: photos/{p}, labels: 'coco-stuff-{numbering}:maps/{p}'}}\n" for p in ("train", "val"))
    (root / "set.yaml").write_text("".join(said))
    return root / "set.yaml"


OF_10K = ([[0, 1, 92]] * 2, [[0, 3, 100]] * 2)
"""Unlabelled pixels in each; all of them numbers of the 164k set too."""
OF_164K = ([[0, 1, 92]] * 2, [[2, 3, 99]] * 2, [[5, 6, 99]] * 2, [[4, 6, 99]] * 2)
"""A person in a quarter of them, nothing unlabelled; all of them numbers of the 10k set too."""


@pytest.mark.parametrize("numbering", ["164k", "27"])
def test_numbers_of_the_10k_set_for_those_of_the_164k_set(tmp_path, numbering):
    path = stuff(tmp_path, OF_10K, numbering)
    with pytest.raises(UserError, match=r"no label map holds 255 .* and 60 of 60 hold 0: these are numbers of the 10k"):
        opened(path)
    few = opened(path, images=4, test_images=4)  # too few to be certain
    assert "8 of 8 hold 0. If 0 is unlabelled, these are numbers of the 10k set" in few.notes[0]
    labels(tmp_path / "maps/val/3.png", [[255, 1, 92]] * 2)  # the way out that the message names
    assert not any("10k" in note for note in opened(path).notes)


def test_numbers_of_the_164k_set_for_those_of_the_10k_set(tmp_path):
    data = opened(stuff(tmp_path, OF_164K, "10k"))
    assert "only 16 of 60 label maps hold 0" in data.notes[0]
    assert "numbers of the 164k set" in data.notes[0]


@pytest.mark.parametrize(("maps", "numbering"), [(OF_10K, "10k"), (OF_164K, "164k"), (OF_164K, "27")])
def test_right_numbers_are_not_doubted(tmp_path, maps, numbering):
    path = stuff(tmp_path, maps, numbering)
    for few in (0, 2):
        assert not any("numbers of the" in note for note in opened(path, images=few, test_images=few).notes)


def test_shares_keep_every_class(tmp_path):
    pairs(tmp_path, "train", [VOID] * 4 + [A] * 30 + [B] * 5 + [[[4, 5, 5]] * 2])
    pairs(tmp_path, "val", [A])
    data = opened(tmp_path)
    for seed in range(5):
        one = data.share(0.01, seed)
        assert len(one) == 1
        assert one.truth(0).min() < 255  # not one without a label
        few = data.share(0.15, seed)
        assert len(few) == 6
        assert {int(c) for i in range(6) for c in np.unique(few.truth(i))} >= set(range(6))
    assert data.share(0.15, 0).photos != data.share(0.15, 1).photos
