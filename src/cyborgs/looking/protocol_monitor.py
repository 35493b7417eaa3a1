"""A protocol of the catalogue as a monitor: the same figures as ``cyborgs evaluate``, while a run goes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, final

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import Settings
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.models.backbone import Backbone
from cyborgs.runs.monitor_config import MonitorConfig
from cyborgs.runs.processes import launched


def fine_tunes(settings: Any) -> bool:
    """Whether a protocol trains by the engine's loop: its settings hold a training's."""
    if isinstance(settings, FineTuneConfig):
        return True
    return is_dataclass(settings) and any(fine_tunes(getattr(settings, f.name)) for f in fields(settings))


@final
class ProtocolMonitor:
    """Preset small on the labelled photos, which are opened before the run starts.

    Args:
        config: names protocol and photos.
        seed: of the protocol.
        changes: fields of its settings in place of the preset's.

    Raises:
        UserError: no such protocol, one that trains in a run of several processes, or the photos cannot be used.
    """

    def __init__(self, config: MonitorConfig, seed: int, **changes: Any) -> None:
        try:
            entry = protocols.entry(config.protocol)
        except UserError as error:
            raise UserError(f"monitor.protocol: {error}") from None
        settings: Any = replace(protocols.settings_of(config.protocol, "small"), **changes)
        if fine_tunes(settings) and launched() > 1:
            raise UserError(
                f"monitor.protocol: {config.protocol} trains, and that needs a run of one process; this one has "
                f"{launched()}. Name one on frozen features: knn, linear-classification, dense-probe, clustering."
            )
        if config.classes:
            if not hasattr(settings, "classes"):
                raise UserError(f"monitor.classes: {config.protocol} knows its classes. Leave it out.")
            settings = replace(settings, classes=config.classes)
        self._name = config.protocol
        self._settings: Settings = settings
        self._seed = seed
        self._data = protocols.module(config.protocol).open_data(config.labelled, settings, seed, entry.data_set)

    def __call__(self, backbone: Backbone, epoch: int) -> dict[str, float]:
        """``PROTOCOL/FIGURE`` -> value, the main figure first."""
        device = str(next(backbone.parameters()).device)
        context = Context(seed=self._seed, device=device)
        result = protocols.module(self._name).evaluate(backbone, self._data, self._settings, context)
        figures = {result.metric: result.value} | dict(result.figures)
        return {f"{self._name}/{name}": float(value) for name, value in figures.items()}
