"""The backbone as it was at stated epochs (Figure 5b)."""

from __future__ import annotations

from pathlib import Path
from typing import final

from cyborgs.engine.callback import Callback, Training
from cyborgs.files import make_folder
from cyborgs.methods.method import Method
from cyborgs.models.weights import save_backbone
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan


@final
class Snapshots(Callback):
    """Writes ``snapshots/epoch-NNNN.safetensors``: the weights before the first step of that epoch."""

    def __init__(self, method: Method, folder: Path, recipe: Recipe) -> None:
        self._method = method
        self._folder = folder
        self._recipe = recipe

    def on_epoch(self, trainer: Training, plan: EpochPlan) -> None:
        """Before the epoch's refreshes."""
        refresh = self._recipe.snapshot_refreshes and (plan.epoch == 0 or bool(plan.refresh))
        if refresh or plan.epoch in self._recipe.snapshots:
            self._write(trainer, plan.epoch)

    def on_end(self, trainer: Training) -> None:
        """After the last epoch."""
        if self._recipe.snapshot_refreshes or trainer.epochs in self._recipe.snapshots:
            self._write(trainer, trainer.epochs)

    def _write(self, trainer: Training, epoch: int) -> None:
        if trainer.fabric.is_global_zero:
            make_folder(self._folder)
            save_backbone(
                self._method.backbone,
                self._folder / f"epoch-{epoch:04d}.safetensors",
                recipe_file.for_result(self._recipe),
            )
