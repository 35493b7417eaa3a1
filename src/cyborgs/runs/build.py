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
from cyborgs.methods.method import Method
from cyborgs.methods.registry import method_class, name_of
from cyborgs.methods.settings import Bootstrapping
from cyborgs.models.backbone import Backbone
from cyborgs.models.borders import photo_maps
from cyborgs.models.fusion import concatenate_at
from cyborgs.models.statistics import set_batchnorm
from cyborgs.runs.recipe import Recipe
from cyborgs.seeds import derive


def build_method(recipe: Recipe, world: int = 1, device: str = "cpu") -> Method:
    """The recipe's method with weights from its seed, and BatchNorm in the backbone as its settings ask.

    Raises:
        UserError: the network has not the layers that are named, or the method's folder cannot be loaded.
    """
    config = recipe.method
    network = method_class(name_of(config))
    torch.manual_seed(derive(recipe.seed, "weights"))
    # The network checks the names of the layers, and lists those that exist.
    backbone = Backbone(recipe.backbone, config.layers or None)
    set_batchnorm(backbone, config.batchnorm, world, device)
    return network(config, backbone, recipe.views)


def bootstrapped_layers(bootstrapping: Bootstrapping | None, backbone: Backbone) -> tuple[str, ...]:
    """The layers whose maps become masks: those that a method names, or the last block at stride 8."""
    return (bootstrapping.layers if bootstrapping else ()) or (backbone.default_clustered(),)


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
    masks, bootstrapping = recipe.masks, method.config.bootstrapping
    if masks.source == "none":
        return None
    fixed = fixed_source(masks, images)
    if fixed is not None:
        return fixed
    assert bootstrapping is not None  # the recipe checks it
    return Bootstrap(
        Features(
            method.backbone,
            bootstrapped_layers(bootstrapping, method.backbone),
            device,
            masks.border,
            recipe.precision,
        ),
        clusters=bootstrapping.clusters,
        group_size=masks.group_size,
        short_side=masks.short_side,
        position=masks.position,
        crf=masks.crf,
        iterations=bootstrapping.iterations,
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
