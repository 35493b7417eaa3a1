"""Durable bytes: the one place where the files of a run are written, renamed and removed.

A file is complete or absent: written aside, flushed to the disk, renamed, and its folder flushed. Every operation is
one call of ``os`` (``pathlib``'s are), so that tests can let the k-th fail, die there, or replay all of them with what was not flushed
lost (``tests/faults.py``); Python's buffered files would do it behind their back. What the system refuses becomes a
:class:`~cyborgs.errors.DiskError`, whose message a user can act on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from cyborgs.errors import DiskError
from cyborgs.machine.disk_errors import disk_error

_BUFFER: Final = 1 << 20


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


@final
class AppendFile:
    """A file that is only appended to, with a buffer of its own.

    After a failure nothing more is written: what the file holds is not known any more (the system forgets what a
    failed fsync could not write, and the next one would succeed). Open it again at a length that was synced.

    As a context manager it syncs at the end, unless the body raised, and closes.

    Args:
        path: made where it is missing; never written through a symbolic link.
        length: what is kept of a file that is there; it must not be shorter.

    Raises:
        DiskError: in all methods.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        self.size = length
        """Bytes, those in the buffer included."""
        self._buffer = bytearray()
        self._failure: DiskError | None = None
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
            if os.fstat(self._descriptor).st_size != length:
                os.ftruncate(self._descriptor, length)
        except OSError as error:
            failure = self._failed(error)
            self.close()
            raise failure from error

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes; they reach the system when the buffer is full, or with :meth:`drain`."""
        self._open()
        self.size += len(data)
        if len(self._buffer) + len(data) < _BUFFER:
            self._buffer += data
        else:
            self.drain()
            self._put(memoryview(data))

    def drain(self) -> None:
        """Hand the buffer to the system: other processes see it, and a kill does not lose it; a power cut may."""
        self._open()
        full, self._buffer = self._buffer, bytearray()
        self._put(memoryview(full))

    def sync(self) -> int:
        """Bring all to the disk; the length of the file."""
        self.drain()
        descriptor = self._open()
        try:
            os.fsync(descriptor)
            if not self.path.exists():  # writing to a file that somebody removed or moved succeeds for ever
                raise FileNotFoundError(errno.ENOENT, "gone while it was written")
        except OSError as error:
            raise self._failed(error) from error
        return self.size

    def close(self) -> None:
        """Close the file. What was not synced may be lost. A second call does nothing."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        try:
            os.close(descriptor)
        except OSError as error:
            if self._failure is None:  # otherwise the cause was told already
                raise self._failed(error) from error

    def _open(self) -> int:
        if self._failure is not None:
            raise self._failure
        if self._descriptor is None:
            raise ValueError(f"{self.path}: is closed")
        return self._descriptor

    def _put(self, data: memoryview) -> None:
        descriptor = self._open()
        try:
            while data:
                data = data[os.write(descriptor, data) :]  # a disk that fills up takes a part first
        except OSError as error:
            raise self._failed(error, len(data)) from error

    def _failed(self, error: OSError, needed: int | None = None) -> DiskError:
        self._failure = disk_error(error, self.path, needed)
        return self._failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self.sync()
        finally:
            self.close()


@contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[AppendFile]:
    """A file for the body to write, that takes the place of ``path`` in one piece at its end.

    Where anything fails the old file stays and nothing is left aside. ``needed``: how many bytes it will be, where
    that is known, for the message of the DiskError.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with cleared(temporary, path, needed):
        with AppendFile(temporary) as file:
            yield file
        rename(temporary, path)
    sync_folder(path.parent)


@contextmanager
def cleared(aside: Path, path: Path, needed: int | None = None) -> Iterator[None]:
    """For a body that writes ``path`` by way of ``aside``: where it fails, aside goes, and the error names path."""
    try:
        yield
    except BaseException as error:
        try_remove(aside)
        if isinstance(error, DiskError) and isinstance(error.__cause__, OSError):
            # Asked again, the disk has what aside took: that is what the user has to compare with.
            raise disk_error(error.__cause__, path, needed) from error.__cause__
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one piece: a reader sees the old file or the new one, also after a power cut."""
    with replacing(path, len(data)) as file:
        file.write(data)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name; durable after ``sync_folder`` of its folder."""
    with _reported(target):
        source.replace(target)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename survives a power cut."""
    with _reported(folder):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        except OSError as error:
            # Some network and user-space file systems cannot flush a folder; they have no better to offer.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(handle)


def make_folder(folder: Path, parents: bool = False) -> None:
    """Make a folder, durably, where it is missing.

    Those above it only if asked: a run whose folder vanished must not go on in half a folder.
    """
    if folder.is_dir():
        return
    if parents:
        make_folder(folder.parent, parents)
    with _reported(folder):
        folder.mkdir(exist_ok=True)  # another process may have been quicker
    sync_folder(folder.parent)


def unlink(path: Path) -> None:
    """Remove a file; durable after ``sync_folder`` of its folder."""
    with _reported(path):
        path.unlink()


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of names; nothing where there is none."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise disk_error(error, folder, action="read") from error


def remove_tree(path: Path) -> None:
    """Remove a file, or a folder and all in it, if it is there; a link is removed, not followed."""
    with _reported(path):
        _remove(path)


def _remove(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        path.unlink()
        return
    for entry in sorted(path.iterdir()):
        _remove(entry)
    path.rmdir()


def discard(path: Path, doomed: Path) -> None:
    """Remove a folder that readers know: first renamed to ``doomed`` as a whole, so that nobody finds half of it."""
    remove_tree(doomed)
    rename(path, doomed)
    sync_folder(path.parent)
    remove_tree(doomed)


def try_remove(path: Path) -> None:
    """Remove what can be removed: for cleaning up after a failure, which is the one to be told."""
    with contextlib.suppress(OSError):
        _remove(path)
