"""COCO-Stuff: 171 classes in two numberings, of the 10k set (.mat or PNG) and of the 164k set (PNG); 27 coarse ones.

The 10k set numbers from 1 and has 0 where nothing is labelled; the 164k set is one lower, with 255. Eleven things of
COCO's list occur in neither, which tells one numbering from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.annotations.by_file import FileTruth
from cyborgs.data.annotations.matching import files_below, match
from cyborgs.data.annotations.png import MAX_PIXELS, read_numbers
from cyborgs.data.annotations.truth import VOID, Labels
from cyborgs.errors import UserError, printable

Numbering = Literal["10k", "164k", "27"]
IDS: Final = 182
"""Numbers of the 10k set are 1 to 182."""
NEVER: Final = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
"""Of these, by the 10k set's numbering, none occurs."""
_MANY: Final = 20
"""Label maps, of which chance does not explain that a number is in all of them or in hardly any."""

_THINGS = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
    "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, "
    "surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, "
    "broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, "
    "mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, "
    "teddy bear, hair drier, toothbrush"
)
_STUFF = (
    "banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, "
    "ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, "
    "floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-other, "
    "grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss, mountain, mud, napkin, "
    "net, paper, pavement, pillow, plant-other, plastic, platform, playingfield, railing, railroad, river, road, rock, "
    "roof, rug, salad, sand, sea, shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, "
    "structural-other, table, tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, "
    "wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood"
)
CLASSES: Final = tuple(f"{_THINGS}, {_STUFF}".split(", "))
"""Names of the 171."""
COARSE: Final = (
    *("electronic", "appliance", "food", "furniture", "indoor", "kitchen", "accessory", "animal", "outdoor", "person"),
    *("sports", "vehicle", "ceiling", "floor", "food stuff", "furniture stuff", "raw material", "textile", "wall"),
    *("window", "building", "ground", "plant", "sky", "solid", "structural", "water"),
)
"""Names of the 27 (PiCIE)."""
_COARSE_OF_STUFF = (
    "17 17 22 20 20 22 15 25 16 13 12 12 17 17 23 15 15 17 15 21 15 25 13 13 13 13 13 22 26 14 14 15 22 21 21 24 20 22 "
    "15 17 16 15 22 24 21 17 25 16 21 17 22 16 21 21 25 21 26 21 24 20 17 14 21 26 15 23 20 21 24 15 24 22 25 15 20 17 "
    "17 22 14 18 18 18 18 18 18 18 26 26 19 19 24"
)
_COARSE_OF_THINGS = ((0, 9), (8, 11), (14, 8), (24, 7), (32, 6), (42, 10), (50, 5), (60, 2), (70, 3), (76, 0), (82, 1))
"""(last index, coarse class); the rest, to 90, is 4."""


def coarse_of() -> NDArray[np.int32]:
    """Coarse class of number 0 to 181 of the 164k set, int32 (182,)."""
    things = np.full(91, 4, np.int32)
    for last, coarse in reversed(_COARSE_OF_THINGS):
        things[: last + 1] = coarse
    return np.concatenate([things, np.array(_COARSE_OF_STUFF.split(), np.int32)])


def _table(numbering: Numbering) -> NDArray[np.int32]:
    """Class of number 0 to 255; VOID, or -2 where the numbering has no such number."""
    known = np.setdiff1d(np.arange(1, IDS + 1), NEVER)
    table = np.full(256, -2, np.int32)
    if numbering == "10k":
        table[known] = np.arange(len(known))
        table[0] = VOID
        return table
    table[known - 1] = np.arange(len(known)) if numbering == "164k" else coarse_of()[known - 1]
    table[255] = VOID
    return table


