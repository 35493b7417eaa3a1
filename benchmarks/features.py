"""Features of frozen networks over the bare forward and over the loader alone; the vote over a loop in Python.

    python benchmarks/features.py [--network resnet50] [--device cuda] [--photos FOLDER] [--images 64] [--threads 1]

Bare: the network on normalised float images in memory, in calls as large as the extraction makes them. Loader: the
photos decoded and cut to 224, in as many threads. Extraction: files to features (N, C). Goal: at most 1.15 of the slower
of the two. Rounds alternate; the table shows medians. Without ``--photos`` the photos are smooth noise, as JPEG.
The vote: ``--bank`` rows of 2048, a tenth as many queries, k = 20, beside a loop over queries and neighbours, which must
say the same classes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from cyborgs.data.images import PhotoFiles
from cyborgs.evaluation.photos import voting
from cyborgs.features.cache import BATCH, Extraction, features
from cyborgs.features.threads import ahead, threads_by_default
from cyborgs.features.transforms import Square
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.ops.normalise import unit_rows

SIZE = 224


def pictures(folder: Path, count: int) -> list[Path]:
    """Smooth noise of 640x480, about as large as a photo's file."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        layers = (rng.random((*size, 3), np.float32) for size in ((6, 8), (30, 40), (120, 160)))
        mixed = sum(cv2.resize(layer, (640, 480), interpolation=cv2.INTER_CUBIC) for layer in layers)
        files.append(folder / f"{i:04d}.jpg")
        cv2.imwrite(str(files[-1]), np.clip(mixed / 3 * 255, 0, 255).astype(np.uint8))
    return files


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def looped(bank: list[list[float]], labels: list[int], queries: list[list[float]], classes: int) -> list[int]:
    """The vote in plain Python."""
    found = []
    for query in queries:
        similar = [math.fsum(a * b for a, b in zip(query, row, strict=True)) for row in bank]
        near = sorted(range(len(bank)), key=lambda i: (-similar[i], i))[:20]
        votes = [0.0] * classes
        for i in near:
            votes[labels[i]] += math.exp(similar[i] / 0.07)
        found.append(votes.index(max(votes)))
    return found


def vote(bank: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor) -> list[int]:
    """The classes of the queries, as the protocol ``knn`` tells them."""
    near, order = voting.nearest_rows(bank, queries, 20)
    found: list[int] = voting.votes(near, labels[order], 20, 0.07).argmax(dim=1).tolist()
    return found


def votes(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 20, (size,), generator=generator)
    centres = torch.randn(20, 2048, generator=generator)
    bank = unit_rows(centres[labels] + 8 * torch.randn(size, 2048, generator=generator))
    queries = unit_rows(centres[torch.arange(size // 10) % 20] + 8 * torch.randn(size // 10, 2048, generator=generator))
    ours = min(seconds(lambda: vote(bank, labels, queries), "cpu") for _ in range(3))
    few = queries[: max(1, min(10, len(queries)))]
    start = time.perf_counter()
    wanted = looped(bank.tolist(), labels.tolist(), few.tolist(), 20)
    loop = time.perf_counter() - start
    assert vote(bank, labels, few) == wanted
    print(
        f"vote of {size} rows of 2048 on {len(queries)} queries: {ours:.3f} s, {1e3 * ours / len(queries):.2f} ms a query;\n"
        f"  a loop in Python {1e3 * loop / len(few):.0f} ms a query, "
        f"{loop / len(few) / (ours / len(queries)):.0f} times ours, equal classes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--images", type=int, default=0, help="0: 64, on a GPU 2048")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch")
    parser.add_argument("--decoders", type=int, default=threads_by_default(), help="threads that decode")
    parser.add_argument("--bank", type=int, default=5000)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    count = args.images or (64 if args.device == "cpu" else 2048)
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name=args.network)).to(args.device).eval()
    layer = backbone.layers[-1]
    how = Extraction(layer, Square(SIZE))
    size = BATCH[args.device]
    with tempfile.TemporaryDirectory() as folder:
        files = sorted(args.photos.rglob("*.jpg")) if args.photos else pictures(Path(folder), min(count, 64))
        photos = PhotoFiles(tuple(files[i % len(files)] for i in range(count)))
        batch = torch.randint(0, 256, (size, 3, SIZE, SIZE), dtype=torch.uint8).to(memory_format=torch.channels_last)
        ready = backbone.normalise(batch.to(args.device))

        @torch.no_grad()
        def bare() -> None:
            for _ in range(0, count, size):
                backbone(ready, [layer])

        def loader() -> None:
            for _ in ahead(lambda i: how.transform(photos.read(i), i), range(count), args.decoders):
                pass

        def whole() -> None:
            features(backbone, photos, how, threads=args.decoders)

        works = (bare, loader, whole)
        for work in works:  # warms all up
            work()
        times = [[seconds(work, args.device) for work in works] for _ in range(args.rounds)]
    ratio = statistics.median(full / max(alone, loading) for alone, loading, full in times)
    alone, loading, full = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{args.network}, {args.device}, {torch.get_num_threads()} threads of torch, {args.decoders} that decode, "
        f"{count} photos:\n"
        f"  bare forward {count / alone:.1f}, loader {count / loading:.1f}, extraction {count / full:.1f} images/s\n"
        f"  extraction over the slower of the two {ratio:.2f} (goal 1.15), "
        f"{min(f / max(a, b) for a, b, f in times):.2f} to {max(f / max(a, b) for a, b, f in times):.2f}"
    )
    votes(args.bank)


if __name__ == "__main__":
    main()
