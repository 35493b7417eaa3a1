"""``cyborgs masks`` as a user types it: help, files, tables, errors. Annotations are in memory."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyborgs.cli import main
from cyborgs.data.scenes import write_label_png, write_scenes
from tests.quality.truths import FakeTruth, opens
from tests.report.fakes import Page


@pytest.fixture
def labels(tmp_path: Path) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [np.kron(rng.integers(0, 3, (3, 4)), np.ones((12, 12), int)).astype(np.int32) for _ in range(4)]
    (tmp_path / "masks").mkdir()
    for i, truth in enumerate(found):
        noisy = np.where(rng.random(truth.shape) < 0.1, 0, truth)
        write_label_png(tmp_path / f"masks/p{i}.png", (noisy + 5).astype(np.uint8))
    return found


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["masks", "--help"]) == 0
    said = capsys.readouterr().out
    assert "quality" in said
    assert "gallery" in said
    for command in ("quality", "gallery"):
        assert main(["masks", command, "--help"]) == 0
        assert f"cyborgs masks {command}" in capsys.readouterr().out
    assert main(["masks"]) == 2
    assert main(["masks", "measure"]) == 2
    assert "no command is named 'measure'" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "masks " in capsys.readouterr().out


def test_quality(
    labels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels[2][:] = -1
    asked = opens(monkeypatch, FakeTruth(labels, class_names=("background", "grass", "[red]")))
    command = ["masks", "quality", str(tmp_path / "masks"), "--truth", "labels/", "--draws", "20"]
    assert main([*command, "--same-ids"]) == 0
    said = capsys.readouterr().out
    for words in ("3 photos, 1 left out (1: all of its truth is void)", "covering", "boundary F", "[red]", "K = 3"):
        assert words in said
    assert asked == [("labels/", [f"p{i}.png" for i in range(4)], None, 255)]
    out = tmp_path / "masks-quality"
    assert sorted(p.name for p in out.iterdir()) == ["classes.csv", "photos.csv", "quality.json", "quality.png"]
    found = json.loads((out / "quality.json").read_text())
    assert found["predictions"]["kind"] == "folder"
    assert found["predictions"]["ids"] == "dataset"
    assert found["photos"]["measured"] == 3
    assert found["photos"]["why"] == {"all of its truth is void": 1}
    assert found["settings"]["draws"] == 20
    assert found["versions"]["numpy"] == np.__version__
    assert found["set"]["hungarian_miou"]["value"] > 0.8
    assert found["clusters"] == 3
    assert [row["name"] for row in found["classes"]] == ["background", "grass", "[red]"]
    assert (
        found["means"]["covering"]["low"] <= found["means"]["covering"]["value"] <= found["means"]["covering"]["high"]
    )
    with open(out / "photos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["photo"] for row in rows] == ["p0.png", "p1.png", "p3.png"]
    mean = np.mean([float(row["covering"]) for row in rows])
    assert mean == pytest.approx(found["means"]["covering"]["value"], abs=1e-6)
    with Image.open(out / "quality.png") as picture:
        assert picture.width > 600
    # The same again, byte for byte: no time in it.
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert main([*command, "--same-ids", "--workers", "1"]) == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_quality_without_shared_ids_and_with_some_measures(
    labels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opens(monkeypatch, FakeTruth(labels))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    command = ["masks", "quality", str(tmp_path / "masks"), "--truth", "x", "--out", str(tmp_path / "out")]
    command += ["--draws", "10", "--classes-file", str(tmp_path / "names.txt"), "--void", "None"]
    assert main(command) == 0
    assert "No matching of clusters to classes over all photos" in capsys.readouterr().out
    assert main([*command, "--measures", "voi", "ari"]) == 0
    found = json.loads((tmp_path / "out/quality.json").read_text())
    assert [*found["means"]] == ["voi", "ari"]
    assert found["truth"]["void"] is None
    assert main([*command, "--measures", "iou"]) == 1
    assert "there is no 'iou'" in capsys.readouterr().err


def test_quality_says_what_is_wrong(
    labels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opens(monkeypatch, FakeTruth([None, *labels[1:3], None]))
    command = ["masks", "quality", str(tmp_path / "masks"), "--truth", "x", "--draws", "5"]
    assert main(command) == 1
    assert "p0.png: has no annotation, nor have 1 more" in capsys.readouterr().err
    assert main([*command, "--allow-missing"]) == 0
    assert "2 photos, 2 left out (2: has no annotation)" in capsys.readouterr().out
    Image.new("RGB", (48, 36)).save(tmp_path / "masks/p1.png")
    assert main([*command, "--allow-missing"]) == 1
    assert "p1.png: holds RGB pixels, not labels" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


def test_quality_of_odd_names(
    labels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup, commands to a terminal, bytes that are no UTF-8, and letters that no font has."""
    names = ["[bold]x.png", "\x1b[2J.png", "山.png", os.fsdecode(b"caf\xe9.png")]
    for i, name in enumerate(names):
        (tmp_path / f"masks/p{i}.png").rename(tmp_path / "masks" / name)
    opens(monkeypatch, FakeTruth([labels[0], *labels[1:3], None], class_names=("[/x]", "\x1b[2J", "c")))
    assert main(["masks", "quality", str(tmp_path / "masks"), "--truth", "x", "--draws", "3", "--allow-missing"]) == 0
    for line in capsys.readouterr().out.split("\n"):
        assert line.isprintable(), repr(line)
    assert b"\x1b" not in (tmp_path / "masks-quality/quality.json").read_bytes()


