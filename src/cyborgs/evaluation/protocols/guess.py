"""Which protocol fits labels. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cyborgs.errors import UserError

IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def guess_protocol(data: str) -> str:
    """``dense-probe`` where labels are a class per pixel, else ``linear-classification``.

    A class per pixel: a file (of a data set), ``images/`` beside ``labels/``, ``trainannot/``, or a ``train.txt`` whose
    lines hold two names of images.
    """
    path = Path(data)
    if not path.exists():
        raise UserError(f"--data: {data}: no such file or folder.")
    if path.is_file() or (path / "trainannot").is_dir() or ((path / "images").is_dir() and (path / "labels").is_dir()):
        return "dense-probe"
    lists = path / "train.txt"
    if lists.is_file():
        with open(lists, encoding="utf-8", errors="surrogateescape") as file:
            first = next((line for line in file if line.strip() and not line.lstrip().startswith("#")), "")
        words = first.split("\t") if "\t" in first else first.split()
        if len(words) == 2 and all(word.strip().lower().endswith(IMAGES) for word in words):
            return "dense-probe"
    return "linear-classification"
