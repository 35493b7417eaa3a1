"""Photos without labels: how widely frozen features are spread, and whether a photo and a crop of it are alike.

The main figure is the evenness, uniformity (Wang and Isola, t = 2) over -4, which directions on all sides have: 0 where
all photos have the same features, 1 where they are spread evenly. Beside it uniformity itself, alignment and effective
rank. None of them knows what a photo shows: they find a collapse, and rank networks only roughly.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from cyborgs.data.images import PhotoFiles
from cyborgs.data.listing import list_images
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.photos.label_free import label_free
from cyborgs.evaluation.photos.pooled import collapsed
from cyborgs.evaluation.sets.labelled import Labelled, Split, check_once
from cyborgs.evaluation.sets.lists import must_exist
from cyborgs.evaluation.sets.splits import first_of
from cyborgs.evaluation.settings.photos import LabelFreeSettings
from cyborgs.features.cache import Extraction
from cyborgs.features.transforms import Square
from cyborgs.metrics.judged import Pairs
from cyborgs.metrics.spread import closeness
from cyborgs.ops.normalise import unit_rows

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

_CHOSEN: Final = 57
"""Stream for the draw of the photos (``splits.first_of``)."""


def open_data(data: str, settings: LabelFreeSettings, seed: int, data_set: str = "") -> Split[Labelled]:
    """The photos of any folder, those of its subfolders too, or of a text list; ``settings.images`` of them.

    Raises:
        UserError: there are none, or one alone; a listed file is missing or listed twice.
    """
    listing = list_images(data)
    photos = [Path(listing.root) / name for name in listing.names]
    must_exist(Path(data), photos, "")
    check_once(data, photos)
    if len(photos) < 2:
        raise UserError(f"{data}: has one photo alone. Give two at least, since they are compared with each other.")
    chosen = first_of(len(photos), settings.images, seed, _CHOSEN)
    left_out = {
        "files that are no photos": listing.other,
        "links and folders that cannot be followed": len(listing.skipped),
        "photos beyond --images": len(photos) - len(chosen),
    }
    every = Labelled(PhotoFiles(tuple(photos)), np.zeros((len(photos), 0), np.int8))
    return Split(every.part(()), every.part(chosen), {why: n for why, n in left_out.items() if n})


def evaluate(backbone: Backbone, data: Split[Labelled], settings: LabelFreeSettings, context: Context) -> Result:
    """Evenness, uniformity, alignment, effective rank of the photos.

    Raises:
        UserError: the features hold NaN.
    """
    layer = settings.layer or backbone.layers[-1]
    photos = data.test.photos
    (found,) = features_of(backbone, [photos], Extraction(layer, Square(settings.size)), context)
    unit = unit_rows(torch.from_numpy(found).to(next(backbone.parameters()).device))
    judged = Pairs(closeness(unit).cpu().numpy())
    warned = ["there are no labels, so a share of them changes nothing."] if context.share < 1 else []
    return Result(
        "evenness",
        {"evenness": judged.score(np.ones(len(photos), np.int64))}
        | label_free(backbone, photos, unit, layer, settings.size, context),
        judged,
        asdict(settings) | {"layer": layer},
        dict(data.counts),
        context.seed,
        warnings=(*collapsed(unit), *warned),
    )
