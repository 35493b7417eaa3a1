"""``api.segment`` from a folder of files to what other programs read."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

import cyborgs
from cyborgs.api import segment
from cyborgs.errors import UserError
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.named import open_named
from cyborgs.runs.folder import locked
from tests.segmenting.test_export_coco import check_panoptic

NETWORK = "random:timm:test_resnet"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation does:DeprecationWarning")  # in pycocotools


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Photos of coloured blocks, one of them turned by EXIF alone."""
    folder = tmp_path / "my photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i, name in enumerate(["a.png", "sub/b.jpg", "turned.jpg"]):
        picture = np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        image = Image.fromarray(picture)
        exif = image.getexif()
        if i == 2:
            exif[0x0112] = 6
        image.save(folder / name, **({"exif": exif} if name.endswith("jpg") else {}))
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "segmentation.json").read_text())
    return found


def test_everything_at_once(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "masks"
    options: dict[str, Any] = {"backbone": NETWORK, "clusters": 5, "export": ["coco", "panoptic", "label-studio"]}
    segment(scenes, out=out, min_area=20, **options)
    said = capsys.readouterr().out
    assert "3 photos in 5 clusters, 1 files skipped" in said
    assert "skipped broken.jpg" in said
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        *("centroids.safetensors", "instances.json", "label_studio.json", "label_studio.xml", "labels", "overlays"),
        *("palette.json", "panoptic", "panoptic.json", "segmentation.json", "segments.csv"),
    ]
    facts = about(out)
    assert facts["weights"] == {"name": NETWORK, "hash": None}
    assert (facts["ids"], facts["clusters"], facts["photos"], facts["void"]) == ("dataset", 5, 3, None)
    assert facts["layers"] == [open_named(NETWORK).backbone.default_clustered()]
    assert [name for name, _ in facts["skipped"]] == ["broken.jpg"]

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "instances.json"))
    panoptic = check_panoptic(out / "panoptic.json", out / "panoptic")
    sizes = {"a.png": (96, 64), "sub/b.jpg": (96, 64), "turned.jpg": (64, 96)}
    for source in (coco.dataset["images"], panoptic["images"]):
        assert {image["file_name"]: (image["width"], image["height"]) for image in source} == sizes
        assert {i["file_name"]: i["exif_orientation"] for i in source if "exif_orientation" in i} == {"turned.jpg": 6}
    for image, shown in zip(coco.dataset["images"], panoptic["annotations"], strict=True):
        with Image.open(out / "labels" / shown["file_name"]) as picture:
            assert picture.size == sizes[image["file_name"]]
            labels = np.asarray(picture)
        for ann in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            inside = coco.annToMask(ann).astype(bool)
            assert (labels[inside] == ann["category_id"] - 1).all()
            assert -1 <= ann["score"] <= 1
        counts = np.bincount(labels.ravel(), minlength=5)
        assert {s["category_id"] - 1: s["area"] for s in shown["segments_info"]} == {
            c: n for c, n in enumerate(counts.tolist()) if n
        }
    tasks = json.loads((out / "label_studio.json").read_text())
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=my%20photos/a.png"

    segment(scenes, out=out, min_area=20, **options)
    assert "found, made by an earlier start" in capsys.readouterr().out
    with pytest.raises(UserError, match="min_area: 20 -> 64"):
        segment(scenes, out=out, **options)


