"""Loader processes: how their work travels, and why one of them is gone."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from cyborgs.errors import UserError, printable
from cyborgs.views.shared_memory import LoaderError, shared_memory_advice

PREFETCH = 2
"""Micro-batches that a worker makes ahead."""

LARGE = 1 << 20
"""Bytes from which a tensor travels in shared memory though it was not made there."""

RESUME = "The run goes on from its last checkpoint with --resume."


class WorkerLost(UserError):
    """A loader process ended by a signal or by itself: which, why, on which picture, and what to do."""


@final
class Board:
    """Which picture each worker reads: memory that the main process sees, whatever becomes of the worker."""

    def __init__(self, workers: int) -> None:
        table = torch.full((max(workers, 1), 2), -1, dtype=torch.int64)
        self._table = table.share_memory_() if workers else table  # type: ignore[no-untyped-call]

    def enter(self, worker: int) -> None:
        """A worker's first act: its process id."""
        self._table[worker, 0] = os.getpid()

    @contextmanager
    def reading(self, index: int) -> Iterator[None]:
        """While a worker reads picture ``index``; in the main process nothing is noted."""
        info = get_worker_info()
        if info is None:
            yield
            return
        self._table[info.id, 1] = index
        yield
        self._table[info.id, 1] = -1

    def read_by(self, pid: int | None) -> int | None:
        """The index of the picture that this process was reading, if any."""
        for owner, index in self._table.tolist():
            if owner == pid and index >= 0:
                return int(index)
        return None


class Failure:
    """An error on its way from a worker: torch would rebuild it from a text, and lose what it was."""

    def __init__(self, error: Exception, needed: int) -> None:
        error = shortage(error, needed) or error
        if get_worker_info() is not None:
            error.add_note(traceback.format_exc())  # pickling drops the traceback
            error = _portable(error)
        self.error = error


def _portable(error: Exception) -> Exception:
    """The error where it survives pickling, else a RuntimeError of the same words: a lost one would be waited for."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        for note in error.__notes__:
            plain.add_note(note)
        return plain
    return error


class _Pickler(ForkingPickler):
    """Pixels stay where they are, in shared memory; what is small travels by value and costs no open file."""

    def reducer_override(self, item: Any) -> Any:
        if isinstance(item, Tensor) and item.nbytes < LARGE and not item.is_shared():  # type: ignore[no-untyped-call]
            return torch.from_numpy, (item.numpy(),)
        return NotImplemented


class Parcel:
    """A worker's result, packed by the worker itself.

    torch's queue packs in a thread of the worker, whose errors (no file, no shared memory left) it prints and forgets:
    the main process would wait for ever.
    """

    def __init__(self, item: Any) -> None:
        buffer = io.BytesIO()
        _Pickler(buffer, pickle.HIGHEST_PROTOCOL).dump(item)
        self._content = buffer.getvalue()

    def open(self) -> Any:
        """The item, once."""
        return pickle.loads(self._content)

    def pin_memory(self) -> Any:
        """What torch's pinning thread calls: the item, in page-locked memory if it is a batch."""
        item = self.open()
        return item if isinstance(item, Failure) else item.pin_memory()


