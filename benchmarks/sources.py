"""What each source of masks costs and gives: ``python benchmarks/sources.py [photos/] [--images 100] [--truth KIND:PATH]``.

Without a folder the demo's scenes are taken. Seconds an image are those of making a whole data set's maps (decoding,
labelling, writing the store) with all cores, nothing cached; regions are labels an image, void left out; bytes those of
a stored map. Then felzenszwalb and selective search beside the bare call of their libraries on the same decoded
photos: one core each, and all cores each (the library in a pool of threads, which is what a user would write). Ours
includes what the call does not: merging beyond 256 regions, ranking, filter and painting. Rounds alternate, so that
what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.data.scenes import write_scenes
from cyborgs.masks.config import FelzenszwalbConfig, SelectiveSearchConfig
from cyborgs.masks.felzenszwalb import Felzenszwalb
from cyborgs.masks.generate import generate
from cyborgs.masks.grid import Grid
from cyborgs.masks.ground_truth import GroundTruth
from cyborgs.masks.selective_search import SelectiveSearch
from cyborgs.masks.source import MaskSource, cores
from cyborgs.masks.statistics import label_counts
from cyborgs.masks.store import MaskStore
from cyborgs.masks.whole import Whole


def costs(name: str, source: MaskSource, images: Images) -> str:
    """A row of the table: seconds, regions, bytes an image."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        generate(source, images, folder, 0, seed=0, cycle=0, manifest={})
        seconds = (time.perf_counter() - begun) / len(images)
        store = MaskStore(folder)
        counts = [int((label_counts(store[i], store.void) > 0).sum()) for i in range(len(images))]
        size = (Path(folder) / "masks" / "generation-0000" / "maps.bin").stat().st_size / len(images)
        store.close()
    regions = f"{np.mean(counts):.1f} ({min(counts)} to {max(counts)})"
    return f"| {name} | {seconds:.4f} | {regions} | {size:,.0f} |"


def bare_graph(image: np.ndarray) -> np.ndarray:
    return cv2.ximgproc.segmentation.createGraphSegmentation(0.8, 1000, 1000).processImage(image)


def bare_skimage(image: np.ndarray) -> np.ndarray:
    return felzenszwalb(image, scale=1000, sigma=0.8, min_size=1000)


def bare_search(image: np.ndarray) -> np.ndarray:
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    return search.process()


def bare(call: Callable[[np.ndarray], np.ndarray], images: Sequence[np.ndarray], threads: int) -> float:
    """Seconds of the library alone."""
    begun = time.perf_counter()
    if threads == 1:
        for image in images:
            call(image)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(call, images))
    return time.perf_counter() - begun


def ours(source: MaskSource, images: Sequence[np.ndarray]) -> float:
    begun = time.perf_counter()
    source.label(images, 0, 0, 0)
    return time.perf_counter() - begun


def beside(photos: Images, rounds: int, some: int) -> None:
    """Our labelling over the libraries' calls: medians over the rounds."""
    config, all_cores = FelzenszwalbConfig(), cores()
    cases = {
        "felzenszwalb / OpenCV": (lambda n: Felzenszwalb(config, n), bare_graph, len(photos)),
        "felzenszwalb / scikit-image": (lambda n: Felzenszwalb(config, n), bare_skimage, len(photos)),
        "selective-search / OpenCV": (lambda n: SelectiveSearch(SelectiveSearchConfig(), n), bare_search, some),
    }
    print(
        f"\n| ours / the library's | one core | {all_cores} cores | {all_cores} cores / the library on one |\n|---|---|---|---|"
    )
    for name, (make, call, count) in cases.items():
        images = [photos.read(i) for i in range(min(count, len(photos)))]
        cells = []
        for threads in (1, all_cores):
            times = np.array([(ours(make(threads), images), bare(call, images, threads)) for _ in range(rounds)])
            cells.append(np.median(times, axis=0) / len(images))
        (one, bare_one), (many, bare_many) = cells
        shown = [
            f"{a:.4f} / {b:.4f} s = {a / b:.2f}" for a, b in ((one, bare_one), (many, bare_many), (many, bare_one))
        ]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", help="a folder; none: the demo's scenes")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--truth", help="annotations of the photos, KIND:PATH")
    parser.add_argument("--quality", action="store_true", help="selective search of mode quality too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--some", type=int, default=20, help="photos of selective search beside its library")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)  # a core is a core: OpenCV's own threads would help the bare calls alone
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.photos:
            write_scenes(folder, arguments.images, size=(640, 480))
        listing = list_images(arguments.photos or Path(folder) / "photos")
        found = ScannedImages.from_scan(scan(listing, use_cache=False))
        photos = found.subset(np.linspace(0, len(found) - 1, min(arguments.images, len(found))).round().astype(int))
        pixels = np.mean([np.prod(photos.size(i)) for i in range(len(photos))])
        print(f"{len(photos)} photos of {pixels / 1e6:.2f} megapixels (mean), {cores()} cores\n")
        sources: dict[str, MaskSource] = {
            "whole": Whole(),
            "grid (5 x 5)": Grid(5),
            "felzenszwalb": Felzenszwalb(),
            "selective-search": SelectiveSearch(),
        }
        if arguments.quality:
            sources["selective-search, quality"] = SelectiveSearch(SelectiveSearchConfig(mode="quality"))
        if arguments.truth:
            from cyborgs.data.annotations.open import open_truth

            names = [photos.name(i) for i in range(len(photos))]
            sources["ground-truth"] = GroundTruth(open_truth(arguments.truth, names, photos.root), len(photos), photos)
        print("| source | seconds an image | regions an image | bytes a map |\n|---|---|---|---|")
        for name, source in sources.items():
            print(costs(name, source, photos), flush=True)
        beside(photos, arguments.rounds, arguments.some)


if __name__ == "__main__":
    main()