def test_quality_with_photos(
    labels: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = opens(monkeypatch, FakeTruth(labels[:3]))
    (tmp_path / "photos").mkdir()
    for i in (3, 0, 1):
        Image.new("RGB", (48, 36), (i * 40, 90, 20)).save(tmp_path / f"photos/p{i}.png")
    command = ["masks", "quality", str(tmp_path / "masks"), "--truth", "x", "--draws", "5"]
    assert main([*command, "--data", str(tmp_path / "photos")]) == 0
    assert asked[0][1] == ["p0.png", "p1.png", "p3.png"]
    (tmp_path / "masks/p1.png").unlink()
    assert main([*command, "--data", str(tmp_path / "photos")]) == 1
    assert "p1.png: has no label map (of 3 photos)" in capsys.readouterr().err


def test_gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cyborgs.gallery import rows as gallery
    from tests.features.fakes import FakeBackbone

    scenes = write_scenes(tmp_path / "scenes", 4, size=(96, 64))
    monkeypatch.setattr(gallery, "network", lambda path, seed: (FakeBackbone(), "random weights", ("layer2",)))
    monkeypatch.setattr(gallery, "find_spec", lambda name: None)
    truths = [np.asarray(Image.open(p)).astype(np.int32) for p in sorted(scenes.truth.glob("*.png"))]
    asked = opens(monkeypatch, FakeTruth([truths[0], truths[3]], class_names=tuple(scenes.classes)))
    command = ["masks", "gallery", str(tmp_path), "--data", str(scenes.photos), "--out", str(tmp_path / "fig4.html")]
    command += ["--layers", "layer2", "--clusters", "4", "--truth", "truth/", "--count", "2"]
    assert main([*command, "--formats", "html", "png"]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "fig4.html") in said
    assert str(tmp_path / "fig4.png") in said
    assert asked[0][1] == ["scene-0000.jpg", "scene-0003.jpg"]
    page = Page((tmp_path / "fig4.html").read_text())
    assert len(page.all("img")) == 2 * 3
    assert "4 clusters of 4 photos, on layer2 of random weights." in page.text()
    assert "needs the extra crf" in page.text()
    assert main([*command, "--no-crf", "--photos", "scene-0001.jpg", "scene-0002.jpg"]) == 0
    assert "extra crf" not in (tmp_path / "fig4.html").read_text()
    for wrong, message in (
        (["--photos", "none.jpg"], "none.jpg is none of the 4 photos"),
        (["--clusters", "1"], "need 2 to 256"),
        (["--out", str(tmp_path / "fig4.svg")], "written as html, png, pdf"),
    ):
        assert main([*command, *wrong]) == 1
        assert message in capsys.readouterr().err
