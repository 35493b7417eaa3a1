"""Logistic regression whose cost is chosen by cross-validation. No torch here."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from cyborgs.evaluation.photos.fits import Fit, Float, fitted

Int = NDArray[np.int64]
FOLDS: Final = 3
MAX_ITERATIONS: Final = 1000


def _fitted(x: Float, labels: Int, cost: float) -> tuple[Any, bool]:
    return fitted(LogisticRegression(C=cost, max_iter=MAX_ITERATIONS), x, labels)


def _scores(model: Any, x: Float, classes: int) -> Float:
    found: Float = model.decision_function(x)
    if found.ndim == 1:  # two classes: one number
        found = np.stack([-found, found], axis=1) / 2
    out = np.full((len(x), classes), -np.inf)
    out[:, model.classes_] = found
    return out


def fit_logistic(train: Float, labels: Int, test: Float, classes: int, costs: Sequence[float]) -> Fit:
    """Choose the cost by stratified, unshuffled folds of the training photos, fit on all.

    Args:
        train: features (N, D).
        labels: (N,), 0 to ``classes - 1``, of which two at least occur.
        test: features (M, D).
        classes: how many.
        costs: to choose from; of equals the first.

    Returns:
        Scores (M, classes), -inf for classes without a training photo; ``means`` of accuracies. Where no class has two
        photos the middle cost is taken.

    Raises:
        ValueError: fewer than two classes.
    """
    folds = min(FOLDS, int(np.bincount(labels).max()))
    ends, chosen, accuracies = [], costs[len(costs) // 2], np.zeros(0)
    if folds >= 2 and len(costs) > 1:
        found = np.zeros((len(costs), folds))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")  # some folds lack it then
            parts = list(StratifiedKFold(folds).split(train, labels))
        for k, cost in enumerate(costs):
            for f, (learn, judge) in enumerate(parts):
                if len(np.unique(labels[learn])) < 2:
                    continue
                model, converged = _fitted(train[learn], labels[learn], cost)
                ends.append(converged)
                found[k, f] = (_scores(model, train[judge], classes).argmax(axis=1) == labels[judge]).mean()
        accuracies = found.mean(axis=1)
        chosen = costs[int(accuracies.argmax())]
    model, converged = _fitted(train, labels, chosen)
    ends.append(converged)
    return Fit(chosen, tuple(accuracies.tolist()), _scores(model, test, classes), len(ends), len(ends) - sum(ends))
