"""VOC 2007's lists: what is read, drawn, and refused."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.voc_lists import CLASSES, open_voc
from tests.evaluation.voc import make_voc


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "VOCdevkit")


def lists(root: Path) -> Path:
    return root / "VOC2007" / "ImageSets" / "Main"


def test_devkit_year_and_above_are_the_same(root: Path) -> None:
    found = [open_voc(str(path), 0, 0) for path in (root, root / "VOC2007", root.parent)]
    assert len({data.fingerprint for data in found}) == 1
    data = found[0]
    assert data.counts == {"train": 18, "test": 9}
    assert data.train.photos.paths[0] == root / "VOC2007/JPEGImages/000000.jpg"
    assert data.train.labels.shape == (18, 20)
    assert set(np.unique(data.train.labels)) == {-1, 0, 1}
    for c, name in enumerate(CLASSES):
        written = [int(line.split()[1]) for line in (lists(root) / f"{name}_test.txt").read_text().splitlines()]
        assert data.test.labels[:, c].tolist() == written
    assert len(CLASSES) == 20


def test_some_are_drawn_by_the_seed(root: Path) -> None:
    data = open_voc(str(root), 5, 0)
    assert data.counts == {
        "train": 5,
        "test": 5,
        "skipped: train, not drawn": 13,
        "skipped: test, not drawn": 4,
    }
    whole = open_voc(str(root), 0, 0)
    rows = dict(zip(whole.train.photos.paths, whole.train.labels, strict=True))
    for photo, row in zip(data.train.photos.paths, data.train.labels, strict=True):
        assert np.array_equal(rows[photo], row)
    assert open_voc(str(root), 5, 0).fingerprint == data.fingerprint
    assert open_voc(str(root), 5, 1).fingerprint != data.fingerprint
    assert open_voc(str(root), 100, 1).counts == {"train": 18, "test": 9}


def test_shares_are_nested(root: Path) -> None:
    data = open_voc(str(root), 0, 0)
    parts = [set(data.chosen(share, 3).tolist()) for share in (0.01, 0.2, 0.5, 1.0)]
    assert [len(part) for part in parts] == [1, 4, 9, 18]
    assert all(a <= b for a, b in pairwise(parts))


def test_a_share_has_every_class_that_occurs(root: Path) -> None:
    data = open_voc(str(root), 0, 0)
    rare = data.train.labels.copy()
    rare[:] = -1
    rare[:, 0] = 1
    for c in range(1, 5):
        rare[2 * c, c] = 1  # one photo each
    rare[17, 5] = 0  # difficult ones are not present
    data = replace(data, train=replace(data.train, labels=rare))
    for seed in range(5):
        assert (rare[data.chosen(5 / 18, seed)] == 1).any(axis=0).sum() == 5


def test_no_lists_of_test(root: Path) -> None:
    for file in lists(root).glob("*_test.txt"):
        file.unlink()
    with pytest.raises(UserError, match=r"lists of test .*are missing.*separate download"):
        open_voc(str(root), 0, 0)


def test_voc2012(root: Path) -> None:
    (root / "VOC2007").rename(root / "VOC2012")
    with pytest.raises(UserError, match="holds VOC2012 alone"):
        open_voc(str(root), 0, 0)
    for file in (root / "VOC2012/ImageSets/Main").glob("*_test.txt"):
        file.unlink()
    with pytest.raises(UserError, match="VOC2012 has no public labels for its test images"):
        open_voc(str(root / "VOC2012"), 0, 0)


def test_what_is_missing_or_contradicts(root: Path, tmp_path: Path) -> None:
    def refused(message: str, data: Path = root) -> None:
        with pytest.raises(UserError, match=message):
            open_voc(str(data), 0, 0)

    refused(r"nowhere: no such folder", tmp_path / "nowhere")
    refused(r"neither VOC2007/ImageSets/Main nor", lists(root))
    sheep, text = lists(root) / "sheep_trainval.txt", (lists(root) / "sheep_trainval.txt").read_text()
    sheep.unlink()
    refused(r"sheep_trainval\.txt: cannot be read \(No such file.*All 20 classes")
    sheep.write_text(text.replace("000003 -1", "000003 -2"))
    refused(r"sheep_trainval\.txt, line 4: need a photo's name and 1, -1 or 0, got '000003 -2'")
    sheep.write_text(text.replace("000003 -1", "000033 -1"))
    refused(r"sheep_trainval\.txt: lists other photos than aeroplane_trainval\.txt.*first: 000033")
    sheep.write_text("".join(text.splitlines(keepends=True)[:-1]))
    refused(r"sheep_trainval\.txt: lists other photos.*their number")
    sheep.write_text(text + "\n")
    (root / "VOC2007/JPEGImages/000020.jpg").unlink()
    refused(re.escape("000020.jpg: is in the lists of test, but there is no such photo; 1 are missing"))
    for name in CLASSES:
        shutil.copy(lists(root) / f"{name}_trainval.txt", lists(root) / f"{name}_test.txt")
    refused(r"000000 is in trainval and in test \(18 photos are\)")
    for name in CLASSES:
        file = lists(root) / f"{name}_trainval.txt"
        file.write_text(file.read_text() * 2)
    refused(r"aeroplane_trainval\.txt: lists 000000 twice")
    for name in CLASSES:
        (lists(root) / f"{name}_trainval.txt").write_text("\n")
    refused(r"aeroplane_trainval\.txt: lists no photo")
