"""Which protocol fits labels. No torch here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cyborgs.errors import UserError
from cyborgs.evaluation.sets.layout_names import LABELS, published_layout

IMAGES: Final = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


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
