"""A run's parts put together: the joint of what images become and what learns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.engine import recipe_file
from cyborgs.engine.build import build_source
from cyborgs.engine.callback import Callback
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.engine.recipe import Recipe
from cyborgs.engine.schedule import learning_rate
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.masks.generate import generate
from cyborgs.masks.store import MaskStore, prune
from cyborgs.methods.method import Method
from cyborgs.structures import Batch
from cyborgs.views.loader import Batches


def build_trainer(
    fabric: Fabric,
    method: Method,
    recipe: Recipe,
    images: Images,
    out: Path,
    log: RunLog,
    checkpoints: Checkpoints,
    callbacks: Sequence[Callback],
) -> Trainer:
    """The trainer of a resolved recipe.

    Raises:
        UserError: the global batch does not divide among the processes.
    """
    world = distributed.world_size()
    share = recipe.batch_size // world
    unit = getattr(recipe.method, "slice_size", 1)
    if recipe.batch_size % world or share % unit or (recipe.micro_batch and share % recipe.micro_batch):
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be shared by {world} processes in multiples of "
            f"{max(unit, recipe.micro_batch)} images. Change --batch-size or the number of processes."
        )
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

    def batches_of(epoch: int, first_step: int = 0) -> Iterator[list[Batch]]:
        return batches(epoch, first_step, with_masks="contrast" in method.plan(epoch).losses)

    source = build_source(recipe, method, fabric.device)

    def refresh_masks(cycle: int, progress: Any, stopped: Any) -> bool | None:
        if source is None or (recipe.masks.source != "bootstrap" and cycle > 0):
            return None  # fixed masks are made once
        keep = recipe.masks.keep_generations
        if keep and fabric.is_global_zero:
            # Before, not after: the last checkpoint still needs the generation that is current now.
            prune(out / "masks", keep)
        distributed.barrier()
        method.eval()
        manifest = {"source": recipe_file.to_dict(recipe)["masks"], "photos": images.fingerprint()}
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
    groups = parameter_groups(method, recipe.optimizer.weight_decay)
    return Trainer(
        fabric,
        method,
        build_optimizer(recipe.optimizer, groups, recipe.optimizer.lr),
        batches_of,
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
    )
