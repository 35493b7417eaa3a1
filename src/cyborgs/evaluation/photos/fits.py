"""Linear classifiers of scikit-learn whose cost is chosen by cross-validation. No torch here."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """What became of one."""

    cost: float
    """Chosen: the first of those with the highest mean."""
    means: tuple[float, ...]
    """Of the folds' figures, for each cost; empty where there was nothing to choose by."""
    scores: Float
    """Decision values of the test images: (M,) of one class, (M, classes) of several."""
    fits: int
    """How often a classifier was fitted."""
    unconverged: int
    """Of these, how often it ended at the largest number of iterations."""


def fitted(model: Any, x: Float, y: NDArray[Any]) -> tuple[Any, bool]:
    """The model, and whether it converged, which is not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few labels a class are no mistake
        model.fit(x, y)
    return model, bool(np.max(model.n_iter_) < model.max_iter)
