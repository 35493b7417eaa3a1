"""Which annotation belongs to which photo: by relative path, else by a base name that is nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeVar

from cyborgs.errors import UserError, printable

T = TypeVar("T")


def without_suffix(name: str) -> str:
    """``a/b.jpg`` -> ``a/b``."""
    return str(PurePosixPath(name).with_suffix("")) if PurePosixPath(name).name else name


def match(names: Sequence[str], found: Mapping[str, T], where: str) -> list[T | None]:
    """For each photo what ``found`` has of it, None where it has nothing.

    Args:
        names: relative names of the photos, as in ``images.csv``.
        found: annotations by their relative name without suffix.
        where: what messages call the annotations.

    Raises:
        UserError: an annotation fits two photos, or a photo two annotations; names them.
    """
    taken: dict[str, str] = {}

    def take(key: str, name: str) -> T:
        if taken.setdefault(key, name) != name:
            raise UserError(
                f"{where}: {key} fits two photos, {taken[key]} and {name}. Give annotations in the photos' folders, "
                "and no two photos there whose names differ in the suffix alone."
            )
        return found[key]

    # First those that have the photo's whole name: they are nobody else's, so x is not taken for sub/x.
    whole = {name: name if name in found else without_suffix(name) for name in names}  # a.jpg.png before a.png
    matched = {name: take(key, name) for name, key in whole.items() if key in found}
    bases: dict[str, list[str]] = {}
    for key in found:
        if key not in taken:
            bases.setdefault(PurePosixPath(key).name, []).append(key)
    for name, key in whole.items():
        candidates = bases.get(PurePosixPath(key).name, []) if name not in matched else []
        if len(candidates) > 1:
            raise UserError(
                f"{where}: {candidates[0]} and {candidates[1]} both have the name of the photo {name}, and neither "
                "its folder. Give annotations in the photos' folders, or a list of fewer photos."
            )
        if candidates:
            matched[name] = take(candidates[0], name)
    return [matched.get(name) for name in names]


def walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders from ``root`` down, each with its files in order; links to folders are followed, as photos' are, each once."""
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a second way there, or links in a circle
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders.sort()
        yield folder, sorted(files)


def files_below(root: Path, suffix: str, ending: str = "") -> dict[str, Path]:
    """All files below ``root`` whose name ends on ``ending + suffix``, by relative name without both.

    Raises:
        UserError: no folder there, no such file in it, or two that differ in the case of their suffix alone.
    """
    if not root.is_dir():
        raise UserError(f"{printable(str(root))}: no such folder of annotations.")
    found: dict[str, Path] = {}
    tail = ending + suffix
    for folder, files in walk(root):
        for file in files:
            if file.lower().endswith(tail.lower()) and not file.startswith("."):
                path = Path(folder, file)
                relative = path.relative_to(root).as_posix()
                key = relative[: len(relative) - len(tail)]
                if key in found:
                    raise UserError(f"{printable(str(found[key]))} and {printable(file)} are of the same photo.")
                found[key] = path
    if not found:
        raise UserError(f"{printable(str(root))}: holds no file *{tail}.")
    return found


def found_below(root: Path, suffix: str, names: Sequence[str]) -> list[Path | None]:
    """For each photo its file below ``root``: ``match`` in ``files_below``, whose errors it raises."""
    return match(names, files_below(root, suffix), printable(str(root)))


def required(item: T | None, name: str, where: str) -> T:
    """The item, or a UserError where the photo has none."""
    if item is None:
        raise UserError(f"{where}: has nothing of the photo {name}.")
    return item


def none_of(matched: Iterable[object | None]) -> tuple[int, ...]:
    """Numbers of the photos without annotation."""
    return tuple(i for i, item in enumerate(matched) if item is None)
