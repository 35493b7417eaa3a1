"""One photo's measures: what goes into which, means over annotators, void, and what is no prediction."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, rand_score

from cyborgs.metrics.boundary import boundary_score
from cyborgs.metrics.segmentation import confusion, hungarian_scores
from cyborgs.quality.photo import MEASURES, PhotoSettings, is_share, photo_scores

preds = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))
truths = arrays(np.int32, (8, 8), elements=st.integers(-1, 3))


Pixels = set[tuple[int, int]]


def parts_of(labels: np.ndarray, regions: str) -> list[Pixels]:
    """Pixel sets, by flood fill."""
    if regions == "labels":
        return [{(int(y), int(x)) for y, x in np.argwhere(labels == v)} for v in np.unique(labels)]
    left, out = {(y, x) for y, x in np.ndindex(labels.shape)}, []
    while left:
        todo, part = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            part.add((y, x))
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left and labels[near] == labels[y, x]:
                    left.discard(near)
                    todo.append(near)
        out.append(part)
    return out


def overlaps_by_hand(pred: np.ndarray, truth: np.ndarray, regions: str, least: int = 1) -> list[tuple[int, float]]:
    """Label of each object that has so many known pixels, and the IoU of the region that fits it best."""
    known = {(int(y), int(x)) for y, x in np.argwhere(truth != -1)}
    return [
        (
            int(truth[next(iter(g))]),
            max(len(g & s & known) / len((g | s) & known) for s in parts_of(pred, regions) if s & known),
        )
        for g in parts_of(truth, regions)
        if len(g & known) >= least
    ]


def best_matchings(counts: np.ndarray) -> set[float]:
    """mIoU of every one-to-one matching with most pixels right: several, where they tie."""
    present = np.flatnonzero(counts.sum(0))
    found: dict[int, set[float]] = {}
    for clusters in itertools.permutations(range(len(counts)), len(present)):
        hits = counts[list(clusters), present]
        union = counts[list(clusters)].sum(1) + counts[:, present].sum(0) - hits
        found.setdefault(int(hits.sum()), set()).add(round(float((hits / union).mean()), 12))
    return found[max(found)]


@given(preds, st.lists(truths, min_size=1, max_size=3))
@settings(max_examples=20, deadline=None)
def test_means_over_annotators_of_what_is_not_void(pred: np.ndarray, annotators: list[np.ndarray]) -> None:
    found = photo_scores(pred, annotators)
    known = [g for g in annotators if (g >= 0).any()]
    if not known:
        assert found is None
        return
    assert found is not None
    rows: dict[str, list[float]] = {}
    matched: list[set[float]] = []
    for g in known:
        kept = g >= 0
        s, t = pred[kept], g[kept]
        hungarian = hungarian_scores(confusion(s, t, 5, 4))
        values = {
            "rand": rand_score(t, s) if kept.sum() > 1 else 1.0,
            "ari": adjusted_rand_score(t, s),
            "nmi": normalized_mutual_info_score(t, s),
            "abo": float(np.mean([best for _, best in overlaps_by_hand(pred, g, "components")])),
            "boundary_f": boundary_score(pred, g, kept).f,
            "boundary_recall": boundary_score(pred, g, kept).recall,
            "matched_accuracy": hungarian.accuracy,
            "covering": sum(
                (t == b).sum() * max(((s == a) & (t == b)).sum() / ((s == a) | (t == b)).sum() for a in np.unique(s))
                for b in np.unique(t)
            )
            / kept.sum(),
            "asa": sum(np.bincount(t[s == a]).max() for a in np.unique(s)) / kept.sum(),
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
        matched.append(best_matchings(confusion(s, t, 5, 4)))
    possible = [np.mean(one) for one in itertools.product(*matched)]
    assert np.isclose(possible, found.values["matched_miou"], atol=1e-9).any()
    for name, column in rows.items():
        assert found.values[name] == pytest.approx(np.mean(column), abs=1e-9), name
    assert found.values["voi"] == pytest.approx(found.values["split"] + found.values["joined"])
    assert found.annotators == len(known)


@given(
    arrays(np.uint8, (4, 4), elements=st.integers(0, 2)),
    arrays(np.int32, (8, 8), elements=st.integers(-1, 2)),
    st.sampled_from(["components", "labels"]),
)
@settings(max_examples=40, deadline=None)
def test_best_overlap_equals_a_slow_reference(pred: np.ndarray, truth: np.ndarray, regions: Any) -> None:
    """Class 0 is no object, and neither is what has fewer than two pixels."""
    found = photo_scores(pred, [truth], truth, PhotoSettings(("abo",), regions, min_pixels=2, background=(0,)))
    if found is None:
        assert (truth == -1).all()
        return
    large = np.kron(pred, np.ones((2, 2), np.uint8))
    expected = [one for one in overlaps_by_hand(large, truth, regions, 2) if one[0]]
    assert sorted(found.overlaps) == sorted(expected)
    mean = np.mean([best for _, best in expected]) if expected else float("nan")
    assert found.values["abo"] == pytest.approx(mean, nan_ok=True)


def test_components_differ_from_labels() -> None:
    truth = np.array([[1, 0, 1]], np.int32)
    whole = np.zeros((1, 3), np.uint8)

    def overlap(pred: np.ndarray, regions: Any) -> float:
        found = photo_scores(pred, [truth], None, PhotoSettings(("abo",), regions))
        assert found is not None
        return found.values["abo"]

    assert overlap(truth, "components") == 1
    assert overlap(whole, "components") == pytest.approx(1 / 3)
    assert overlap(whole, "labels") == pytest.approx((1 / 3 + 2 / 3) / 2)
    with pytest.raises(ValueError, match="regions"):
        overlap(whole, "boxes")


@given(arrays(np.int32, (8, 8), elements=st.integers(0, 3)))
@settings(max_examples=20, deadline=None)
def test_the_truth_itself_has_every_optimum(truth: np.ndarray) -> None:
    found = photo_scores(truth + 2, [truth], truth, PhotoSettings(background=(0,)))
    assert found is not None
    for name in MEASURES:
        if not np.isnan(found.values[name]):
            assert found.values[name] == pytest.approx(1.0 if is_share(name) else 0.0, abs=1e-12), name


def test_objects_alone() -> None:
    """FG-ARI and best overlap leave the background out; nothing but background: not a number."""
    truth = np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.int32)
    pred = np.array([[0, 1, 2, 2], [3, 4, 2, 2]], np.uint8)
    chosen = PhotoSettings(("fg_ari", "abo", "ari"), background=(0,), regions="labels")
    found = photo_scores(pred, [truth], truth, chosen)
    assert found is not None
    assert found.values["fg_ari"] == pytest.approx(adjusted_rand_score(truth[:, 2:].ravel(), pred[:, 2:].ravel()))
    assert found.values["ari"] == pytest.approx(adjusted_rand_score(truth.ravel(), pred.ravel()))
    assert found.values["abo"] == 0.5
    assert found.overlaps == ((1, 0.5), (2, 0.5))
    empty = photo_scores(pred, [np.zeros_like(truth)], np.zeros_like(truth), chosen)
    assert empty is not None
    assert np.isnan(empty.values["fg_ari"])
    assert np.isnan(empty.values["abo"])
    without = photo_scores(pred, [truth], truth, PhotoSettings(("fg_ari", "ari")))
    assert without is not None
    assert [*without.values] == ["ari"]


def test_what_is_no_prediction() -> None:
    truth = np.array([[0, 0, 1, 1]], np.int32)
    pred = np.array([[255, 255, 7, 7]], np.uint8)
    for regions in ("components", "labels"):
        chosen = PhotoSettings(("abo", "matched_accuracy", "ari"), regions=regions)  # type: ignore[arg-type]
        found = photo_scores(pred, [truth], truth, chosen, none=255)
        assert found is not None
        # A region more for the partition, a miss where regions are matched, and none that could cover an object.
        assert found.values == {"ari": 1.0, "abo": 0.5, "matched_accuracy": 0.5}
        assert found.regions == 1
    plain = photo_scores(pred, [truth])
    assert plain is not None
    assert plain.values["abo"] == 1.0


def test_maps_are_enlarged() -> None:
    truth = np.kron(np.array([[0, 1], [1, 2]], np.int32), np.ones((10, 20), np.int32))
    found = photo_scores(np.array([[5, 3], [3, 9]], np.uint8), [truth])
    assert found is not None
    assert found.values["ari"] == found.values["boundary_f"] == 1.0


def test_small_objects_and_one_pixel() -> None:
    truth = np.array([[0, 0, 0, 1]], np.int32)
    found = photo_scores(truth.astype(np.uint8) * 0, [truth], truth, PhotoSettings(("abo",), min_pixels=2))
    assert found is not None
    assert found.values["abo"] == 0.75
    one = photo_scores(np.zeros((1, 1), np.uint8), [np.zeros((1, 1), np.int32)])
    assert one is not None
    assert all(one.values[name] == (1.0 if is_share(name) else 0.0) for name in one.values)
