"""Bootstrapping one group of photos over the bare forward of its backbone, in time and memory, interleaved.

    python benchmarks/bootstrap.py [--device cuda] [--images 16] [--clusters 129] [--threads 1] [--photos FOLDER]
        [--border 32] [--precision bf16-mixed]

Bare: the network up to the end of layer2 on normalised float images, in calls as large as bootstrapping makes them.
Bootstrapping: uint8 photos in memory to label maps: normalisation, the network up to layer2.2, 20 iterations of
spherical k-means over all pixels. Goal: a ratio of at most 2.2. Without ``--photos`` the pictures are smooth noise.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from cyborgs.masks.bootstrap import CALL_PIXELS, Bootstrap
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.runs.build import Features

HEIGHT, WIDTH = 480, 640


def pictures(count: int, folder: Path | None) -> list[np.ndarray]:
    if folder is not None:
        files = sorted(folder.rglob("*.jpg"))[:count]
        if len(files) < count:
            raise SystemExit(f"{folder}: {len(files)} JPEG files, need {count}")
        found = (cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) for file in files)
        return [cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for image in found]
    rng = np.random.default_rng(0)
    sizes = ((6, 8), (30, 40), (240, 320))
    layers = ([rng.random((*size, 3), np.float32) for size in sizes] for _ in range(count))
    mixed = (
        sum(cv2.resize(layer, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for layer in three) for three in layers
    )
    return [np.clip(image / 3 * 255, 0, 255).astype(np.uint8) for image in mixed]


def time_of(work: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak(device: str) -> float:
    """MiB: allocated on the GPU since the last reset, or resident in this process so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--clusters", type=int, default=129)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--border", type=int, default=0)
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--cpu-time", action="store_true", help="measure this process's CPU time: on a busy machine")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet50"), ["layer2.2"])
    backbone.to(args.device).to(memory_format=torch.channels_last)  # as a run has it
    images = pictures(args.images, args.photos)
    whole = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(args.device)
    with torch.no_grad():
        for part in whole.split(2):  # statistics of BatchNorm, so that features are not those of a blank network
            backbone(backbone.normalise(part))
    backbone.eval()
    ready = [backbone.normalise(part) for part in whole.split(max(1, CALL_PIXELS[args.device] // (HEIGHT * WIDTH)))]

    def bare() -> None:
        with torch.no_grad(), torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16-mixed"):
            for part in ready:
                backbone(part, ["layer2"])

    def group() -> None:
        source.label(images, 0, 0, 0)

    features = Features(backbone, ("layer2.2",), torch.device(args.device), args.border, args.precision)
    source = Bootstrap(features, clusters=(args.clusters, args.clusters), device=args.device)
    memory = {}
    for name, work in (("bare", bare), ("group", group)):  # warms both up
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        work()
        memory[name] = peak(args.device)
    clock = time.process_time if args.cpu_time else time.perf_counter
    times = [(time_of(bare, args.device, clock), time_of(group, args.device, clock)) for _ in range(args.rounds)]
    ratio = statistics.median(full / alone for alone, full in times)
    alone, full = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"{args.device}, {torch.get_num_threads()} threads, {args.images} images of {WIDTH}x{HEIGHT}, K={args.clusters}, "
        f"border {args.border}, {args.precision}:\n"
        f"  bare forward to layer2 {alone:.3f} s, bootstrapping {full:.3f} s, ratio {ratio:.2f} (goal 2.2), "
        f"spread {min(f / a for a, f in times):.2f} to {max(f / a for a, f in times):.2f}\n"
        f"  peak memory: bare {memory['bare']:.0f} MiB, bootstrapping {memory['group']:.0f} MiB"
    )


if __name__ == "__main__":
    main()
