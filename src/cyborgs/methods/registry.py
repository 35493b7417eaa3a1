"""Which methods there are. No torch here."""

from __future__ import annotations

from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.methods.settings import MethodConfig

CONFIGS: dict[str, type[MethodConfig]] = {"cyborgs": CyborgsConfig, "byol": ByolConfig}
