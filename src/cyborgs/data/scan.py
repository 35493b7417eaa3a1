"""Decode every file of a listing once: which are usable, how large, with which hash; cached for the next run."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

import xxhash

from cyborgs.data.decode import MAX_PIXELS, UnreadableImage, decode
from cyborgs.data.listing import InputError, Listing
from cyborgs.data.scan_cache import ScanCache, Verdict, default_cache
from cyborgs.errors import printable
from cyborgs.machine.cores import usable_cores

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
        cache: file of an earlier scan, read and replaced; what is found is noted beside it as it goes, so that a scan
            that was stopped goes on. None: :func:`default_cache` of the listing's root.
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
    kept = ScanCache(path, max_pixels) if path else None
    known = kept.load() if kept else {}
    images: list[tuple[str, int, int, int]] = []
    skipped = list(listing.skipped)
    fresh: dict[str, Verdict] = {}
    changed = False
    try:
        if progress:
            progress(0, total)
        for done, (name, verdict) in enumerate(_judge_all(listing, known, max_pixels, workers), 1):
            new = known.get(name) != verdict
            changed |= new
            if verdict.keep:
                fresh[name] = verdict
                if kept and new:
                    kept.note(name, verdict)
            if verdict.reason:
                skipped.append((name, verdict.reason))
            elif min(verdict.height, verdict.width) < min_side:
                size = f"{verdict.width} x {verdict.height}"
                skipped.append((name, f"too small: {size} pixels, each side needs at least {min_side}"))
            else:
                images.append((name, verdict.height, verdict.width, verdict.hash))
            if progress:
                progress(done, total)
    except BaseException:
        if kept:
            kept.leave()
        raise
    if kept:
        kept.close(fresh if changed or len(fresh) != len(known) else None)
    if not images:
        reasons = "; ".join(str(UnreadableImage(*entry)) for entry in skipped[:3])
        raise InputError(
            f"{printable(listing.root)}: none of {total} files is a usable photo. First reasons: {reasons}"
        )
    return Scan(listing.root, tuple(images), tuple(skipped))


def _judge_all(
    listing: Listing, known: dict[str, Verdict], max_pixels: int, workers: int | None
) -> Iterator[tuple[str, Verdict]]:
    """Verdicts in the listing's order, a bounded number of files ahead."""
    threads = workers or usable_cores()

    def judge(names: tuple[str, ...]) -> list[tuple[str, Verdict]]:
        return [(name, _judge(listing.root, name, known.get(name), max_pixels)) for name in names]

    pending: deque[Future[list[tuple[str, Verdict]]]] = deque()
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


def _judge(root: str, name: str, known: Verdict | None, max_pixels: int) -> Verdict:
    path = Path(root, name)
    try:
        stat = path.stat()
        if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):  # reading a pipe or a device may never end
            return Verdict(0, 0, reason="no regular file", keep=False)
        if stat.st_size > MAX_BYTES:
            reason = f"too large: {stat.st_size >> 20} MB, more than the limit of {MAX_BYTES >> 20}"
            return Verdict(stat.st_size, stat.st_mtime_ns, reason=reason)
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a listed name with a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Verdict(0, 0, reason=f"cannot be opened: {reason}", keep=False)
    size, mtime = stat.st_size, stat.st_mtime_ns
    try:
        height, width, _ = decode(data, name, max_pixels=max_pixels).shape
    except UnreadableImage as error:
        return Verdict(size, mtime, reason=error.reason)
    return Verdict(size, mtime, height, width, xxhash.xxh64_intdigest(data))
