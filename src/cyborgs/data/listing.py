"""Which files a data set consists of: a folder, recursive, or a text list. No file is opened here."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from cyborgs.errors import UserError, printable

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""What counts as a photo in a folder, in any case."""


class InputError(UserError):
    """What the user gave cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class Listing:
    """Names of candidate files, in the order that gives every image its index."""

    root: str
    """Folder that the names are relative to."""
    names: tuple[str, ...]
    """Paths below the root with ``/``; bytes that are no UTF-8 are surrogates, as ``os.fsdecode`` makes them."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(name, reason) of folders and links that could not be followed."""
    other: int = 0
    """Files in the folder that do not end like a photo."""


def list_images(path: str | os.PathLike[str]) -> Listing:
    """List a folder (recursively, sorted by code points) or the lines of a text file (in its order).

    Links are followed; a folder reached a second time is reported in ``skipped``, not listed twice. In a text list each
    line is a path relative to the list's folder, or absolute; blank lines and lines that begin with # are ignored; a
    file that is missing becomes known in the scan.

    Raises:
        InputError: nothing there, nothing readable, no candidate.
    """
    root = Path(path)
    shown = printable(os.fspath(root))
    try:
        is_folder, exists = root.is_dir(), root.exists()
    except OSError as error:
        raise InputError(f"{shown}: cannot be opened ({error.strerror}). Check its permissions.") from None
    if not exists:
        raise InputError(f"{shown}: no such folder or file. Give a folder of photos or a text list of their paths.")
    return _list_folder(root, shown) if is_folder else _list_lines(root, shown)


def _list_folder(root: Path, shown: str) -> Listing:
    names: list[str] = []
    skipped: list[tuple[str, str]] = []
    other = 0
    seen: dict[tuple[int, int], str] = {}
    folders: deque[str] = deque([""])
    links: list[str] = []
    # Real folders first, then links to folders in sorted order: a photo that both lead to has its real name.
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            folders.append(links.pop())
        folder = folders.popleft()
        full = root / folder
        try:
            stat = full.stat()
            known = seen.setdefault((stat.st_dev, stat.st_ino), folder or ".")
            if known != (folder or "."):
                skipped.append((folder, f"leads to {printable(known)}, which is listed already"))
                continue
            with os.scandir(full) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    photo = entry.name[entry.name.rfind(".") :].lower() in SUFFIXES
                    if entry.is_file(follow_symlinks=False):
                        if photo:
                            names.append(name)
                        else:
                            other += 1
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(name)
                    elif (reason := _follow(entry, photo, name, names, links)) is not None:
                        skipped.append((name, reason))
                    elif not photo and not entry.is_dir():
                        other += 1
        except OSError as error:
            if not folder:
                raise InputError(
                    f"{shown}: cannot be read ({error.strerror}). Check the folder's permissions."
                ) from None
            skipped.append((folder, f"folder cannot be read ({error.strerror})"))
    names.sort()
    skipped.sort()
    if not names:
        also = f", {len(skipped)} that cannot be read: {_first(skipped)}" if skipped else ""
        raise InputError(
            f"{shown}: no photos in this folder ({other} other files{also}). "
            f"Give a folder that holds files ending in {' '.join(sorted(SUFFIXES))}."
        )
    return Listing(os.fspath(root), tuple(names), tuple(skipped), other)


def _first(skipped: list[tuple[str, str]]) -> str:
    return "; ".join(f"{printable(name)}: {reason}" for name, reason in skipped[:3])


def _follow(entry: os.DirEntry[str], photo: bool, name: str, names: list[str], links: list[str]) -> str | None:
    """Sort in a link or a special file; the reason if it leads to nothing that can be read."""
    try:
        entry.stat()  # raises where the link leads nowhere or round in a circle
        if entry.is_dir():
            links.append(name)
        elif entry.is_file():
            if photo:
                names.append(name)
        elif photo:
            return "no regular file"
    except FileNotFoundError:
        return "a link that leads nowhere"
    except OSError as error:
        return f"a link that cannot be followed ({error.strerror})"
    return None


def _list_lines(path: Path, shown: str) -> Listing:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}). Check its permissions.") from None
    if b"\0" in data[:4096]:
        raise InputError(
            f"{shown}: neither a folder nor a text list. Give a folder, or a text file with a path a line."
        )
    lines = (line.rstrip(b"\r") for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    names = tuple(os.fsdecode(line) for line in lines if line.strip() and not line.startswith(b"#"))
    if not names:
        raise InputError(f"{shown}: the list is empty. Write one path a line, relative to the list's folder.")
    return Listing(os.fspath(path.parent), names)
