from pathlib import Path

import numpy as np
import pytest

from cyborgs.data.images import PhotoFiles
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.splits import balanced_order, fingerprint, first_of, part_of, stratified


def test_part_of_rounds_halves_up_and_keeps_one():
    assert [part_of(n, s) for n, s in ((10, 0.25), (10, 0.24), (3, 0.5), (100, 0.001), (7, 1.0))] == [3, 2, 2, 1, 7]
    with pytest.raises(UserError, match=r"share: .* got -0\.1"):
        part_of(10, -0.1)


def test_stratified_takes_as_many_of_each_class_as_its_share():
    labels = np.random.default_rng(0).integers(0, 5, 300)
    found = stratified(labels, 0.3, 1, 60)
    assert np.array_equal(found, np.unique(found))
    for c in range(5):
        n = int((labels == c).sum())
        assert int((labels[found] == c).sum()) == int(np.floor(0.3 * n + 0.5))


def test_every_photo_is_as_likely_as_another():
    labels = np.repeat([0, 1], 10)
    hits = np.zeros(20)
    for seed in range(400):
        hits[stratified(labels, 0.3, seed, 60)] += 1
    assert abs(hits / 400 - 0.3).max() < 0.1  # 4.4 standard errors


def several(number: int = 2000, classes: int = 20) -> np.ndarray:
    """Classes of very different shares, several a photo."""
    rng = np.random.default_rng(0)
    return rng.random((number, classes)) < np.geomspace(0.003, 0.4, classes)


def farthest(present: np.ndarray, order: np.ndarray) -> np.ndarray:
    """How many photos of each class a beginning has too many or too few, at most."""
    counts = np.cumsum(present[order], axis=0)
    lengths = np.arange(1, len(present) + 1)[:, None]
    return np.abs(counts - lengths * present.mean(axis=0)).max(axis=0)


def test_every_beginning_of_a_balanced_order_has_the_classes_shares():
    present = several()
    order = balanced_order(present, 1, 62)
    assert np.array_equal(np.sort(order), np.arange(len(present)))
    assert farthest(present, order).max() < 8
    plain = np.random.default_rng(1).permutation(len(present))
    assert farthest(present, order).mean() < farthest(present, plain).mean() / 3


def test_as_many_photos_as_classes_have_all_of_them():
    present = several()
    for seed in range(5):
        assert present[balanced_order(present, seed, 62)[:20]].any(axis=0).all()
    alone = np.eye(50, dtype=bool)[np.r_[np.zeros(500, int), 1:50]]  # one photo of each class but the first
    assert alone[balanced_order(alone, 0, 62)[:50]].any(axis=0).all()


def test_a_balanced_order_is_drawn_from_the_seed_and_stream():
    present = several(300)
    order = balanced_order(present, 1, 62)
    assert np.array_equal(order, balanced_order(present, 1, 62))
    for other in (balanced_order(present, 2, 62), balanced_order(present, 1, 56)):
        assert not np.array_equal(order, other)
    firsts = {int(balanced_order(np.ones((10, 1), bool), seed, 62)[0]) for seed in range(100)}
    assert len(firsts) == 10


def test_photos_of_no_class_keep_their_share_and_do_not_come_first():
    present = np.zeros((100, 3), bool)
    present[:30, 0] = present[30:50, 1] = True  # the third class occurs nowhere
    order = balanced_order(present, 0, 62)
    assert present[order[:2]].any(axis=0).tolist() == [True, True, False]
    assert abs((~present[order[:20]].any(axis=1)).sum() - 10) <= 1


def test_balanced_orders_of_hardly_anything():
    assert balanced_order(np.zeros((0, 3), bool), 0, 62).tolist() == []
    assert balanced_order(np.zeros((1, 3), bool), 0, 62).tolist() == [0]
    assert sorted(balanced_order(np.zeros((5, 0), bool), 0, 62).tolist()) == [0, 1, 2, 3, 4]
    assert sorted(balanced_order(np.ones((5, 2), bool), 0, 62).tolist()) == [0, 1, 2, 3, 4]


def test_the_first_of_an_order_are_nested():
    assert set(first_of(20, 5, 3, 62)) < set(first_of(20, 9, 3, 62))
    assert not np.array_equal(first_of(20, 5, 3, 62), first_of(20, 5, 3, 63))


def test_fingerprints_know_names_sizes_parts_and_what_else_is_said(tmp_path, monkeypatch):
    def of(*names, part="train", more=("a",), content=b""):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return fingerprint({part: PhotoFiles(tuple(tmp_path / name for name in names))}, more)

    first = of("x/a/1.png", "x/b/2.png")
    assert first == of("elsewhere/y/a/1.png", "elsewhere/y/b/2.png")
    monkeypatch.chdir(tmp_path / "x")
    assert first == fingerprint({"train": PhotoFiles((Path("a/1.png"), Path("b/2.png")))}, ["a"])
    others = [
        of("x/a/1.png", "x/b/3.png"),
        of("x/b/2.png", "x/a/1.png"),
        of("x/a/1.png", "x/b/2.png", part="test"),
        of("x/a/1.png", "x/b/2.png", more=("b",)),
        of("x/a/1.png", "x/b/2.png", content=b"edited"),
    ]
    assert len({first, *others}) == 6
    assert fingerprint({"train": PhotoFiles(())}, []) == fingerprint({"train": PhotoFiles(())}, [])


def test_fingerprints_know_the_bytes_of_labels(tmp_path):
    photo, label = tmp_path / "photos/1.jpg", tmp_path / "labels/1.png"
    for path in (photo, label):
        path.parent.mkdir()
        path.write_bytes(b"0123")

    def now():
        return fingerprint({"train": PhotoFiles((photo,))}, [], {"train labels": [label]})

    first = now()
    label.write_bytes(b"0124")  # of the same size
    assert now() != first
    label.write_bytes(b"0123")
    assert now() == first
    label.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        now()
