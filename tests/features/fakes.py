"""A tiny backbone with the contract of ``models.backbone.Backbone``, and photos in memory."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn


class FakeBackbone(nn.Module):
    """Maps at strides 8, 16 and 32: block means of colour, and products of them, projected at random."""

    def __init__(self, widths=(6, 10, 14), seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.project = nn.ParameterList([nn.Parameter(torch.randn(w, 9, generator=generator)) for w in widths])
        self.norm = nn.BatchNorm2d(3, affine=False)
        self.calls = 0

    def normalise(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float() / 255 - 0.5

    def forward(self, images: Tensor, layers=("layer2",)) -> dict[str, Tensor]:
        self.calls += 1
        assert not self.training
        out = {}
        for stride, name, weight in zip((8, 16, 32), ("layer2", "layer3", "layer4"), self.project, strict=True):
            mean = nn.functional.avg_pool2d(images, stride, ceil_mode=True)
            x = torch.cat([mean, mean * mean.roll(1, 1), mean.square()], 1)
            out[name] = torch.einsum("kc,bchw->bkhw", weight, x)
        return {name: out[name] for name in layers}


class MemoryPhotos:
    def __init__(self, images: list[np.ndarray], names: list[str] | None = None):
        self.images, self.names = images, names or [f"p{i}.jpg" for i in range(len(images))]

    def __len__(self):
        return len(self.images)

    def read(self, i):
        return self.images[i]

    def name(self, i):
        return self.names[i]

    def size(self, i):
        return self.images[i].shape[:2]

    def content(self, i):
        return b""

    def fingerprint(self):
        digest = hashlib.sha256(repr(self.names).encode("ascii", "backslashreplace"))
        for image in self.images:
            digest.update(repr(image.shape).encode() + image.tobytes())
        return digest.hexdigest()[:16]


def blocks(rng, cells=(6, 8), classes=3, noise=12):
    """A photo of coloured 16-pixel blocks and its truth."""
    colours = np.array([[200, 40, 40], [40, 200, 60], [50, 60, 210], [220, 220, 40]])[:classes]
    truth = np.kron(rng.integers(0, classes, cells), np.ones((16, 16), int)).astype(np.uint8)
    image = np.clip(colours[truth] + rng.normal(0, noise, (*truth.shape, 3)), 0, 255).astype(np.uint8)
    return image, truth
