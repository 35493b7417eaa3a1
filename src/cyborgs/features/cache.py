"""Pooled features of a frozen network: computed once, kept on the disk, found again by all that they depend on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import NotFiniteError, printable
from cyborgs.features.extraction import Progress, UInt8, frozen
from cyborgs.features.threads import ahead, threads_by_default
from cyborgs.features.transforms import Transform
from cyborgs.files import make_folder, write_bytes
from cyborgs.models.weights import weights_hash

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

Float32 = NDArray[np.float32]
FORMAT: Final = 2
"""Rises when the same key would mean other numbers."""
BATCH: Final = {"cpu": 8, "cuda": 64}
"""Photos in a call of the network, by kind of device. Constant, and the last call is filled up: a photo's features do
not depend on which photos are listed beside it."""
POOLS: Final = {2: (10, 10, 4), 4: (16, 8, 0), 8: (13, 5, 0), 16: (8, 3, 0), 32: (6, 1, 0)}
"""Window, step and padding by a map's stride, such that a photo of 224 gives 8192 to 9216 numbers of a ResNet-50
(OpenSelfSup)."""


@dataclass(frozen=True)
class Extraction:
    """What is computed of each photo."""

    layer: str
    transform: Transform
    pooling: Literal["mean", "windows"] = "mean"
    """Mean over the map, or over windows of it (``POOLS``), channel by channel."""


def _key(backbone: Backbone, photos: Images, extraction: Extraction, device: str) -> str:
    """Of weights, photos (their fingerprint), layer, transform, pooling; and of what moves the last bits."""
    digest = xxhash.xxh64(json.dumps([FORMAT, torch.__version__, device, weights_hash(backbone)]).encode())
    digest.update(repr((extraction.layer, extraction.transform, extraction.pooling)).encode())
    digest.update(photos.fingerprint().encode())
    return digest.hexdigest()


def _read(path: Path, photos: int) -> Float32 | None:
    """What was kept; None where there is nothing, or not all of it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content, seal = data[:-8], data[-8:]
    if xxhash.xxh64(content).digest() != seal:
        return None
    values: Float32 = np.load(io.BytesIO(content), allow_pickle=False)
    return values if len(values) == photos else None


def _write(path: Path, values: Float32) -> None:
    """An .npy file with its checksum behind, which ``np.load`` passes over."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    content = buffer.getvalue()
    write_bytes(path, content + xxhash.xxh64(content).digest())


def _pool(maps: Tensor, stride: int, pooling: str) -> Tensor:
    """Maps (B, C, h, w) -> (B, C) or (B, C x windows)."""
    if pooling == "mean":
        return maps.mean(dim=(2, 3))
    window, step, padding = POOLS.get(stride, POOLS[32])
    window = min(window, *maps.shape[2:])
    return F.avg_pool2d(maps, window, step, min(padding, window // 2)).flatten(1)


def squares(photos: Images, transform: Transform, threads: int) -> Iterator[UInt8]:
    """The squares of all photos, made in threads ahead of the network."""

    def square(i: int) -> UInt8:
        return transform(photos.read(i), i)

    yield from ahead(square, range(len(photos)), threads)


@torch.no_grad()
def extract(
    backbone: Backbone,
    photos: Images,
    extraction: Extraction,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Float32:
    """Features (N, C) of N photos, in eval mode, on the backbone's device.

    Raises:
        NotFiniteError: they hold NaN or infinity; names the photo.
        UnreadableImage: names the file.
    """
    layer = extraction.layer
    backbone.check_layers([layer])
    stride = backbone.strides[layer]
    parts: list[Float32] = []

    def keep(features: Tensor, count: int) -> None:
        values: Float32 = features[:count].float().cpu().numpy()
        if not np.isfinite(values).all():
            first = len(parts) * batch + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise NotFiniteError(
                f"{printable(photos.name(first))}: {layer} holds NaN or infinity. The weights are damaged."
            )
        parts.append(values)
        if progress is not None:
            progress(min(len(parts) * batch, len(photos)), len(photos))

    with frozen(backbone) as device:
        batch = BATCH.get(device.type, BATCH["cuda"])
        waiting: tuple[Tensor, int] | None = None
        made = squares(photos, extraction.transform, threads_by_default() if threads is None else threads)
        while some := list(islice(made, batch)):
            filled = torch.from_numpy(np.stack(some + [some[-1]] * (batch - len(some))))
            if device.type == "cuda":
                filled = filled.pin_memory()
            # (B, H, W, 3) seen as (B, 3, H, W): channels_last as it is, the faster format.
            images = filled.to(device, non_blocking=True).permute(0, 3, 1, 2)
            maps = backbone(backbone.normalise(images), layers=[layer])[layer]
            if waiting is not None:  # fetched one call later: a GPU computes while photos are collected
                keep(*waiting)
            waiting = _pool(maps, stride, extraction.pooling), len(some)
        if waiting is not None:
            keep(*waiting)
    return np.concatenate(parts) if parts else np.zeros((0, backbone.widths[layer]), np.float32)


def features(
    backbone: Backbone,
    photos: Images,
    extraction: Extraction,
    *,
    cache: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Float32:
    """As ``extract``, but what lies in ``cache`` is taken from there, and what does not is put there.

    The key is made of the network's weights, architecture and normalisation, of layer, transform and pooling, and of
    the photos' fingerprint. A damaged file is made anew.
    """
    if cache is None:
        return extract(backbone, photos, extraction, threads=threads, progress=progress)
    device = next(backbone.parameters()).device.type
    path = cache / f"{_key(backbone, photos, extraction, device)}.npy"
    found = _read(path, len(photos))
    if found is None:
        if path.exists():
            say(f"{path}: damaged; the features are computed again.")
        found = extract(backbone, photos, extraction, threads=threads, progress=progress)
        make_folder(cache, parents=True)
        _write(path, found)
    elif progress is not None:
        progress(len(photos), len(photos))
    return found


class Means(Protocol):
    """What an evaluation has at hand; see ``evaluation/contract.py``."""

    @property
    def cache(self) -> Path | None:
        """Folder of kept features."""

    @property
    def workers(self) -> int:
        """Threads; 0: as many as fit."""

    @property
    def progress(self) -> Progress | None:
        """Called with photos done and photos in all."""

    @property
    def say(self) -> Callable[[str], None]:
        """Takes lines for people."""


def features_of(backbone: Backbone, sets: Sequence[Images], extraction: Extraction, context: Means) -> list[Float32]:
    """The features of several lists of photos, with one progress over all."""
    total = sum(len(photos) for photos in sets)
    found: list[Float32] = []
    for photos in sets:
        before = sum(len(one) for one in found)
        found.append(
            features(
                backbone,
                photos,
                extraction,
                cache=context.cache,
                threads=context.workers or None,
                progress=_after(context.progress, before, total),
                say=context.say,
            )
        )
    return found


def _after(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)
