"""``cyborgs compare`` on 1,000 photos: seconds with features to compute, and with features kept from before.

    python benchmarks/compare.py [--photos 1000] [--classes 10] [--size 128] [--seeds 3]

Photos are textures whose frequency is their class, as JPEGs in class folders on the disk; a ResNet-18 and a ResNet-34 with random
weights, drawn for each seed, are compared by `linear-classification`, preset small, over shares of 1, 5, 10, 50 and 100% of the labels. The
second start finds the features and measures everything else anew. Goal: under 2 minutes with features kept.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

import cyborgs
from cyborgs.evaluation.comparing.task import CELLS
from cyborgs.machine.cores import usable_cores

GOAL = 120.0
SHARES = (1.0, 5.0, 10.0, 50.0, 100.0)


def write_photos(folder: Path, photos: int, classes: int, size: int) -> None:
    """Half of them in train/, half in test/."""
    rng = np.random.default_rng(0)
    for i in range(photos):
        c = i % classes
        cells = 3 + 2 * c
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        place = folder / ("train", "test")[i * 2 // photos] / f"class{c}"
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(place / f"{i:05d}.jpg"), cv2.resize(noise, (size * 4 // 3, size), interpolation=cv2.INTER_CUBIC)
        )


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        data, out = Path(temporary) / "data", Path(temporary) / "out"
        write_photos(data, args.photos, args.classes, args.size)
        seconds = []
        for _ in range(2):
            shutil.rmtree(out / CELLS, ignore_errors=True)
            started = time.perf_counter()
            cyborgs.compare(
                ["random:resnet18", "random:resnet34"],
                data=data,
                out=out,
                protocol="linear-classification",
                seeds=args.seeds,
                shares=SHARES,
            )
            seconds.append(time.perf_counter() - started)
    print(
        f"{args.photos} photos, 2 networks, {args.seeds} seeds, {len(SHARES)} shares, {usable_cores()} cores: "
        f"{seconds[0]:.1f} s, with features kept {seconds[1]:.1f} s (goal {GOAL:.0f})"
    )


if __name__ == "__main__":
    main()
