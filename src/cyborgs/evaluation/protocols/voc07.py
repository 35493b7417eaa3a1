"""VOC 2007 classification: a linear SVM for each class on frozen features, mAP over 20 classes.

Two published variants. ``virtex`` (kdexd/virtex, CYBORGS' row): the middle square, the mean of the last map,
scikit-learn's AP. ``openselfsup`` (OpenSelfSup and its heirs, the peers' rows): the squashed photo, four windows of the
last map, AP of the envelope. Both choose the cost by scikit-learn's AP in three folds. Images in which a class has
difficult objects alone are negatives in training and do not count in the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.features import features_of
from cyborgs.evaluation.photos.fits import Fit
from cyborgs.evaluation.photos.pooled import counts_of
from cyborgs.evaluation.photos.svm import fit_classes
from cyborgs.evaluation.sets.voc_lists import CLASSES, VocData, by_name, open_voc, without_test_images
from cyborgs.evaluation.settings.photos import Voc07Settings
from cyborgs.features.cache import Extraction, Float32
from cyborgs.features.transforms import Square, Squash
from cyborgs.machine.cores import usable_cores
from cyborgs.metrics.average_precision import average_precision, envelope_average_precision
from cyborgs.metrics.judged import Ranked

if TYPE_CHECKING:
    from cyborgs.models.backbone import Backbone

SIZE: Final = 224
SHORT: Final = 256
COSTS: Final = {
    "virtex": (0.01, 0.1, 1.0, 10.0),
    "openselfsup": (*(0.5**k for k in range(19, 3, -1)), 1.0, 10.0, 100.0),
}
PRECISIONS: Final = {"virtex": average_precision, "openselfsup": envelope_average_precision}


def open_data(data: str, settings: Voc07Settings, seed: int, data_set: str = "voc") -> VocData:
    """trainval and test; ``data`` is VOCdevkit/ or VOCdevkit/VOC2007."""
    return open_voc(data, settings.images, seed)


def normalised(values: Float32, variant: str) -> NDArray[np.float64]:
    """Rows of unit length, as the variant divides them."""
    x = values.astype(np.float64)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    x /= np.maximum(length, 1e-12) if variant == "virtex" else length + 1e-5
    return x


def extraction(variant: str, layer: str) -> Extraction:
    """What the variant computes of a photo."""
    if variant == "virtex":
        return Extraction(layer, Square(SIZE, SHORT))
    return Extraction(layer, Squash(SIZE, SHORT), "windows")


def evaluate(backbone: Backbone, data: VocData, settings: Voc07Settings, context: Context) -> Result:
    """mAP, and AP by class.

    Raises:
        UserError: no class has enough training images, or the features hold NaN.
    """
    layer = settings.layer or backbone.layers[-1]
    costs = settings.costs or COSTS[settings.variant]
    chosen = data.chosen(context.share, context.seed)
    labels = data.train.labels[chosen]
    few = few_of(labels, settings)
    if len(few) == len(CLASSES):
        raise UserError(
            f"no class has {settings.folds} training images with it and {settings.folds} without, as the choice of "
            f"costs needs; there are {len(labels)} images. Give more labels."
        )
    how = extraction(settings.variant, layer)
    train, test = (
        normalised(values, settings.variant)
        for values in features_of(backbone, [data.train.photos, data.test.photos], how, context)
    )
    context.say(f"fitting {len(CLASSES) - len(few)} classes x {len(costs)} costs x {settings.folds} folds")
    fits = fit_classes(
        train[chosen],
        labels,
        test,
        costs,
        folds=settings.folds,
        drop_difficult=settings.difficult_in_training == "drop",
        seed=context.seed % 2**32,
        jobs=usable_cores(),
    )
    used = np.flatnonzero([fit is not None for fit in fits])
    judged = Ranked(
        np.stack([fit.scores for fit in fits if fit is not None], axis=1),
        data.test.labels[:, used],
        PRECISIONS[settings.variant],
    )
    everything = np.ones(len(judged), np.int64)
    per_class = by_name(used, judged.by_class(everything))
    said = {"costs": list(costs), "layer": layer, "chosen_costs": {CLASSES[c]: f.cost for c, f in enumerate(fits) if f}}
    return Result(
        "map",
        {"map": judged.score(everything)},
        judged,
        asdict(settings) | said,
        counts_of(data, len(chosen)),
        context.seed,
        per_class,
        tuple(_warnings(few, fits, per_class, settings.folds)),
    )


def few_of(labels: NDArray[np.int8], settings: Voc07Settings) -> list[str]:
    """Classes whose cost cannot be chosen: too few training images with them, or without."""
    found = []
    for c, name in enumerate(CLASSES):
        column = labels[:, c]
        if settings.difficult_in_training == "drop":
            column = column[column != 0]
        if min((column > 0).sum(), (column <= 0).sum()) < settings.folds:
            found.append(name)
    return found


def _warnings(few: Sequence[str], fits: Sequence[Fit | None], per_class: Mapping[str, float], folds: int) -> list[str]:
    warned = []
    if few:
        warned.append(
            f"{len(few)} of {len(CLASSES)} classes have fewer than {folds} training images with them, or without, and "
            f"are left out of the mean: {', '.join(few)}."
        )
    warned += without_test_images([name for name, ap in per_class.items() if np.isnan(ap) and name not in few])
    made = [fit for fit in fits if fit is not None]
    unconverged = sum(fit.unconverged for fit in made)
    if unconverged:
        total = sum(fit.fits for fit in made)
        names = [name for name, fit in zip(CLASSES, fits, strict=True) if fit is not None and fit.unconverged]
        warned.append(
            f"{unconverged} of {total} SVMs did not converge in 2000 iterations (ConvergenceWarning), of the classes "
            f"{', '.join(names)}."
        )
    return warned
