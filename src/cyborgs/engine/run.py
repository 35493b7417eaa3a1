"""A run from recipe, photos and folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, cast

from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.decode import printable
from cyborgs.data.images import Images
from cyborgs.data.listing import list_images
from cyborgs.data.scan import Scan, scan
from cyborgs.engine import recipe_file
from cyborgs.engine.assemble import build_trainer
from cyborgs.engine.backends import open_backend
from cyborgs.engine.build import build_method
from cyborgs.engine.callback import Callback
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.devices import make_fabric
from cyborgs.engine.folder import agree, begin, locked, prepare_folder
from cyborgs.engine.log import RunLog, moving
from cyborgs.engine.recipe import Recipe
from cyborgs.engine.snapshots import Snapshots
from cyborgs.errors import UserError
from cyborgs.masks.store import MaskStore, prune, set_current
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone, save_backbone

RESULT = "backbone.safetensors"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def backbone(self) -> Backbone:
        """The result, in eval mode."""
        return load_backbone(self.folder / RESULT)

    @property
    def masks(self) -> MaskStore:
        """The newest generation of masks."""
        return MaskStore(self.folder)


def scan_photos(data: Path, recipe: Recipe, stream: TextIO | None) -> Scan:
    """List and scan the photos; refuse a set that is mostly unreadable or smaller than a batch.

    Raises:
        UserError: says which it was, of which folder, and what to do.
    """
    listing = list_images(data)
    with moving("reading photos", stream) as progress:
        found = scan(listing, progress=progress)
    images, skipped = len(found.images), len(found.skipped)
    if skipped > recipe.max_skipped * (images + skipped):
        name, reason = printable(found.skipped[0][0]), found.skipped[0][1]
        raise UserError(
            f"{data}: {skipped} of {images + skipped} files cannot be read, more than max_skipped = "
            f"{recipe.max_skipped:.0%}. The first: {name}: {reason}. Remove them or raise --max-skipped."
        )
    if images < recipe.batch_size:
        raise UserError(
            f"{data}: {images} usable photos, fewer than batch_size {recipe.batch_size}. "
            "Add photos or lower --batch-size."
        )
    return found


def pretrain(
    recipe: Recipe,
    *,
    data: str | Path,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    stream: TextIO | None = None,
) -> Run:
    """Pretrain on a folder or list of photos.

    Args:
        recipe: what to do; with ``resume`` it must agree with the run's recipe.yaml.
        data: a folder (searched recursively) or a text file with a path a line.
        out: the run's folder.
        resume: go on from the last checkpoint.
        callbacks: called by the trainer.
        stream: where progress is written; default stderr.

    Raises:
        UserError: the input is at fault; says what to do.
        Stopped: interrupted, after a checkpoint was written.
    """
    data, out = Path(data), Path(out)
    fabric = make_fabric(recipe)
    if fabric.is_global_zero:
        prepare_folder(out, resume)
    with locked(out, fabric.is_global_zero):
        return _pretrain(fabric, recipe, data, out, resume, callbacks, stream)


def _pretrain(
    fabric: Fabric,
    recipe: Recipe,
    data: Path,
    out: Path,
    resume: bool,
    callbacks: Sequence[Callback],
    stream: TextIO | None,
) -> Run:
    checkpoints = Checkpoints(out / "checkpoints", recipe.keep_checkpoints)
    checkpoint = checkpoints.load() if resume else None
    resumed = checkpoint is not None
    length = checkpoint.state["metrics_bytes"] if checkpoint else 0
    # TensorBoard hides events from this step on; that of the checkpoint's own step is written already.
    next_step = checkpoint.state["progress"]["step"] + 1 if checkpoint else 0
    main = fabric.is_global_zero
    found = cast(Scan, fabric.broadcast(scan_photos(data, recipe, stream) if main else None))
    recipe = recipe.resolved(len(found.images))
    images = Images.from_scan(found)
    if main and resume:
        agree(recipe, images, out)
    # A checkpoint holds the weights: the file they once came from is not needed again.
    built = replace(recipe, backbone=replace(recipe.backbone, init="")) if resumed else recipe
    method = build_method(built, distributed.world_size(), fabric.device.type)
    backend = open_backend(recipe.logger, out, next_step, recipe_file.to_dict(recipe)) if main else None
    with RunLog(out if main else None, length=length, backend=backend, stream=stream) as log:
        every = [Snapshots(method, out / "snapshots", recipe), *callbacks]
        trainer = build_trainer(fabric, method, recipe, images, out, log, checkpoints, every)
        if checkpoint is not None:
            trainer.resume(checkpoint)
            checkpoint = None  # as large as networks and momentum together
            log.say(f"{out}: going on from step {trainer.progress.step} of {trainer.total_steps}.")
        elif resume:
            log.say(f"{out}: no checkpoint yet, starting at step 0.")
        if resumed and trainer.progress.step >= trainer.total_steps and (out / RESULT).exists():
            log.say(f"{out}: this run is finished; its result is {out / RESULT}.")
            return Run(out)
        if main:
            cycle = trainer.progress.cycle
            set_current(out / "masks", None if cycle == 0 else (cycle - 1 if recipe.masks.source == "bootstrap" else 0))
            images.write_csv(out)
            if not resume:
                begin(recipe, images, out)  # last: from here on there is a run
        distributed.barrier()
        log.say(f"{len(images)} photos, {len(found.skipped)} skipped; {trainer.steps_per_epoch} steps an epoch.")
        trainer.fit()
        if main:
            if recipe.masks.keep_generations and trainer.progress.cycle:
                prune(out / "masks", recipe.masks.keep_generations)
            save_backbone(method.backbone, out / RESULT, recipe_file.for_result(recipe))
        log.say(f"{out / RESULT} is written.")
        if found.skipped:
            log.say(f"{len(found.skipped)} files were skipped; {out / 'skipped.csv'} says which and why.")
    distributed.barrier()
    return Run(out)
