"""A run's parts put together: the joint of what images become and what learns."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.engine.callback import Callback
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.engine.schedule import learning_rate, scheduled
from cyborgs.engine.signals import Stop
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError, printable
from cyborgs.masks.felzenszwalb import Felzenszwalb
from cyborgs.masks.generate import generate
from cyborgs.masks.ground_truth import GroundTruth
from cyborgs.masks.selective_search import SelectiveSearch
from cyborgs.masks.static import fixed_generation
from cyborgs.masks.store import MaskStore, prune
from cyborgs.methods.method import Method
from cyborgs.runs import recipe_file
from cyborgs.runs.build import build_source
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import Batch
from cyborgs.views.loader import Batches


def check_share(recipe: Recipe, world: int) -> None:
    """The global batch must divide among the processes.

    Raises:
        UserError: it does not; names the sizes.
    """
    share = recipe.batch_size // world
    unit = recipe.method.batch_unit
    micro_batch = 0 if recipe.micro_batch == "auto" else recipe.micro_batch
    if recipe.batch_size % world or share % unit or (micro_batch and share % micro_batch):
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be shared by {world} processes in multiples of "
            f"{math.lcm(unit, micro_batch or 1)} images. Change --batch-size or the number of processes."
        )


def build_trainer(
    fabric: Fabric,
    method: Method,
    recipe: Recipe,
    images: Images,
    out: Path,
    log: RunLog,
    checkpoints: Checkpoints,
    callbacks: Sequence[Callback],
    stop: Stop,
    *,
    masks_made: bool = False,
) -> Trainer:
    """The trainer of a resolved recipe, whose ``micro_batch`` is a number (``runs/micro_batch.py``).

    ``masks_made``: the run that goes on has masks already. Where they are made once, what they came from (annotations
    that may have moved) is not opened again.
    """
    world = distributed.world_size()
    assert recipe.micro_batch != "auto"
    batches = Batches(
        images,
        recipe.views,
        batch_size=recipe.batch_size,
        micro_batch=recipe.micro_batch,
        seed=recipe.seed,
        workers=recipe.workers,
        rank=distributed.rank(),
        world=world,
        open_masks=partial(MaskStore, out / "masks"),
    )
    distributed.all_or_none(batches.check, int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if world > 1 else 1)

    fixed = recipe.masks.source != "bootstrap"
    source = (
        None if fixed and masks_made else distributed.all_or_none(build_source, recipe, method, fabric.device, images)
    )
    if isinstance(source, GroundTruth):
        _tell_missing(source, images, log)

    def refresh_masks(cycle: int, progress: Any, stopped: Any) -> bool | None:
        if source is None or (fixed and cycle > 0):
            return None  # fixed masks are made once
        keep = recipe.masks.keep_generations
        if keep and fabric.is_global_zero:
            # Before, not after: the last checkpoint still needs the generation that is current now.
            prune(out / "masks", keep)
        distributed.barrier()
        method.eval()
        manifest = {"source": recipe_file.to_dict(recipe)["masks"], "photos": images.fingerprint()}
        if isinstance(source, Felzenszwalb | SelectiveSearch | GroundTruth):
            if isinstance(source, GroundTruth):
                manifest["source"]["truth"] = source.identity  # not where they lie
            told = fixed_generation(
                source, images, out / "masks", cycle, manifest=manifest, progress=progress, stopped=stopped, say=log.say
            )
            log.say(str(told))
            if isinstance(source, GroundTruth):
                _tell_too_many(source, images, log)
            return told.how != "stopped"
        return generate(
            source,
            images,
            out / "masks",
            cycle,
            seed=recipe.seed,
            cycle=cycle,
            manifest=manifest,
            progress=progress,
            stopped=stopped,
        )

    # Convolutions are quicker this way, on CPUs and GPUs, and pooling reads whole rows of channels.
    method.to(memory_format=torch.channels_last)
    steps_per_epoch = recipe.steps_per_epoch(len(images))
    groups = parameter_groups(method, recipe.optimizer)
    return Trainer(
        fabric,
        method,
        build_optimizer(recipe.optimizer, groups, recipe.optimizer.lr),
        _EpochBatches(batches, method, recipe.epochs),
        epochs=recipe.epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        learning_rate=lambda step: learning_rate(
            recipe.optimizer, step, steps_per_epoch, recipe.epochs, recipe.batch_size
        ),
        refreshers={"masks": refresh_masks},
        log=log,
        checkpoints=checkpoints,
        checkpoint_every=recipe.checkpoint_every,
        log_every=recipe.log_every,
        callbacks=callbacks,
        negatives=recipe.negatives,
        stop=stop,
        schedule=lambda step: scheduled(recipe.optimizer, step, recipe.epochs * steps_per_epoch),
        clip=recipe.optimizer.clip,
    )


def _tell_missing(source: GroundTruth, images: Images, log: RunLog) -> None:
    """Once, when a run starts: these photos have no regions, so loss 1 does not see them."""
    missing = sorted(source.missing)
    if missing:
        first = ", ".join(printable(images.name(i)) for i in missing[:3]) + (", ..." if len(missing) > 3 else "")
        log.say(
            f"masks.truth: {len(missing)} of {len(images)} photos have no annotation ({first}): they have no regions, "
            "and take no part in the contrastive loss."
        )


def _tell_too_many(source: GroundTruth, images: Images, log: RunLog) -> None:
    """Once, when they were read: these photos have more regions than a map has labels."""
    found: dict[int, int] = {}
    for part in distributed.gather_objects(dict(source.too_many)):
        found |= part
    if found:
        first = ", ".join(f"{printable(images.name(i))}: {found[i]}" for i in sorted(found)[:3])
        log.say(
            f"masks.truth: {len(found)} of {len(images)} photos have more than 255 regions; the smallest of them, "
            f"{sum(found.values())} in all ({first}{', ...' if len(found) > 3 else ''}), are void."
        )


@dataclass(frozen=True)
class _EpochBatches:
    """Batches with what the epoch's plan says; the loader's workers stay from one epoch to the next without a refresh."""

    batches: Batches
    method: Method
    epochs: int

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        keep = epoch + 1 < self.epochs and not self.method.plan(epoch + 1).refresh
        return self.batches(epoch, first_step, rides=self.method.plan(epoch).rides, keep=keep)

    def indices(self, epoch: int, step: int) -> Iterable[int]:
        return self.batches.indices(epoch, step)
