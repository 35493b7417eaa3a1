"""``--preset small`` of the FCN on real photos in CamVid's layout; in the other published layouts three steps of it.

CamVid's photos and labels stand for the sets that cannot be had here; where CYBORGS_TEST_DATA names the .tar files.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cyborgs.evaluation.protocols.protocol import Context, entry, module, settings_of
from tests.evaluation.protocols.contract import make_backbone

pytestmark = pytest.mark.slow
VOID = 11
COUNTS = {"train": 6, "val": 3}
Pairs = Iterator[tuple[str, str, Path, np.ndarray]]


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder:
        pytest.skip("CYBORGS_TEST_DATA names no folder with camvid.tar")
    root = tmp_path_factory.mktemp("camvid")
    with tarfile.open(f"{folder}/camvid.tar") as tar:
        tar.extractall(root, filter="data")
    return root / "CamVid"


def pairs(camvid: Path) -> Pairs:
    """(part, name, photo, labels uint8 (H, W), void 11) of a few photos of each part."""
    for part, count in COUNTS.items():
        for photo in sorted((camvid / part).glob("*.jpg"))[:: 100 // count][:count]:
            yield part, photo.stem, photo, np.array(Image.open(camvid / f"{part}annot" / f"{photo.stem}.png"))


def put(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def link(photo: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(photo, path)


def lists(path: Path, camvid: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for part in COUNTS:
        names = [name for p, name, _, _ in pairs(camvid) if p == part]
        (path / f"{part}.txt").write_text("\n".join(names) + "\n")


def cityscapes(camvid: Path, out: Path) -> None:
    for part, name, photo, labels in pairs(camvid):
        put(out / f"leftImg8bit/{part}/ulm/{name}_leftImg8bit.png", Image.open(photo))
        known = np.where(labels == VOID, 255, labels).astype(np.uint8)
        put(out / f"gtFine/{part}/ulm/{name}_gtFine_labelTrainIds.png", Image.fromarray(known))


def voc(camvid: Path, out: Path) -> None:
    lists(out / "VOC2012/ImageSets/Segmentation", camvid)
    for _, name, photo, labels in pairs(camvid):
        link(photo, out / f"VOC2012/JPEGImages/{name}.jpg")
        known = np.where(labels == VOID, 255, labels).astype(np.uint8)
        for kind in ("SegmentationClass", "SegmentationObject"):
            put(out / f"VOC2012/{kind}/{name}.png", Image.fromarray(known))


def ade20k(camvid: Path, out: Path) -> None:
    for part, name, photo, labels in pairs(camvid):
        place = {"train": "training", "val": "validation"}[part]
        link(photo, out / f"images/{place}/{name}.jpg")
        put(
            out / f"annotations/{place}/{name}.png",
            Image.fromarray(np.where(labels == VOID, 0, labels + 1).astype(np.uint8)),
        )


def coco_stuff(camvid: Path, out: Path) -> None:
    lists(out / "imageLists", camvid)
    (out / "imageLists/val.txt").rename(out / "imageLists/test.txt")
    (out / "annotations").mkdir()
    for _, name, photo, labels in pairs(camvid):
        link(photo, out / f"images/{name}.jpg")
        savemat(out / f"annotations/{name}.mat", {"S": np.where(labels == VOID, 0, labels + 1).astype(np.uint8)})


def itself(camvid: Path, out: Path) -> None:
    for part, name, photo, labels in pairs(camvid):
        link(photo, out / f"{part}/{name}.jpg")
        put(out / f"{part}annot/{name}.png", Image.fromarray(labels))


@pytest.mark.parametrize(
    ("name", "write", "classes"),
    [
        ("cityscapes", cityscapes, 19),
        ("voc-segmentation", voc, 21),
        ("ade20k", ade20k, 150),
        ("coco-stuff", coco_stuff, 171),
        ("coco-stuff-probe", coco_stuff, 171),
        ("camvid", itself, 11),
    ],
)
def test_every_layout(
    name: str, write: Callable[[Path, Path], None], classes: int, camvid: Path, tmp_path: Path
) -> None:
    write(camvid, tmp_path / "data")
    settings: Any = settings_of(name, "small")
    fcn = settings.fcn if name == "coco-stuff-probe" else settings
    if name != "camvid":
        fcn = replace(fcn, training=replace(fcn.training, iterations=3))
    settings = replace(settings, fcn=fcn) if name == "coco-stuff-probe" else fcn
    opened = module(name).open_data(str(tmp_path / "data"), settings, 0, entry(name).data_set)
    result = module(name).evaluate(make_backbone("resnet18"), opened, settings, Context())
    assert (result.counts["train"], result.counts["test"], result.counts["classes"]) == (6, 3, classes)
    assert len(result.per_class) == classes
    assert 0 < result.figures["pixel_accuracy"] < 1
    total = result.judged.total(np.ones(3, np.int64)).sum()  # type: ignore[attr-defined]
    assert total == sum((labels != VOID).sum() for part, _, _, labels in pairs(camvid) if part == "val")
