"""A few real steps of each kind, a few real groups of bootstrapping, a real checkpoint: what each costs here.

The run's own trainer, method and loader work on some of the photos in a temporary folder, which is removed. K is the
mean of its range where time is taken, since the time of k-means grows with K about linearly; the largest K and the
largest group of photos go first, where the most memory is looked for. The learning rate is next to nothing.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.engine.backends import open_backend
from cyborgs.engine.callback import Callback
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.signals import Stop
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.forecast.generation_cost import draws_at, measure_generation, spread
from cyborgs.forecast.stopwatch import MOST_STEPS, Enough, StepTimer, Times
from cyborgs.forecast.usage import peak_bytes
from cyborgs.machine.memory import out_of_memory
from cyborgs.methods.method import Method
from cyborgs.models.weights import save_backbone
from cyborgs.runs import recipe_file
from cyborgs.runs.assemble import build_trainer
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import Kind, held_bytes, workload

Say = Callable[[str], None]

NEVER: Final = 10**9


@dataclass(frozen=True)
class Measured:
    """What things cost. Seconds and bytes."""

    steps: Mapping[Kind, Times]
    generation_seconds: float
    generation_bytes: int
    save_seconds: float
    checkpoint_bytes: int
    backbone_bytes: int
    line_bytes: int
    start_seconds: float
    """Building networks, optimiser and loader."""
    peak: int
    """Of this process."""
    workers: int
    """Of all loader processes together, what they share with the main process left out."""
    device: int
    """Reserved on the GPU; 0 without one."""


class Rehearsal:
    """One measurement; a collective call of all processes.

    Args:
        fabric: as the run would have it.
        recipe: resolved.
        images: all usable photos, at least a batch.
        say: told what is being measured.
        callbacks: what the run would have beside the trainer.
    """

    def __init__(
        self, fabric: Fabric, recipe: Recipe, images: Images, say: Say, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.fabric = fabric
        self.recipe = recipe
        self.images = images
        self.say = say
        self.callbacks = callbacks
        self.work = workload(recipe, len(images))
        self.cuda = fabric.device.type == "cuda"

    def measure(self) -> Measured:
        """Do it.

        Raises:
            UserError: the recipe does not fit into memory, or anything that would stop the run too.
        """
        with self._folder() as folder, not_fitting():
            return self._measure(folder)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """One temporary folder for all processes, removed by the first."""
        holder = tempfile.TemporaryDirectory(prefix="cyborgs-") if self.fabric.is_global_zero else None
        try:
            yield Path(self.fabric.broadcast(holder.name if holder else ""))
        finally:
            if holder is not None:
                holder.cleanup()

    def _measure(self, folder: Path) -> Measured:
        recipe = self.recipe
        burst = 2 * recipe.workers
        most = min(self.work.steps_per_epoch, MOST_STEPS)
        # A short epoch whole; of a long one as much as the loader needs to be busy to the end.
        count = (most + burst + 1) * recipe.batch_size if most < self.work.steps_per_epoch else len(self.images)
        some = self.images.subset(spread(len(self.images), min(count, len(self.images))))
        begun = time.perf_counter()
        method = build_method(recipe, distributed.world_size(), self.fabric.device.type)
        quiet = replace(recipe, log_every=NEVER, checkpoint_every=NEVER, optimizer=replace(recipe.optimizer, lr=1e-9))
        watch = StepTimer(most, burst, self.cuda)
        checkpoints = Checkpoints(folder / "checkpoints", 1)
        main = self.fabric.is_global_zero
        logger = recipe.logger if main and recipe.logger == "tensorboard" else "none"  # the others are services
        with RunLog(folder if main else None, backend=open_backend(logger, folder, 0, {}), stream=io.StringIO()) as log:
            callbacks = [*self.callbacks, watch]
            trainer = build_trainer(
                self.fabric, method, quiet, some, folder, log, checkpoints, callbacks, Stop(), masks_made=True
            )
            start = time.perf_counter() - begun
            steps: dict[Kind, Times] = {}
            masks: tuple[float, int] | None = None
            for kind, epochs in self.work.epochs.items():
                if masks is None and self.work.generations and "labels" in kind.rides:
                    masks = measure_generation(
                        recipe, method, self.fabric.device, self.images, some, folder, self.work.generations, self.say
                    )
                self.say(f"measuring {kind}")
                # First one step that nobody times: memory is taken, kernels are chosen.
                self._epoch(trainer, watch, epochs[0], 1, method, largest=True)
                self._epoch(trainer, watch, epochs[0], most, method, largest=False)
                steps[kind] = watch.times()
            self.say("measuring a checkpoint")
            trainer.save()
            begun = time.perf_counter()
            trainer.save()
            saved = time.perf_counter() - begun
            save_backbone(method.backbone, folder / f"backbone-{distributed.rank()}", recipe_file.for_result(recipe))
        lines, events = 1, 0
        backbone = (folder / f"backbone-{distributed.rank()}").stat().st_size
        checkpoint = held_bytes(folder / "checkpoints")
        if main:
            metrics = (folder / "metrics.jsonl").read_bytes()
            lines, events = metrics.count(b"\n"), len(metrics) + held_bytes(folder / "tensorboard")
        distributed.barrier()  # nobody needs the folder any more
        return Measured(
            steps=steps,
            generation_seconds=masks[0] if masks else 0.0,
            generation_bytes=masks[1] if masks else 0,
            save_seconds=saved,
            checkpoint_bytes=checkpoint,
            backbone_bytes=backbone,
            line_bytes=events // max(1, lines),
            start_seconds=start,
            peak=peak_bytes(),
            workers=watch.workers,
            device=torch.cuda.max_memory_reserved() if self.cuda else 0,
        )

    def _epoch(
        self, trainer: Trainer, watch: StepTimer, epoch: int, most: int, method: Method, *, largest: bool
    ) -> None:
        """The first steps of an epoch, until the watch has enough."""
        watch.most = most
        trainer.progress.step = epoch * trainer.steps_per_epoch
        trainer.progress.refreshed = epoch
        trainer.log_every = NEVER
        with draws_at(method, largest):
            watch.begin()
            try:
                trainer.fit()
            except Enough:
                return


@contextmanager
def not_fitting() -> Iterator[None]:
    """Memory that cannot be had is the recipe's fault, not ours."""
    advice = "Lower --micro-batch (gradients are then accumulated), --batch-size or --views.size; for bootstrapping "
    advice += "give --masks.short-side."
    try:
        yield
    except (MemoryError, RuntimeError, UserError) as error:
        cause = error.__cause__ if isinstance(error, UserError) else error  # the trainer says it in its own words
        if cause is None or not out_of_memory(cause):
            raise
        raise UserError(f"this recipe does not fit into memory: {str(cause).splitlines()[0]}. {advice}") from error
