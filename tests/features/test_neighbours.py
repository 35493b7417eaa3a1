"""Regions of a label map, their pooled features and nearest ones against a loop, crops, and a run's folder."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch

import cyborgs
from cyborgs.api import read_photos, report
from cyborgs.cli import main
from cyborgs.errors import UserError
from cyborgs.features.extraction import layer_maps
from cyborgs.features.neighbours import (
    Crop,
    Neighbours,
    crop,
    region_features,
    regions_of,
    search,
    searched,
    sheet,
)  # fmt: skip
from cyborgs.looking.of_run import backbone_of, neighbours_of_run
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from tests.conftest import make_photos, tiny_byol, tiny_recipe
from tests.report.fakes import Noise, Page, Photos


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneConfig(name="timm:test_resnet")).eval()


def test_regions_are_connected_pieces_of_middling_size() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:3, :5] = 1  # 15%
    labels[7:, 7:] = 1  # 9%, another piece of the same label
    labels[0, 9] = 2  # a sliver
    pieces = regions_of(labels)
    assert [int(piece.sum()) for piece in pieces] == [15, 9]  # what is left, 75%, is too much of the photo
    assert not (pieces[0] & pieces[1]).any()
    assert [piece.all() for piece in regions_of(np.zeros((3, 3), np.uint8))] == [True]
    assert len(regions_of(np.arange(25, dtype=np.uint8).reshape(5, 5), most=4)) == 4


def test_features_are_means_over_regions(backbone: Backbone) -> None:
    photos = Noise(2, size=(64, 96))
    left, right = np.zeros((8, 12), bool), np.zeros((8, 12), bool)
    left[:, :6], right[:, 6:] = True, True
    layers = ("layer2", "layer4")
    found = region_features(backbone, photos, {1: [left, right], 0: [left]}, layers)
    rows = []
    for i, side in ((1, 0), (1, 1), (0, 0)):
        maps = layer_maps(backbone, [photos.read(i)], layers)
        means = []
        for name in layers:
            m = maps[name][0].double()
            half = m.shape[2] / 2
            weights = torch.tensor([min(1.0, max(0.0, half - x)) for x in range(m.shape[2])]).double()
            weights = weights if side == 0 else 1 - weights
            mean = (m * weights).sum((1, 2)) / (weights.sum() * m.shape[1])
            means.append(mean / mean.norm() / 2**0.5)
        rows.append(torch.cat(means))
    torch.testing.assert_close(found.double(), torch.stack(rows), rtol=1e-4, atol=1e-5)


def test_the_nearest_of_other_photos_by_a_loop(backbone: Backbone) -> None:
    photos = Noise(6, size=(48, 64))
    grid = np.arange(4, dtype=np.uint8).reshape(2, 2)
    found = search(backbone, photos, lambda i: grid, queries=3, neighbours=4, side=32)
    assert found is not None
    assert (found.photos, found.regions) == (6, 24)
    regions = {i: regions_of(grid) for i in range(6)}
    features = region_features(backbone, photos, regions, backbone.default_layers()).double()
    centred = features - features.mean(0)
    centred = centred / centred.norm(dim=1, keepdim=True)
    for row, i in zip(found.rows, (0, 2, 5), strict=True):
        cosine = [float(centred[i * 4] @ centred[r]) for r in range(24)]
        best = {j: max(cosine[j * 4 : j * 4 + 4]) for j in range(6) if j != i}
        expected = sorted(best, key=lambda j: -best[j])[:4]
        assert row.query.name == f"a/p{i}.jpg"
        assert [one.name for one in row.found] == [f"a/p{j}.jpg" for j in expected]
        assert [one.similarity for one in row.found] == pytest.approx([best[j] for j in expected], abs=1e-5)
    pairs = [(float(features[a] @ features[b]), a) for a in range(24) for b in range(24) if a // 4 != b // 4]
    assert found.similarity_any == pytest.approx(np.mean([c for c, _ in pairs]), abs=1e-5)
    assert found.similarity == pytest.approx(np.mean([max(c for c, a in pairs if a == k) for k in range(24)]), abs=1e-5)
    again = search(backbone, photos, lambda i: grid, queries=3, neighbours=4, side=32)
    assert again is not None
    assert [[c.image.tobytes() for c in r.found] for r in again.rows] == [
        [c.image.tobytes() for c in r.found] for r in found.rows
    ]
    assert search(backbone, Photos(1), lambda i: grid) is None


def test_few_photos_are_searched_where_they_are_large() -> None:
    assert len(searched(Photos(5000))) == 200
    assert len(searched(Photos(5000, size=(2000, 2000)))) == 40
    assert len(searched(Photos(5000, size=(10_000, 10_000)))) == 24
    assert searched(Photos(3)) == [0, 1, 2]


def test_a_crop_shows_the_region_and_its_outline() -> None:
    image = np.full((100, 200, 3), 128, np.uint8)
    region = np.zeros((10, 20), bool)
    region[4:6, 10:14] = True  # pixels 40..60 by 100..140
    cut = crop(image, region, 104)
    assert cut.shape == (64, 104, 3)  # 32 x 52 pixels with the margin, twice as large
    outline = np.argwhere((cut == 255).all(2))
    assert outline.min(0).tolist() == pytest.approx([12, 12], abs=2)
    assert outline.max(0).tolist() == pytest.approx([51, 91], abs=2)
    assert (cut == 0).any()
    assert (cut[30:34, 40:60] == 128).all()
    assert crop(image, np.ones((1, 1), bool), 50).shape == (25, 50, 3)
    speck = region.copy()
    speck[4, 11] = False
    assert (crop(image[:, :100], np.eye(40, dtype=bool), 64) >= 0).all()


def test_a_sheet_has_a_row_for_each_query() -> None:
    one = Crop("a", np.full((20, 32, 3), 255, np.uint8))
    rows = [Neighbours(one, (one, one)), Neighbours(one, (one,))]
    picture = sheet(rows, 32)
    assert picture.shape == (2 * 38 - 6, 3 * 38 - 6 + 18, 3)
    assert int((picture == 255).all(2).sum()) == 5 * 20 * 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    make_photos(folder / "photos", 9)
    recipe = tiny_recipe(epochs=2, batch_size=8)
    cyborgs.pretrain(recipe, data=folder / "photos", out=folder / "run", stream=io.StringIO())
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in folder.rglob("*")
        if f.is_file() and f.name != "report.html"
    }


def test_a_run_that_goes_on_has_the_last_checkpoints_backbone(folder: Path) -> None:
    result, name = backbone_of(folder / "run")
    assert name == "the finished backbone"
    (folder / "run/backbone.safetensors").rename(folder / "aside")
    try:
        before = torch.get_rng_state()
        last, name = backbone_of(folder / "run")
        assert torch.equal(torch.get_rng_state(), before)
        assert name == "the checkpoint step-000002"
        weights = result.weights()
        assert all(torch.equal(value, weights[key]) for key, value in last.weights().items())
        assert last.layers == result.layers
        rows, said = neighbours_of_run(folder / "run", read_photos(folder / "photos"), queries=2)
        assert "the checkpoint step-000002" in said
        assert "connected regions of masks 0" in said
        assert len(rows) == 2
        (folder / "run/checkpoints").rename(folder / "away")
        assert neighbours_of_run(folder / "run", read_photos(folder / "photos")) == (
            (), "Left out: the run has no checkpoint yet."
        )  # fmt: skip
        (folder / "away").rename(folder / "run/checkpoints")
        file = folder / "run/checkpoints/step-000002/networks.safetensors"
        good = file.read_bytes()
        file.write_bytes(good[:100])
        assert "step-000002 cannot be read" in neighbours_of_run(folder / "run", read_photos(folder / "photos"))[1]
        file.write_bytes(good)
    finally:
        (folder / "aside").rename(folder / "run/backbone.safetensors")


def test_whole_photos_where_there_are_no_masks(photos: Path, tmp_path: Path) -> None:
    cyborgs.pretrain(tiny_byol(epochs=1), data=photos, out=tmp_path / "run", stream=io.StringIO())
    rows, said = neighbours_of_run(tmp_path / "run", read_photos(photos), queries=2)
    assert "whole photos, for the run has no masks" in said
    assert len(rows) == 2


def test_the_report_reads_and_writes_one_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    data, run = str(folder / "photos"), str(folder / "run")
    assert main(["report", run, "--data", data]) == 0
    assert capsys.readouterr().out.strip() == f"{run}/report.html"
    page = Page((folder / "run/report.html").read_text())
    assert len(page.all("img", page.section("neighbours"))) == 6 * 6
    assert "This run is finished: 2 steps in 2 epochs on 9 photos" in page.text()
    assert page.section("recipe") is not None
    assert contents(folder) == before  # not a file of the run or of the photos is touched
    assert main(["report", run]) == 0
    page = Page((folder / "run/report.html").read_text())
    assert not page.all("img")
    assert page.section("neighbours") is None


def test_no_page_among_the_photos(folder: Path) -> None:
    with pytest.raises(UserError, match="lies in the folder of the photos"):
        report(folder / "run", data=folder / "photos", out=folder / "photos" / "page.html")
    assert not (folder / "photos/page.html").exists()
