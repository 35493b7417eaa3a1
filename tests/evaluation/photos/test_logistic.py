"""Logistic regression by folds beside scikit-learn's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

from cyborgs.evaluation.photos import logistic
from cyborgs.evaluation.photos.logistic import fit_logistic

COSTS = (0.01, 1.0, 100.0)


def sample(classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 60)
    centres = rng.normal(size=(classes, 6))
    return centres[labels] + rng.normal(0, 1.2, (60, 6)), labels, rng.normal(size=(15, 6))


@pytest.mark.parametrize("classes", [2, 4])
def test_as_scikit_learn(classes: int) -> None:
    x, labels, test = sample(classes)
    fit = fit_logistic(x, labels, test, classes, COSTS)
    wanted = [
        cross_val_score(LogisticRegression(C=c, max_iter=1000), x, labels, cv=StratifiedKFold(3)).mean() for c in COSTS
    ]
    np.testing.assert_allclose(fit.means, wanted, atol=1e-12)
    assert fit.cost == COSTS[int(np.argmax(wanted))]
    model = LogisticRegression(C=fit.cost, max_iter=1000).fit(x, labels)
    assert fit.scores.argmax(axis=1).tolist() == model.predict(test).tolist()
    probabilities = np.exp(fit.scores) / np.exp(fit.scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_proba(test), atol=1e-9)
    assert (fit.fits, fit.unconverged) == (10, 0)


def test_classes_without_a_photo_are_never_said() -> None:
    x, labels, test = sample(4)
    fit = fit_logistic(x, labels * 2, test, 9, COSTS)
    assert fit.scores.shape == (15, 9)
    assert np.isneginf(fit.scores[:, 1::2]).all()
    assert set(fit.scores.argmax(axis=1)) <= {0, 2, 4, 6}


def test_one_photo_a_class_leaves_nothing_to_choose() -> None:
    x, labels, test = sample(4)
    first = [int(np.flatnonzero(labels == c)[0]) for c in range(4)]
    fit = fit_logistic(x[first], labels[first], test, 4, COSTS)
    assert fit.cost == 1.0
    assert fit.means == ()
    few = [*first, int(np.flatnonzero(labels == 2)[1])]
    assert len(fit_logistic(x[few], labels[few], test, 4, COSTS).means) == 3


def test_what_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, test = sample(4)
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        fit = fit_logistic(x, labels, test, 4, COSTS)
    assert (fit.fits, fit.unconverged) == (10, 10)
