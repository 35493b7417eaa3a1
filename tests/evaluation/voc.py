"""A tiny folder of VOC 2007's layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cyborgs.evaluation.sets.voc_lists import CLASSES

KNOWN = {"cat": 0, "dog": 1, "person": 2}
"""Classes that have photos: a channel each."""


def make_voc(root: Path, train: int = 18, test: int = 9, difficult: bool = True) -> Path:
    """``root``/VOC2007: a photo holds one or two of three classes, as bright channels."""
    folder = root / "VOC2007"
    lists = folder / "ImageSets" / "Main"
    for part in (lists, folder / "JPEGImages"):
        part.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = 0
    for part, count in (("trainval", train), ("test", test)):
        present = np.full((count, len(CLASSES)), -1)
        names = [f"{first + i:06d}" for i in range(count)]
        for i, name in enumerate(names):
            image = rng.integers(0, 60, (40, 52, 3), dtype=np.uint8)
            for known in {i % 3, int(rng.integers(3))}:
                image[..., 2 - known] += 180
                label = 0 if difficult and i % 5 == 4 and known == 0 else 1
                present[i, CLASSES.index(list(KNOWN)[known])] = label
            cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), image)
        for c, class_name in enumerate(CLASSES):
            lines = [f"{name} {present[i, c]:2d}\n" for i, name in enumerate(names)]
            (lists / f"{class_name}_{part}.txt").write_text("".join(lines))
        first += count
    return root
