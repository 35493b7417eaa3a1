"""``--preset small`` of the FCN and of its probe on real photos in each published layout, where CYBORGS_TEST_DATA names the
.tar files. CamVid's photos and labels stand for the sets that cannot be had here.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.protocols.protocol import entry, module, settings_of
from tests.evaluation.protocols.contract import make_backbone

pytestmark = pytest.mark.slow
VOID = 11
SPARE = 2
"""Photos more than the preset draws."""
Pair = tuple[str, str, Path, np.ndarray]
"""Part, name, photo, labels uint8 (H, W) with void 11."""


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder:
        pytest.skip("CYBORGS_TEST_DATA names no folder with camvid.tar")
    root = tmp_path_factory.mktemp("camvid")
    with tarfile.open(f"{folder}/camvid.tar") as tar:
        tar.extractall(root, filter="data")
    return root / "CamVid"


def pairs(camvid: Path, counts: dict[str, int]) -> list[Pair]:
    """So many photos of each part, spread over it, and their labels."""
    found = []
    for part, count in counts.items():
        photos = sorted((camvid / part).glob("*.jpg"))
        for photo in photos[:: len(photos) // count][:count]:
            labels = np.array(Image.open(camvid / f"{part}annot" / f"{photo.stem}.png"))
            found.append((part, photo.stem, photo, labels))
    return found


def put(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def link(photo: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(photo, path)


def lists(path: Path, chosen: list[Pair]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val"):
        (path / f"{part}.txt").write_text("\n".join(name for p, name, _, _ in chosen if p == part) + "\n")


def void_is(number: int, labels: np.ndarray, first: int = 0) -> np.ndarray:
    """The labels with classes from ``first`` on."""
    return np.where(labels == VOID, number, labels + first).astype(np.uint8)


def cityscapes(chosen: list[Pair], out: Path) -> None:
    for part, name, photo, labels in chosen:
        put(out / f"leftImg8bit/{part}/ulm/{name}_leftImg8bit.png", Image.open(photo))
        put(out / f"gtFine/{part}/ulm/{name}_gtFine_labelTrainIds.png", Image.fromarray(void_is(255, labels)))


def voc(chosen: list[Pair], out: Path) -> None:
    lists(out / "VOC2012/ImageSets/Segmentation", chosen)
    for _, name, photo, labels in chosen:
        link(photo, out / f"VOC2012/JPEGImages/{name}.jpg")
        for kind in ("SegmentationClass", "SegmentationObject"):
            put(out / f"VOC2012/{kind}/{name}.png", Image.fromarray(void_is(255, labels)))


def ade20k(chosen: list[Pair], out: Path) -> None:
    for part, name, photo, labels in chosen:
        place = {"train": "training", "val": "validation"}[part]
        link(photo, out / f"images/{place}/{name}.jpg")
        put(out / f"annotations/{place}/{name}.png", Image.fromarray(void_is(0, labels, 1)))


def coco_stuff(chosen: list[Pair], out: Path) -> None:
    lists(out / "imageLists", chosen)
    (out / "imageLists/val.txt").rename(out / "imageLists/test.txt")
    (out / "annotations").mkdir()
    for _, name, photo, labels in chosen:
        link(photo, out / f"images/{name}.jpg")
        savemat(out / f"annotations/{name}.mat", {"S": void_is(0, labels, 1)})


def itself(chosen: list[Pair], out: Path) -> None:
    for part, name, photo, labels in chosen:
        link(photo, out / f"{part}/{name}.jpg")
        put(out / f"{part}annot/{name}.png", Image.fromarray(labels))


def folder(chosen: list[Pair], out: Path) -> None:
    for part, name, photo, labels in chosen:
        link(photo, out / f"images/{part}/{name}.jpg")
        put(out / f"labels/{part}/{name}.png", Image.fromarray(void_is(255, labels)))


@pytest.mark.parametrize(
    ("name", "write", "classes"),
    [
        ("cityscapes", cityscapes, 19),
        ("voc-segmentation", voc, 21),
        ("ade20k", ade20k, 150),
        ("coco-stuff", coco_stuff, 171),
        ("coco-stuff-probe", coco_stuff, 171),
        ("camvid", itself, 11),
        ("folder-segmentation", folder, 11),
    ],
)
def test_every_layout(
    name: str, write: Callable[[list[Pair], Path], None], classes: int, camvid: Path, tmp_path: Path
) -> None:
    settings: Any = settings_of(name, "small")
    chosen = pairs(camvid, {"train": settings.images + SPARE, "val": settings.test_images + SPARE})
    write(chosen, tmp_path / "data")
    opened: Any = module(name).open_data(str(tmp_path / "data"), settings, 0, entry(name).data_set)
    result = module(name).evaluate(make_backbone("resnet18"), opened, settings, Context())
    counts = result.counts
    assert (counts["train"], counts["test"], counts["classes"]) == (settings.images, settings.test_images, classes)
    assert len(result.per_class) == classes
    drawn = {Path(opened.test.name(i)).stem.removesuffix("_leftImg8bit") for i in range(len(opened.test))}
    pixels = sum(
        np.bincount(labels.ravel(), minlength=VOID + 1)[:VOID] for _, name, _, labels in chosen if name in drawn
    )
    total = result.judged.total(np.ones(settings.test_images, np.int64))  # type: ignore[attr-defined]
    assert total.sum(0)[:VOID].tolist() == pixels.tolist()
    assert total.sum() == pixels.sum()
    # It has learned something: it beats the commonest class everywhere.
    assert result.figures["pixel_accuracy"] > pixels.max() / pixels.sum()
    assert result.figures["miou"] > 1.5 * pixels.max() / pixels.sum() / np.count_nonzero(pixels)
