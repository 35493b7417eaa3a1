from pathlib import Path

import numpy as np
import pytest

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.splits import fingerprint, first_of, part_of, stratified


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


def test_the_first_of_an_order_are_nested():
    assert set(first_of(20, 5, 3, 62)) < set(first_of(20, 9, 3, 62))
    assert not np.array_equal(first_of(20, 5, 3, 62), first_of(20, 5, 3, 63))


def test_fingerprints_know_names_sizes_parts_and_what_else_is_said(tmp_path, monkeypatch):
    def of(*names, part="train", more=("a",), content=b""):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        return fingerprint({part: [tmp_path / name for name in names]}, more)

    first = of("x/a/1.png", "x/b/2.png")
    assert first == of("elsewhere/y/a/1.png", "elsewhere/y/b/2.png")
    monkeypatch.chdir(tmp_path / "x")
    assert first == fingerprint({"train": [Path("a/1.png"), Path("b/2.png")]}, ["a"])
    others = [
        of("x/a/1.png", "x/b/3.png"),
        of("x/b/2.png", "x/a/1.png"),
        of("x/a/1.png", "x/b/2.png", part="test"),
        of("x/a/1.png", "x/b/2.png", more=("b",)),
        of("x/a/1.png", "x/b/2.png", content=b"edited"),
    ]
    assert len({first, *others}) == 6
    assert fingerprint({"train": []}, []) == fingerprint({"train": []}, [])


def test_fingerprints_know_the_bytes_of_labels(tmp_path):
    photo, label = tmp_path / "photos/1.jpg", tmp_path / "labels/1.png"
    for path in (photo, label):
        path.parent.mkdir()
        path.write_bytes(b"0123")

    def now():
        return fingerprint({"train": [photo]}, [], {"train labels": [label]})

    first = now()
    label.write_bytes(b"0124")  # of the same size
    assert now() != first
    label.write_bytes(b"0123")
    assert now() == first
    label.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        now()
