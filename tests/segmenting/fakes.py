"""Masks with noise, holes and void, and pieces as a folder would hand them over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from cyborgs.structures import PhotoMask


def masks(void: int | None = None, cosine: bool = True) -> list[PhotoMask]:
    rng = np.random.default_rng(0)
    out = []
    for i, (height, width) in enumerate([(40, 56), (33, 21), (24, 24)]):
        coarse = rng.integers(0, 6, (height // 8 + 1, width // 8 + 1))
        labels = np.kron(coarse, np.ones((8, 8), int))[:height, :width].astype(np.uint8)
        labels[rng.random(labels.shape) < 0.03] = 5
        if i == 2:
            labels[:] = 3
        near = rng.uniform(-1, 1, labels.shape).astype(np.float32) if cosine else None
        out.append(PhotoMask(i, f"a/p{i}.jpg", f"a/p{i}.png", labels, near, void, 6 if i == 1 else 1))
    return out


def export(writer: Any, some: list[PhotoMask], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    pieces = [json.dumps(writer.photo(mask, folder)) for mask in some]
    writer.finish(folder, lambda: map(json.loads, pieces))