def test_weights_of_a_file_decide(scenes: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    weights = Backbone(BackboneConfig(name="timm:test_resnet")).weights()
    torch.save(dict(weights), tmp_path / "w.pth")
    text = f"timm:test_resnet:{tmp_path / 'w.pth'}"
    segment(scenes, out=tmp_path / "a", backbone=text, clusters=3, export=["none"])
    named = open_named(text)
    assert about(tmp_path / "a")["weights"] == {"name": "timm:test_resnet:w.pth", "hash": named.hash}
    assert not (tmp_path / "a/instances.json").exists()
    next(iter(weights.values())).add_(1)
    torch.save(dict(weights), tmp_path / "w.pth")
    with pytest.raises(UserError, match="weights: "):
        segment(scenes, out=tmp_path / "a", backbone=text, clusters=3, export=["none"])


@pytest.mark.parametrize(("source", "labels"), [("grid", 9), ("whole", 1)])
def test_sources_without_a_network(scenes: Path, tmp_path: Path, source: Any, labels: int) -> None:
    out = tmp_path / source
    segment(scenes, out=out, source=source, masks=cyborgs.masks.config.MaskConfig(grid=3), export=["coco", "panoptic"])
    assert (about(out)["source"], about(out)["ids"], about(out)["weights"]) == (source, "dataset", None)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(out / "instances.json"))
    assert len(coco.anns) == 3 * labels
    assert sum(ann["area"] for ann in coco.anns.values()) == 3 * 64 * 96
    check_panoptic(out / "panoptic.json", out / "panoptic")
    header = (out / "segments.csv").read_text().splitlines()[0]
    assert header == ",".join(["photo", "mask", *(f"cluster {c}" for c in range(labels))])


def test_bootstrap_with_a_crf(scenes: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"source": "bootstrap", "backbone": NETWORK, "clusters": 6, "export": ["none"]}
    segment(scenes, out=tmp_path / "plain", **options)
    segment(scenes, out=tmp_path / "crf", crf=True, **options)
    said = [about(tmp_path / folder)["settings"]["masks"]["crf"] for folder in ("plain", "crf")]
    assert said[0] is None
    assert said[1]["iterations"] == 10
    assert (tmp_path / "crf/labels/a.png").is_file()
    with pytest.raises(UserError, match="crf"):
        segment(scenes, out=tmp_path / "crf", **options)


def test_bootstrap_draws_k_or_takes_it(scenes: Path, tmp_path: Path) -> None:
    segment(scenes, out=tmp_path / "drawn", source="bootstrap", backbone=NETWORK)
    assert about(tmp_path / "drawn").items() >= {"ids": "group", "clusters": None}.items()
    segment(scenes, out=tmp_path / "fixed", source="bootstrap", backbone=NETWORK, clusters=(2, 3))
    for k in (2, 3):
        assert about(tmp_path / f"fixed/k{k}")["clusters"] == k
        instances = json.loads((tmp_path / f"fixed/k{k}/instances.json").read_text())
        assert [c["name"] for c in instances["categories"]] == ["region"]
        assert {a["label"] for a in instances["annotations"]} == set(range(k))
        assert all("score" not in a for a in instances["annotations"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--backbone: clusters needs a network: a run's folder"),
        ({"source": "bootstrap"}, "--backbone: bootstrap needs a network"),
        ({"source": "grid", "backbone": NETWORK}, "--backbone: grid needs no network"),
        ({"source": "grid", "clusters": 3}, "clusters: grid has none"),
        ({"source": "whole", "layers": ["layer2"]}, "whole has no network"),
        ({"source": "whole", "short_side": 64}, "whole has no network"),
        ({"source": "bootstrap", "backbone": NETWORK, "resolution": "full"}, "only 'nearest' is possible"),
        ({"source": "grid", "crf": True}, "crf: works on the cosines of clusters"),
        ({"backbone": NETWORK, "crf": True, "resolution": "nearest"}, "crf: works on pixels"),
        ({"backbone": NETWORK, "clusters": 1}, "need 2 to 256 .*, got 1"),
        ({"backbone": NETWORK, "clusters": (8, 300)}, "got 300"),
        ({"backbone": NETWORK, "short_side": 9}, "short_side: need 0"),
        ({"backbone": NETWORK, "min_area": -1}, "min_area: need at least 0 pixels, got -1"),
        ({"backbone": NETWORK, "export": ["none", "coco"]}, "'none' goes alone, got none coco"),
        ({"backbone": NETWORK, "layers": ["layer9"]}, "has no layer 'layer9'"),
        ({"source": "ground-truth"}, "truth: ground-truth needs annotations"),
    ],
)
def test_mistakes(scenes: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        segment(scenes, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_two_at_once_into_one_folder(scenes: Path, tmp_path: Path) -> None:
    with locked(tmp_path, True), pytest.raises(UserError, match="another process is writing to this folder"):
        segment(scenes, out=tmp_path, source="grid")
