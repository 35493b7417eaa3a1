"""Does it help? CYBORGS, a fixed grid, BYOL and random weights on CamVid: ``make camvid PHOTOS=folder``.

Pretrains every contender with the same recipe, photos and epochs, then trains linear probes on frozen maps of CamVid's
train part and measures them on its val part, whose photos the pretraining never sees. One run at a time on each of
``--jobs`` cores; what is finished is kept, so the same command goes on after it was stopped, and the table is of what is
there. Five runs of 20 epochs of 2,625 photos and their probes take about three hours on two cores.

``PHOTOS`` holds ``CamVid/train.txt`` and ``CamVid/val.txt`` ('image label' lines, relative to PHOTOS); every JPEG of
the folders ``--folders`` is pretrained on, less those of ``val.txt``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t, two-sided 95%, by degrees of freedom."""

FOLDERS = ("BSDS500", "CamVid", "coco", "osie", "scenes_misc")


@dataclass(frozen=True)
class Contender:
    """A recipe with the flags that make it this contender, and how many pretraining seeds it gets."""

    recipe: str
    flags: tuple[str, ...]
    several_seeds: bool


CONTENDERS = {
    "cyborgs": Contender("small", (), True),
    "grid": Contender("small", ("--masks.source", "grid"), True),
    "byol": Contender("small-byol", (), False),
}


def pretraining_list(photos: Path, folders: list[str], out: Path) -> Path:
    """The list of photos to pretrain on: every JPEG, less those of CamVid's val part."""
    measured = {photos / line.split()[0] for line in (photos / "CamVid/val.txt").read_text().splitlines()}
    found = sorted(p for folder in folders for p in (photos / folder).rglob("*.jpg") if p not in measured)
    path = out / "pretrain.txt"
    text = "".join(f"{p}\n" for p in found)
    if path.is_file() and path.read_text() != text:
        sys.exit(f"{path}: was made from other photos; give another --out.")
    path.write_text(text)
    return path


class Lane:
    """Runs commands one after another, each on one core, and stops with the study."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.running: set[subprocess.Popen[bytes]] = set()

    def stop(self, *_: object) -> None:
        """Hand Ctrl-C on: a pretraining writes a checkpoint first."""
        self.stopping.set()
        for process in list(self.running):
            process.send_signal(signal.SIGINT)

    def command(self, words: list[str], log: Path) -> bool:
        """One ``cyborgs`` command, its output appended to the log; whether it ended well."""
        if self.stopping.is_set():
            return False
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "cyborgs", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
            self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        if code and not self.stopping.is_set():
            print(f"{log}: exit code {code}", file=sys.stderr)
        return code == 0

    def contender(self, name: str, seed: int, photos: Path, out: Path, listing: Path, flags: list[str]) -> None:
        """Pretrain, or go on, then probe; nothing where both are done."""
        run, figures = out / f"{name}-{seed}", out / f"eval-{name}-{seed}.json"
        who = CONTENDERS[name]
        if not (run / "backbone.safetensors").is_file():
            words = ["pretrain", who.recipe, "--data", str(listing), "--out", str(run), "--seed", str(seed)]
            resume = ["--resume"] if run.is_dir() else []
            if not self.command([*words, *who.flags, *flags, *resume], out / f"{name}-{seed}.log"):
                return
        if not figures.is_file():
            words = ["evaluate", "--backbone", str(run), "--out", str(figures), "--classes", "11", "--ignore", "11"]
            words += ["--seeds", "3", "--train", str(photos / "CamVid/train.txt")]
            words += ["--val", str(photos / "CamVid/val.txt")]
            if (name, seed) != ("grid", 0):  # random weights do not depend on what was pretrained: once is enough
                words.append("--no-random-baseline")
            self.command(words, out / f"eval-{name}-{seed}.log")


def read(out: Path) -> dict[str, dict[str, dict[int, list[float]]]]:
    """mIoU of each probe seed: contender -> layers -> pretraining seed."""
    scores: dict[str, dict[str, dict[int, list[float]]]] = {}
    for path in sorted(out.glob("eval-*.json")):
        name, seed = path.stem.removeprefix("eval-").rsplit("-", 1)
        for row in json.loads(path.read_text()):
            who = "random" if row["weights"] == "random" else name
            of_layers = scores.setdefault(who, {}).setdefault("+".join(row["layers"]), {})
            of_layers.setdefault(int(seed), []).append(row["miou"])
    return scores


def show(value: float, spread: float | None) -> str:
    """A figure and its spread, where there is one."""
    return f"{value:.4f}" + ("" if spread is None else f" ± {spread:.4f}")


def tables(out: Path) -> str:
    """Figures of every contender, and paired differences to CYBORGS with 95% intervals over pretraining seeds."""
    scores = read(out)
    if not scores:
        return "nothing measured yet"
    layers = list(next(iter(scores.values())))
    lines = ["| weights | pretraining seed | " + " | ".join(layers) + " |", "|---" * (2 + len(layers)) + "|"]
    for who, of_layers in scores.items():
        for seed in sorted(next(iter(of_layers.values()))):
            cells = [
                show(mean(v := of_layers[name][seed]), stdev(v) if len(v) > 1 else None) if name in of_layers else ""
                for name in layers
            ]
            lines.append(f"| {who} | {'' if who == 'random' else seed} | " + " | ".join(cells) + " |")
    lines.append("\n± standard deviation over the probe's seeds. CYBORGS less each, pretraining seeds in pairs:\n")
    lines += ["| less | pairs | " + " | ".join(layers) + " |", "|---" * (2 + len(layers)) + "|"]
    ours = scores.get("cyborgs", {})
    for who in scores:
        if who == "cyborgs" or not ours:
            continue
        cells, pairs = [], 0
        for name in layers:
            theirs = scores[who][name]
            seeds = [s for s in ours[name] if who == "random" or s in theirs]
            gaps = [mean(ours[name][s]) - mean(theirs[s] if s in theirs else theirs[min(theirs)]) for s in seeds]
            pairs = len(gaps)
            half = T95[pairs - 1] * stdev(gaps) / math.sqrt(pairs) if 1 < pairs <= len(T95) else None
            cells.append(f"{mean(gaps):+.4f}" + ("" if half is None else f" ± {half:.4f}") if gaps else "")
        lines.append(f"| {who} | {pairs} | " + " | ".join(cells) + " |")
    lines.append("\n± 95% interval (Student's t) over the pairs; none where there is one pair.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"))
    parser.add_argument("--folders", nargs="+", default=list(FOLDERS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=2, help="pretraining seeds of CYBORGS and the grid")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of what is there")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if not arguments.table:
        photos: Path = arguments.photos.resolve()
        out.mkdir(parents=True, exist_ok=True)
        listing = pretraining_list(photos, arguments.folders, out)
        flags = ["--views.size", str(arguments.size), "--views.grid", str(arguments.size // 16)]
        flags += ["--epochs", str(arguments.epochs), "--workers", "0"]
        lane = Lane()
        signal.signal(signal.SIGINT, lane.stop)
        signal.signal(signal.SIGTERM, lane.stop)
        jobs = [
            (name, seed)
            for seed in range(arguments.seeds)
            for name, who in CONTENDERS.items()
            if seed == 0 or who.several_seeds
        ]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            futures = [pool.submit(lane.contender, *job, photos, out, listing, flags) for job in jobs]
        for future in futures:
            future.result()
    print(tables(out))


if __name__ == "__main__":
    main()
