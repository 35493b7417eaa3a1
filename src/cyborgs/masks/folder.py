"""Names and small files of a ``masks/`` folder, and the bytes of one map. The rules are in ``masks/store.py``."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from cyborgs.data.store_format import StoreError
from cyborgs.files import listed, remove_tree, write_bytes
from cyborgs.machine.disk_errors import why
from cyborgs.sealed import sealed, unsealed

_SIZE: Final = struct.Struct("<HH")
_NAME: Final = re.compile(r"generation-(\d{4,})")
_LEFTOVER: Final = re.compile(r"generation-\d{4,}\.(partial|removed)|\.current\.json\.tmp")


def masks_folder(path: str | Path) -> Path:
    """The ``masks/`` folder that ``path`` means: a run's folder, or the masks folder itself."""
    path = Path(path)
    if (path / "current.json").exists():
        return path
    if path.name == "masks" and not (path / "masks").is_dir():
        return path
    return path / "masks"


def folder_of(folder: Path, generation: int, suffix: str = "") -> Path:
    """The folder of a generation; ``suffix`` marks one that is not complete."""
    return folder / f"generation-{generation:04d}{suffix}"


def complete(folder: Path, below: int | None) -> list[int]:
    """Numbers of the generations before ``below`` (None: all) that are on the disk, in rising order."""
    found = (_NAME.fullmatch(entry.name) for entry in listed(folder))
    numbers = sorted(int(match[1]) for match in found if match)
    return numbers if below is None else [number for number in numbers if number < below]


def remove_leftovers(folder: Path, current: int | None) -> None:
    """Remove what no reader looks at: partial folders, and generations beyond the current one."""
    for entry in listed(folder):
        match = _NAME.fullmatch(entry.name)
        beyond = match is not None and (current is None or int(match[1]) > current)
        if beyond or _LEFTOVER.fullmatch(entry.name):
            remove_tree(entry)


def switch(folder: Path, generation: int) -> None:
    """Make a generation the current one, in one piece."""
    write_bytes(folder / "current.json", sealed({"generation": generation}))


def current_of(folder: Path) -> int | None:
    """The number in ``current.json``; None where there is no such file."""
    try:
        number = read_json(folder / "current.json").get("generation")
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    if not isinstance(number, int) or number < 0:
        raise StoreError(folder / "current.json", f"names no generation: {number!r}")
    return number


def read_json(path: Path) -> dict[str, Any]:
    """The sealed object in a JSON file; StoreError where it is missing or damaged."""
    try:
        return unsealed(path.read_bytes())
    except OSError as error:
        raise StoreError(path, f"cannot be read ({why(error)})") from error
    except ValueError as error:
        raise StoreError(path, f"is damaged: {error}") from error


def pack(labels: np.ndarray) -> bytes:
    """The record of a map, uint8 (h, w): both sizes, then the labels in rows."""
    height, width = labels.shape
    if max(height, width) > 0xFFFF:
        raise ValueError(f"a map has at most 65,535 cells a side, got {height} x {width}")
    return _SIZE.pack(height, width) + np.ascontiguousarray(labels).tobytes()


def unpack(path: Path, index: int, record: bytes) -> np.ndarray:
    """uint8 (h, w) from its record; ``path`` and ``index`` are for the message of the StoreError."""
    height, width = _SIZE.unpack_from(record) if len(record) >= _SIZE.size else (0, 0)
    if not height or len(record) != _SIZE.size + height * width:
        raise StoreError(path, f"the record of image {index} is no label map")
    # A copy, because torch warns of arrays that cannot be written to.
    return np.frombuffer(record, np.uint8, offset=_SIZE.size).reshape(height, width).copy()
