"""A disk that fails, a process that dies, a power cut: at the k-th operation of those that write below a folder.

``Disk`` stands between ``cyborgs`` and the functions of ``os`` that write. ``PowerCut`` replays what it recorded and
says what a disk may hold afterwards. As SQLite tests itself.
"""

from __future__ import annotations

import errno
import os
import random
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

KILLED = 77
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Operation(NamedTuple):
    """``what`` as in os; ``file`` a path below the folder, or the number of an open file."""

    what: str
    file: str | int
    value: Any = None


class Killed(BaseException):
    """The process is dead."""


class Disk:
    """Counts, records and spoils the operations below ``folder``, while it is entered. fsync costs nothing in it.

    Args:
        folder: others are left alone.
        at: which operation fails, counted from 0; None: none does.
        error: the errno that it fails with; None: the process dies there. As far as the disk can tell it is dead
            when nothing more happens, so it raises :class:`Killed`, there and at all operations that follow.
        lasting: all that come after it fail too, cleaning up included.
        exits: a death is a real one, of a process made by ``in_child``.
    """

    def __init__(
        self,
        folder: Path,
        at: int | None = None,
        error: int | None = None,
        lasting: bool = False,
        exits: bool = False,
    ) -> None:
        self.folder = folder
        self.at = at
        self.error = error
        self.lasting = lasting or error is None
        self.exits = exits
        self.log: list[Operation] = []
        self.open: dict[int, int] = {}
        """Descriptors that are open: the number of their opening."""
        self._opened = 0
        self._real = {
            name: getattr(os, name)
            for name in (
                "open",
                "close",
                "write",
                "fsync",
                "ftruncate",
                "rename",
                "replace",
                "mkdir",
                "unlink",
                "rmdir",
            )
        }

    def __enter__(self) -> Self:
        for name in self._real:
            setattr(os, name, getattr(self, f"_{name}"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, function in self._real.items():
            setattr(os, name, function)

    def _below(self, path: Any) -> str | None:
        if isinstance(path, int) or not Path(path).absolute().is_relative_to(self.folder):
            return None
        return str(Path(path).absolute().relative_to(self.folder))

    def _happens(self, operation: Operation, half: Callable[[], object] | None = None) -> None:
        """Count it; fail or die where it is its turn, after the half that a write may have done."""
        count = len(self.log)
        self.log.append(operation)
        if self.at is None or count < self.at or (count > self.at and not self.lasting):
            return
        if half is not None and count == self.at:
            half()
        if self.error is None:
            if self.exits:
                os._exit(KILLED)
            raise Killed
        raise OSError(self.error, os.strerror(self.error))

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        below = self._below(path)
        if below is None or not flags & (WRITES | os.O_DIRECTORY):
            return self._real["open"](path, flags, mode, dir_fd=dir_fd)
        assert not flags & os.O_TRUNC
        self._happens(Operation("open", below, self._opened))
        descriptor = self._real["open"](path, flags, mode, dir_fd=dir_fd)
        self.open[descriptor] = self._opened
        self._opened += 1
        return descriptor

    def _close(self, descriptor: int) -> None:
        self.open.pop(descriptor, None)
        self._real["close"](descriptor)

    def _write(self, descriptor: int, data: Any) -> int:
        if descriptor in self.open:
            whole = bytes(data)
            half = lambda: self._real["write"](descriptor, whole[: len(whole) // 2])  # noqa: E731
            self._happens(Operation("write", self.open[descriptor], whole), half)
        return self._real["write"](descriptor, data)

    def _fsync(self, descriptor: int) -> None:
        assert descriptor in self.open
        self._happens(Operation("fsync", self.open[descriptor]))

    def _ftruncate(self, descriptor: int, length: int) -> None:
        self._happens(Operation("ftruncate", self.open[descriptor], length))
        self._real["ftruncate"](descriptor, length)

    def _rename(self, source: Any, target: Any) -> None:
        below = self._below(source)
        if below is not None:
            self._happens(Operation("rename", below, self._below(target)))
        self._real["rename"](source, target)

    _replace = _rename

    def _mkdir(self, path: Any, mode: int = 0o777) -> None:
        below = self._below(path)
        if below is not None:
            self._happens(Operation("mkdir", below))
        self._real["mkdir"](path, mode)

    def _unlink(self, path: Any) -> None:
        below = self._below(path)
        if below is not None:
            self._happens(Operation("unlink", below))
        self._real["unlink"](path)

    def _rmdir(self, path: Any) -> None:
        below = self._below(path)
        if below is not None:
            self._happens(Operation("rmdir", below))
        self._real["rmdir"](path)


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Run ``work`` in a forked child: its exit status (0: it returned, 1: it raised, KILLED) and what it raised."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from Python 3.12 on
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            work()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


@dataclass
class Node:
    """A file or folder, as programs see it and as the disk surely holds it."""

    data: bytes | None = None
    """None: a folder."""
    synced: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)
    synced_entries: dict[str, Node] = field(default_factory=dict)
    pending: list[dict[str, Node | None]] = field(default_factory=list)
    """What operations since the last sync put under which names; None: nothing is there any more."""

    def put(self, names: dict[str, Node | None]) -> None:
        """One operation on the names of this folder."""
        self.pending.append(names)
        self.entries = with_names(self.entries, names)


def with_names(entries: dict[str, Node], names: dict[str, Node | None]) -> dict[str, Node]:
    return {name: node for name, node in {**entries, **names}.items() if node is not None}


def loaded(path: Path) -> Node:
    """What lies there, all of it on the disk."""
    if path.is_file():
        data = path.read_bytes()
        return Node(data, data)
    entries = {entry.name: loaded(entry) for entry in path.iterdir()}
    return Node(None, b"", entries, dict(entries))


class PowerCut:
    """The states in which a power cut can leave a folder.

    Data that was not synced is lost. What was done to names and not synced is kept, lost, or, operation by operation,
    one or the other. (A rename within a folder is one operation: it has happened or not.)
    """

    def __init__(self, before: Path) -> None:
        self.root = loaded(before)
        self._files: dict[int, Node] = {}

    def _find(self, path: str) -> tuple[Node, str]:
        """The folder of a path, and the last part of it; the folder that all lies in is its own, with no name."""
        *above, name = Path(path).parts or ("",)
        node = self.root
        for part in above:
            node = node.entries[part]
        return node, name

    def apply(self, operation: Operation) -> None:
        """Let it happen."""
        what, file, value = operation
        if isinstance(file, int):
            node = self._files[file]
            if what == "fsync":
                node.synced_entries, node.pending = node.entries, []
                node.synced = node.data or b""
                return
            assert node.data is not None
            if what == "write":
                node.data += value
            else:
                node.data = node.data[:value].ljust(value, b"\0")
            return
        folder, name = self._find(file)
        if what == "open":
            if name and name not in folder.entries:
                folder.put({name: Node(b"")})
            self._files[value] = folder.entries[name] if name else folder
        elif what == "mkdir":
            folder.put({name: Node()})
        elif what == "rename":
            target, new = self._find(value)
            assert target is folder
            folder.put({name: None, new: folder.entries[name]})
        else:
            folder.put({name: None})

    def held(self, names: Callable[[], bool]) -> Held:
        """What is on the disk; ``names`` says for each operation that was not synced whether it is."""

        def walk(node: Node, at: str) -> Iterator[tuple[str, bytes | None]]:
            yield at, None if node.data is None else node.synced
            entries = node.synced_entries
            for operation in node.pending:
                entries = with_names(entries, operation) if names() else entries
            for name, entry in entries.items():
                yield from walk(entry, f"{at}/{name}")

        return dict(walk(self.root, "."))


Held = dict[str, bytes | None]
"""Files by path, folders as None; a folder comes before what is in it."""


def lay(held: Held, place: Path) -> None:
    """Make it so at ``place``."""
    for path, data in held.items():
        if data is None:
            (place / path).mkdir()
        else:
            (place / path).write_bytes(data)


def power_cuts(before: Path, log: list[Operation], seed: str) -> Iterator[tuple[int, str, Held]]:
    """(operations done, which names, what the disk holds), for every prefix of the log."""
    draw = random.Random(seed)
    variants: dict[str, Callable[[], bool]] = {
        "kept": lambda: True,
        "lost": lambda: False,
        **{f"mixed {number}": lambda: draw.random() < 0.5 for number in range(6)},
    }
    cut = PowerCut(before)
    for done in range(len(log) + 1):
        if done:
            cut.apply(log[done - 1])
        for name, names in variants.items():
            yield done, name, cut.held(names)


ERRORS = {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EROFS")}
