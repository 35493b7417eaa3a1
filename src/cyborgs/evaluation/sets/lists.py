"""Text lists of photos, with a class or a label map each: ``train.txt`` and ``val.txt`` or ``test.txt``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cyborgs.errors import UserError


def lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of each line that is neither blank nor begins with #."""
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path}: the list cannot be read ({error.strerror}).") from error
    found = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    kept = [(n, line) for n, line in found if line and not line.startswith("#")]
    if not kept:
        raise UserError(f"{path}: lists no photo.")
    return kept


def listed(path: Path, known: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Photos of a list and their classes; ``known``: the classes of the training list, where this is the other.

    Raises:
        UserError: cannot be read, lists nothing, files are missing, lines of two kinds, a photo without a class.
    """
    found = lines(path)
    folder = path.absolute().parent
    below = sorted(e for e in folder.iterdir() if e.is_dir())
    roots = (folder, folder.parent, *below)
    first, label = _photo_and_label(found[0][1], roots)
    root = next((r for r in roots if (r / first).is_file()), folder)
    pairs = []
    for number, line in found:
        pairs.append(_photo_and_label(line, (root,)))
        if (pairs[-1][1] is None) != (label is None):
            raise UserError(
                f"{path}, line {number}: all lines name a photo alone, or a photo and its label; got {line!r}."
            )
    photos = [root / photo for photo, _ in pairs]
    looked = " (looked beside the list, in the folders there, and in the folder above)"
    must_exist(path, photos, "" if photos[0].is_file() else looked)
    if label is not None:
        return photos, [str(found) for _, found in pairs]
    return photos, _first_folders(path, [photo for photo, _ in pairs], known)


def _photo_and_label(line: str, roots: Sequence[Path]) -> tuple[str, str | None]:
    if "\t" in line:
        photo, _, label = line.rpartition("\t")
        return photo.strip(), label.strip()
    if len(line.split()) == 1 or any((root / line).is_file() for root in roots):
        return line, None
    photo, label = line.rsplit(None, 1)
    return photo, label


def _first_folders(path: Path, names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The first folder of each name that is not the same for all: ``train/cat/1.jpg`` is of class ``cat``."""
    parts = [PurePosixPath(name).parts[:-1] for name in names]
    depth = 0
    while (
        all(len(p) > depth + 1 for p in parts) and len({p[depth] for p in parts}) == 1 and parts[0][depth] not in known
    ):
        depth += 1
    for name, folders in zip(names, parts, strict=True):
        if len(folders) <= depth:
            raise UserError(f"{path}: {name} lies in no class folder, and no label stands behind it.")
    return [p[depth] for p in parts]


def listed_pairs(path: Path) -> tuple[list[Path], list[Path]]:
    """Photos and label maps that a file lists, one "photo label" line each.

    Paths are relative to the list's folder, or else to that folder's parent, decided for the whole list by its first
    photo (CamVid's ``CamVid/train.txt`` says ``CamVid/train/x.jpg``, a demo's ``splits/train.txt`` ``photos/x.jpg``).

    Raises:
        UserError: cannot be read, lists nothing, another line, or a file that is not there: names the first, counts all.
    """
    pairs = []
    for number, line in lines(path):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) != 2:
            raise UserError(
                f"{path}, line {number}: need 'photo label' (divided by a tab where names hold blanks), got {line!r}."
            )
        pairs.append([word.strip() for word in words])
    folder = path.absolute().parent
    root = next((r for r in (folder, folder.parent) if (r / pairs[0][0]).is_file()), folder)
    photos, labels = ([root / pair[k] for pair in pairs] for k in (0, 1))
    missing = [p for p in (*photos, *labels) if not p.is_file()]
    if missing:
        looked = f" (looked in {folder} and {folder.parent})" if missing[0] == photos[0] else ""
        raise UserError(f"{path}: {missing[0]} does not exist{looked}; {len(missing)} files are missing.")
    return photos, labels


def must_exist(path: Path, photos: Sequence[Path], looked: str) -> None:
    """Raises UserError naming the list, the first photo that is not there, and how many are not."""
    missing = [p for p in photos if not p.is_file()]
    if missing:
        raise UserError(
            f"{path}: {missing[0]} does not exist{looked}; {len(missing)} of {len(photos)} photos are missing."
        )


def named(path: Path, photos: Sequence[Path], classes: Sequence[str]) -> list[int]:
    """Numbers, rising, of the photos that a text file names: ``n01440764_10.JPEG`` or ``n01440764/n01440764_10.JPEG``.

    Args:
        path: the file, a name a line.
        photos: what is there.
        classes: class of each.

    Raises:
        UserError: cannot be read; a name that no photo has, or several; one listed twice; one that begins with
            another class than its folder. Names the first, counts all.
    """
    ends: dict[str, list[int]] = defaultdict(list)
    for i, photo in enumerate(photos):
        ends[photo.name].append(i)
    known = set(classes)
    found: list[int] = []
    absent: list[str] = []
    for number, line in lines(path):
        parts = PurePosixPath(line).parts
        fits = [i for i in ends.get(parts[-1], ()) if photos[i].parts[-len(parts) :] == parts]
        if len(fits) > 1:
            raise UserError(
                f"{path}, line {number}: {line} fits {len(fits)} photos, {photos[fits[0]]} and {photos[fits[1]]} among "
                "them. Give names with their folders."
            )
        if not fits:
            absent.append(line)
            continue
        prefix = parts[-1].rpartition("_")[0]
        if prefix in known and prefix != classes[fits[0]]:
            raise UserError(f"{path}, line {number}: {line} says class {prefix}, but lies in {classes[fits[0]]}.")
        found += fits
    if absent:
        raise UserError(
            f"{path}: {absent[0]} is not among the {len(photos)} training photos; {len(absent)} of "
            f"{len(absent) + len(found)} names are not."
        )
    twice = [i for i, n in Counter(found).items() if n > 1]
    if twice:
        raise UserError(f"{path}: {photos[twice[0]]} is listed twice ({len(twice)} such photos).")
    return sorted(found)
