"""Large JSON files, written piece by piece and whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cyborgs.files import AppendFile, replacing


def write_object(path: Path, head: Mapping[str, Any], lists: Mapping[str, Iterable[Any]]) -> None:
    """An object of the entries of ``head``, then of ``lists``, whose items are taken one at a time, a line each.

    ASCII alone: names with bytes that are no UTF-8 become lone surrogates, which Python reads back.
    """
    with replacing(path) as file:
        file.write(b"{\n")
        first = True
        for key, value in head.items():
            file.write(b"" if first else b",\n")
            file.write(f"{json.dumps(key)}: {json.dumps(value)}".encode("ascii"))
            first = False
        for key, items in lists.items():
            file.write(b"" if first else b",\n")
            file.write(f"{json.dumps(key)}: ".encode("ascii"))
            _items(file, items)
            first = False
        file.write(b"\n}\n")


def write_list(path: Path, items: Iterable[Any]) -> None:
    """A list whose items are taken one at a time, a line each."""
    with replacing(path) as file:
        _items(file, items)
        file.write(b"\n")


def _items(file: AppendFile, items: Iterable[Any]) -> None:
    file.write(b"[")
    for n, item in enumerate(items):
        file.write(b",\n" if n else b"\n")
        file.write(json.dumps(item).encode("ascii"))
    file.write(b"\n]")
