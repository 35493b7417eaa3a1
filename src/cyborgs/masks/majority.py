"""A label map made smaller: the label that most pixels of each cell have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]


def majority(labels: UInt8, height: int, width: int) -> UInt8:
    """uint8 (height, width) from uint8 (H, W), each side at most as long; ties to the lowest label.

    Pixel y belongs to the cell that its centre lies in: floor((y + 1/2) * height / H).
    """
    tall, wide = labels.shape
    if not (1 <= height <= tall and 1 <= width <= wide):
        raise ValueError(f"a majority map is at most as large as its labels, {labels.shape}; got {(height, width)}")
    rows = (2 * np.arange(tall) + 1) * height // (2 * tall)
    columns = (2 * np.arange(wide) + 1) * width // (2 * wide)
    span = int(labels.max()) + 1
    keys = ((rows * width)[:, None] + columns) * span + labels
    counts = np.bincount(keys.ravel(), minlength=height * width * span).reshape(height, width, span)
    smaller: UInt8 = counts.argmax(2).astype(np.uint8)
    return smaller
