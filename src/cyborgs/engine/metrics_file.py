"""metrics.jsonl: a line per logged step, none twice, none missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from cyborgs.errors import UserError
from cyborgs.files import AppendFile, sync_folder


@final
class MetricsFile:
    """An append-only file of JSON lines whose length is part of the checkpoint.

    Args:
        path: the file; it is cut to ``length`` bytes, so that lines after the checkpoint are written once only.
        length: its length at the checkpoint, 0 for a new run.

    Raises:
        UserError: the file is shorter than that: lines were lost.
        DiskError: here and in all methods.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        # Where it is missing as a whole somebody removed it (its name was flushed, see below), and knows.
        size = path.stat().st_size if path.is_file() else None
        if size is not None and size < length:
            raise UserError(
                f"{path}: holds {size} bytes, it had {length} at the checkpoint: lines are lost. "
                "Restore it from a copy, or remove it to go on without the lines until here."
            )
        self._file = AppendFile(path, 0 if size is None else length)
        try:
            sync_folder(path.parent)  # the file's name, without which a power cut would take all lines
        except UserError:
            self._file.close()
            raise

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line; who reads the file meanwhile sees it at once."""
        self._file.write(json.dumps(dict(values)).encode() + b"\n")
        self._file.drain()

    def flush(self) -> int:
        """Bring all lines to the disk; the length of the file."""
        return self._file.sync()

    def close(self) -> None:
        """Close the file. Lines after the last flush may be lost, and are cut off on resuming anyway."""
        self._file.close()
