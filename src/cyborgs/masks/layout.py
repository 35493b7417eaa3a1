"""Names and small files of a ``masks/`` folder, and the bytes of one map. The rules are in ``masks/store.py``."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from cyborgs.data.store import StoreError
from cyborgs.files import write_bytes

_SIZE: Final = struct.Struct("<HH")
_NAME: Final = re.compile(r"generation-(\d{4,})")
_LEFTOVER: Final = re.compile(r"generation-\d{4,}\.(partial|removed)")


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


def complete(folder: Path, current: int) -> list[int]:
    """Numbers of the generations up to the current one that are on the disk, in rising order."""
    found = (_NAME.fullmatch(entry.name) for entry in folder.iterdir())
    return sorted(number for match in found if match and (number := int(match[1])) <= current)


def remove_leftovers(folder: Path, current: int | None) -> None:
    """Remove what no reader looks at: partial folders, and generations beyond the current one."""
    for entry in folder.iterdir():
        match = _NAME.fullmatch(entry.name)
        beyond = match is not None and (current is None or int(match[1]) > current)
        if beyond or _LEFTOVER.fullmatch(entry.name):
            shutil.rmtree(entry)


def switch(folder: Path, generation: int) -> None:
    """Make a generation the current one, in one piece."""
    write_bytes(folder / "current.json", as_json({"generation": generation}))


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


def as_json(value: Mapping[str, Any]) -> bytes:
    """Bytes that are equal for equal content."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; StoreError where it is missing or damaged."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise StoreError(path, f"is damaged: no JSON ({error})") from error
    if not isinstance(value, dict):
        raise StoreError(path, "is damaged: no JSON object")
    return value


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
