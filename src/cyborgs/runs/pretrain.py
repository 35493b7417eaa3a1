"""A run from recipe, photos and folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.images import ScannedImages
from cyborgs.engine.backends import open_backend
from cyborgs.engine.callback import Callback
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import RunLog
from cyborgs.engine.signals import Stop, process_number
from cyborgs.errors import UserError
from cyborgs.health.guard import Health
from cyborgs.masks.store import MaskStore, prune, set_current
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone, save_backbone
from cyborgs.runs import recipe_file
from cyborgs.runs.artefacts import prepare_all
from cyborgs.runs.assemble import build_trainer, check_share
from cyborgs.runs.build import build_method
from cyborgs.runs.crash import CrashReporter
from cyborgs.runs.devices import make_fabric
from cyborgs.runs.folder import agree, begin, locked, prepare_folder
from cyborgs.runs.micro_batch import find_micro_batch
from cyborgs.runs.photos import scan_photos
from cyborgs.runs.processes import Peers, ProcessLayout
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.snapshots import Snapshots
from cyborgs.runs.workload import require_space, space_of

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
        recipe: what to do; with ``resume`` it must agree with the run's recipe.yaml. The path of ``masks.truth`` is
            relative to the working directory, and kept as an absolute one.
        data: a folder (searched recursively) or a text file with a path a line.
        out: the run's folder.
        resume: go on from the last checkpoint; where ``out`` is missing or empty, begin a run.
        callbacks: called by the trainer.
        stream: where progress is written; default stderr.

    Raises:
        UserError: the input is at fault; says what to do.
        PeerLost: another process of the run was killed, or ended.
        Stopped: interrupted (``engine/signals.py`` says by which signals), after a checkpoint was written.
        Exception: what else fails is a fault of ours, and ``crash.txt`` in the run's folder says what was known.
    """
    data, out = Path(data), Path(out)
    stop, watch = Stop(), CrashReporter(out, process_number())
    with watch.over(), stop.listening():
        fabric = make_fabric(recipe)
        with Peers().watched(lambda: _go_on(out)), ExitStack() as stack:

            def take_folder() -> bool:
                begun = prepare_folder(out, resume)
                stack.enter_context(locked(out, True))
                return begun

            begun = distributed.run_on_rank_zero(take_folder)
            return _pretrain(fabric, recipe, data, out, resume, begun, callbacks, stream, stop, watch)


def _go_on(out: Path) -> str:
    """What to do when the run was cut off."""
    if not (out / "recipe.yaml").exists():
        return "Nothing was trained yet: start all processes again."
    last = Checkpoints(out / "checkpoints").last()
    step = re.search(r"\d+", last.name) if last else None
    place = f"The last checkpoint is that of step {int(step[0])}" if step else "There is no checkpoint yet"
    return f"{place}: start all processes again with --resume."


def _pretrain(
    fabric: Fabric,
    recipe: Recipe,
    data: Path,
    out: Path,
    resume: bool,
    begun: bool,
    callbacks: Sequence[Callback],
    stream: TextIO | None,
    stop: Stop,
    watch: CrashReporter,
) -> Run:
    main = fabric.is_global_zero
    checkpoints = Checkpoints(out / "checkpoints", recipe.keep_checkpoints)
    checkpoint = distributed.all_or_none(checkpoints.load) if begun else None
    resumed = checkpoint is not None
    length = checkpoint.state["metrics_bytes"] if checkpoint else 0
    # TensorBoard hides events from this step on; that of the checkpoint's own step is written already.
    next_step = checkpoint.state["progress"]["step"] + 1 if checkpoint else 0
    found = distributed.run_on_rank_zero(partial(scan_photos, data, recipe, stream, stop), (UserError, Stopped))
    recipe = recipe.resolved(len(found.images)).located()
    watch.recipe = recipe
    if begun and recipe.micro_batch == "auto":
        recipe = replace(recipe, micro_batch=recipe_file.load(out / "recipe.yaml").micro_batch)
    check_share(recipe, distributed.world_size())
    images = watch.images = ScannedImages.from_scan(found)
    if begun:
        distributed.run_on_rank_zero(partial(agree, recipe, images, out))
    # A checkpoint holds the weights: the file they once came from is not needed again.
    built = replace(recipe, backbone=replace(recipe.backbone, init="")) if resumed else recipe
    method = distributed.all_or_none(build_method, built, distributed.world_size(), fabric.device.type)
    distributed.run_on_rank_zero(lambda: require_space(out, space_of(recipe, method, images)))
    logger = recipe.logger if main else "none"
    backend = distributed.all_or_none(open_backend, logger, out, next_step, recipe_file.to_dict(recipe))
    with RunLog(out if main else None, length=length, backend=backend, stream=stream) as log:
        if recipe.micro_batch == "auto":
            recipe = replace(recipe, micro_batch=find_micro_batch(fabric, method, recipe, images))
            log.say(f"micro_batch: {recipe.micro_batch} images of a process fit in memory at once.")
        assert recipe.micro_batch != "auto"
        watch.recipe = recipe
        layout = ProcessLayout(log, recipe.batch_size, recipe.micro_batch)
        health = Health(
            recipe.health,
            recipe.method,
            recipe.masks,
            peak_rate=recipe.peak_rate,
            seed=recipe.seed,
            out=out,
            count=len(images),
        )
        every = [layout, Snapshots(method, out / "snapshots", recipe), health, *callbacks]
        made = checkpoint is not None and checkpoint.state["progress"]["cycle"] > 0
        artefacts = prepare_all(
            recipe,
            method.backbone,
            fabric.device,
            images,
            out,
            log,
            stop,
            begun=begun,
            first_weights=not (resumed and recipe.backbone.init),
        )
        trainer = watch.trainer = build_trainer(
            fabric, method, recipe, images, out, log, checkpoints, every, stop, masks_made=made, artefacts=artefacts
        )
        if checkpoint is not None:
            trainer.resume(checkpoint)
            checkpoint = None  # as large as networks and momentum together
            log.say(f"{out}: going on from step {trainer.progress.step} of {trainer.total_steps}.")
        elif begun:
            log.say(f"{out}: no checkpoint yet, starting at step 0.")
        elif resume:
            log.say(f"{out}: no run there yet: this begins one.")
        if resumed and trainer.progress.step >= trainer.total_steps and (out / RESULT).exists():
            log.say(f"{out}: this run is finished; its result is {out / RESULT}.")
            return Run(out)

        def begin_run() -> None:
            cycle = trainer.progress.cycle
            set_current(out / "masks", None if cycle == 0 else (cycle - 1 if recipe.masks.source == "bootstrap" else 0))
            images.write_csv(out)
            if not begun:
                begin(recipe, images, out)  # last: from here on there is a run

        if recipe.micro_batch and not resumed:
            log.write({"step": 0, "epoch": 0, "micro_batch": recipe.micro_batch})
        distributed.run_on_rank_zero(begin_run)
        log.say(f"{len(images)} photos, {len(found.skipped)} skipped; {trainer.steps_per_epoch} steps an epoch.")
        trainer.fit()

        def finish() -> None:
            if recipe.masks.keep_generations and trainer.progress.cycle:
                prune(out / "masks", recipe.masks.keep_generations)
            save_backbone(method.backbone, out / RESULT, recipe_file.for_result(recipe))

        distributed.run_on_rank_zero(finish)
        log.say(f"{out / RESULT} is written.")
        if found.skipped:
            log.say(f"{len(found.skipped)} files were skipped; {out / 'skipped.csv'} says which and why.")
    return Run(out)
