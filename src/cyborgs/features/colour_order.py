"""Weights that were trained on BGR, or on pixels of another scale, and are given RGB: told from their statistics.

The first BatchNorm remembers mean and variance of what the first convolution gave it in training. The same convolution
over some photos comes near these only where the photos reach it as those of its training did. Another scale shows at
once. The order of colours shows where the photos have a colour; red and blue of most photos differ too little to tell,
so no warning is no proof.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cyborgs.models.backbone import Backbone
from cyborgs.models.networks import same_modes

UInt8 = NDArray[np.uint8]
PHOTOS: Final = 16
SHORT_SIDE: Final = 224
CLEARLY: Final = 0.5
"""Another reading of the pixels must be off by less than this share of what RGB is, in both halves of the photos."""
LEAST: Final = 0.02
"""A fit that is no further off than this is fine whatever else fits."""
NEARLY: Final = 2.0
"""Readings that are off by less than this many times the best one's are named beside it."""
GREY: Final = 4
"""Photos whose red and blue differ by less, on the mean, have no colours that could tell their order."""
CAFFE_MEAN: Final = (123.68, 116.779, 103.939)
"""Of red, green and blue, for pixels in 0..255."""


def colour_warning(backbone: Backbone, photos: Iterable[UInt8]) -> str | None:
    """A sentence where the weights fit other pixels than they are given; None where they do not, or cannot tell.

    They cannot where the network has no BatchNorm behind its first convolution, or one that was never trained, and of
    photos without colour they cannot tell the order.

    Args:
        backbone: as it is used; nothing of it changes.
        photos: RGB, uint8 (H, W, 3); the first ``PHOTOS`` of them are used.
    """
    layers = first_layers(backbone)
    images = [_small(photo) for photo in islice(photos, PHOTOS)]
    if layers is None or len(images) < 2:
        return None
    convolution, norm = layers
    grey = np.mean([np.abs(i[..., 0].astype(int) - i[..., 2]).mean() for i in images]) < GREY
    readings = {name: r for name, r in _readings(backbone).items() if not (grey and r[2])}
    parts = [images[::2], images[1::2]]
    off = {name: [_off(convolution, norm, part, *reading) for part in parts] for name, reading in readings.items()}
    given = off["RGB"]
    name = min(off, key=lambda n: sum(off[n]))
    if min(given) <= LEAST or not all(a < CLEARLY * b for a, b in zip(off[name], given, strict=True)):
        return None
    total = {n: sum(parts) for n, parts in off.items()}
    alike = [n for n in sorted(total, key=total.__getitem__) if n != name and total[n] <= NEARLY * total[name]]
    also = f" ({' and '.join(alike)} {'fits' if len(alike) == 1 else 'fit'} nearly as well)" if alike else ""
    return (
        f"the weights look as if they were trained on {name}, but are given RGB: the statistics of their first "
        f"BatchNorm are {np.mean(given) / max(float(np.mean(off[name])), 1e-9):.1f} times as far from these photos as from the same photos read so{also}. "
        "If that is so, convert the first convolution's weights (docs/evaluation.md, Colours)."
    )


def first_layers(backbone: Backbone) -> tuple[nn.Conv2d, nn.BatchNorm2d] | None:
    """The convolution that sees the photo and the trained BatchNorm that sees its output; None: there are no such."""
    seen: dict[str, Any] = {}

    def after(module: nn.Module, _: Any, output: Any) -> None:
        if "convolution" not in seen and isinstance(module, nn.Conv2d) and module.in_channels == 3:
            seen["convolution"], seen["output"] = module, output

    def before(module: nn.Module, given: Any) -> None:
        if "norm" not in seen and given and given[0] is seen.get("output"):
            seen["norm"] = module

    trunk = backbone.trunk
    parts = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [m.register_forward_hook(after) for m in parts] + [m.register_forward_pre_hook(before) for m in norms]
    try:
        with same_modes(trunk), torch.no_grad():
            trunk.eval()
            trunk(torch.zeros(1, 3, 64, 64, device=next(trunk.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    norm = seen.get("norm")
    if norm is None or norm.running_mean is None or norm.running_var is None:
        return None
    untrained = bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
    return None if untrained else (seen["convolution"], norm)


def _readings(backbone: Backbone) -> dict[str, tuple[Tensor, Tensor, bool]]:
    """Name -> (mean, std, swapped), for pixels in 0..255, of the ways to read a photo that are common."""
    own = 255 * torch.tensor(backbone.config.mean), 255 * torch.tensor(backbone.config.std)
    zero, one = torch.zeros(3), torch.ones(3)
    ways = {
        "RGB": own,
        "RGB of 0..255, not normalised": (zero, one),
        "RGB of 0..1, not normalised": (zero, 255 * one),
        "RGB of 0..255, less the mean": (torch.tensor(CAFFE_MEAN), one),
    }
    plain = {name: (*way, False) for name, way in ways.items()}
    # Swapped, channel 0 is blue, less blue's mean; some code subtracts red's from it.
    swapped = {n.replace("RGB", "BGR"): (way[0].flip(0), way[1].flip(0), True) for n, way in ways.items()}
    return plain | swapped | {"BGR less the mean of RGB": (*own, True)}


def _small(photo: UInt8) -> UInt8:
    height, width = photo.shape[:2]
    factor = SHORT_SIDE / min(height, width)
    if factor >= 1:
        return photo
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.uint8)


@torch.no_grad()
def _off(
    convolution: nn.Conv2d, norm: nn.BatchNorm2d, photos: list[UInt8], mean: Tensor, std: Tensor, swapped: bool
) -> float:
    """How far photos are from the statistics of training: KL divergence of the channels' normal distributions, mean."""
    weight = convolution.weight
    count, total, squares = 0, torch.zeros(weight.shape[0]).double(), torch.zeros(weight.shape[0]).double()
    for photo in photos:
        pixels = torch.from_numpy(np.ascontiguousarray(photo[..., ::-1] if swapped else photo)).float()
        x = ((pixels - mean) / std).permute(2, 0, 1)[None].to(weight.device, weight.dtype)
        y = convolution(x)[0].double().flatten(1).cpu()
        count += y.shape[1]
        total += y.sum(1)
        squares += y.square().sum(1)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    known_mean, known = norm.running_mean.double().cpu(), norm.running_var.double().cpu() + norm.eps
    found_mean = total / count
    found = squares / count - found_mean.square()
    ratio = (found + norm.eps) / known
    return float((ratio + (found_mean - known_mean).square() / known - 1 - ratio.log()).mean() / 2)


def colour_doubt(backbone: Backbone, data: Any) -> str | None:
    """``colour_warning`` of photos spread over those that a protocol learns from, or is judged by where it learns from none.

    None where they cannot be read by number.
    """
    photos: Any = getattr(data, "train", None) or getattr(data, "test", ())
    if not hasattr(photos, "read") or not len(photos):
        return None
    chosen = sorted({i * len(photos) // PHOTOS for i in range(PHOTOS)})
    return colour_warning(backbone, (photos.read(i) for i in chosen))
