"""What the threads of ``segment`` are worth: ``python benchmarks/studies/segment_threads.py PHOTOS --network random:resnet50``.

The same photos with decoding and writing in threads and without, in turns; then each part alone, in one thread. The
loop is bound by its slowest part: with threads that should be the network.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cyborgs.api import read_photos
from cyborgs.data.output import jpeg_bytes, label_png_bytes
from cyborgs.data.palette import overlay
from cyborgs.features.extraction import layer_maps
from cyborgs.features.threads import threads_by_default
from cyborgs.models.named import open_named
from cyborgs.ops.enlarge import Enlarged
from cyborgs.segmenting.export_coco import CocoInstances, CocoPanoptic
from cyborgs.segmenting.export_label_studio import LabelStudio
from cyborgs.segmenting.segment import segment
from cyborgs.structures import PhotoMask


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos")
    parser.add_argument("--network", default="random:resnet50")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--clusters", type=int, default=27)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = read_photos(arguments.photos)
    images = images.subset(np.linspace(0, len(images) - 1, min(arguments.count, len(images))).astype(int).tolist())
    network = open_named(arguments.network).backbone
    layer, k = network.default_clustered(), arguments.clusters
    found: dict[int, list[float]] = {0: [], threads_by_default(): []}
    clusters = None
    for _ in range(arguments.runs):
        for threads, times in found.items():
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                made = segment(
                    images, network, Path(folder, "out"), layers=[layer], clusters=k, threads=threads,
                    exports=lambda c: [CocoInstances(c)],
                )  # fmt: skip
                times.append((time.perf_counter() - start) / len(images))
                clusters = made[k]
    for threads, times in found.items():
        print(f"{threads} threads: {1000 * np.median(times):.0f} ms a photo, both passes")
    assert clusters is not None

    def alone(name: str, function: Callable[[], Any], times: int = 5) -> None:
        start = time.perf_counter()
        for _ in range(times):
            function()
        print(f"  {name:<22} {1000 * (time.perf_counter() - start) / times:7.1f} ms")

    image = images.read(0)
    joined = layer_maps(network, [image], [layer])[layer][0]
    pixels = Enlarged(clusters.centroids, joined, *image.shape[:2])
    labels, cosine = pixels.labels()
    mask = PhotoMask(0, "a.jpg", "a.png", labels, cosine)
    print(f"one photo of {image.shape[1]}x{image.shape[0]}, K = {k}, one thread:")
    alone("decode", lambda: images.read(0))
    alone("network", lambda: layer_maps(network, [image], [layer]))
    alone("labels and cosines", lambda: Enlarged(clusters.centroids, joined, *image.shape[:2]).labels())
    alone("label PNG", lambda: label_png_bytes(labels))
    alone("overlay", lambda: jpeg_bytes(overlay(image, labels)))
    alone("COCO instances", lambda: CocoInstances(k).photo(mask, Path()))
    with tempfile.TemporaryDirectory() as folder:
        alone("COCO panoptic", lambda: CocoPanoptic(k).photo(mask, Path(folder)))
    alone("Label Studio", lambda: LabelStudio(k, folder="", about="").photo(mask, Path()))


if __name__ == "__main__":
    main()
