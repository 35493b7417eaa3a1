"""What a scan found, kept for the next one: written as it goes, replaced as a whole at the end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import PIL
import simplejpeg
import xxhash

_LOG = logging.getLogger(__name__)

_EVERY = 64
"""Verdicts between two times that the journal is handed to the system."""


@dataclass(frozen=True)
class Verdict:
    """What one file was, with what tells whether it still is: ``reason`` is empty for a picture."""

    size: int
    mtime_ns: int
    height: int = 0
    width: int = 0
    hash: int = 0
    reason: str = ""
    keep: bool = True
    """Whether it goes into the cache: permissions and links change without a trace in the file."""


def default_cache(root: str | os.PathLike[str]) -> Path:
    """Where the scan of this folder is cached: below ``$XDG_CACHE_HOME`` or ``~/.cache``, never among the data."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = xxhash.xxh64_hexdigest(os.fsencode(os.path.realpath(root)))
    return Path(base) / "cyborgs" / f"scan-{key}.jsonl"


@final
class ScanCache:
    """The verdicts of earlier scans of a folder: one file, and a journal beside it for each scan that is going on.

    A scan that is killed leaves its journal, which the next one reads; its last line may be cut. Several scans at once
    have a journal each. That nothing can be written costs time at the next run, nothing else.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        """``path``: the file; ``max_pixels``: the decoder's limit, since another one changes verdicts."""
        self._path = path
        # What a verdict depends on beside the file.
        self._header = ["cyborgs scan", 2, PIL.__version__, simplejpeg.__version__, max_pixels]
        self._read: list[Path] = []
        self._journal: IO[str] | None = None
        self._noted = 0
        self._broken = False

    def load(self) -> dict[str, Verdict]:
        """What is known; empty where there is nothing, or it is damaged or of other decoders."""
        known = self._rows(self._path, whole=True)
        self._read = sorted(self._path.parent.glob(f"{self._path.name}*.journal"))
        for journal in self._read:
            known |= self._rows(journal, whole=False)
        return known

    def _rows(self, path: Path, whole: bool) -> dict[str, Verdict]:
        found: dict[str, Verdict] = {}
        try:
            with path.open(encoding="ascii") as lines:
                if json.loads(next(lines)) != self._header:
                    return {}
                for row in map(json.loads, lines):
                    found[row[0]] = Verdict(*row[1:])
        except (OSError, ValueError, TypeError, IndexError, StopIteration):
            return {} if whole else found
        return found

    def note(self, name: str, verdict: Verdict) -> None:
        """Keep what was found, in case that the scan does not come to its end."""
        if self._broken:
            return
        try:
            if self._journal is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                handle, path = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name, suffix=".journal")
                self._journal = os.fdopen(handle, "w", encoding="ascii")
                self._read.append(Path(path))
                self._journal.write(json.dumps(self._header) + "\n")
            self._journal.write(_line(name, verdict))
            self._noted += 1
            if self._noted % _EVERY == 0:
                self._journal.flush()
        except OSError as error:
            self._fail(error)

    def close(self, verdicts: Mapping[str, Verdict] | None) -> None:
        """The end of a scan: ``verdicts`` replace what was kept, in one stroke; None: nothing has changed."""
        try:
            if self._journal is not None:
                self._journal.close()
            if verdicts is not None and not self._broken:
                self._replace(verdicts)
        except OSError as error:
            self._fail(error)
        for journal in self._read:
            with contextlib.suppress(OSError):
                journal.unlink()

    def leave(self) -> None:
        """The scan was stopped: what it found stays in its journal."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.close()

    def _replace(self, verdicts: Mapping[str, Verdict]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(json.dumps(self._header) + "\n")
                file.writelines(_line(name, verdict) for name, verdict in verdicts.items())
            Path(aside).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(aside).unlink()
            raise

    def _fail(self, error: OSError) -> None:
        self._broken = True
        _LOG.warning("the scan could not be cached in %s: %s", self._path, error)


def _line(name: str, v: Verdict) -> str:
    row: list[Any] = [name, v.size, v.mtime_ns, v.height, v.width, v.hash, v.reason]
    return json.dumps(row) + "\n"
