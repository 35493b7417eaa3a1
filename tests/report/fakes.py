"""A run's folder without a run, photos without files, and a page as html5lib reads it, in strict mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import numpy as np

from cyborgs.masks.store import GenerationWriter
from cyborgs.runs import recipe_file
from cyborgs.structures import LabelMap
from tests.conftest import tiny_recipe

HTML = "{http://www.w3.org/1999/xhtml}"


class Photos:
    def __init__(self, count: int = 3, name: str = "a/p{}.jpg", size: tuple[int, int] = (60, 80)) -> None:
        self.count, self.pattern, self.shape = count, name, size

    def __len__(self) -> int:
        return self.count

    def read(self, i: int) -> np.ndarray:
        return np.full((*self.shape, 3), 40 * i % 256, np.uint8)

    def size(self, i: int) -> tuple[int, int]:
        return self.shape

    def name(self, i: int) -> str:
        return self.pattern.format(i)


class Noise(Photos):
    """Pictures that no JPEG makes small."""

    def read(self, i: int) -> np.ndarray:
        return np.random.default_rng(i).integers(0, 256, (*self.shape, 3), dtype=np.uint8)


class Page:
    """Raises where the text is not valid HTML."""

    def __init__(self, text: str) -> None:
        self.raw = text
        self.root = html5lib.HTMLParser(strict=True).parse(text)

    def all(self, tag: str, within: Element | None = None) -> list[Element]:
        found = (self.root if within is None else within).iter()
        return [e for e in found if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == tag]

    def text(self, element: Element | None = None) -> str:
        return " ".join(" ".join((self.root if element is None else element).itertext()).split())

    def section(self, name: str) -> Element | None:
        """The section with the heading of this id."""
        return next((s for s in self.all("section") if s.get("aria-labelledby") == name), None)


def metrics_lines() -> Iterator[dict[str, Any]]:
    for step in range(1, 61):
        phase = "warm-up" if step <= 10 else "training"
        losses = {"loss/cluster": 2.0 / step} if phase == "warm-up" else {"loss/contrast": 5.0 - step / 30}
        times = {"images_per_second": 9.0, "seconds": 2.0, "seconds_waiting": 0.5, "seconds_saving": 0.25}
        health = {"embed/std_online": 0.5, "gradient/norm": 3.0}
        yield {"step": step, "epoch": step // 10, "phase": phase, **losses, "lr": 0.1, **health, **times}
        if step in (10, 40):
            place = {"step": step, "epoch": step // 10, "refresh": "masks", "cycle": (10, 40).index(step)}
            yield place | {"masks/entropy": 0.75, "seconds": 30.0}


def write_metrics(run: Path, *more: dict[str, Any], tail: str = "") -> None:
    text = "".join(json.dumps(line) + "\n" for line in (*metrics_lines(), *more))
    (run / "metrics.jsonl").write_text(text + tail)


def make_run(folder: Path, photos: int = 3, generations: int = 2) -> Path:
    """A run that still goes: no result, a metrics line half written."""
    folder.mkdir(parents=True)
    write_metrics(folder, tail='{"step": 61, "lo')
    (folder / "skipped.csv").write_text("name,reason\n<b>bad</b>.jpg,truncated JPEG\n")
    (folder / "photos.json").write_text(json.dumps({"photos": 20, "fingerprint": "0" * 16}))
    (folder / "recipe.yaml").write_text(recipe_file.to_text(tiny_recipe(epochs=60)))
    for generation in range(generations):
        writer = GenerationWriter(folder, generation, photos, 0, {})
        for i in range(photos):
            writer.write(i, LabelMap(np.arange(12, dtype=np.uint8).reshape(3, 4) % (generation + 2)))
        writer.publish()
    return folder
