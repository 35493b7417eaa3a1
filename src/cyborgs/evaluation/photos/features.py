"""Pooled features of the photos of an evaluation, by what the evaluation has at hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyborgs.data.images import Images
from cyborgs.evaluation.contract import Context
from cyborgs.features.cache import Extraction, Float32, features
from cyborgs.features.extraction import Progress

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone


def features_of(backbone: Backbone, sets: Sequence[Images], extraction: Extraction, context: Context) -> list[Float32]:
    """The features (N, C) of several lists of photos, with one progress over all."""
    total = sum(len(photos) for photos in sets)
    found: list[Float32] = []
    for photos in sets:
        found.append(
            features(
                backbone,
                photos,
                extraction,
                cache=context.cache,
                threads=context.workers or None,
                progress=_after(context.progress, sum(map(len, found)), total),
                say=context.say,
            )
        )
    return found


def _after(progress: Progress | None, before: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(before + done, total)
