"""What a run's folder holds of its network, finished or not, and what it makes of the run's photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from cyborgs.data.images import Images
from cyborgs.data.store_format import StoreError
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.errors import UserError
from cyborgs.features.extraction import UInt8
from cyborgs.features.neighbours import Neighbours, search
from cyborgs.masks.store import MaskStore
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone
from cyborgs.runs import recipe_file
from cyborgs.runs.build import build_method

_ONLINE = "backbone.trunk."
"""Where a checkpoint's networks hold the online backbone."""


def backbone_of(run: Path) -> tuple[Backbone, str]:
    """The run's backbone in eval mode, and which it is: the result, or that of the last checkpoint.

    Raises:
        UserError: neither is there, or it cannot be read.
    """
    result = run / "backbone.safetensors"
    if result.is_file():
        return load_backbone(result), "the finished backbone"
    last = Checkpoints(run / "checkpoints").last()
    if last is None:
        raise UserError("the run has no checkpoint yet.")
    recipe = recipe_file.load(run / "recipe.yaml")
    with torch.random.fork_rng(devices=[]):
        backbone = build_method(replace(recipe, backbone=replace(recipe.backbone, init=""))).backbone
    try:
        with safe_open(last / "networks.safetensors", "pt") as file:
            state = {n.removeprefix(_ONLINE): file.get_tensor(n) for n in file.keys() if n.startswith(_ONLINE)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"the checkpoint {last.name} cannot be read ({error}).") from error
    backbone.load_weights(state, last.name)
    return backbone.eval(), f"the checkpoint {last.name}"


def _labels(run: Path) -> tuple[Callable[[int], UInt8], str]:
    """A photo's label map and what its regions are: the newest masks', or the whole photo where there are none."""
    try:
        store = MaskStore(run)
    except StoreError:
        return lambda i: np.zeros((1, 1), np.uint8), "whole photos, for the run has no masks"
    return store.__getitem__, f"connected regions of masks {store.generation}"


def neighbours_of_run(run: Path, images: Images, **options: Any) -> tuple[Sequence[Neighbours], str]:
    """Some regions of the run's photos with the nearest ones of other photos, as far as the run has come.

    Args:
        run: the run's folder; nothing in it is changed.
        images: its photos.
        options: of ``evaluation.neighbours.search``.

    Returns:
        The rows, and a sentence: from which weights and masks, or why there are none.
    """
    try:
        backbone, weights = backbone_of(run)
        labels, kind = _labels(run)
        found = search(backbone, images, labels, **options)
    except (OSError, ValueError) as error:
        return (), f"Left out: {error}"
    if found is None:
        return (), "Left out: it takes two photos."
    return found.rows, (
        f"By the pooled features of {weights}, among {found.regions} regions of {found.photos} photos "
        f"({kind}). Numbers: cosine, the mean of all regions taken away."
    )
