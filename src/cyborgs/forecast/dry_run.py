"""``cyborgs pretrain --dry-run``: what a run would do and need, without starting it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from cyborgs import distributed
from cyborgs.data.images import ScannedImages
from cyborgs.engine.contract import Stopped
from cyborgs.engine.signals import Stop
from cyborgs.errors import UserError
from cyborgs.forecast.prediction import forecast, tell
from cyborgs.forecast.rehearsal import Rehearsal
from cyborgs.forecast.suitability import advise, advise_cost
from cyborgs.machine.cores import memory_bytes, this_machine
from cyborgs.machine.disk import free_bytes, readable
from cyborgs.runs.assemble import check_share
from cyborgs.runs.build import build_method
from cyborgs.runs.devices import make_fabric
from cyborgs.runs.micro_batch import find_micro_batch
from cyborgs.runs.photos import scan_photos
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.recipe_file import to_text
from cyborgs.runs.workload import require_space, space_of, workload


def dry_run(recipe: Recipe, *, data: str | Path, out: str | Path, stream: TextIO | None = None) -> Iterator[str]:
    """Paragraphs for the user, each as soon as it is known; only the first process has any to show.

    What costs nothing comes first: recipe, photos, steps, advice, disk. Then a few real steps are measured in a
    temporary folder, for as many processes as there are. Nothing is written to ``out`` or ``data``.

    Raises:
        UserError: the photos are at fault, fewer than a batch, or the run fits neither into memory nor on the disk.
        Stopped: interrupted.
    """
    data, out = Path(data), Path(out)
    fabric = make_fabric(recipe)
    main = fabric.is_global_zero
    stop = Stop()
    with stop.listening():
        images = ScannedImages.from_scan(
            distributed.run_on_rank_zero(partial(scan_photos, data, recipe, stream, stop), (UserError, Stopped))
        )
    resolved = recipe.resolved(len(images))
    check_share(resolved, distributed.world_size())
    work = workload(resolved, len(images))
    refreshes = [e for e in range(resolved.epochs) if resolved.method.plan(e).refresh]
    shown = ", ".join(map(str, refreshes[:10])) + (", ..." if len(refreshes) > 10 else "")
    if main:
        yield (
            f"{to_text(resolved)}\n"
            f"photos: {len(images)}, skipped: {len(images.skipped)}\n"
            f"steps: {work.steps_per_epoch} an epoch, {work.steps_per_epoch * resolved.epochs} in all\n"
            f"masks are made at epochs: {shown or 'never'}"
        )
        sizes = np.array([images.size(i) for i in range(len(images))])
        yield from _listed("Advice", advise(recipe, sizes, this_machine()))
        # By what is known without measuring, as pretrain does it.
        require_space(out, space_of(resolved, build_method(resolved), images))

    def say(text: str) -> None:
        if main:
            print(f"{text} ...", file=stream or sys.stderr, flush=True)

    if resolved.micro_batch == "auto":
        say("finding micro_batch")
        method = build_method(resolved, distributed.world_size(), fabric.device.type)
        resolved = replace(resolved, micro_batch=find_micro_batch(fabric, method, resolved, images))
        if main:
            yield f"micro_batch: {resolved.micro_batch} images of a process fit in memory at once."
    measured = Rehearsal(fabric, resolved, images, say).measure()
    if not main:
        return
    future = forecast(resolved, work, len(images), measured)
    world, local = distributed.world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size()))
    cuda = fabric.device.type == "cuda"
    device = torch.cuda.get_device_name() if cuda else f"a CPU, {torch.get_num_threads()} threads"
    yield "Predicted from a few measured steps:\n" + tell(
        resolved, work, measured, future, processes=world, device=device
    )
    free = free_bytes(out)
    if free is not None:
        yield f"free at {out}: {readable(free)}"
    yield from _listed("Advice", advise_cost(future.total, local * (future.peak + future.workers), memory_bytes()))


def _listed(title: str, sentences: list[str]) -> Iterator[str]:
    """A heading and a list; nothing of nothing."""
    if sentences:
        yield "\n".join([f"{title}:", *(f"- {sentence}" for sentence in sentences)])
