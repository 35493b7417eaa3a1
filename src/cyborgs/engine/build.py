"""From settings to networks and mask sources: dictionaries and functions, nothing registered on import."""

from __future__ import annotations

import torch
from torch import Tensor

from cyborgs.engine.recipe import Recipe
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.grid import Grid
from cyborgs.masks.source import MaskSource
from cyborgs.masks.whole import Whole
from cyborgs.methods.byol import Byol
from cyborgs.methods.config import ByolConfig, CyborgsConfig
from cyborgs.methods.cyborgs import Cyborgs
from cyborgs.methods.method import Method
from cyborgs.models.backbone import Backbone
from cyborgs.models.batchnorm import convert_batchnorm
from cyborgs.models.fusion import concatenate_at
from cyborgs.seeds import derive


def build_method(recipe: Recipe, world: int = 1, device: str = "cpu") -> Method:
    """The recipe's method with weights from its seed, normalisation synchronised where there are several processes."""
    torch.manual_seed(derive(recipe.seed, "weights"))
    config = recipe.method
    # The network checks the names of the layers, and lists those that exist.
    asked = (*config.fused_layers, *config.clustered_layers) if isinstance(config, CyborgsConfig) else ()
    if isinstance(config, ByolConfig) and config.layer:
        asked = (config.layer,)
    backbone = Backbone(recipe.backbone, tuple(dict.fromkeys(asked)) or None)
    if world > 1:
        convert_batchnorm(backbone, device)
    if isinstance(config, CyborgsConfig):
        return Cyborgs(config, backbone, recipe.views.size, recipe.views.grid)
    if isinstance(config, ByolConfig):
        return Byol(config, backbone)
    raise TypeError(f"no method for settings of type {type(config).__name__}")


class Features:
    """What bootstrapping sees: the clustered layers of the online network, in eval mode.

    Called with uint8 (b, 3, H, W); returns (b, D, H/8, W/8), deeper layers bilinearly at the first one's size.
    """

    def __init__(self, backbone: Backbone, layers: tuple[str, ...], device: torch.device) -> None:
        self.backbone = backbone
        self.layers = layers
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad():
            maps = self.backbone(self.backbone.normalise(images.to(self.device)), self.layers)
            ordered = [maps[layer] for layer in self.layers]
            height, width = max((m.shape[2], m.shape[3]) for m in ordered)
            return concatenate_at(ordered, height, width)


def build_source(recipe: Recipe, method: Method, device: torch.device) -> MaskSource | None:
    """The recipe's source of masks; None where it uses none."""
    masks = recipe.masks
    if masks.source == "none" or not isinstance(method, Cyborgs):
        return None
    if masks.source == "grid":
        return Grid(masks.grid)
    if masks.source == "whole":
        return Whole()
    return Bootstrap(
        Features(method.backbone, method.clustered, device),
        clusters=method.config.clusters,
        group_size=masks.group_size,
        short_side=masks.short_side,
        position=masks.position,
        iterations=method.config.kmeans_iterations,
        device=device,
    )
