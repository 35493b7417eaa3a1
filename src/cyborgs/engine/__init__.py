"""The loop. Names are resolved when asked for: settings must not load torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyborgs.engine.optim import LARS as LARS
    from cyborgs.engine.optimizer_config import OptimizerConfig as OptimizerConfig
    from cyborgs.engine.trainer import Trainer as Trainer

_HOMES = {"LARS": "optim", "OptimizerConfig": "optimizer_config", "Trainer": "trainer"}
__all__ = ["LARS", "OptimizerConfig", "Trainer"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
