"""Top-k beside torchmetrics and scikit-learn, and ties by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import recall_score, top_k_accuracy_score
from torchmetrics.functional.classification import multiclass_accuracy

from cyborgs.metrics.accuracy import by_class, ranks, top_k


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 2, 5])
def test_equals_torchmetrics_and_scikit_learn(seed, k):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(60, 9)), rng.integers(0, 9, 60)
    found = top_k(ranks(scores, labels), k)
    oracle = multiclass_accuracy(torch.tensor(scores), torch.tensor(labels), num_classes=9, average="micro", top_k=k)
    assert found == pytest.approx(float(oracle), abs=1e-7)
    assert found == pytest.approx(top_k_accuracy_score(labels, scores, k=k, labels=range(9)), abs=1e-12)


def test_by_class_is_scikit_learns_recall():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(80, 6)), rng.integers(0, 5, 80)  # class 5 has none
    found = by_class(ranks(scores, labels) < 1, labels, 6)
    assert np.isnan(found[5])
    expected = recall_score(labels, scores.argmax(1), labels=range(5), average=None)
    np.testing.assert_allclose(found[:5], expected, atol=1e-12)


def test_of_equal_scores_the_lower_class_stands_first():
    scores = np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 2.0]])
    assert [ranks(scores, np.array([c, c])).tolist() for c in range(3)] == [[0, 2], [1, 0], [2, 1]]
    constant = np.zeros((30, 10))
    labels = np.repeat(np.arange(10), 3)
    assert top_k(ranks(constant, labels), 1) == pytest.approx(0.1)  # chance, whatever the labels' order
    assert top_k(ranks(constant, labels), 10) == 1.0
    rng = np.random.default_rng(1)
    tied = rng.integers(0, 3, (50, 7)).astype(float)
    labels = rng.integers(0, 7, 50)
    assert np.array_equal(ranks(tied, labels) < 1, tied.argmax(1) == labels)


def test_nothing_and_nonsense():
    assert np.isnan(top_k(np.zeros(0, np.int64), 1))
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranks(np.array([[np.nan, 0.0]]), np.array([0]))
    with pytest.raises(ValueError, match=r"scores \(N, C\) and labels \(N,\)"):
        ranks(np.zeros(3), np.zeros(3, np.int64))
