"""From ``KIND:PATH`` to annotations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from cyborgs.data.annotations.ade20k import Ade20kTruth
from cyborgs.data.annotations.bsds import BsdsTruth
from cyborgs.data.annotations.cityscapes import CityscapesTruth
from cyborgs.data.annotations.coco import open_coco
from cyborgs.data.annotations.cocostuff import CocoStuffTruth
from cyborgs.data.annotations.folder import FolderTruth
from cyborgs.data.annotations.matching import files_below
from cyborgs.data.annotations.truth import Truth
from cyborgs.data.annotations.voc import VocTruth
from cyborgs.errors import UserError, printable

KINDS: Final[Mapping[str, Callable[[Path, Sequence[str]], Truth]]] = {
    "coco": open_coco,
    "voc": VocTruth,
    "cityscapes": CityscapesTruth,
    "ade20k": Ade20kTruth,
    "bsds": BsdsTruth,
    "coco-stuff-10k": partial(CocoStuffTruth, numbering="10k"),
    "coco-stuff-164k": partial(CocoStuffTruth, numbering="164k"),
    "coco-stuff-27": partial(CocoStuffTruth, numbering="27"),
}
"""All but ``folder``, which has a setting."""


def split_spec(spec: str) -> tuple[str | None, Path]:
    """``coco:a.json`` -> (``coco``, ``a.json``); (None, path) where no kind stands before it.

    Raises:
        UserError: an unknown kind; lists those that exist.
    """
    kind, colon, rest = spec.partition(":")
    if not colon or "/" in kind or "\\" in kind or (len(kind) == 1 and kind.isalpha()):  # C:\... is a path
        return None, Path(spec)
    if kind not in KINDS and kind != "folder":
        if Path(spec).exists():
            return None, Path(spec)
        known = ", ".join((*KINDS, "folder"))
        raise UserError(f"{spec}: no kind of annotations is named {kind!r}. There are: {known}.")
    return kind, Path(rest)


def open_truth(spec: str, names: Sequence[str], root: str | Path | None = None, *, void: int | None = 255) -> Truth:
    """The annotations of some photos.

    Args:
        spec: ``coco:FILE.json``, ``voc:DIR``, ``cityscapes:DIR``, ``ade20k:DIR``, ``bsds:DIR``, ``folder:DIR``,
            ``coco-stuff-10k:DIR`` (also 164k, 27), or a path alone: a JSON file is COCO's, a folder with .mat files
            BSDS's, one with SegmentationClass VOC's, one with gtFine Cityscapes', any other a folder of PNGs.
        names: relative names of the photos, in their order.
        root: where a relative path begins; None: the working directory.
        void: of ``folder``: number of pixels that count nowhere.

    Raises:
        UserError: not there, damaged, or none of the photos has any; says what to do.
    """
    kind, path = split_spec(spec)
    path = Path(root or ".") / path
    if kind is None:
        kind = guess(path)
    truth: Truth = FolderTruth(path, names, void=void) if kind == "folder" else KINDS[kind](path, names)
    if len(names) and len(truth.missing) == len(names):
        raise UserError(
            f"{printable(str(path))}: has nothing of any of the {len(names)} photos (the first is "
            f"{printable(names[0])}). Names must agree but for suffix and folder."
        )
    return truth


def guess(path: Path) -> str:
    """The kind of a path; UserError where there is nothing."""
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise UserError(f"{printable(str(path))}: is neither a folder nor a .json file of annotations.")
        return "coco"
    if (path / "SegmentationClass").is_dir():
        return "voc"
    if (path / "gtFine").is_dir():
        return "cityscapes"
    if path.is_dir():
        try:
            files_below(path, ".mat")
        except UserError:
            return "folder"
        return "bsds"
    raise UserError(f"{printable(str(path))}: no such file or folder of annotations.")
