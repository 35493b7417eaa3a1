"""From settings to networks and mask sources: dictionaries and functions, nothing registered on import."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cyborgs.data.images import Images
from cyborgs.errors import UserError
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.config import MaskConfig
from cyborgs.masks.felzenszwalb import Felzenszwalb
from cyborgs.masks.grid import Grid
from cyborgs.masks.ground_truth import GroundTruth, digest_of
from cyborgs.masks.selective_search import SelectiveSearch
from cyborgs.masks.source import MaskSource
from cyborgs.masks.whole import Whole
from cyborgs.methods.byol.method import Byol
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.methods.method import Method
from cyborgs.models.backbone import Backbone
from cyborgs.models.batchnorm import convert_batchnorm
from cyborgs.models.borders import photo_maps
from cyborgs.models.fusion import concatenate_at
from cyborgs.runs.recipe import Recipe
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

    def __init__(
        self,
        backbone: Backbone,
        layers: tuple[str, ...],
        device: torch.device,
        border: int = 0,
        precision: Literal["32-true", "bf16-mixed"] = "32-true",
    ) -> None:
        """``border``: see ``models.borders.photo_maps``. ``precision``: of the network; bf16-mixed gives bfloat16."""
        self.border = border
        self.mixed = precision == "bf16-mixed"
        self.backbone = backbone
        self.layers = layers
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            maps = photo_maps(self.backbone, images.to(self.device), self.layers, self.border)
            ordered = [maps[layer] for layer in self.layers]
            height, width = max((m.shape[2], m.shape[3]) for m in ordered)
            return concatenate_at(ordered, height, width)


def build_source(
    recipe: Recipe, method: Method, device: torch.device, images: Images | None = None
) -> MaskSource | None:
    """The recipe's source of masks; None where it uses none.

    Args:
        recipe: with its masks' settings.
        method: whose features bootstrapping clusters.
        device: where they are computed.
        images: the photos: ground truth opens its annotations for them.

    Raises:
        UserError: annotations that cannot be read, or that none of the photos has.
    """
    masks = recipe.masks
    if masks.source == "none" or not isinstance(method, Cyborgs):
        return None
    fixed = fixed_source(masks, images)
    if fixed is not None:
        return fixed
    return Bootstrap(
        Features(method.backbone, method.clustered, device, masks.border, recipe.precision),
        clusters=method.config.clusters,
        group_size=masks.group_size,
        short_side=masks.short_side,
        position=masks.position,
        crf=masks.crf,
        iterations=method.config.kmeans_iterations,
        device=device,
    )


def fixed_source(masks: MaskConfig, images: Images | None) -> MaskSource | None:
    """The source that needs no network; None where the settings ask for another.

    Raises:
        UserError: annotations that cannot be read, or that none of the photos has.
    """
    if masks.source == "grid":
        return Grid(masks.grid)
    if masks.source == "whole":
        return Whole()
    if masks.source == "felzenszwalb":
        return Felzenszwalb(masks.felzenszwalb)
    if masks.source == "selective-search":
        return SelectiveSearch(masks.selective_search)
    if masks.source != "ground-truth":
        return None
    if images is None:
        raise UserError("masks.source: ground-truth needs the photos that its annotations are of.")
    # Here, since its libraries take a while to load.
    from cyborgs.data.annotations.open import open_truth

    truth = open_truth(masks.truth, [images.name(i) for i in range(len(images))])
    return GroundTruth(truth, len(images), images, digest_of(masks.truth))
