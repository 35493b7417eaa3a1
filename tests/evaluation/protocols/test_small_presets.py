"""``--preset small`` of the protocols but the FCN's, on real photos, where CYBORGS_TEST_DATA names their .tar files."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.studies.voc_from_coco import write_folder

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.protocols.protocol import entry, module, settings_of
from cyborgs.metrics.intervals import figure_interval
from tests.evaluation.protocols.contract import make_backbone

pytestmark = pytest.mark.slow
Unpack = Callable[[str], Path]


@pytest.fixture
def unpacked(tmp_path: Path) -> Unpack:
    def unpack(name: str) -> Path:
        folder = os.environ.get("CYBORGS_TEST_DATA")
        if not folder:
            pytest.skip(f"CYBORGS_TEST_DATA names no folder with {name}.tar")
        with tarfile.open(f"{folder}/{name}.tar") as tar:
            tar.extractall(tmp_path, filter="data")
        return tmp_path

    return unpack


def judged(name: str, data: Path, cache: Path, **changes: Any) -> Result:
    """The small preset with a random ResNet-18; it must be better than nothing, and inside its own interval."""
    settings: Any = replace(settings_of(name, "small"), **changes)
    opener: Any = module(name)
    opened = opener.open_data(str(data), settings, 0, entry(name).data_set)
    result = module(name).evaluate(make_backbone("resnet18"), opened, settings, Context(cache=cache))
    assert 0 < result.value < 1
    (found,) = figure_interval(lambda w: np.array([result.judged.score(w)]), len(result.judged), draws=50)
    assert found.low <= found.high
    return result


def test_voc07(unpacked: Unpack, tmp_path: Path) -> None:
    write_folder(unpacked("coco_subset") / "coco", tmp_path / "voc")
    result = judged("voc07", tmp_path / "voc", tmp_path / "cache")
    assert result.counts["train"] == result.counts["test"] == 200
    assert any("left out of the mean" in text for text in result.warnings)


def test_voc07_knn(unpacked: Unpack, tmp_path: Path) -> None:
    write_folder(unpacked("coco_subset") / "coco", tmp_path / "voc")
    result = judged("voc07-knn", tmp_path / "voc", tmp_path / "cache")
    assert result.counts["train"] == result.counts["test"] == 200
    assert {"map_k20", "map_k10", "map_k100", "map_k200", "map_envelope"} <= set(result.figures)


@pytest.mark.parametrize("name", ["knn", "linear-classification"])
def test_class_folders(unpacked: Unpack, tmp_path: Path, name: str) -> None:
    result = judged(name, unpacked("caltech101_30") / "caltech101", tmp_path / "cache")
    assert result.value > result.figures["commonest_class"]


@pytest.mark.parametrize(("name", "each", "chance"), [("imagenet-1pct", 4, 1 / 20), ("imagenet-10pct", 40, 1 / 20)])
def test_imagenet(unpacked: Unpack, tmp_path: Path, name: str, each: int, chance: float) -> None:
    result = judged(name, unpacked("tiny_imagenet_20") / "tiny-imagenet-200", tmp_path / "cache")
    assert (result.counts["train"], result.counts["test"]) == (20 * each, 1000)
    assert result.figures["top5"] > result.value
    assert any("own split" in text for text in result.warnings)
    if each == 40:  # 75 steps; the 9 of the smaller share teach nothing that could be relied on
        assert result.value > 2 * chance


def test_folder_classification(unpacked: Unpack, tmp_path: Path) -> None:
    result = judged("folder-classification", unpacked("caltech101_30") / "caltech101", tmp_path / "cache")
    assert (result.counts["train"], result.counts["test"]) == (894, 417)
    assert result.value > 2 / 30


def test_dense_probe(unpacked: Unpack, tmp_path: Path) -> None:
    result = judged("dense-probe", unpacked("camvid") / "CamVid", tmp_path / "cache", images=60, test_images=30)
    assert result.figures["accuracy"] > 0.5


def test_clustering(unpacked: Unpack, tmp_path: Path) -> None:
    data = unpacked("camvid") / "CamVid"
    result = judged("clustering", data, tmp_path / "cache", images=60, test_images=30, clusters=(11, 27))
    assert result.figures["accuracy_k27"] > result.figures["accuracy_k11"]
    assert result.figures["linear_accuracy"] > result.figures["accuracy_k11"]


def test_coco_stuff_27(unpacked: Unpack, tmp_path: Path) -> None:
    data = unpacked("coco_subset") / "coco"
    for part in ("train2017", "val2017"):  # of which few have such labels
        listed = sorted(file.stem for file in (data / "annotations/stuffthingmaps" / part).glob("*.png"))
        (data / "curated" / part).mkdir(parents=True)
        (data / "curated" / part / "Coco164kFull_Stuff_Coarse_7.txt").write_text("\n".join(listed))
    result = judged("coco-stuff-27", data, tmp_path / "cache")
    assert result.counts["classes"] == 27
    assert {"miou", "miou_k81", "miou_k256", "linear_miou"} <= set(result.figures)
