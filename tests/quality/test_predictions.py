"""Label maps wherever they lie: found, read, paired with photos, and refused where they are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.data.images import ScannedImages
from cyborgs.data.scenes import write_label_png
from cyborgs.errors import UserError
from cyborgs.masks.store import GenerationWriter
from cyborgs.quality.predictions import open_predictions
from cyborgs.segmenting.segment import segment
from cyborgs.structures import LabelMap
from tests.features.fakes import FakeBackbone, MemoryPhotos, blocks


@pytest.fixture
def segmented(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    photos = MemoryPhotos([blocks(rng)[0] for _ in range(3)], ["a/one.jpg", "a/one.png", "two.PNG"])
    segment(photos, FakeBackbone(), tmp_path / "masks", layers=["layer2"], clusters=3)
    return tmp_path / "masks"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    ScannedImages(run, [("x.jpg", 30, 40, 1), ("y.jpg", 60, 80, 2)]).write_csv(run)
    for generation in range(2):
        writer = GenerationWriter(run, generation, 2)
        for i in range(2):
            writer.write(i, LabelMap(np.full((3, 4), generation + i, np.uint8), 9))
        writer.publish()
    return run


def test_a_segmentation(segmented: Path) -> None:
    found = open_predictions(segmented)
    assert list(found.names) == ["a/one.jpg", "a/one.png", "two.PNG"]
    assert (found.kind, found.ids, found.void, found.missing) == ("segmentation", "dataset", None, [])
    assert found.out == segmented / "quality"
    with Image.open(segmented / "labels/a/one.png.png") as picture:
        assert np.array_equal(found.read(1), np.asarray(picture))
    assert found.size is None
    (segmented / "segmentation.json").unlink()
    assert open_predictions(segmented).ids == "unknown"
    assert open_predictions(segmented, same_ids=True).ids == "dataset"
    (segmented / "labels/two.png").unlink()
    assert open_predictions(segmented).missing == [2]


def test_what_a_segmentation_says_of_itself(segmented: Path) -> None:
    note = segmented / "segmentation.json"
    note.write_text(json.dumps({"ids": "dataset", "void": 255, "complete": True}))
    found = open_predictions(segmented)
    assert (found.ids, found.void, found.about["complete"]) == ("dataset", 255, True)
    note.write_text(json.dumps({"ids": "group", "void": None}))
    with pytest.raises(UserError, match="Leave --same-ids out"):
        open_predictions(segmented, same_ids=True)
    for text, message in (
        ('{"complete": false}', "was not finished"),
        ('{"ids": "some"}', "ids 'some'"),
        ("{", "cannot be read"),
        ("[1]", "cannot be read"),
    ):
        note.write_text(text)
        with pytest.raises(UserError, match=message):
            open_predictions(segmented)


def test_one_that_was_not_finished(segmented: Path) -> None:
    (segmented / "segments.csv").unlink()
    with pytest.raises(UserError, match=r"segments.csv is missing, so the segmentation was not finished.*labels"):
        open_predictions(segmented)
    assert list(open_predictions(segmented / "labels").names) == ["a/one.jpg.png", "a/one.png.png", "two.png"]
    (segmented / "segments.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="cannot be read as the table"):
        open_predictions(segmented)
    (segmented / "segments.csv").write_text("photo,mask\n")
    with pytest.raises(UserError, match="names no photo"):
        open_predictions(segmented)


def test_a_run(run: Path) -> None:
    for path in (run, run / "masks"):
        found = open_predictions(path)
        assert (found.kind, found.ids, found.void, list(found.names)) == ("run", "group", 9, ["x.jpg", "y.jpg"])
        assert found.read(1).tolist() == [[2] * 4] * 3
        assert found.size is not None
        assert found.size(1) == (60, 80)
        assert found.about["generation"] == 1
        assert found.out == run / "quality" / "generation-0001"
    assert open_predictions(run, generation=0).read(1).max() == 1
    with pytest.raises(UserError, match="no complete generation 7"):
        open_predictions(run, generation=7)
    with pytest.raises(UserError, match="Leave --same-ids out"):
        open_predictions(run, same_ids=True)


def test_a_generation_that_is_not_complete(run: Path) -> None:
    writer = GenerationWriter(run, 2, 2)
    writer.write(0, LabelMap(np.zeros((3, 4), np.uint8), 9))
    with pytest.raises(UserError, match="no complete generation 2"):
        open_predictions(run, generation=2)
    writer.abort()
    for path in sorted((run / "masks").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(UserError, match="no complete generation of masks"):
        open_predictions(run)


def test_a_run_of_other_photos(run: Path) -> None:
    ScannedImages(run, [("x.jpg", 30, 40, 1)]).write_csv(run)
    with pytest.raises(UserError, match=r"2 maps, images\.csv 1 photos"):
        open_predictions(run)


def test_a_folder_of_pngs(tmp_path: Path) -> None:
    (tmp_path / "labels/b").mkdir(parents=True)
    write_label_png(tmp_path / "labels/b/x.png", np.eye(4, dtype=np.uint8))
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "labels/a.PNG")
    (tmp_path / "labels/note.txt").write_text("no map")
    found = open_predictions(tmp_path / "labels")
    assert list(found.names) == ["a.PNG", "b/x.png"]
    assert found.read(0).max() == 300
    assert found.out == tmp_path / "labels-quality"
    # A measurement that somebody put there is no map.
    (tmp_path / "labels/quality.png").write_bytes(b"")
    (tmp_path / "labels/quality.json").write_text("{}")
    assert len(open_predictions(tmp_path / "labels").names) == 2
    with pytest.raises(UserError, match="only a run has generations"):
        open_predictions(tmp_path / "labels", generation=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no label maps there"):
        open_predictions(tmp_path / "empty")
    with pytest.raises(UserError, match="no such folder"):
        open_predictions(tmp_path / "none")


def test_photos_that_must_have_a_map(segmented: Path) -> None:
    names = ["two.jpg", "a/one.png", "gone.jpg", "a/one.jpg", "a/one.tif"]
    found = open_predictions(segmented, names=names)
    assert list(found.names) == names
    assert found.missing == [2, 4]  # two maps could be a/one.tif's
    whole = open_predictions(segmented)
    for here, there in ((0, 2), (1, 1), (3, 0)):
        assert np.array_equal(found.read(here), whole.read(there))
    plain = open_predictions(segmented / "labels", names=["a/one.jpg", "two.jpg"])
    assert plain.missing == []
    assert np.array_equal(plain.read(0), whole.read(0))
