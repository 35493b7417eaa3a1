"""Memory of ``segment`` at 1,000 and 10,000 photos: ``python benchmarks/segment_memory.py --photos 1000 10000 --width 512``.

Each number of photos is a process of its own. Photos and maps are synthetic (made when they are read), the rest is the
real thing: both passes, label PNGs, COCO JSON. Reported: the largest resident memory, and how much of it came after
all modules were loaded and a first small segmentation was done.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cyborgs.segmenting.export_coco import CocoInstances
from cyborgs.segmenting.segment import segment


class Photos:
    """Coloured blocks, from the photo's number."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        self.count = count
        self.shape = size

    def __len__(self) -> int:
        return self.count

    def read(self, i: int) -> np.ndarray:
        """Photo i."""
        draw = np.random.default_rng(i)
        height, width = self.shape
        blocks = draw.integers(0, 256, (height // 40 + 1, width // 40 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(blocks.repeat(40, 0).repeat(40, 1)[:height, :width])

    def name(self, i: int) -> str:
        """Its name."""
        return f"{i // 1000:03d}/{i:06d}.jpg"

    def size(self, i: int) -> tuple[int, int]:
        """Height and width."""
        return self.shape

    def content(self, i: int) -> bytes:
        """No file."""
        return b""

    def fingerprint(self) -> str:
        """Of all."""
        return f"{self.count} {self.shape}"


class Network(nn.Module):
    """Maps of any width at stride 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 9, generator=torch.Generator().manual_seed(0)))

    def normalise(self, images: Tensor) -> Tensor:
        """To -0.5..0.5."""
        return images.float() / 255 - 0.5

    def forward(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """Block means and products of them, projected."""
        mean = nn.functional.avg_pool2d(images, 8)
        x = torch.cat([mean, mean * mean.roll(1, 1), mean.square()], 1)
        return {name: torch.einsum("kc,bchw->bkhw", self.weight, x) for name in layers}


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def one(count: int, width: int, size: tuple[int, int], clusters: int) -> None:
    options = {"layers": ["map"], "clusters": clusters, "overlays": False, "exports": lambda k: [CocoInstances(k)]}
    with tempfile.TemporaryDirectory() as folder:
        segment(Photos(4, (160, 160)), Network(8), Path(folder, "warm"), **options)  # type: ignore[arg-type]
        before, start = peak(), time.perf_counter()
        segment(Photos(count, size), Network(width), Path(folder, "out"), **options)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
    print(
        f"{count:>7} photos of {size[1]}x{size[0]}, D = {width}, K = {clusters}: {peak():.0f} MB at most, "
        f"{peak() - before:.0f} MB beyond the modules' {before:.0f}; {1000 * seconds / count:.1f} ms a photo",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--width", type=int, nargs="+", default=[512])
    parser.add_argument("--size", type=int, nargs=2, default=[240, 320])
    parser.add_argument("--clusters", type=int, default=27)
    arguments = parser.parse_args()
    if len(arguments.photos) == len(arguments.width) == 1:
        one(arguments.photos[0], arguments.width[0], tuple(arguments.size), arguments.clusters)
        return
    for width in arguments.width:
        for count in arguments.photos:
            rest = ["--size", *map(str, arguments.size), "--clusters", str(arguments.clusters)]
            subprocess.run([sys.executable, __file__, "--photos", str(count), "--width", str(width), *rest], check=True)


if __name__ == "__main__":
    main()
