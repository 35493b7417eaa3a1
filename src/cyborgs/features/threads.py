"""Photos through a network one after the other: decoded ahead in threads, results handed to threads, nothing piled up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import NotFiniteError
from cyborgs.features.extraction import UInt8, join, layer_maps
from cyborgs.machine.cores import usable_cores
from cyborgs.masks.bootstrap import CALL_PIXELS, cap_short_side

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

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


def batches(photos: Images, short_side: int, device: torch.device) -> list[range]:
    """All photos in order, cut so that those of a batch are of equal size and few enough for one call.

    By their sizes alone: a second start that has less to do makes the same batches, and the same bits.
    """
    limit = CALL_PIXELS.get(device.type, CALL_PIXELS["cuda"])
    out: list[range] = []
    first = 0
    for i in range(len(photos)):
        height, width = photos.size(first)
        factor = min(1.0, short_side / min(height, width)) if short_side else 1.0
        most = max(1, int(limit / (height * width * factor**2)))
        if i > first and (photos.size(i) != (height, width) or i - first >= most):
            out.append(range(first, i))
            first = i
    if len(photos):
        out.append(range(first, len(photos)))
    return out


def stream_maps(
    backbone: Backbone,
    photos: Images,
    layers: Sequence[str],
    *,
    short_side: int = 0,
    wanted: Callable[[int], bool] = lambda i: True,
    threads: int | None = None,
) -> Iterator[tuple[int, UInt8, Tensor]]:
    """(index, photo, maps joined at the finest grid, float32 (D, h, w) on the device) of each photo, in order.

    A batch in which no photo is ``wanted`` is passed over.

    Raises:
        NotFiniteError: a map holds NaN or infinity; names the photo.
    """
    threads = threads_by_default() if threads is None else threads
    device = next(backbone.parameters()).device
    todo = [batch for batch in batches(photos, short_side, device) if any(map(wanted, batch))]

    def read(i: int) -> tuple[UInt8, UInt8]:
        image = photos.read(i)
        return image, cap_short_side(image, short_side)

    def pixels(i: int) -> int:
        height, width = photos.size(i)
        return height * width

    pictures = ahead(read, (i for batch in todo for i in batch), threads, pixels)
    for batch in todo:
        pairs = [next(pictures) for _ in batch]
        maps = layer_maps(backbone, [small for _, small in pairs], layers)
        for k, i in enumerate(batch):
            one = [maps[name][k] for name in layers]
            for name, values in zip(layers, one, strict=True):
                if not bool(torch.isfinite(values).all()):
                    raise NotFiniteError(f"{photos.name(i)}: {name} holds NaN or infinity. The weights are damaged.")
            if wanted(i):
                yield i, pairs[k][0], join(one)
