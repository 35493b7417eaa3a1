"""Photos through a frozen network: the one loop (decoded ahead in threads, in calls of bounded size), and its maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import NotFiniteError, printable
from cyborgs.features.threads import ahead, threads_by_default
from cyborgs.masks.bootstrap import CALL_PIXELS, cap_short_side

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

UInt8 = NDArray[np.uint8]
Maps = dict[str, Tensor]
Progress = Callable[[int, int], None]
K = TypeVar("K")

SHARED_PIXELS: Final = 4 * 640 * 480
"""Pixels of photos of equal size, wherever they stand, that go through the network at once (``iterate_maps``): constant,
since another batch size may change the last bits."""


class Photos(Protocol):
    """Photos by number: ``data.images.Images`` and labelled sets are such."""

    def __len__(self) -> int: ...

    def read(self, i: int) -> UInt8:
        """Photo i, uint8 (H, W, 3)."""
        ...

    def name(self, i: int) -> str:
        """What messages call it."""
        ...


@contextmanager
def frozen(backbone: Backbone) -> Iterator[torch.device]:
    """Eval mode without gradients, the former mode afterwards; gives the backbone's device."""
    training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            yield next(backbone.parameters()).device
    finally:
        backbone.train(training)


def layer_maps(
    backbone: Backbone, images: Sequence[UInt8], layers: Sequence[str], *, channels_last: bool = False
) -> Maps:
    """Maps float32 (B, C, h, w) by layer of B images uint8 (H, W, 3) of one size, in eval mode, on the device.

    ``channels_last``: the format in which the images lie in memory anyway, often the faster one; it moves the last bits.
    """
    with frozen(backbone) as device:
        stacked = torch.from_numpy(np.stack(images))
        if device.type == "cuda":
            stacked = stacked.pin_memory()
        batch = stacked.to(device, non_blocking=True).permute(0, 3, 1, 2)
        maps = backbone(backbone.normalise(batch if channels_last else batch.contiguous()), layers=list(layers))
    return {name: maps[name].float() for name in layers}


class Seen(NamedTuple, Generic[K]):
    """A photo on its way into the network."""

    number: int
    kept: K
    """What the caller keeps of the photo."""
    image: UInt8
    """What the network sees of it."""


def forward_photos(
    backbone: Backbone,
    photos: Photos,
    layers: Sequence[str],
    calls: Sequence[Sequence[int]],
    *,
    see: Callable[[UInt8, int], UInt8],
    keep: Callable[[UInt8], K],
    reduce: Callable[[Maps], Maps] = lambda maps: maps,
    regroup: bool = False,
    fill: int = 0,
    channels_last: bool = False,
    to_cpu: bool = True,
    pixels: Callable[[int], int] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, K, Maps]]:
    """(index, what is kept of the photo, its maps (C, h, w) by layer) of each photo, in the order of ``calls``.

    Photos are read ahead in threads. What a call gave is handed out when the photos of the next one are together: a GPU
    computes meanwhile.

    Args:
        backbone: put in eval mode for each call and back.
        photos: of which some are read.
        layers: whose maps are wanted.
        calls: numbers of the photos; those of a call go through the network together and are seen at one size.
        see: (photo, its number) -> what the network sees of it; called in threads.
        keep: photo -> what is handed out beside its maps; called in threads.
        reduce: what is done to the maps (B, C, h, w) of a call on the device, B first in what it gives.
        regroup: photos that are seen at one size share a call, up to ``SHARED_PIXELS``, wherever they stand in
            ``calls``, and come as calls are full, in no particular order.
        fill: a call of fewer photos is filled up to so many, such that the bits do not depend on it; 0: it is not.
        channels_last: as in ``layer_maps``.
        to_cpu: maps are handed out on the CPU, else on the device.
        pixels: of photo i, by which reading ahead is bounded; None: those of the largest one seen so far.
        threads: that read; None: up to 4; 0: none.
        progress: called with photos done and in all.

    Raises:
        NotFiniteError: the maps of a photo hold NaN or infinity; names it.
        UnreadableImage: names the photo.
    """
    indices = [i for call in calls for i in call]
    largest = 1
    done = 0

    def read(i: int) -> Seen[K]:
        nonlocal largest
        photo = photos.read(i)
        image = see(photo, i)
        largest = max(largest, image.shape[0] * image.shape[1])
        return Seen(i, keep(photo), image)

    def handed_out(group: Sequence[Seen[K]], maps: Maps) -> Iterator[tuple[int, K, Maps]]:
        nonlocal done
        if to_cpu:
            maps = {name: m.cpu() for name, m in maps.items()}
        finite = {name: m.isfinite().flatten(1).all(1).tolist() for name, m in maps.items()}
        for k, one in enumerate(group):
            broken = [name for name in maps if not finite[name][k]]
            if broken:
                name = printable(photos.name(one.number))
                raise NotFiniteError(f"{name}: {broken[0]} holds NaN or infinity. The weights are damaged.")
            done += 1
            if progress is not None:
                progress(done, len(indices))
            yield one.number, one.kept, {name: m[k] for name, m in maps.items()}

    seen = ahead(read, indices, threads_by_default() if threads is None else threads, pixels or (lambda i: largest))
    launched: tuple[Sequence[Seen[K]], Maps] | None = None
    for group in _of_one_size(seen) if regroup else (list(islice(seen, len(call))) for call in calls):
        if launched is not None:
            yield from handed_out(*launched)
        launched = None  # its memory is free for the next one
        images = [one.image for one in group]
        images += images[-1:] * (fill - len(images))
        with torch.no_grad():
            launched = group, reduce(layer_maps(backbone, images, layers, channels_last=channels_last))
    if launched is not None:
        yield from handed_out(*launched)


