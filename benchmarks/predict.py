"""What ``--dry-run`` predicts beside what the run then takes: time, memory, disk.

    python benchmarks/predict.py --photos DIR [--rounds 3] [--cases demo small paper] [--out FILE.json]

demo: 320 built-in scenes. small: 32 of its epochs on 320 of the photos, one bootstrapping. paper: cyborgs-coco on 40
of the photos, 7 epochs at batch 8, with W, N and M so short that every kind of epoch comes. Rounds alternate: a
prediction, a run; the table shows the medians, each round, and the load. The time of a run begins when its folder
appears (Python has started) and ends with the process; its memory is the main process's peak, and with it the largest
sum of what its loader processes own alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.data.scenes import write_scenes
from cyborgs.forecast.prediction import forecast
from cyborgs.forecast.rehearsal import Rehearsal
from cyborgs.forecast.usage import own_bytes, peak_bytes
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.recipes import RECIPES
from cyborgs.runs.devices import make_fabric
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.recipe_file import load, to_text
from cyborgs.runs.workload import held_bytes, workload

PHOTOS = {"small": 320, "paper": 40}


def recipes() -> dict[str, Recipe]:
    paper = RECIPES["cyborgs-coco"]()
    assert isinstance(paper.method, CyborgsConfig)
    short = replace(paper.method, warmup_epochs=1, refresh_every=3, cluster_every=3)
    return {
        "demo": RECIPES["demo"](),
        "small": replace(RECIPES["small"](), epochs=32),
        "paper": replace(paper, method=short, epochs=7, batch_size=8, snapshots=()),
    }


def predict(recipe: Recipe, data: Path) -> dict[str, float]:
    """The costs, as ``--dry-run`` finds them."""
    images = ScannedImages.from_scan(scan(list_images(data)))
    resolved = recipe.resolved(len(images))
    begun = time.perf_counter()
    measured = Rehearsal(make_fabric(resolved), resolved, images, lambda text: None).measure()
    found = forecast(resolved, workload(resolved, len(images)), len(images), measured)
    return {
        "time": found.total,
        "main memory": found.peak,
        "memory": found.peak + found.workers,
        "disk": found.space.total,
        "took": time.perf_counter() - begun,
        **{f"seconds: {name}": value for name, value in found.seconds.items()},
    }


def predicted_apart(recipe: Recipe, data: Path, folder: Path) -> dict[str, float]:
    """The same in a process of its own, so that its memory is the prediction's alone."""
    text = folder / "recipe.yaml"
    text.write_text(to_text(recipe))
    argv = [sys.executable, __file__, "--predict", str(text), "--photos", str(data)]
    # As the command line sets it, before torch is loaded.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    found: dict[str, float] = json.loads(
        subprocess.run(argv, stdout=subprocess.PIPE, check=True, env=environment).stdout
    )
    return found


def some_of(photos: Path, count: int, listed: Path) -> Path:
    """A list of evenly spread photos."""
    names = list_images(photos).names
    paths = [str(Path(photos, name).resolve()) for name in names[:: max(1, len(names) // count)][:count]]
    listed.write_text("\n".join(paths))
    return listed


def descendants(pid: int) -> list[int]:
    """Children, and theirs: a server may have started the loader's processes."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def real(recipe: Recipe, data: Path, folder: Path) -> dict[str, float]:
    out, text = folder / "run", folder / "recipe.yaml"
    shutil.rmtree(out, ignore_errors=True)
    text.write_text(to_text(recipe))
    argv = [sys.executable, "-m", "cyborgs", "pretrain", str(text), "--data", str(data), "--out", str(out)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    begun, peak, workers, disk = 0.0, 0, 0, 0
    while process.poll() is None:
        if not begun and out.exists():
            begun = time.perf_counter()
        peak = max(peak, peak_bytes(process.pid))
        if begun:
            workers = max(workers, sum(own_bytes(descendants(process.pid))))
            disk = max(disk, held_bytes(out))
        time.sleep(1.0)  # more often, and looking takes a third of a core from the run
    taken = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "the run failed")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    masks = sum(line["seconds"] for line in lines if "refresh" in line)
    saving = sum(line.get("seconds_saving", 0.0) for line in lines)
    return {
        "time": taken,
        "main memory": peak,
        "memory": peak + workers,
        "disk": disk,
        "seconds: making masks": masks,
        "seconds: saving": saving,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos; none: built-in scenes of 640x480")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=recipes(), default=list(recipes()))
    parser.add_argument("--out", type=Path, help="JSON file for every figure")
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.predict:
        print(json.dumps(predict(load(args.predict), args.photos)))
        return
    results: dict[str, list[dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        photos = args.photos or write_scenes(folder / "large", 320, size=(640, 480)).photos
        data = {case: some_of(photos, count, folder / f"{case}.txt") for case, count in PHOTOS.items()}
        data["demo"] = write_scenes(folder / "scenes", 320).photos
        for case in args.cases:
            recipe = recipes()[case]
            for number in range(args.rounds):
                busy = os.getloadavg()[0]
                predicted = predicted_apart(recipe, data[case], folder)
                found = real(recipe, data[case], folder)
                results.setdefault(case, []).append({"predicted": predicted, "real": found, "load": {"before": busy}})
                print(case, number + 1, json.dumps(results[case][-1]), file=sys.stderr, flush=True)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")
    print("| recipe | what | predicted | real | ratio of medians | each round | load before |")
    print("|---|---|---|---|---|---|---|")
    for case, rounds in results.items():
        for what, unit in (("time", 1.0), ("main memory", 1e6), ("memory", 1e6), ("disk", 1e6)):
            pairs = [(r["predicted"][what] / unit, r["real"][what] / unit) for r in rounds]
            ratios = ", ".join(f"{p / r:.2f}" for p, r in pairs)
            predicted, measured = (statistics.median(side) for side in zip(*pairs, strict=True))
            loads = ", ".join(f"{r['load']['before']:.1f}" for r in rounds)
            name = f"{what}, {'s' if what == 'time' else 'MB'}"
            print(
                f"| {case} | {name} | {predicted:.0f} | {measured:.0f} | {predicted / measured:.2f} | {ratios} | {loads} |"
            )


if __name__ == "__main__":
    main()
