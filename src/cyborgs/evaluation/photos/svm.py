"""One linear SVM for each class, its cost chosen by cross-validation. No torch here: processes of their own load it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from joblib import Parallel, delayed  # type: ignore[import-untyped]
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from cyborgs.evaluation.photos.fits import Fit, Float, fitted
from cyborgs.metrics.average_precision import average_precision

Bool = NDArray[np.bool_]
MAX_ITERATIONS: Final = 2000
APART: Final = 100_000_000
"""Numbers that are fitted, over all SVMs, from which on processes are worth their start."""


def _fitted(x: Float, present: Bool, cost: float, seed: int) -> tuple[Any, bool]:
    """The SVM that all of VOC07's published codes fit, and whether it converged."""
    model = LinearSVC(
        C=cost,
        penalty="l2",
        loss="squared_hinge",
        dual=True,
        tol=1e-4,
        max_iter=MAX_ITERATIONS,
        class_weight={1: 2.0, -1: 1.0},
        random_state=seed,
    )
    return fitted(model, x, np.where(present, 1, -1))


def _fold(
    x: Float, present: Bool, rows: NDArray[np.int64], cost: float, fold: tuple[Any, Any], seed: int
) -> tuple[float, bool]:
    """AP on the part of a fold that was left out."""
    learn, judge = fold
    model, converged = _fitted(x[rows[learn]], present[learn], cost, seed)
    return average_precision(model.decision_function(x[rows[judge]]), present[judge]), converged


def _last(x: Float, test: Float, present: Bool, rows: NDArray[np.int64], cost: float, seed: int) -> tuple[Float, bool]:
    """Distances of the test images, from the SVM of all training images."""
    model, converged = _fitted(x[rows], present, cost, seed)
    return model.decision_function(test), converged


def fit_classes(
    train: Float,
    labels: NDArray[np.int8],
    test: Float,
    costs: Sequence[float],
    *,
    folds: int = 3,
    drop_difficult: bool = False,
    seed: int = 0,
    jobs: int = 1,
) -> list[Fit | None]:
    """Choose each class's cost by the mean AP (scikit-learn's) of a stratified, unshuffled cross-validation; fit on all.

    The processes do not change the result: liblinear draws from the seed, but keeps its generator for a whole process,
    which is why these are no threads.

    Args:
        train: features (N, D).
        labels: (N, K): 1 present, -1 absent, 0 only difficult objects.
        test: features (M, D).
        costs: to choose from; of equals the first.
        folds: parts of the cross-validation.
        drop_difficult: leave the zeros out; else they are negatives.
        seed: of liblinear's order of the images.
        jobs: processes, where the work is worth them.

    Returns:
        For each class its fit, ``means`` of APs; None where it has fewer positives or negatives than folds.
    """
    kept = [
        np.flatnonzero(labels[:, c] != 0) if drop_difficult else np.arange(len(labels)) for c in range(labels.shape[1])
    ]
    present = [labels[rows, c] > 0 for c, rows in enumerate(kept)]
    usable = [c for c, p in enumerate(present) if min(p.sum(), (~p).sum()) >= folds]
    tasks = [
        (c, cost, fold)
        for c in usable
        for cost in costs
        for fold in StratifiedKFold(folds).split(np.zeros(len(kept[c])), present[c])
    ]
    if train.size * len(tasks) < APART:
        jobs = 1
    with Parallel(n_jobs=jobs, max_nbytes="1M") as parallel:
        found = parallel(delayed(_fold)(train, present[c], kept[c], cost, fold, seed) for c, cost, fold in tasks)
        precisions = np.array([ap for ap, _ in found]).reshape(len(usable), len(costs), folds).mean(axis=2)
        best = [costs[int(k)] for k in precisions.argmax(axis=1)] if usable else []
        last = parallel(
            delayed(_last)(train, test, present[c], kept[c], cost, seed) for c, cost in zip(usable, best, strict=True)
        )
    failed = (
        np.array([not converged for _, converged in found], bool).reshape(len(usable), len(costs) * folds).sum(axis=1)
    )
    fits: list[Fit | None] = [None] * labels.shape[1]
    for k, c in enumerate(usable):
        scores, converged = last[k]
        fits[c] = Fit(
            best[k],
            tuple(precisions[k].tolist()),
            scores,
            len(costs) * folds + 1,
            int(failed[k]) + (not converged),
        )
    return fits