def _of_one_size(seen: Iterator[Seen[K]]) -> Iterator[list[Seen[K]]]:
    waiting: dict[tuple[int, ...], list[Seen[K]]] = {}
    for one in seen:
        height, width, _ = one.image.shape
        group = waiting.setdefault((height, width), [])
        group.append(one)
        if (len(group) + 1) * height * width > SHARED_PIXELS:
            yield waiting.pop((height, width))
    while waiting:
        yield waiting.pop(next(iter(waiting)))


def iterate_maps(
    backbone: Backbone,
    photos: Photos,
    layers: Sequence[str],
    *,
    indices: Sequence[int] | None = None,
    short_side: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, tuple[int, int], Maps]]:
    """(index, its size (H, W) before shrinking, maps (C, h, w) on the CPU) of each photo, in no particular order.

    Photos of equal size share a call. ``short_side`` shrinks larger photos; 0: native size. Raises NotFiniteError naming
    the first photo whose maps hold NaN or infinity.
    """
    return forward_photos(
        backbone,
        photos,
        layers,
        [range(len(photos)) if indices is None else indices],
        see=lambda photo, i: cap_short_side(photo, short_side),
        keep=lambda photo: (photo.shape[0], photo.shape[1]),
        regroup=True,
        threads=threads,
        progress=progress,
    )


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

    def pixels(i: int) -> int:
        height, width = photos.size(i)
        return height * width

    device = next(backbone.parameters()).device
    for i, photo, maps in forward_photos(
        backbone,
        photos,
        layers,
        [batch for batch in batches(photos, short_side, device) if any(map(wanted, batch))],
        see=lambda photo, i: cap_short_side(photo, short_side),
        keep=lambda photo: photo,
        to_cpu=False,
        pixels=pixels,
        threads=threads,
    ):
        if wanted(i):
            yield i, photo, join([maps[name] for name in layers])


def resize(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, C, h, w) at (height, width), bilinear with half-pixel centres; equal sizes pass through."""
    if maps.shape[-2:] == (height, width):
        return maps
    return F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)


def join(maps: Sequence[Tensor]) -> Tensor:
    """Maps (C_l, h_l, w_l) of one image, brought to the finest of their grids and concatenated: (sum C_l, h, w)."""
    finest = max(maps, key=lambda m: m.shape[-1] * m.shape[-2])
    return torch.cat([resize(m[None], *finest.shape[-2:])[0] for m in maps])
