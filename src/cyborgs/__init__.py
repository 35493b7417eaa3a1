"""CYBORGS: contrastively bootstrapping object representations by grounding in segmentation.

``cyborgs.pretrain(recipe, data=..., out=...)``, ``cyborgs.load_backbone(path)``, ``cyborgs.segment(...)``, and the
parts on their own: ``cyborgs.ops``, ``cyborgs.losses``, ``cyborgs.engine``, ``cyborgs.MaskStore``. Everything is loaded
when it is first asked for, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyborgs.api import compare as compare
    from cyborgs.api import curve as curve
    from cyborgs.api import evaluate as evaluate
    from cyborgs.api import gallery as gallery
    from cyborgs.api import pretrain as pretrain
    from cyborgs.api import quality as quality
    from cyborgs.api import segment as segment
    from cyborgs.masks.store import MaskStore as MaskStore
    from cyborgs.models.weights import load_backbone as load_backbone
    from cyborgs.recipes import RECIPES as RECIPES
    from cyborgs.runs.pretrain import Run as Run
    from cyborgs.runs.recipe import Recipe as Recipe
    from cyborgs.structures import ViewGeometry as ViewGeometry

_HOMES = {
    "pretrain": "cyborgs.api",
    "Run": "cyborgs.runs.pretrain",
    "segment": "cyborgs.api",
    "quality": "cyborgs.api",
    "gallery": "cyborgs.api",
    "evaluate": "cyborgs.api",
    "compare": "cyborgs.api",
    "curve": "cyborgs.api",
    "load_backbone": "cyborgs.models.weights",
    "MaskStore": "cyborgs.masks.store",
    "Recipe": "cyborgs.runs.recipe",
    "RECIPES": "cyborgs.recipes",
    "ViewGeometry": "cyborgs.structures",
}
_ROOMS = (
    "ops",
    "data",
    "models",
    "losses",
    "metrics",
    "views",
    "engine",
    "methods",
    "masks",
    "health",
    "features",
    "runs",
    "recipes",
    "evaluation",
    "segmenting",
    "quality",
    "report",
    "looking",
    "gallery",
)
__all__ = [
    "RECIPES",
    "MaskStore",
    "Recipe",
    "Run",
    "ViewGeometry",
    "compare",
    "curve",
    "evaluate",
    "gallery",
    "load_backbone",
    "pretrain",
    "quality",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"cyborgs.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
