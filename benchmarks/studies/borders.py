"""Does mirroring a photo beyond its edges before bootstrapping (masks.border) take the rim away, and better the masks?

    python benchmarks/studies/borders.py OUT --backbone RUN --set bsds PHOTOS bsds:TRUTH --set camvid PHOTOS folder:TRUTH

27 clusters a group of 16 photos, for every border, seed and set; what is there already is not made again. Prints a
table: means over the seeds of quality against people's annotations, the share of clusters of which more than half lies
within 10 pixels of a photo's edge (for comparison: the share of all pixels that do).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from cyborgs.masks.bootstrap import draw_groups

MEASURES = ("covering", "ari", "boundary_f", "nmi")
CLUSTERS = 27
GROUP = 16
RIM = 10
"""Pixels."""


def make(photos: str, truth: str, out: Path, backbone: str, border: int, seed: int) -> None:
    cyborgs = [sys.executable, "-m", "cyborgs"]
    if not (out / "segments.csv").is_file():
        subprocess.run(
            [*cyborgs, "segment", photos, "--backbone", backbone, "--source", "bootstrap", "--clusters", str(CLUSTERS),
             "--border", str(border), "--seed", str(seed), "--out", str(out), "--export", "none", "--no-overlays"],
            check=True,
        )  # fmt: skip
    if not (out / "quality" / "quality.json").is_file():
        measures = ["--measures", *MEASURES, "--draws", "200", "--allow-missing"]
        subprocess.run([*cyborgs, "masks", "quality", str(out), "--truth", truth, *measures], check=True)


def rims(out: Path, seed: int) -> tuple[float, float]:
    """Share of the clusters (of their group) that lie mostly in the rim; share of all pixels that lie there."""
    with open(out / "segments.csv", newline="", encoding="utf-8") as file:
        masks = [row["mask"] for row in csv.DictReader(file)]
    clusters: list[float] = []
    inside = pixels = 0
    for group in draw_groups(seed, 0, len(masks), GROUP):
        everywhere, rim = np.zeros(256, np.int64), np.zeros(256, np.int64)
        for index in group:
            labels = cv2.imread(str(out / masks[index]), cv2.IMREAD_GRAYSCALE)
            edge = np.ones(labels.shape, bool)
            edge[RIM:-RIM, RIM:-RIM] = False
            everywhere += np.bincount(labels.ravel(), minlength=256)
            rim += np.bincount(labels[edge], minlength=256)
        there = everywhere > 0
        clusters += list(rim[there] / everywhere[there])
        inside, pixels = inside + int(rim.sum()), pixels + int(everywhere.sum())
    return float(np.mean(np.array(clusters) > 0.5)), inside / pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--set", nargs=3, action="append", required=True, metavar=("NAME", "PHOTOS", "KIND:TRUTH"))
    parser.add_argument("--borders", type=int, nargs="+", default=[0, 32, 64])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    print(f"| photos | border | {' | '.join(MEASURES)} | clusters mostly in the rim | pixels in the rim |")
    print("|---" * (len(MEASURES) + 4) + "|")
    for name, photos, truth in args.set:
        for border in args.borders:
            means, shares = [], []
            for seed in args.seeds:
                out = args.out / f"{name}-b{border}-s{seed}"
                make(photos, truth, out, args.backbone, border, seed)
                found = json.loads((out / "quality" / "quality.json").read_text())["means"]
                means.append([found[measure]["value"] for measure in MEASURES])
                shares.append(rims(out, seed))
            means_, spread = np.mean(means, 0), np.ptp(means, 0)
            cells = [f"{m:.3f} ({s:.3f})" for m, s in zip(means_, spread, strict=True)]
            cells += [f"{100 * share:.1f}%" for share in np.mean(shares, 0)]
            print(f"| {name} | {border} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