def shortage(error: BaseException, needed: int) -> LoaderError | None:
    """The error as the user's where files or shared memory ran out; None where it is another."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        number = cause.errno if isinstance(cause, OSError) else None
        # ancdata: what Python says where the kernel dropped an open file on its way between processes.
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text or "ancdata" in text:
            return LoaderError(f"too many open files{_limit()}. Raise the limit (ulimit -n 65536) or lower --workers.")
        if "shared memory" in text and ("No space left" in text or "allocate" in text):
            return LoaderError(f"shared memory is full. {shared_memory_advice(needed)}")
        cause = cause.__cause__ or cause.__context__
    return None


def _limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    return f": a process may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} at once"


class _Ended(Exception):
    """Raised by the signal handler: a worker is gone."""


@final
class WorkerWatch:
    """Looks after the workers of one loader.

    torch's own handler of SIGCHLD raises wherever the program is: in an optimiser's step, in a checkpoint's writing.
    This one interrupts only the waiting for a worker, and what was lost meanwhile is seen at the next waiting.

    Args:
        board: what the workers read.
        name: an image's name by its index.
        needed: bytes of shared memory that the loader's processes hold at most.
    """

    def __init__(self, board: Board, name: Callable[[int], str], needed: int) -> None:
        self._board = board
        self._name = name
        self._needed = needed
        self._results: Iterator[Any] = iter(())
        self._workers: list[BaseProcess] = []
        self._waiting = False

    @contextmanager
    def over(self, start: Callable[[], Iterator[Any]]) -> Iterator[None]:
        """Start the loader, or its next epoch, and watch it until the body ends.

        Raises:
            WorkerLost: a worker that waited for this epoch is gone.
        """
        handler = signal.getsignal(signal.SIGCHLD) if _can_handle() else None
        before = set(multiprocessing.active_children())
        watching = False
        try:
            if self._workers and handler is not None:
                signal.signal(signal.SIGCHLD, self._on_signal)
                watching = True
            self._results = self._guarded(start)
            if not self._workers:
                self._workers = [p for p in multiprocessing.active_children() if p not in before]
            if self._workers and handler is not None:  # torch has set its own
                signal.signal(signal.SIGCHLD, self._on_signal)
                watching = True
            yield
        finally:
            self._results = iter(())
            if watching and _can_handle():
                signal.signal(signal.SIGCHLD, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._waiting and self._ended():
            raise _Ended

    def _ended(self) -> list[BaseProcess]:
        return [worker for worker in self._workers if worker.exitcode]

    def next(self) -> Any:
        """The next result, opened.

        Raises:
            WorkerLost: a worker is gone.
            LoaderError: no file or no shared memory is left.
        """
        return self._guarded(self._next)

    def _next(self) -> Any:
        result = next(self._results)
        return result.open() if isinstance(result, Parcel) else result

    def _guarded(self, work: Callable[[], Any]) -> Any:
        """Wait for what the workers do."""
        try:
            self._waiting = True
            if self._ended():
                raise _Ended
            return work()
        except StopIteration:
            raise
        except Exception as error:
            self._waiting = False
            failure = self._explained(error)
        finally:
            self._waiting = False
        # Out here: chained to its cause, whose traceback holds torch's iterator, it would keep the workers alive.
        raise failure

    def _explained(self, error: Exception) -> Exception:
        if not self._workers:
            return error
        patience = time.monotonic() + 1  # its sockets close before its exit code is known
        while not self._ended() and isinstance(error, OSError | EOFError) and time.monotonic() < patience:
            time.sleep(0.01)
        lost = self._ended()
        return self._lost(lost[0]) if lost else shortage(error, self._needed) or error

    def _lost(self, worker: BaseProcess) -> WorkerLost:
        code = worker.exitcode or 0
        index = self._board.read_by(worker.pid)
        place = "" if index is None else f" while it read {printable(self._name(index))}"
        if code == -signal.SIGBUS:
            return WorkerLost(
                f"a loader process (pid {worker.pid}) was killed by SIGBUS{place}: shared memory was full, or the file "
                f"was cut while it was read. {shared_memory_advice(self._needed)} {RESUME}"
            )
        if code == -signal.SIGKILL:
            why = "most often because the machine ran out of memory (`dmesg` tells)"
            advice = "Lower --workers or --batch-size, or give --workers 0; if it is always this picture, remove it."
        elif code < 0:
            why = "a fault in a library that decodes, or somebody's doing"
            advice = "If it is always this picture, remove it."
        else:
            return WorkerLost(
                f"a loader process (pid {worker.pid}) ended with exit code {code}{place}. "
                f"Its own message says why; --workers 0 reads in the main process. {RESUME}"
            )
        return WorkerLost(
            f"a loader process (pid {worker.pid}) was killed by {_signal_name(-code)}{place}, {why}. {advice} {RESUME}"
        )


def _can_handle() -> bool:
    """Whether this thread may set a handler of SIGCHLD, and the system has that."""
    return hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
