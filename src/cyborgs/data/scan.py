"""Decode every file of a listing once: which are usable, how large, with which hash; cached for the next run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

import PIL
import simplejpeg
import xxhash

from cyborgs.data.decode import MAX_PIXELS, UnreadableImage, decode
from cyborgs.data.listing import InputError, Listing
from cyborgs.errors import printable

MIN_SIDE = 32
"""One cell at stride 32: a smaller photo has no map."""

MAX_BYTES = 1 << 29
"""Largest file: it is read as a whole, beside what its picture takes."""

_CHUNK = 16
"""Files per task of a thread."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """The verdict on every candidate."""

    root: str
    images: tuple[tuple[str, int, int, int], ...]
    """(name, height, width, xxhash64 of the bytes) of usable photos, in the listing's order."""
    skipped: tuple[tuple[str, str], ...]
    """(name, reason) of the others, what the listing could not follow included."""


@dataclass(frozen=True)
class _Verdict:
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


def scan(
    listing: Listing,
    *,
    cache: Path | None = None,
    use_cache: bool = True,
    min_side: int = MIN_SIDE,
    max_pixels: int = MAX_PIXELS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Decode all files in parallel and judge them.

    Args:
        listing: the candidates.
        cache: file of an earlier scan, read and replaced; None: :func:`default_cache` of the listing's root.
            An entry holds as long as path, size and modification time stay.
        use_cache: False: decode everything, write nothing.
        min_side: photos with a shorter side are skipped.
        max_pixels: limit of the decoder.
        workers: threads (decoders release the interpreter); None: one per usable core.
        progress: called with (files done, files in all), from this thread.

    Raises:
        InputError: no file is usable; the message gives the first reasons.
    """
    total = len(listing.names)
    path = (cache or default_cache(listing.root)) if use_cache else None
    known = _load(path, max_pixels) if path else {}
    images: list[tuple[str, int, int, int]] = []
    skipped = list(listing.skipped)
    fresh: dict[str, _Verdict] = {}
    changed = False
    if progress:
        progress(0, total)
    for done, (name, verdict) in enumerate(_judge_all(listing, known, max_pixels, workers), 1):
        changed |= known.get(name) != verdict
        if verdict.keep:
            fresh[name] = verdict
        if verdict.reason:
            skipped.append((name, verdict.reason))
        elif min(verdict.height, verdict.width) < min_side:
            size = f"{verdict.width} x {verdict.height}"
            skipped.append((name, f"too small: {size} pixels, each side needs at least {min_side}"))
        else:
            images.append((name, verdict.height, verdict.width, verdict.hash))
        if progress:
            progress(done, total)
    if path and (changed or len(fresh) != len(known)):
        _save(path, fresh, max_pixels)
    if not images:
        reasons = "; ".join(str(UnreadableImage(*entry)) for entry in skipped[:3])
        raise InputError(
            f"{printable(listing.root)}: none of {total} files is a usable photo. First reasons: {reasons}"
        )
    return Scan(listing.root, tuple(images), tuple(skipped))


def _judge_all(
    listing: Listing, known: dict[str, _Verdict], max_pixels: int, workers: int | None
) -> Iterator[tuple[str, _Verdict]]:
    """Verdicts in the listing's order, a bounded number of files ahead."""
    threads = workers or len(
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )

    def judge(names: tuple[str, ...]) -> list[tuple[str, _Verdict]]:
        return [(name, _judge(listing.root, name, known.get(name), max_pixels)) for name in names]

    pending: deque[Future[list[tuple[str, _Verdict]]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
    try:
        for start in range(0, len(listing.names), _CHUNK):
            pending.append(pool.submit(judge, listing.names[start : start + _CHUNK]))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:  # also when the caller stops early: Ctrl-C must not wait for what is queued
        pool.shutdown(wait=True, cancel_futures=True)


def _judge(root: str, name: str, known: _Verdict | None, max_pixels: int) -> _Verdict:
    path = Path(root, name)
    try:
        stat = path.stat()
        if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):  # reading a pipe or a device may never end
            return _Verdict(0, 0, reason="no regular file", keep=False)
        if stat.st_size > MAX_BYTES:
            reason = f"too large: {stat.st_size >> 20} MB, more than the limit of {MAX_BYTES >> 20}"
            return _Verdict(stat.st_size, stat.st_mtime_ns, reason=reason)
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a listed name with a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _Verdict(0, 0, reason=f"cannot be opened: {reason}", keep=False)
    size, mtime = stat.st_size, stat.st_mtime_ns
    try:
        height, width, _ = decode(data, name, max_pixels=max_pixels).shape
    except UnreadableImage as error:
        return _Verdict(size, mtime, reason=error.reason)
    return _Verdict(size, mtime, height, width, xxhash.xxh64_intdigest(data))


def _header(max_pixels: int) -> list[Any]:
    """What a cached verdict depends on beside the file."""
    return ["cyborgs scan", 2, PIL.__version__, simplejpeg.__version__, max_pixels]


def _load(path: Path, max_pixels: int) -> dict[str, _Verdict]:
    """An earlier scan; empty if there is none, or it is damaged or of other decoders: a cache may always be lost."""
    try:
        with path.open(encoding="ascii") as lines:
            if json.loads(next(lines)) != _header(max_pixels):
                return {}
            return {row[0]: _Verdict(*row[1:]) for row in map(json.loads, lines)}
    except (OSError, ValueError, TypeError, IndexError, StopIteration):
        return {}


def _save(path: Path, verdicts: dict[str, _Verdict], max_pixels: int) -> None:
    """Replace the cache in one stroke. That it cannot be written costs time at the next run, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(json.dumps(_header(max_pixels)) + "\n")
                for name, v in verdicts.items():
                    file.write(json.dumps([name, v.size, v.mtime_ns, v.height, v.width, v.hash, v.reason]) + "\n")
            Path(aside).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(aside).unlink()
            raise
    except OSError as error:
        _LOG.warning("the scan could not be cached in %s: %s", path, error)
