"""Both average precisions beside scikit-learn and beside their formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cyborgs.metrics.average_precision import average_precision, envelope_average_precision


def written_out(scores: np.ndarray, present: np.ndarray, envelope: bool) -> float:
    """PROTOCOL: recall r_i and precision p_i at each distinct score, from the highest down."""
    recall, precision = [0.0], [math.nan]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        recall.append(float(present[chosen].sum() / present.sum()))
        precision.append(float(present[chosen].mean()))
    total = 0.0
    for i in range(1, len(recall)):
        p = max(precision[i:]) if envelope else precision[i]
        total += (recall[i] - recall[i - 1]) * p
    return total


pairs = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30).filter(
    lambda found: any(present for _, present in found)
)


@given(pairs)
def test_as_written_out_with_ties(found: list[tuple[int, bool]]) -> None:
    scores = np.array([s for s, _ in found], np.float64)
    present = np.array([p for _, p in found])
    assert average_precision(scores, present) == pytest.approx(written_out(scores, present, False), abs=1e-12)
    assert average_precision(scores, present) == pytest.approx(average_precision_score(present, scores), abs=1e-12)
    assert envelope_average_precision(scores, present) == pytest.approx(written_out(scores, present, True), abs=1e-12)
    assert envelope_average_precision(scores, present) >= average_precision(scores, present) - 1e-12


def test_a_perfect_ranking() -> None:
    scores, present = np.linspace(1, 0, 50), np.arange(50) < 7
    assert average_precision(scores, present) == envelope_average_precision(scores, present) == 1.0


def test_by_hand() -> None:
    """Right, wrong, right: p = 1, 1/2, 2/3 at r = 1/2, 1/2, 1."""
    scores, present = np.array([3.0, 2.0, 1.0]), np.array([True, False, True])
    assert average_precision(scores, present) == pytest.approx(0.5 + 0.5 * 2 / 3)
    wrong_first = np.array([False, True, True])
    assert average_precision(scores, wrong_first) == pytest.approx(0.5 * 0.5 + 0.5 * 2 / 3)
    assert envelope_average_precision(scores, wrong_first) == pytest.approx(2 / 3)


def test_nothing_to_find_and_bad_scores() -> None:
    assert math.isnan(average_precision(np.ones(3), np.zeros(3, bool)))
    assert math.isnan(envelope_average_precision(np.ones(3), np.zeros(3, bool)))
    with pytest.raises(ValueError, match="NaN"):
        average_precision(np.array([1.0, math.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="one number an image"):
        average_precision(np.ones(3), np.ones(4, bool))
