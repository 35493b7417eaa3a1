"""Where a recipe does not suit the photos or the machine: plain sentences, from pure functions. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from cyborgs.machine.cores import Machine
from cyborgs.methods.settings import RunFacts
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import MAX_LABELS

WEEK: Final = 7 * 86_400


def advise(recipe: Recipe, sizes: np.ndarray, machine: Machine) -> list[str]:
    """Sentences for a recipe as the user gave it.

    Args:
        recipe: not resolved, since it matters whether something was given in steps or epochs.
        sizes: (height, width) of every usable photo, (photos, 2); at least a batch of them.
        machine: where it would run.
    """
    resolved = recipe.resolved(len(sizes))
    return [
        *recipe.method.advice(_facts(recipe, len(sizes))),
        *_of_photos(resolved, sizes),
        *_of_batches(resolved, len(sizes)),
        *_of_machine(resolved, machine),
    ]


def advise_cost(seconds: float, memory: int, limit: int) -> list[str]:
    """What to say of a predicted duration, and of bytes of memory where ``limit`` are to be had."""
    found = []
    if seconds > WEEK:
        found.append(
            f"The run would take {seconds / 86_400:.0f} days. Fewer --epochs, a smaller --views.size or more devices "
            "make it shorter."
        )
    if memory > 0.9 * limit:
        found.append(
            f"It needs {memory / 1e9:.1f} GB of memory at most, and {limit / 1e9:.1f} GB are to be had: it may be killed. "
            "Lower --micro-batch, --workers or --masks.short-side."
        )
    return found


def _facts(recipe: Recipe, photos: int) -> RunFacts:
    """What the method's own advice is given."""
    bootstrapping = recipe.method.bootstrapping
    limits = {"grid": recipe.masks.grid**2, "whole": 1, "selective-search": recipe.masks.selective_search.boxes + 1}
    if bootstrapping is not None:
        limits["bootstrap"] = bootstrapping.clusters[1]
    return RunFacts(
        epochs=recipe.epochs,
        steps_per_epoch=recipe.steps_per_epoch(photos),
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        views=recipe.views,
        masks=recipe.masks.source,
        mask_regions=limits.get(recipe.masks.source, MAX_LABELS - 1),
    )


def _of_photos(recipe: Recipe, sizes: np.ndarray) -> Iterator[str]:
    view = recipe.views.size
    short, pixels = float(np.median(sizes.min(axis=1))), float(np.median(np.prod(sizes, axis=1, dtype=np.float64)))
    if short < 0.75 * view:
        yield (
            f"Half of the photos have a short side below {short:.0f} pixels, much less than a view of {view}: crops are "
            "enlarged, which adds no detail. Lower --views.size."
        )
    if pixels > 2e6 and pixels > 16 * view**2:
        side = max(2 * view, recipe.masks.short_side)
        yield (
            f"The photos have {pixels / 1e6:.0f} megapixels (median), far more than views of {view} need: most of the "
            f"loader's time goes into decoding. Shrink them once, to a short side of {side} pixels or so."
        )
        if recipe.masks.source == "bootstrap" and recipe.masks.short_side == 0:
            yield "They are bootstrapped at that size, which takes long and much memory. Give --masks.short-side."


def _of_batches(recipe: Recipe, photos: int) -> Iterator[str]:
    batch = recipe.batch_size
    if batch > photos / 10:
        yield (
            f"A batch of {batch} is more than a tenth of the {photos} photos: an epoch has "
            f"{recipe.steps_per_epoch(photos)} steps, and a photo meets the same others again and again. "
            "Lower --batch-size or add photos."
        )
    dropped = photos % batch
    if dropped > 0.05 * photos:
        yield (
            f"Each epoch leaves out {dropped} of the {photos} photos (others each time), since the last batch would be "
            "incomplete. Another --batch-size leaves out fewer."
        )


def _of_machine(recipe: Recipe, machine: Machine) -> Iterator[str]:
    if recipe.workers > machine.cores:
        yield (
            f"{recipe.workers} loader processes share {machine.cores} cores, and disturb each other. "
            f"Lower --workers to {machine.cores} or less."
        )
    if recipe.precision == "bf16-mixed" and not machine.bf16:
        device = "GPU" if machine.gpu else "CPU"
        yield f"This {device} has no bf16 instructions: --precision bf16-mixed is slower here than 32-true."
