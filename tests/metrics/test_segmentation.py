import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassJaccardIndex

from cyborgs.metrics.segmentation import (
    class_scores,
    confusion,
    hungarian_scores,
    majority_scores,
    miou_all_seen,
    object_overlaps,
)

maps = arrays(np.uint8, (8, 8), elements=st.integers(0, 3))


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_confusion_counts_pixels(pred, truth):
    counts = confusion(pred, truth, 4, 4, void=3)
    slow = np.zeros((4, 4), int)
    for p, t in zip(pred.ravel(), truth.ravel(), strict=True):
        slow[p, t] += t != 3
    assert np.array_equal(counts, slow)


@given(maps, maps)
@settings(max_examples=40, deadline=None)
def test_miou_of_all_that_is_seen_is_torchmetrics(pred, truth):
    """Where the truth is 3 it is void, so that class 3 is only predicted, if at all."""
    truth = np.where(truth == 3, 255, truth).astype(np.uint8)
    truth[0, 0] = 0
    oracle = MulticlassJaccardIndex(4, average="macro", ignore_index=255)
    wanted = float(oracle(torch.from_numpy(pred).long(), torch.from_numpy(truth).long()))
    counts = confusion(pred, truth, 4, 4, void=255)
    assert miou_all_seen(counts) == pytest.approx(wanted, abs=1e-6)
    assert miou_all_seen(counts) <= class_scores(counts).miou + 1e-12


def test_a_class_that_is_only_predicted():
    counts = np.array([[6, 0, 0], [0, 0, 0], [2, 0, 0]])
    assert class_scores(counts).miou == 0.75
    assert miou_all_seen(counts) == 0.375
    assert math.isnan(miou_all_seen(np.zeros((3, 3), int)))


@given(maps, maps, st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_hungarian_equals_the_best_of_all_matchings(pred, truth, n_pred):
    pred = pred % n_pred
    score = hungarian_scores(confusion(pred, truth, n_pred, 4))
    slots = [*range(n_pred), *[-1] * 4]
    hits = max(
        sum(((pred == p) & (truth == c)).sum() for c, p in enumerate(perm))
        for perm in set(itertools.permutations(slots, 4))
    )
    assert score.accuracy == pytest.approx(hits / 64)
    # The IoUs are those of the matching that it states.
    ious = []
    for c in np.unique(truth):
        p = score.matching[c]
        both = ((pred == p) & (truth == c)).sum()
        ious.append(both / ((pred == p) | (truth == c)).sum() if p >= 0 else 0.0)
    assert score.miou == pytest.approx(np.mean(ious))
    used = [p for p in score.matching if p >= 0]
    assert len(used) == len(set(used))


@given(maps)
@settings(max_examples=20, deadline=None)
def test_equal_maps_are_perfect_under_any_names(truth):
    renamed = np.array([2, 0, 3, 1], np.uint8)[truth]
    score = hungarian_scores(confusion(renamed, truth, 4, 4))
    assert score.miou == score.accuracy == 1.0


def test_fewer_clusters_than_classes_give_zeros():
    truth = np.repeat(np.arange(4, dtype=np.uint8), 4).reshape(4, 4)
    score = hungarian_scores(confusion(np.zeros((4, 4), np.uint8), truth, 1, 4))
    assert sorted(score.iou) == [0, 0, 0, 0.25]
    assert score.matching.count(-1) == 3


def test_more_clusters_than_classes_are_misses():
    truth = np.zeros((4, 4), np.uint8)
    pred = np.arange(16, dtype=np.uint8).reshape(4, 4) // 4
    assert hungarian_scores(confusion(pred, truth, 4, 1)).miou == 0.25


def test_absent_classes_take_no_cluster_and_do_not_count():
    truth = np.array([[0, 0, 2, 2]], np.uint8)
    score = hungarian_scores(confusion(np.array([[1, 1, 0, 0]], np.uint8), truth, 2, 5))
    assert score.miou == 1.0
    assert score.matching == (1, -1, 0, -1, -1)
    assert [math.isnan(x) for x in score.iou] == [False, True, False, True, True]


def test_all_void_is_nan():
    void = np.full((4, 4), 9, np.uint8)
    score = hungarian_scores(confusion(np.zeros((4, 4), np.uint8), void, 2, 3, void=9))
    assert math.isnan(score.miou)
    assert math.isnan(score.accuracy)
    assert math.isnan(class_scores(np.zeros((3, 3), np.int64)).miou)


def test_plain_scores():
    truth = np.array([[0, 0, 0, 1, 1, 1]])
    pred = np.array([[0, 0, 1, 1, 1, 2]])
    score = class_scores(confusion(pred, truth, 3, 3))
    assert score.iou[:2] == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    assert math.isnan(score.iou[2])
    assert score.accuracy == pytest.approx(4 / 6)
    with pytest.raises(ValueError, match="as many"):
        class_scores(np.zeros((2, 3), np.int64))


@pytest.mark.parametrize(
    ("pred", "truth", "message"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "shape"),
        (np.full((2, 2), 4), np.zeros((2, 2), int), "prediction"),
        (np.zeros((2, 2), int), np.full((2, 2), 4), "truth"),
    ],
)
def test_confusion_refuses(pred, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion(pred, truth, 4, 4)


@given(maps, maps, maps)
@settings(max_examples=40, deadline=None)
def test_majority_equals_a_slow_reference(pred, truth, other):
    """Classes chosen on one pair of maps, scored on another."""
    counts, chosen = confusion(pred, truth, 4, 4), confusion(pred, other, 4, 4)
    for basis, given_counts in ((truth, None), (other, chosen)):
        score = majority_scores(counts, given_counts)
        of = {p: int(np.bincount(basis[pred == p]).argmax()) for p in np.unique(pred)}
        named = np.vectorize(of.get)(pred)
        ious = [((named == c) & (truth == c)).sum() / ((named == c) | (truth == c)).sum() for c in np.unique(truth)]
        assert score.miou == pytest.approx(np.mean(ious))
        assert score.accuracy == pytest.approx((named == truth).mean())
        assert score.k == len(of)
        assert list(score.classes) == [of.get(p, -1) for p in range(4)]


def test_majority_misses_clusters_it_never_saw():
    counts = np.array([[5, 0], [0, 5]])
    score = majority_scores(counts, np.array([[5, 0], [0, 0]]))
    assert score.classes == (0, -1)
    assert score.accuracy == 0.5
    assert score.iou == (1.0, 0.0)
    with pytest.raises(ValueError, match="shape"):
        majority_scores(counts, np.zeros((3, 2), np.int64))


def test_what_is_no_prediction_is_matched_to_nothing():
    counts = np.array([[5, 0], [0, 5]])
    assert hungarian_scores(counts, none=1).matching == (0, -1)
    assert hungarian_scores(counts, none=1).accuracy == 0.5
    assert majority_scores(counts, none=0).classes == (-1, 1)


@given(maps, maps, maps)
@settings(max_examples=20, deadline=None)
def test_object_overlaps_and_what_they_are(pred, truth, classes):
    """Predicted label 0 is no region."""
    found = object_overlaps(pred, truth, None, none=0)
    for iou, pixels, number in zip(found.iou, found.pixels, found.numbers, strict=True):
        g = truth == number
        assert pixels == g.sum()
        fits = [((pred == s) & g).sum() / ((pred == s) | g).sum() for s in np.unique(pred) if s]
        assert iou == pytest.approx(max(fits, default=0.0))
    assert found.labelled(truth, truth).tolist() == found.numbers.tolist()
