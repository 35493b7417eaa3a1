"""What is measured while a run goes: neighbours without labels; votes, probes, any protocol with a few.

A monitor looks at a copy of the backbone, in eval mode, and draws by coordinates: weights, statistics of BatchNorm and
every generator of the run stay as they are, so a run ends byte for byte alike with monitors and without.
"""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast, final

import numpy as np
from PIL import Image

from cyborgs import distributed
from cyborgs.data.images import ScannedImages
from cyborgs.engine.callback import Callback, Training
from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError, printable
from cyborgs.evaluation.dense.linear import ProbeSettings, linear_segmentation
from cyborgs.evaluation.sets.pixel_sets import PixelSet, read_list
from cyborgs.features.neighbours import Neighbours, compared_layers, search, sheet
from cyborgs.files import make_folder, write_bytes
from cyborgs.looking.protocol_monitor import ProtocolMonitor
from cyborgs.models.backbone import Backbone
from cyborgs.runs.recipe import Recipe
from cyborgs.seeds import numpy_generator
from cyborgs.structures import EpochPlan

FOLDER: Final = "monitors"
"""Folder of a run for the monitors' pictures."""
SIDE: Final = 96
PROBE: Final = ProbeSettings(short_side=256)

Measure = Callable[[Backbone, int], Mapping[str, float]]
"""(a copy of the backbone, epochs done) -> figures."""


def monitors(recipe: Recipe, data: str | Path, out: str | Path) -> list[Callback]:
    """The callbacks that a recipe's ``monitor`` asks for, for ``engine.run.pretrain``.

    Raises:
        UserError: the labelled photos cannot be used; says why.
    """
    return [Monitors(recipe, Path(data), Path(out))] if recipe.monitor.every else []


@final
class Monitors(Callback):
    """Measures before the first step, every ``monitor.every`` epochs and at the end, on the first process.

    A line of metrics.jsonl for each: ``{"step", "epoch": epochs done, "monitor": name, figures}``. What fails
    before the first step stops the run; what fails later is said and written (``"failed"``), and the run goes on.
    """

    name = "monitors"

    def __init__(self, recipe: Recipe, data: Path, out: Path) -> None:
        self._recipe = recipe
        self._root = data if data.is_dir() else data.parent
        self._out = out
        self._done = -1
        self._measures: dict[str, Measure] = {"neighbours": self._neighbours} | _labelled(recipe)

    def on_epoch(self, trainer: Training, plan: EpochPlan) -> None:
        """Before the epoch's refreshes."""
        if plan.epoch % self._recipe.monitor.every == 0:
            self._measure(trainer, plan.epoch)

    def on_end(self, trainer: Training) -> None:
        """After the last epoch."""
        self._measure(trainer, trainer.epochs)

    def state_dict(self) -> dict[str, Any]:
        """The last epoch that was measured: a run stopped in a refresh comes by its beginning again."""
        return {"epoch": self._done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self._done = int(state["epoch"])

    def _measure(self, trainer: Training, epoch: int) -> None:
        if epoch <= self._done:
            return
        failure: Exception | None = None
        stopped: Stopped | None = None
        if trainer.fabric.is_global_zero:
            try:
                self._all(trainer, epoch)
            except Stopped as stop:  # a protocol that trains took the signal
                stopped = stop
            except Exception as error:  # raised below, on all processes: none of them may wait for ever
                failure = error
        if stopped is not None:
            trainer.leave(stopped.signal)  # nothing of this epoch is written: a resumed run measures it anew
        if distributed.all_any(failure is not None):
            raise failure or RuntimeError("a monitor failed in the first process; its message says why")
        self._done = epoch

    def _all(self, trainer: Training, epoch: int) -> None:
        backbone = copy.deepcopy(cast(Backbone, trainer.trainable.backbone)).eval()
        lines: list[dict[str, Any]] = []
        for name, measure in self._measures.items():
            trainer.log.progress(f"monitor: {name}", trainer.progress.step, trainer.total_steps)
            line: dict[str, Any] = {"step": trainer.progress.step, "epoch": epoch, "monitor": name}
            try:
                line |= measure(backbone, epoch)
            except (OSError, ValueError) as error:
                if self._done < 0:
                    raise
                trainer.log.say(f"monitor {name}: {error} The run goes on without this figure.")
                line["failed"] = printable(str(error))
            lines.append(line | trainer.clock.read("saving"))
        for line in lines:
            trainer.log.write(line)
        trainer.speed.skip()

    def _neighbours(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        """The same nine cells of the same photos at every epoch, whatever the masks are."""
        images = ScannedImages.read_csv(self._out, self._root)
        cells = np.arange(9, dtype=np.uint8).reshape(3, 3)
        found = search(backbone, images, lambda i: cells, queries=4, neighbours=4, side=SIDE)
        if found is None:
            return {}
        write_pictures(self._out / FOLDER / f"epoch-{epoch:04d}", found.rows)
        return {"neighbours/similarity": found.similarity, "neighbours/similarity_any": found.similarity_any}


def write_pictures(folder: Path, rows: Sequence[Neighbours]) -> None:
    """``neighbours.jpg``, a row for each query, and ``neighbours.json``, which says what is on it."""
    make_folder(folder, parents=True)
    buffer = io.BytesIO()
    Image.fromarray(sheet(rows, SIDE)).save(buffer, "JPEG", quality=85)
    write_bytes(folder / "neighbours.jpg", buffer.getvalue())
    said = [
        {
            "photo": printable(row.query.name),
            "neighbours": [
                {"photo": printable(one.name), "similarity": round(one.similarity or 0.0, 4)} for one in row.found
            ],
        }
        for row in rows
    ]
    write_bytes(folder / "neighbours.json", json.dumps({"rows": said}, indent=1).encode())


def _labelled(recipe: Recipe) -> dict[str, Measure]:
    """What the recipe's labelled photos allow to measure."""
    config = recipe.monitor
    if not config.labelled:
        return {}
    if config.protocol:
        return {config.protocol: ProtocolMonitor(config, recipe.seed)}
    path = Path(config.labelled)
    if path.is_dir():
        if config.classes:
            raise UserError(f"monitor.classes: {path} is a folder, whose subfolders are the classes. Leave it out.")
        votes = replace(config, protocol="knn")
        return {"knn": ProtocolMonitor(votes, recipe.seed, size=recipe.views.size)}
    if not config.classes:
        raise UserError(f"monitor.classes: {path} is a list of label images. Say how many classes they hold.")
    return {"probe": _Probe(read_list(path, classes=config.classes, ignore=255), recipe)}


@final
class _Probe:
    """A linear segmentation probe: half of the photos train it, the others judge it."""

    def __init__(self, labelled: PixelSet, recipe: Recipe) -> None:
        if len(labelled) < 2:
            raise UserError("monitor.labelled: need at least two labelled photos, one to learn from, one to judge.")
        order = numpy_generator(recipe.seed, "evaluation", 21).permutation(len(labelled)).tolist()
        half = -(-len(order) // 2)
        self.train, self.val = (labelled.part(sorted(part)) for part in (order[:half], order[half:]))
        self.seed = recipe.seed

    def __call__(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        layers = compared_layers(backbone)
        result = linear_segmentation(backbone, self.train, self.val, layers=layers, seed=self.seed, settings=PROBE)
        return {"probe/miou": result.miou, "probe/accuracy": result.accuracy}
