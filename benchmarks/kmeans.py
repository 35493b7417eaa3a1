"""Spherical k-means beside FAISS, 76,800 x 512, K = 129, 20 iterations: ``python benchmarks/kmeans.py --threads 2``.

Both use all points and as many threads, in turns, so that what else the machine does meets both. FAISS gets rows that
are normalised already and leaves labels to a search, which is timed apart; ours starts from raw rows and returns labels.
The points: ``layer2.2`` of a ResNet-50 with random weights on smooth random pictures with texture, or ``--features``
(a .npy file, float32 (N, D)), or ``--normal`` (no structure at all, the worst case).
"""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np


def features() -> np.ndarray:
    """16 pictures of 640 x 480 at stride 8: 76,800 x 512."""
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.resnet50().eval()
    body = torch.nn.Sequential(
        network.conv1, network.bn1, network.relu, network.maxpool, network.layer1, network.layer2[:3]
    )
    rows = []
    for _ in range(16):
        picture = torch.zeros(1, 3, 480, 640)
        for size in (4, 12, 40, 120, 480):
            coarse = torch.randn(1, 3, size, size * 4 // 3) / size**0.3
            picture += torch.nn.functional.interpolate(coarse, size=(480, 640), mode="bilinear")
        with torch.no_grad():
            rows.append(body(picture)[0].flatten(1).T)
    return torch.cat(rows).contiguous().numpy()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clusters", type=int, default=129)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--features")
    parser.add_argument("--normal", action="store_true")
    parser.add_argument(
        "--cpu-time", action="store_true", help="CPU time instead of the clock's: one thread, busy machine"
    )
    arguments = parser.parse_args()
    if os.environ.get("OMP_WAIT_POLICY") != "passive":  # before torch and FAISS are loaded
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
        # Threads that spin while they wait make a busy machine decide the ratio.
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, *sys.argv])

    import faiss
    import torch

    from cyborgs.ops import spherical_kmeans

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    if arguments.normal:
        x = np.random.default_rng(0).normal(size=(76_800, 512)).astype(np.float32)
    else:
        x = np.load(arguments.features) if arguments.features else features()
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    raw, k = torch.from_numpy(x), arguments.clusters
    print(f"{len(x)} x {x.shape[1]}, K = {k}, {arguments.threads} threads")
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    times, values = [], []
    for seed in range(arguments.runs):
        start = clock()
        labels, centroids = spherical_kmeans(raw, k, seed=seed)
        ours = clock() - start
        kmeans = faiss.Kmeans(x.shape[1], k, niter=20, spherical=True, seed=seed + 1, max_points_per_centroid=10**9)
        start = clock()
        kmeans.train(unit)
        train = clock() - start
        start = clock()
        cosines = kmeans.index.search(unit, 1)[0]
        search = clock() - start
        times.append((ours, train, search))
        own = centroids.numpy()[labels.numpy()]
        values.append((np.einsum("nd,nd->n", unit, own).mean(), cosines.mean()))
        print(
            f"seed {seed}: ours {ours:.2f} s, FAISS {train:.2f} + {search:.2f} s; "
            f"mean cosine {values[-1][0]:.5f}, {values[-1][1]:.5f}",
            flush=True,
        )
    ours, train, search = np.median(np.array(times), axis=0)
    a, b = np.array(values).mean(axis=0)
    print(f"time, ours / FAISS training: {ours / train:.2f}; / training and labels: {ours / (train + search):.2f}")
    print(f"mean cosine, ours / FAISS: {a / b:.5f}; what is lost (1 - cosine): {(1 - a) / (1 - b):.4f}")


if __name__ == "__main__":
    main()
