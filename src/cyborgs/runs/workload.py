"""What a run will do and what it will hold, from recipe and photos alone: nothing is measured, and it costs nothing."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.machine.disk import free_bytes, readable
from cyborgs.methods.method import Method
from cyborgs.runs.build import bootstrapped_layers
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan

MAP_SHARE: Final = 0.5
"""Stored bytes of a label map over its entropy bound, cells x log2 K / 8. Measured on photos: 0.44 at K = 129, 0.45 at 256."""

MAP_OVERHEAD: Final = 64
"""Bytes of a map's entry in the index, its size, and what compression adds."""

PIXEL_BYTES: Final = 0.03
"""Of a map at the photo's size, a pixel. Measured on BSDS, mean and largest: Felzenszwalb 0.014 and 0.023, selective search
0.007 and 0.011, its annotations 0.016 and 0.026."""

LINE_BYTES: Final = 4096
"""Of a logged step, in metrics.jsonl and a logger's records together: some 40 figures."""

PHOTO_BYTES: Final = 120
"""Of a photo's line in images.csv."""

STATE_BYTES: Final = 100_000
"""Of a checkpoint's state.json: one entry a parameter."""


@dataclass(frozen=True)
class Kind:
    """Epochs whose steps compute the same."""

    phase: str
    losses: tuple[str, ...]
    rides: tuple[str, ...] = ()

    @classmethod
    def of(cls, plan: EpochPlan) -> Kind:
        """The kind of an epoch."""
        return cls(plan.phase, tuple(plan.losses), plan.rides)

    def __str__(self) -> str:
        return f"{self.phase} ({' + '.join(self.losses)})"


@dataclass(frozen=True)
class Workload:
    """How often a run does what."""

    steps_per_epoch: int
    epochs: Mapping[Kind, tuple[int, ...]]
    """The epochs of each kind, kinds in the order in which they first come."""
    logged: Mapping[Kind, int]
    """Steps of each kind that are logged."""
    generations: int
    """How often masks are made."""
    checkpoints: int
    """How often a checkpoint is written."""
    snapshots: int
    """How often a backbone is kept aside."""

    @property
    def lines(self) -> int:
        """Lines of metrics.jsonl."""
        return sum(self.logged.values()) + self.generations


def workload(recipe: Recipe, photos: int) -> Workload:
    """The counts of a resolved recipe on ``photos`` photos, at least a batch of them."""
    steps = recipe.steps_per_epoch(photos)
    plans = [recipe.method.plan(epoch) for epoch in range(recipe.epochs)]
    epochs: dict[Kind, list[int]] = {}
    logged: dict[Kind, int] = {}
    for plan in plans:
        kind = Kind.of(plan)
        epochs.setdefault(kind, []).append(plan.epoch)
        first, end = plan.epoch * steps, (plan.epoch + 1) * steps
        # Every log_every-th step of the run, and the last one of the epoch.
        lines = end // recipe.log_every - first // recipe.log_every + (end % recipe.log_every != 0)
        logged[kind] = logged.get(kind, 0) + lines
    refreshes = [plan.epoch for plan in plans if plan.refresh]
    kept = {epoch for epoch in recipe.snapshots if 0 <= epoch <= recipe.epochs}
    if recipe.snapshot_refreshes:
        kept |= {0, recipe.epochs, *refreshes}
    return Workload(
        steps_per_epoch=steps,
        epochs={kind: tuple(those) for kind, those in epochs.items()},
        logged=logged,
        generations=generations(recipe, len(refreshes)),
        checkpoints=recipe.epochs * steps // recipe.checkpoint_every + len(refreshes) + 1,
        snapshots=len(kept),
    )


def generations(recipe: Recipe, refreshes: int) -> int:
    """How many generations of masks so many refreshes make: those that do not depend on weights are made once."""
    if recipe.masks.source == "none":
        return 0
    return refreshes if recipe.masks.source == "bootstrap" else min(refreshes, 1)


def mask_pixels(recipe: Recipe, images: Images) -> np.ndarray:
    """Pixels of each photo as it is bootstrapped, its short side capped: float64 (photos,)."""
    sizes = np.array([images.size(i) for i in range(len(images))], np.float64).reshape(-1, 2)
    short = sizes.min(axis=1)
    cap = recipe.masks.short_side
    scale = np.minimum(1.0, cap / short) if cap else np.ones_like(short)
    return sizes.prod(axis=1) * scale**2  # type: ignore[no-any-return]


