"""Pooled features of a frozen network: computed once, kept on the disk, found again by all that they depend on."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.features.extraction import Progress, forward_photos
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
SHARD: Final = 512
"""Photos whose features lie in one file: whole calls on each kind of device."""
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
    content, checksum = data[:-8], data[-8:]
    if xxhash.xxh64(content).digest() != checksum:
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


def _rows(
    backbone: Backbone,
    photos: Images,
    extraction: Extraction,
    indices: Sequence[int],
    threads: int | None,
    progress: Progress | None,
) -> Iterator[Float32]:
    """Features (C,) of these photos, one after the other."""
    layer = extraction.layer
    stride = backbone.strides[layer]
    batch = BATCH.get(next(backbone.parameters()).device.type, BATCH["cuda"])
    for _, _, pooled in forward_photos(
        backbone,
        photos,
        [layer],
        [indices[first : first + batch] for first in range(0, len(indices), batch)],
        see=extraction.transform,
        keep=lambda photo: None,
        reduce=lambda maps: {layer: _pool(maps[layer], stride, extraction.pooling)},
        fill=batch,
        channels_last=True,
        threads=threads,
        progress=progress,
    ):
        yield pooled[layer].numpy()


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
    """Features (N, C) of N photos, in eval mode, on the backbone's device.

    What lies in ``cache`` is taken from there, and what does not is put there: a folder of shards of ``SHARD`` photos, so
    that an interrupted extraction goes on after the last one written; a damaged one is computed again. The folder's name
    is made of the network's weights, architecture and normalisation, of layer, transform and pooling, and of the photos'
    fingerprint.

    Raises:
        NotFiniteError: they hold NaN or infinity; names the photo.
        UnreadableImage: names the file.
        UserError: there is no such layer.
    """
    backbone.check_layers([extraction.layer])
    if not len(photos):
        return np.zeros((0, backbone.widths[extraction.layer]), np.float32)
    device = next(backbone.parameters()).device.type
    folder = None if cache is None else cache / _key(backbone, photos, extraction, device)
    shards = {
        f"{first:08d}.npy": range(first, min(first + SHARD, len(photos))) for first in range(0, len(photos), SHARD)
    }
    found: dict[str, Float32] = {}
    if folder is not None:
        make_folder(folder, parents=True)
        for name, shard in shards.items():
            values = _read(folder / name, len(shard))
            if values is not None:
                found[name] = values
            elif (folder / name).exists():
                say(f"{folder / name}: damaged; the features of its photos are computed again.")
    missing = [name for name in shards if name not in found]
    indices = [i for name in missing for i in shards[name]]
    kept = len(photos) - len(indices)
    if progress is not None and kept:
        progress(kept, len(photos))
    counted = None if progress is None else lambda done, _: progress(kept + done, len(photos))
    # All that is missing in one pass: threads read ahead beyond the end of a shard.
    rows = _rows(backbone, photos, extraction, indices, threads, counted)
    for name in missing:
        found[name] = np.stack(list(islice(rows, len(shards[name]))))
        if folder is not None:
            _write(folder / name, found[name])
    return np.concatenate([found[name] for name in shards])
