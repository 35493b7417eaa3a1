"""The prepared artefacts of a run: which it needs, and who makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import RunLog
from cyborgs.engine.signals import Stop
from cyborgs.errors import UserError
from cyborgs.features.transforms import middle
from cyborgs.masks.ground_truth import digest_of
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import weights_hash
from cyborgs.prepare.artefact import Maker, kept_by_run, prepare
from cyborgs.prepare.makers import NearestNeighbours, SaliencyFolder, SelectiveSearchBoxes, SpectralResidual
from cyborgs.runs.recipe import Recipe
from cyborgs.views.side import Artefact, Kind, MadeUp

KINDS: dict[str, Kind] = {"boxes": "boxes", "saliency": "saliency", "neighbours": "neighbours"}
"""The artefacts that can be prepared, by name."""
SIDE = 224
"""Of the middle square of a photo whose features are compared, after its short side became 256 (ORL)."""


def needed(recipe: Recipe) -> tuple[str, ...]:
    """Names of the artefacts that the crops and the method ask for.

    Raises:
        UserError: one of them cannot be prepared, or an epoch's plan asks for what there is not; names it.
    """
    names = tuple(dict.fromkeys((*recipe.views.artefacts, *(n for n in recipe.method.artefacts if n != "masks"))))
    for name in names:
        if name not in KINDS:
            raise UserError(f"{name!r} cannot be prepared of photos. Need one of {', '.join(KINDS)}.")
    for plan in map(recipe.method.plan, range(recipe.epochs)):
        for name in plan.refresh:
            if name != "masks":
                raise UserError(
                    f"method: epoch {plan.epoch} makes {name!r} anew; only masks can be, in the course of a run."
                )
        for name in plan.rides:
            if name not in ("labels", *names):
                raise UserError(
                    f"method: in epoch {plan.epoch} {name!r} rides along; need labels or one of its artefacts."
                )
    return names


def made_up(recipe: Recipe, count: int) -> dict[str, Artefact]:
    """The artefacts of a rehearsal over ``count`` photos: of the right shapes and no meaning."""
    width = {
        "boxes": recipe.prepare.boxes.boxes,
        "saliency": 0,
        "neighbours": min(recipe.prepare.neighbours, count - 1),
    }
    return {name: MadeUp(KINDS[name], width[name], count) for name in needed(recipe)}


def prepare_all(
    recipe: Recipe,
    backbone: Backbone,
    device: torch.device,
    images: Images,
    out: Path,
    log: RunLog,
    stop: Stop,
    *,
    begun: bool,
    first_weights: bool,
) -> dict[str, Artefact]:
    """Make what the run needs, or find it; a collective call.

    Args:
        recipe: resolved.
        backbone: the online network.
        device: where it is.
        images: the photos.
        out: the run's folder.
        log: told what is made.
        stop: asked between groups of photos.
        begun: the run goes on, and its recipe is the same: what its folder holds of these photos is taken as it is.
        first_weights: whether the network has the weights that the run began with.

    Raises:
        Stopped: ``stop`` was asked; what is made by then is kept.
        UserError: a folder of saliency maps cannot be read, a map is missing, or the neighbours of a run that goes on
            are lost and the weights they came from are not at hand.
    """
    made: dict[str, Artefact] = {}
    for name in needed(recipe):

        def progress(done: int, total: int, name: str = name) -> None:
            log.progress(f"making {name} {done} of {total}", done, total)

        found = kept_by_run(name, images, out) if begun else None
        if found is None:
            if name == "neighbours" and not first_weights:
                raise UserError(
                    f"{out / 'prepared' / 'neighbours.bin'}: is gone or damaged, and was made with weights of "
                    "--init, which the run no longer has. Put it back, or begin a run with another --out."
                )
            maker = distributed.all_or_none(_maker, name, recipe, backbone, device, images)
            found = prepare(maker, images, out, say=log.say, progress=progress, stopped=lambda: bool(stop))
        if found is None:
            raise Stopped(stop.signal)
        made[name] = found
    return made


def _maker(name: str, recipe: Recipe, backbone: Backbone, device: torch.device, images: Images) -> Maker:
    settings = recipe.prepare
    if name == "boxes":
        return SelectiveSearchBoxes(settings.boxes)
    if name == "neighbours":
        return NearestNeighbours(
            lambda: pooled_features(backbone, device, images), weights_hash(backbone), settings.neighbours
        )
    if not settings.saliency:
        return SpectralResidual()
    folder = Path(settings.saliency)
    if not folder.is_dir():
        raise UserError(f"prepare.saliency: {folder}: need a folder of grey PNGs named as the photos.")
    names = [images.name(i) for i in range(len(images))]
    return SaliencyFolder(folder, names, digest_of(f"folder:{folder}", "prepare.saliency"))


def pooled_features(
    backbone: Backbone, device: torch.device, images: Images, *, at_once: int = 32
) -> NDArray[np.float32]:
    """float32 (n, D): the mean of the network's last map over the middle square of each photo, in eval mode."""
    layer, training = backbone.default_layers()[-1], backbone.training
    backbone.eval()
    rows = []
    try:
        with torch.no_grad():
            for start in range(0, len(images), at_once):
                squares = [middle(images.read(i), 256, SIDE) for i in range(start, min(start + at_once, len(images)))]
                pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(device)
                maps = backbone(backbone.normalise(pixels), (layer,))[layer]
                rows.append(maps.float().mean(dim=(2, 3)).cpu().numpy())
    finally:
        backbone.train(training)
    return np.concatenate(rows)
