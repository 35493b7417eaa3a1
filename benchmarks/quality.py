"""Measuring masks: seconds for 500 photos of 480x320, and a photo beside loops over pixels in plain Python.

    python benchmarks/quality.py [--photos 500] [--loops 2] [--workers 0]

Label maps and truths are blobs with borders like those of clusters, as PNGs on the disk, read as `cyborgs masks
quality` reads them; all measures are made, intervals too. Goal: 500 photos in at most 60 s on 2 cores. The loops
count the same table, borders, hits, components and overlaps, and must give the same figures.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cyborgs.data.annotations.png import read_numbers
from cyborgs.data.scenes import write_label_png
from cyborgs.machine.cores import usable_cores
from cyborgs.quality.measure import QualitySettings, measure
from cyborgs.quality.photo import photo_scores
from cyborgs.quality.predictions import open_predictions

SHAPE = (320, 480)
CLASSES, CLUSTERS = 11, 27


@dataclass
class PngTruth:
    """Label PNGs as annotations."""

    files: list[Path]
    kind: str = "folder"
    class_names: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()

    def classes(self, i: int) -> np.ndarray:
        """Class of each pixel, int32; 255 is void."""
        labels = read_numbers(self.files[i])
        return np.where(labels == 255, -1, labels)

    def regions(self, i: int) -> np.ndarray:
        """All of a class is one region."""
        return self.classes(i)

    def annotators(self, i: int) -> list[np.ndarray]:
        """One."""
        return [self.regions(i)]


def blobs(rng: np.random.Generator, labels: int, cells: int) -> np.ndarray:
    """The largest of some smooth random fields, (H, W)."""
    fields = rng.normal(size=(labels, cells, cells * 3 // 2)).astype(np.float32)
    return np.stack([cv2.resize(f, SHAPE[::-1], interpolation=cv2.INTER_CUBIC) for f in fields]).argmax(0)


def write_maps(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for part in ("masks", "truth"):
        (folder / part).mkdir()
    for i in range(count):
        truth = blobs(rng, CLASSES, 6).astype(np.uint8)
        pred = np.where(blobs(rng, 2, 12) == 0, truth, 5 + blobs(rng, CLUSTERS - 5, 8)).astype(np.uint8)
        truth[:12] = 255
        write_label_png(folder / f"masks/p{i:04d}.png", pred)
        write_label_png(folder / f"truth/p{i:04d}.png", truth)


def parts_of(labels: list[list[int]]) -> list[list[int]]:
    """4-connected components by flood fill."""
    height, width = len(labels), len(labels[0])
    found = [[0] * width for _ in labels]
    count = 0
    for y in range(height):
        for x in range(width):
            if found[y][x]:
                continue
            count += 1
            found[y][x] = count
            todo = [(y, x)]
            while todo:
                v, u = todo.pop()
                for a, b in ((v + 1, u), (v - 1, u), (v, u + 1), (v, u - 1)):
                    if 0 <= a < height and 0 <= b < width and not found[a][b] and labels[a][b] == labels[v][u]:
                        found[a][b] = count
                        todo.append((a, b))
    return found


def table_of(s: list[list[int]], g: list[list[int]], truth: list[list[int]]) -> tuple[Counter, Counter, Counter]:
    both: Counter = Counter()
    a: Counter = Counter()
    b: Counter = Counter()
    for y, row in enumerate(truth):
        for x, value in enumerate(row):
            if value >= 0:
                both[s[y][x], g[y][x]] += 1
                a[s[y][x]] += 1
                b[g[y][x]] += 1
    return both, a, b


def best_of(both: Counter, a: Counter, b: Counter) -> dict[int, float]:
    best: dict[int, float] = {}
    for (i, j), n in both.items():
        best[j] = max(best.get(j, 0.0), n / (a[i] + b[j] - n))
    return best


def border(labels: list[list[int]], truth: list[list[int]]) -> set[tuple[int, int]]:
    height, width = len(labels), len(labels[0])
    found = set()
    for y in range(height):
        for x in range(width):
            for v, u in ((y, x + 1), (y + 1, x)):
                if v < height and u < width and truth[y][x] >= 0 <= truth[v][u] and labels[y][x] != labels[v][u]:
                    found.add((y, x))
    return found


def near(mine: set[tuple[int, int]], theirs: set[tuple[int, int]], reach: float) -> float:
    r = int(reach)
    steps = [(v, u) for v in range(-r, r + 1) for u in range(-r, r + 1) if v * v + u * u <= reach * reach]
    return sum(any((y + v, x + u) in theirs for v, u in steps) for y, x in mine) / len(mine)


def loops(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Some of the measures as loops over pixels; those left out cost little once the table is there."""
    s, g = pred.tolist(), truth.tolist()
    both, a, b = table_of(s, g, g)
    n = sum(both.values())
    pairs = [sum(c * (c - 1) // 2 for c in counts.values()) for counts in (both, a, b)]
    expected = pairs[1] * pairs[2] / (n * (n - 1) // 2)
    mine, theirs = border(s, g), border(g, g)
    reach = max(1.0, 0.0075 * (len(g) ** 2 + len(g[0]) ** 2) ** 0.5)
    p, r = near(mine, theirs, reach), near(theirs, mine, reach)
    cover = best_of(both, a, b)
    objects = best_of(*table_of(parts_of(s), parts_of(g), g))
    return {
        "ari": (pairs[0] - expected) / ((pairs[1] + pairs[2]) / 2 - expected),
        "covering": sum(b[j] * v for j, v in cover.items()) / n,
        "boundary_f": 2 * p * r / (p + r),
        "abo": sum(objects.values()) / len(objects),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_maps(folder, options.photos)
        maps = open_predictions(folder / "masks", same_ids=True)
        truth = PngTruth(sorted((folder / "truth").glob("*.png")))
        start, busy = time.perf_counter(), time.process_time()
        found = measure(maps, truth, QualitySettings(), workers=options.workers)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
        used = options.workers or usable_cores()
        print(f"{options.photos} photos {SHAPE[1]}x{SHAPE[0]}, {used} threads: {seconds:.1f} s (goal 60 for 500),")
        print(f"  {busy:.1f} s of processor time; {1000 * busy / options.photos:.1f} ms a photo")
        print(f"  mIoU {found.whole['hungarian_miou'].value:.3f}, covering {found.means['covering'].value:.3f}")
        ours = slow = 0.0
        for i in range(min(options.loops, options.photos)):
            pred, real = maps.read(i), truth.regions(i)
            start = time.process_time()
            scores = photo_scores(pred, [real], real)
            ours += time.process_time() - start
            start = time.process_time()
            looped = loops(pred, real)
            slow += time.process_time() - start
            assert scores is not None
            for measured, value in looped.items():
                assert abs(scores.values[measured] - value) < 1e-9, measured
        if ours:
            print(f"loops in Python: {slow / options.loops:.2f} s a photo, {slow / ours:.0f} times ours, equal figures")


if __name__ == "__main__":
    main()