@final
class CocoStuffTruth(FileTruth):
    """``DIR/annotations/**`` or ``DIR/**``: ``NAME.mat`` with a map ``S`` (10k), or ``NAME.png``.

    PNGs of the 10k set hold the numbers of ``S``; those that are named ``NAME_labelTrainIds.png`` hold 0 where nothing
    is labelled and 1 to 171.
    """

    kind: Final = "coco-stuff"

    def __init__(self, root: str | Path, names: Sequence[str], numbering: Numbering = "10k") -> None:
        """Look for the files; UserError as ``FolderTruth``."""
        base = Path(root) / "annotations" if (Path(root) / "annotations").is_dir() else Path(root)
        super().__init__(names, match(names, _files(base, numbering), printable(str(base))), base)
        self.numbering: Numbering = numbering
        self._table = _table(numbering)
        self.class_names = COARSE if numbering == "27" else CLASSES

    def classes(self, i: int) -> Labels:
        """0 to 170 (27: to 26), unlabelled -1."""
        path = self.place(i)
        numbers = _matrix(path) if path.suffix.lower() == ".mat" else read_numbers(path)
        if path.stem.lower().endswith("_labeltrainids"):
            if numbers.max() > len(CLASSES):
                raise UserError(f"{path}: holds {numbers.max()}; 0 is unlabelled, classes are 1 to {len(CLASSES)}.")
            return numbers - 1
        classes = self._table[np.clip(numbers, 0, 254) if numbers.max() > 255 else numbers]
        unknown = (classes == -2) | (numbers > 255)
        if unknown.any():
            other = (
                "164k set (one lower, 255 unlabelled)"
                if self.numbering == "10k"
                else "10k set (one higher, 0 unlabelled)"
            )
            kind = "10k" if self.numbering == "10k" else "164k"
            raise UserError(
                f"{path}: holds {int(numbers[unknown].max())}, which is no number of COCO-Stuff's {kind} set. Are these "
                f"numbers of the {other}?"
            )
        return classes

    def doubt(self, present: NDArray[np.bool_], void: NDArray[np.bool_]) -> str:
        """What speaks against the numbering, though each number is one of it; empty: nothing does.

        0 is a person in the 164k set, and unlabelled, thus in nearly all maps, in the 10k set; 255 is in the first alone.

        Args:
            present: (N, classes or more): which classes occur in each label map.
            void: (N,): whether unlabelled pixels do.

        Raises:
            UserError: the numbers are those of the 10k set, given for the 164k set's.
        """
        maps = len(void)
        if self.numbering == "10k":
            plain = any(
                f and f.suffix.lower() == ".png" and not f.stem.lower().endswith("_labeltrainids") for f in self._files
            )
            if not plain or maps < _MANY or 2 * int(void.sum()) >= maps:
                return ""
            return (
                f"{self._where}: only {int(void.sum())} of {maps} label maps hold 0, unlabelled in COCO-Stuff's 10k set. "
                "If 0 is a person and 255 unlabelled, these are numbers of the 164k set, and all classes are one off"
            )
        zeros = int(present[:, self.class_names.index("person")].sum())
        if void.any() or not maps or zeros < 0.9 * maps:
            return ""
        found = (
            f"{self._where}: no label map holds 255 (unlabelled in COCO-Stuff's 164k set), and {zeros} of {maps} hold 0"
        )
        if maps < _MANY:
            return f"{found}. If 0 is unlabelled, these are numbers of the 10k set, and all classes are one off"
        raise UserError(
            f"{found}: these are numbers of the 10k set (one higher, 0 unlabelled). Give them as coco-stuff-10k, or take 1 "
            "off and write 255 for 0. If 0 is a person in all of them, set one pixel that does not matter to 255."
        )


def _files(base: Path, numbering: Numbering) -> dict[str, Path]:
    """Label files by relative name: .mat before PNGs, and PNGs of training ids before others."""
    for suffix, ending in ((".mat", ""), (".png", "_labelTrainIds")) if numbering == "10k" else ():
        try:
            return files_below(base, suffix, ending)
        except UserError:
            continue
    return files_below(base, ".png")


def _matrix(path: Path) -> Labels:
    """The map ``S`` of a .mat file, int32 (H, W)."""
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=["S"])
    except Exception as error:  # scipy fails with many kinds on damaged files
        raise UserError(f"{path}: no readable .mat file ({error}).") from error
    if "S" not in found:
        raise UserError(f"{path}: holds no map S. COCO-Stuff-10k's .mat files have one.")
    labels = np.asarray(found["S"])
    if labels.ndim != 2 or not labels.size or labels.size > MAX_PIXELS or labels.dtype.kind not in "ui":
        raise UserError(f"{path}: S is no map of whole numbers ({labels.dtype} {labels.shape}).")
    if labels.min() < 0:
        raise UserError(f"{path}: S holds {labels.min()}; 0 is unlabelled, classes are 1 to {IDS}.")
    return labels.astype(np.int32)
