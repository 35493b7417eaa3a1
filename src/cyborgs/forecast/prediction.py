"""From what things cost and how often they are done to the time, memory and disk of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cyborgs.engine.log import duration
from cyborgs.forecast.rehearsal import Measured
from cyborgs.machine.disk import readable
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import Space, Workload, space


@dataclass(frozen=True)
class Forecast:
    """A prediction. Seconds and bytes."""

    seconds: Mapping[str, float]
    """By what they are spent on; without the start of Python and the reading of the photos."""
    peak: int
    """Memory of a main process at its largest."""
    workers: int
    """Memory of its loader processes, all together, beside what they share with it."""
    device: int
    """Memory of its GPU; 0 without one."""
    space: Space

    @property
    def total(self) -> float:
        """Seconds of the whole run."""
        return sum(self.seconds.values())


def forecast(recipe: Recipe, work: Workload, photos: int, measured: Measured) -> Forecast:
    """Costs times counts, for a resolved recipe."""
    seconds = {
        str(kind): len(epochs) * measured.steps[kind].epoch(work.steps_per_epoch)
        + work.logged[kind] * measured.steps[kind].logged
        for kind, epochs in work.epochs.items()
    }
    if work.generations:
        seconds["making masks"] = work.generations * measured.generation_seconds
    # A backbone is written as a checkpoint is; the result counts too.
    aside = (work.snapshots + 1) * measured.backbone_bytes / measured.checkpoint_bytes
    seconds["saving"] = (work.checkpoints + aside) * measured.save_seconds
    seconds["starting"] = measured.start_seconds
    return Forecast(
        seconds=seconds,
        peak=measured.peak,
        workers=measured.workers,
        device=measured.device,
        space=space(
            recipe,
            work,
            photos,
            checkpoint=measured.checkpoint_bytes,
            backbone=measured.backbone_bytes,
            generation=measured.generation_bytes,
            line=measured.line_bytes,
        ),
    )


def tell(recipe: Recipe, work: Workload, measured: Measured, found: Forecast, *, processes: int, device: str) -> str:
    """The prediction as text."""
    many = "1 process" if processes == 1 else f"{processes} processes"
    rows = [("time", duration(found.total), f"on {device}, {many}, {recipe.workers} loader processes each")]
    for kind, epochs in work.epochs.items():
        step = measured.steps[kind].steady
        rows.append(
            (
                f"  {kind}",
                duration(found.seconds[str(kind)]),
                f"{len(epochs)} epochs x {work.steps_per_epoch} steps, {step:.3g} s a step",
            )
        )
    if work.generations:
        each = duration(measured.generation_seconds)
        rows.append(
            ("  making masks", duration(found.seconds["making masks"]), f"{work.generations} times, {each} each")
        )
    rows.append(
        ("  saving", duration(found.seconds["saving"]), f"{work.checkpoints} checkpoints, {work.snapshots} snapshots")
    )
    rows.append(("  starting", duration(found.seconds["starting"]), "beside Python and reading the photos"))
    rows.append(("memory", readable(found.peak + found.workers), "at most, of one process with its loader's"))
    rows.append(("  main process", readable(found.peak), ""))
    if recipe.workers:
        rows.append(
            ("  loader processes", readable(found.workers), f"{recipe.workers} together, beside what they share")
        )
    if found.device:
        rows.append(("GPU memory", readable(found.device), "reserved, at most"))
    notes = {
        "checkpoints": f"{recipe.keep_checkpoints} kept, one being written",
        "masks": f"{recipe.masks.keep_generations or work.generations} generations kept, one being written",
        "snapshots": str(work.snapshots),
        "result": "backbone.safetensors",
        "logs": "metrics.jsonl, TensorBoard, lists of photos",
    }
    rows.append(("disk", readable(found.space.total), "at most, while the run goes"))
    rows += [(f"  {name}", readable(value), notes[name]) for name, value in found.space.parts().items()]
    rows += recipe.method.forecast_notes()
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{width}}  {value:>8}  {note}".rstrip() for name, value, note in rows)
