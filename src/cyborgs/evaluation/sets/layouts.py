"""Which layout labelled photos have, and which protocol fits it. No torch here, nor what else takes long to load."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cyborgs.errors import UserError

TESTS: Final = ("val", "test")
"""Names of the test split, in the order in which they are looked for."""
LABELS: Final = ("labels", "annotations", "masks")
"""Folders of label PNGs beside ``images``, in the order in which they are looked for."""
IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_NO_CLASSES: Final = frozenset(
    {
        *("images", *LABELS, "trainannot", "valannot", "testannot"),
        *("leftimg8bit", "gtfine", "gtcoarse"),
        *("jpegimages", "segmentationclass", "segmentationobject", "imagesets", "voc2007", "voc2012"),
        *("train2017", "val2017", "stuffthingmaps", "imagelists"),
    }
)


def parts_of_layouts(folders: Iterable[str]) -> list[str]:
    """Those of the names that are parts of a layout, not classes: where two or more are; one alone may be a class."""
    found = [name for name in folders if name.lower() in _NO_CLASSES]
    return found if len(found) > 1 else []


def published_layout(root: Path) -> tuple[str, tuple[str, ...]] | None:
    """(name, protocols that read it) of the published layout of a folder, None where it has none of them."""

    def has(*parts: str) -> bool:
        return all((root / part).exists() for part in parts)

    if has("leftImg8bit", "gtFine"):
        return "Cityscapes", ("cityscapes",)
    if has("ADEChallengeData2016") or has("images/training", "annotations/training"):
        return "ADE20K", ("ade20k",)
    if has("images", "annotations", "imageLists"):
        return "COCO-Stuff-10k", ("coco-stuff", "coco-stuff-probe")
    if any(has(f"{photos}val2017") for photos in ("", "images/")) and any(
        has(f"{maps}/val2017") for maps in ("annotations", "stuffthingmaps", "annotations/stuffthingmaps", "labels")
    ):
        return "COCO-Stuff-164k", ("coco-stuff-27",)
    voc: tuple[str, ...] = ()
    if any(has(f"{above}ImageSets/Main") for above in ("", "VOC2007/", "VOCdevkit/VOC2007/")):
        voc += ("voc07", "voc07-knn")
    if any(has(f"{above}SegmentationClass") for above in ("", "VOC2012/", "VOCdevkit/VOC2012/")):
        voc += ("voc-segmentation",)
    return ("VOC", voc) if voc else None


def guess_protocol(data: str) -> str:
    """``dense-probe`` where labels are a class per pixel, else ``linear-classification``.

    A class per pixel: a file (of a data set), ``images/`` beside ``labels/``, ``annotations/`` or ``masks/``,
    ``trainannot/``, or a ``train.txt`` whose lines hold two names of images.

    Raises:
        UserError: nothing there, or the layout of a published set, which its own protocols read; names them.
    """
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data: {data}: no such file or folder.")
    if path.is_file():
        return "dense-probe"
    published = published_layout(path)
    if published is not None:
        layout, protocols = published
        raise UserError(f"--data: {data}: has the layout of {layout}. Say --protocol {' or '.join(protocols)}.")
    beside = (path / "images").is_dir() and any((path / name).is_dir() for name in LABELS)
    if beside or (path / "trainannot").is_dir():
        return "dense-probe"
    lists = path / "train.txt"
    if lists.is_file():
        with open(lists, encoding="utf-8", errors="surrogateescape") as file:
            first = next((line for line in file if line.strip() and not line.lstrip().startswith("#")), "")
        words = first.split("\t") if "\t" in first else first.split()
        if len(words) == 2 and all(word.strip().lower().endswith(IMAGES) for word in words):
            return "dense-probe"
    return "linear-classification"
