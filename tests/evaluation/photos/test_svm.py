"""SVMs of classes beside scikit-learn's own steps."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from cyborgs.evaluation.photos import svm
from cyborgs.evaluation.photos.svm import fit_classes

COSTS = (0.01, 0.1, 1.0, 10.0)


def sample(n: int = 70, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels of three classes of which the last has two images, and features to judge."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12))
    weights = rng.normal(size=(12, 3))
    labels = np.where(x @ weights + rng.normal(0, 2.5, (n, 3)) > 1, 1, -1).astype(np.int8)
    labels[rng.random((n, 3)) < 0.1] = 0
    labels[:, 2] = -1
    labels[:2, 2] = 1
    return x / np.linalg.norm(x, axis=1, keepdims=True), labels, rng.normal(size=(11, 12))


def model(cost: float) -> LinearSVC:
    return LinearSVC(
        C=cost, loss="squared_hinge", dual=True, tol=1e-4, max_iter=2000, class_weight={1: 2, -1: 1}, random_state=0
    )


@pytest.mark.parametrize("drop", [False, True])
def test_as_scikit_learn(drop: bool) -> None:
    x, labels, test = sample()
    fits = fit_classes(x, labels, test, COSTS, drop_difficult=drop)
    assert fits[2] is None
    for c in (0, 1):
        rows = labels[:, c] != 0 if drop else np.ones(len(x), bool)
        y = np.where(labels[rows, c] > 0, 1, -1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            wanted = [
                cross_val_score(model(cost), x[rows], y, cv=3, scoring="average_precision").mean() for cost in COSTS
            ]
            last = model(COSTS[int(np.argmax(wanted))]).fit(x[rows], y)
        fit = fits[c]
        assert fit is not None
        np.testing.assert_allclose(fit.means, wanted, atol=1e-9)
        assert fit.cost == COSTS[int(np.argmax(wanted))]
        np.testing.assert_allclose(fit.scores, last.decision_function(test), atol=1e-9)
        assert fit.fits == 13


def test_positives_weigh_twice() -> None:
    x, labels, test = sample()
    fit = fit_classes(x, labels, test, (1.0,))[0]
    doubled = np.concatenate([x, x[labels[:, 0] > 0]])
    y = np.concatenate([np.where(labels[:, 0] > 0, 1, -1), np.ones((labels[:, 0] > 0).sum(), int)])
    plain = LinearSVC(C=1.0, dual=False, tol=1e-10).fit(doubled, y)
    assert fit is not None
    np.testing.assert_allclose(fit.scores, plain.decision_function(test), atol=1e-3)


def test_what_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, test = sample()
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 2)
    fit = fit_classes(x, labels, test, (1.0, 10.0))[0]
    assert fit is not None
    assert fit.fits == 7
    assert fit.unconverged == 7


def test_no_class_can_be_fitted() -> None:
    x, labels, test = sample()
    assert fit_classes(x, labels[:, 2:], test, COSTS) == [None]


@pytest.mark.slow
def test_processes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels, test = sample()
    alone = fit_classes(x, labels, test, COSTS)
    monkeypatch.setattr(svm, "APART", 0)
    for a, b in zip(alone, fit_classes(x, labels, test, COSTS, jobs=2), strict=True):
        if a is not None and b is not None:
            assert np.array_equal(a.scores, b.scores)
            assert (a.cost, a.means, a.unconverged) == (b.cost, b.means, b.unconverged)
        else:
            assert a is b
