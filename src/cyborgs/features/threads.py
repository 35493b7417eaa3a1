"""Work in threads before and behind a network: photos decoded ahead, results written, nothing piled up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cyborgs.machine.cores import usable_cores

ROOM = 8_000_000
"""Pixels of photos that wait on either side of the network, beyond one photo: 24 MB decoded, 64 MB to be written."""
T = TypeVar("T")
R = TypeVar("R")


def threads_by_default() -> int:
    """That decode or write: up to 4."""
    return min(4, usable_cores())


def ahead(
    function: Callable[[T], R], items: Iterable[T], threads: int, pixels: Callable[[T], int] = lambda item: 1
) -> Iterator[R]:
    """``map`` in threads and in order, at most two results a thread and ``ROOM`` pixels in advance. 0 threads: in this one."""
    if threads == 0:
        yield from map(function, items)
        return
    waiting: deque[tuple[Future[R], int]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                size = pixels(item)
                while waiting and (len(waiting) >= 2 * threads or held + size > ROOM):
                    future, done = waiting.popleft()
                    held -= done
                    yield future.result()
                waiting.append((pool.submit(function, item), size))
                held += size
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()


class Hands:
    """Threads that take work off this one: two pieces a thread and ``ROOM`` pixels wait at most.

    An error comes out at the next call, or at the end.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write") if threads else None
        self._waiting: deque[tuple[Future[Any], int]] = deque()
        self._most = 2 * threads
        self._held = 0

    def do(self, pixels: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Call it in a thread, or here where there is none; ``pixels``: of the photo that it holds."""
        if self._pool is None:
            function(*arguments)
            return
        while self._waiting and (len(self._waiting) >= self._most or self._held + pixels > ROOM):
            self._take()
        self._waiting.append((self._pool.submit(function, *arguments), pixels))
        self._held += pixels

    def _take(self) -> None:
        future, pixels = self._waiting.popleft()
        self._held -= pixels
        future.result()

    def __enter__(self) -> Hands:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._waiting and kind is None:
                self._take()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
