"""Settings of the toy method. No torch here."""

from __future__ import annotations

from dataclasses import dataclass

from cyborgs.methods.settings import MethodConfig
from cyborgs.structures import EpochPlan


@dataclass(frozen=True)
class ToySixConfig(MethodConfig):
    """All artefacts ride along in every second epoch, none in the others."""

    embedding: int = 8
    """Width of the embeddings."""

    @property
    def artefacts(self) -> tuple[str, ...]:
        """All that there are."""
        return ("boxes", "saliency", "neighbours")

    def plan(self, epoch: int) -> EpochPlan:
        """``side`` needs what rides along."""
        if epoch % 2:
            return EpochPlan(epoch, (), {"views": 1.0})
        return EpochPlan(epoch, (), {"views": 1.0, "side": 0.5}, rides=self.artefacts)


SETTINGS = ToySixConfig
