"""Where published data sets with a class per pixel have their photos, labels and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cyborgs.data.annotations.ade20k import Ade20kTruth
from cyborgs.data.annotations.cityscapes import CityscapesTruth
from cyborgs.data.annotations.cocostuff import CLASSES, COARSE, CocoStuffTruth, Numbering
from cyborgs.data.annotations.voc import VocTruth
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.sets.lists import lines, must_exist
from cyborgs.evaluation.sets.pixel_folder import Annotated, Layout, annotated, folder, folders

CAMVID: Final = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence", "car", "pedestrian", "bicyclist"),
)
_CURATED: Final = "Coco164kFull_Stuff_Coarse_7.txt"


def _below(root: Path, *names: str) -> Path:
    """The folder itself, or the one in it that a download's archive has."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def _need(root: Path, *parts: str) -> None:
    lacking = [part for part in parts if not (root / part).exists()]
    if lacking:
        raise UserError(f"{root}: has no {lacking[0]}. Give the folder that holds {', '.join(parts)}.")


def camvid(root: Path) -> Layout:
    """CamVid as SegNet's authors gave it out: ``train``, ``trainannot``, ``val``, ``valannot`` (else ``test``); 11 is void.

    Its lists are followed, but not where they name ``/SegNet/...``, as in the download: then the folders are taken whole.
    """
    root = _below(root, "CamVid")
    lists = root / "train.txt"
    if lists.is_file() and lines(lists)[0][1].startswith("/SegNet/"):
        part = next((part for part in ("val", "test") if (root / part).is_dir()), "val")
        _need(root, "train", "trainannot", part, f"{part}annot")
        places = [(root / name, root / f"{name}annot") for name in ("train", part)]
        return folders(places, len(CAMVID), len(CAMVID), CAMVID)
    return replace(folder(root, len(CAMVID), len(CAMVID)), names=CAMVID)


def voc_segmentation(root: Path) -> Layout:
    """``ImageSets/Segmentation/{train,val}.txt``, ``JPEGImages``, ``SegmentationClass``: VOCdevkit, or VOC2012 in it."""
    root = _below(root, "VOCdevkit/VOC2012", "VOC2012")
    _need(root, "ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt", "JPEGImages", "SegmentationClass")
    splits = []
    for part in ("train", "val"):
        names = _names(root / f"ImageSets/Segmentation/{part}.txt", root / "JPEGImages")
        splits.append(annotated(root / "JPEGImages", names, VocTruth(root, names, objects=False)))
    return _layout(splits, VocTruth.class_names)


def _layout(splits: Sequence[Annotated], names: tuple[str, ...]) -> Layout:
    return Layout(splits[0], splits[1], len(names), 255, names)


def _names(path: Path, photos: Path, suffix: str = ".jpg") -> list[str]:
    """The photos that a list names without suffix; each must be there."""
    names = [f"{line}{suffix}" for _, line in lines(path)]
    must_exist(path, [photos / name for name in names], "")
    return names


def ade20k(root: Path) -> Layout:
    """``images/{training,validation}`` and ``annotations/``: ADEChallengeData2016."""
    root = _below(root, "ADEChallengeData2016")
    parts = ("training", "validation")
    _need(root, *(f"{kind}/{part}" for kind in ("images", "annotations") for part in parts))
    splits = []
    for part in parts:
        photos, names = root / "images" / part, list_images(root / "images" / part).names
        truth = Ade20kTruth(root, [f"{part}/{name}" for name in names])
        splits.append(annotated(photos, names, truth, root / "annotations" / part))
    return _layout(splits, truth.class_names)


def cityscapes(root: Path) -> Layout:
    """``leftImg8bit/{train,val}`` and ``gtFine/``, of training ids, or of label ids, which become such."""
    _need(root, "leftImg8bit/train", "leftImg8bit/val", "gtFine")
    splits = []
    for part in ("train", "val"):
        names = list_images(root / "leftImg8bit" / part).names
        truth = CityscapesTruth(root, [f"{part}/{name}" for name in names])
        splits.append(annotated(root / "leftImg8bit" / part, names, truth))
    return _layout(splits, truth.class_names)


def coco_stuff_10k(root: Path) -> Layout:
    """``images``, ``annotations`` (.mat or PNG) and ``imageLists/{train,test}.txt``: COCO-Stuff-10k v1.1."""
    _need(root, "images", "annotations", "imageLists/train.txt", "imageLists/test.txt")
    splits = []
    for part in ("train", "test"):
        names = _names(root / f"imageLists/{part}.txt", root / "images")
        splits.append(annotated(root / "images", names, CocoStuffTruth(root, names)))
    return _layout(splits, CLASSES)


def coco_stuff_164k(root: Path) -> Layout:
    """``train2017``, ``val2017`` (or in ``images/``), and ``annotations/`` or ``stuffthingmaps/`` with the same folders."""
    return _stuff(root, "164k", CLASSES)


def coco_stuff_27(root: Path) -> Layout:
    """As 164k, its classes joined to PiCIE's 27; photos of the lists below ``curated/``, else all, which is said."""
    layout = _stuff(root, "27", COARSE)
    lists = [root / "curated" / part / _CURATED for part in ("train2017", "val2017")]
    if all(path.is_file() for path in lists):
        return layout
    note = "not PiCIE's photos: curated/*/Coco164kFull_Stuff_Coarse_7.txt is not there, so all photos are used"
    return replace(layout, notes=(note,))


def _stuff(root: Path, numbering: Numbering, names: tuple[str, ...]) -> Layout:
    photos = _below(root, "images")
    labels = next(
        (
            root / name
            for name in ("annotations", "stuffthingmaps", "annotations/stuffthingmaps", "labels")
            if (root / name / "val2017").is_dir()
        ),
        None,
    )
    _need(photos, "train2017", "val2017")
    if labels is None:
        raise UserError(f"{root}: has no annotations/val2017 and no stuffthingmaps/val2017 with COCO-Stuff's PNGs.")
    splits = []
    for part in ("train2017", "val2017"):
        curated = root / "curated" / part / _CURATED
        if numbering == "27" and curated.is_file():
            listed: Sequence[str] = _names(curated, photos / part)
        else:
            listed = list_images(photos / part).names
        truth = CocoStuffTruth(labels / part, listed, numbering)
        splits.append(annotated(photos / part, listed, truth, labels / part))
    return _layout(splits, names)


LAYOUTS: Final[Mapping[str, Callable[[Path], Layout]]] = {
    "camvid": camvid,
    "voc-segmentation": voc_segmentation,
    "ade20k": ade20k,
    "cityscapes": cityscapes,
    "coco-stuff-10k": coco_stuff_10k,
    "coco-stuff-164k": coco_stuff_164k,
    "coco-stuff-27": coco_stuff_27,
}
"""Published ones: what such a folder says."""