def generation_bytes(recipe: Recipe, images: Images, stride: int = 8) -> int:
    """About the bytes of one generation of masks; rather more than less."""
    source = recipe.masks.source
    if source == "none":
        return 0
    if source in ("felzenszwalb", "selective-search", "ground-truth"):
        pixels = sum(height * width for height, width in map(images.size, range(len(images))))
        return round(len(images) * MAP_OVERHEAD + pixels * PIXEL_BYTES)
    if source != "bootstrap" or recipe.method.bootstrapping is None:
        return len(images) * (MAP_OVERHEAD + recipe.masks.grid**2)
    bits = max(1.0, math.log2(recipe.method.bootstrapping.clusters[1])) * MAP_SHARE
    cells = float((mask_pixels(recipe, images) / stride**2).sum())
    return round(len(images) * MAP_OVERHEAD + cells * bits / 8)


@dataclass(frozen=True)
class Space:
    """Bytes in a run's folder when it holds most."""

    checkpoints: int
    """Those that are kept, and one that is being written."""
    masks: int
    """The generations that are kept, and one that is written in parts and put together."""
    snapshots: int
    result: int
    logs: int
    """metrics.jsonl, TensorBoard's events, lists of photos."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.checkpoints + self.masks + self.snapshots + self.result + self.logs

    def parts(self) -> dict[str, int]:
        """Bytes by what they are, those of nothing left out."""
        return {name: value for name, value in vars(self).items() if value}


def space(
    recipe: Recipe,
    work: Workload,
    photos: int,
    *,
    checkpoint: int,
    backbone: int,
    generation: int,
    line: int = LINE_BYTES,
) -> Space:
    """The bytes of a run from those of one checkpoint, one backbone, one generation of masks and one line of the log."""
    keep = recipe.masks.keep_generations
    before = max(0, work.generations - 1)
    held = min(before, keep) if keep else before
    return Space(
        checkpoints=checkpoint * (min(recipe.keep_checkpoints, work.checkpoints) + 1),
        masks=generation * (held + 2) if work.generations else 0,
        snapshots=backbone * work.snapshots,
        result=backbone,
        logs=line * work.lines + PHOTO_BYTES * photos,
    )


def space_of(recipe: Recipe, method: Method, images: Images) -> Space:
    """The bytes that the run of a resolved recipe will hold: weights exactly, masks and logs by a bound."""
    networks = sum(t.numel() * t.element_size() for t in method.state_dict().values())
    momentum = sum(p.numel() * p.element_size() for p in method.parameters() if p.requires_grad)
    if recipe.optimizer.kind == "adamw":
        momentum *= 2  # two averages
    backbone = sum(t.numel() * t.element_size() for t in method.backbone.weights().values())
    made = recipe.masks.source == "bootstrap"
    layers = bootstrapped_layers(recipe.method.bootstrapping, method.backbone) if made else ()
    stride = min((method.backbone.strides[layer] for layer in layers), default=8)
    return space(
        recipe,
        workload(recipe, len(images)),
        len(images),
        checkpoint=networks + momentum + STATE_BYTES,
        backbone=backbone,
        generation=generation_bytes(recipe, images, stride),
    )


def held_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; 0 where there is none."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):  # written anew at this moment
                total += (Path(root) / name).lstat().st_size
    return total


def require_space(out: Path, needed: Space) -> None:
    """Refuse a run that the disk cannot hold, before it has begun. What lies in ``out`` already counts.

    Raises:
        UserError: names the bytes needed and free, the folder, and the settings that need less.
    """
    missing, free = needed.total - held_bytes(out), free_bytes(out)
    if free is None or missing <= free:
        return
    parts = ", ".join(f"{name} {readable(value)}" for name, value in needed.parts().items())
    raise UserError(
        f"{out}: too little room on this disk: the run needs {readable(missing)} ({missing} bytes) more, "
        f"{readable(free)} ({free} bytes) are free. It will hold {readable(needed.total)}: {parts}. Make room, give an "
        "--out on another disk, or need less: --keep-checkpoints, --masks.keep-generations (0 keeps all), --snapshots."
    )
