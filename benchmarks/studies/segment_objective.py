"""Which clustering of more cells than memory holds: ``python benchmarks/studies/segment_objective.py PHOTOS --network random:resnet50``.

All ways see the same features once, in the photos' order, and are scored on all cells by the mean cosine of a cell and
its nearest centroid: Lloyd's algorithm on all cells (what nobody can afford on a large set), on a uniform sample of
them (``ops/streaming_kmeans.py``), and mini-batches of as many rows as the sample, whose centroids are the means of all
cells that they were ever given: with the photos as they come, and with the photos shuffled.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from cyborgs.api import read_photos
from cyborgs.features.extraction import stream_maps
from cyborgs.models.named import open_named
from cyborgs.ops import spherical_kmeans
from cyborgs.ops.streaming_kmeans import StreamingKMeans, mean_cosine


def mini_batches(x: Tensor, k: int, size: int, seed: int) -> Tensor:
    """One pass: k-means of the first batch, then each batch moves the sums of its nearest centroids."""
    _, centroids = spherical_kmeans(x[:size], k, iterations=20, seed=seed)
    sums = torch.zeros(k, x.shape[1], dtype=torch.float64)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        labels = (part @ centroids.T).argmax(dim=1)
        sums.index_add_(0, labels, part.double())
        counts = torch.bincount(labels, minlength=k)
        centroids = torch.nn.functional.normalize(sums, dim=1).float()
        empty = torch.nonzero((counts == 0) & (sums.norm(dim=1) < 1e-9)).squeeze(1)
        if len(empty):
            far = (part @ centroids.T).amax(dim=1).argsort()[: len(empty)]
            centroids[empty[: len(far)]] = part[far]
    return centroids


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--network", default="random:resnet50")
    parser.add_argument("--layer", default="")
    parser.add_argument("--count", type=int, default=60, help="photos, evenly from the list")
    parser.add_argument("--clusters", type=int, nargs="+", default=[27, 81])
    parser.add_argument("--rows", type=int, nargs="+", default=[16_384, 65_536])
    parser.add_argument("--short-side", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    images = read_photos(arguments.photos)
    images = images.subset(np.linspace(0, len(images) - 1, min(arguments.count, len(images))).astype(int).tolist())
    network = open_named(arguments.network).backbone
    layer = arguments.layer or network.default_clustered()
    maps = stream_maps(network, images, [layer], short_side=arguments.short_side)
    cells = [torch.nn.functional.normalize(m.flatten(1).T, dim=1) for _, _, m in maps]
    mixed = torch.cat([cells[i] for i in np.random.default_rng(0).permutation(len(cells))])
    x = torch.cat(cells)
    print(f"{len(images)} photos, {layer} of {arguments.network}: {len(x)} x {x.shape[1]}", flush=True)
    for k in arguments.clusters:
        rows: dict[str, list[tuple[float, float]]] = {}

        def note(name: str, centroids: Tensor, start: float, rows: dict[str, list[tuple[float, float]]] = rows) -> None:
            seconds = time.perf_counter() - start
            rows.setdefault(name, []).append((1 - mean_cosine(x, centroids), seconds))

        for seed in range(arguments.seeds):
            start = time.perf_counter()
            note("all cells", spherical_kmeans(x, k, iterations=50, seed=seed)[1], start)
            for count in arguments.rows:
                start = time.perf_counter()
                stream = StreamingKMeans(x.shape[1], seed=seed, rows=count)
                stream.feed(x)
                note(f"sample of {count}", stream.centroids(k)[0], start)
                start = time.perf_counter()
                note(f"mini-batches of {count}", mini_batches(x, k, count, seed), start)
                start = time.perf_counter()
                note(f"mini-batches of {count}, shuffled", mini_batches(mixed, k, count, seed), start)
        base = np.mean([lost for lost, _ in rows["all cells"]])
        for name, values in rows.items():
            lost, seconds = np.array(values).T
            print(
                f"K = {k:>3} {name:<30} 1 - cosine {lost.mean():.5f} +- {lost.std():.5f} "
                f"({lost.mean() / base:.4f} of all cells')  {seconds.mean():6.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
