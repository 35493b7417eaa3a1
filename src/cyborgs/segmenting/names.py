"""Names of masks: a PNG a photo, whatever the photos are called."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath


def mask_names(names: Sequence[str]) -> list[str]:
    """A PNG path below the output folder for each photo: its own relative path, with the suffix .png.

    Parts that would lead out of the folder are dropped. Photos that differ in suffix alone, or in nothing that is
    left, keep their suffix (``a.jpg.png``) or get a number, so that no two photos share a mask, and no mask has the
    name of a folder, whatever the file system thinks of upper and lower case and of the ways to write an accent.
    The same holds for the overlays, whose suffix is .jpg.
    """
    cleaned = []
    for name in names:
        path = PurePosixPath(name)
        parts = [p for p in path.parts if p not in (path.anchor, "..")]  # the anchor may be two slashes
        cleaned.append(PurePosixPath(*parts) if parts else PurePosixPath("photo"))
    folders = {_same(str(folder)) for path in cleaned for folder in path.parents}
    plain = [str(p.with_suffix(".png")) for p in cleaned]
    often = Counter(_same(text) for text in plain)
    used: set[str] = set()

    def taken(candidate: str) -> bool:
        overlay_of = candidate.removesuffix(".png") + ".jpg"
        return _same(candidate) in used or bool({_same(candidate), _same(overlay_of)} & folders)

    out = []
    for path, text in zip(cleaned, plain, strict=True):
        candidate = text if often[_same(text)] == 1 else f"{path}.png"
        number = 1
        while taken(candidate):
            number += 1
            candidate = f"{path}.{number}.png"
        used.add(_same(candidate))
        out.append(candidate)
    return out


def _same(path: str) -> str:
    """Equal for paths that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
