"""A set of photos measured: figures against scikit-learn and loops, what is left out, and errors that name the photo."""

from __future__ import annotations

import numpy as np
import pytest

from cyborgs.errors import UserError
from cyborgs.metrics.segmentation import confusion, hungarian_scores, majority_scores
from cyborgs.quality.measure import QualitySettings, measure, read_class_names
from cyborgs.quality.predictions import Predictions
from tests.quality.test_photo import overlaps_by_hand
from tests.quality.truths import FakeTruth

FEW = QualitySettings(draws=40)


def maps(labels: list[np.ndarray], **options: object) -> Predictions:
    names = [f"p{i}.jpg" for i in range(len(labels))]
    return Predictions(names, "folder", labels.__getitem__, **options)  # type: ignore[arg-type]


def scenes(count: int = 6, classes: int = 4, k: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(count)
    truths = [np.kron(rng.integers(0, classes, (4, 5)), np.ones((4, 4), int)).astype(np.int32) for _ in range(count)]
    preds = []
    for truth in truths:
        noisy = np.where(rng.random(truth.shape) < 0.2, rng.integers(0, k, truth.shape), truth % k)
        preds.append(((noisy + 1) % k).astype(np.uint8))
    return preds, truths


@pytest.mark.parametrize("k", [3, 4, 9])
def test_matching_over_all_photos(k: int) -> None:
    preds, truths = scenes(k=k)
    if k > 4:
        preds = [p + 4 * (np.arange(p.size).reshape(p.shape) % 2).astype(np.uint8) * (p < 4) for p in preds]
    for truth in truths:
        truth[0, :3] = -1
    found = measure(maps(preds, ids="dataset"), FakeTruth(truths, class_names=("a", "b", "c", "d", "never")), FEW)
    counts = sum(confusion(p, t, 16, 4, void=-1) for p, t in zip(preds, truths, strict=True))
    best = hungarian_scores(counts)
    assert found.whole["hungarian_miou"].value == pytest.approx(best.miou)
    assert found.whole["hungarian_accuracy"].value == pytest.approx(best.accuracy)
    assert found.clusters == len(np.unique(np.concatenate([p[t >= 0] for p, t in zip(preds, truths, strict=True)])))
    assert [(c.number, c.name, c.pixels) for c in found.classes] == [
        (c, "abcd"[c], sum(int((t == c).sum()) for t in truths)) for c in range(4)
    ]
    for row, iou in zip(found.classes, best.iou, strict=True):
        assert row.iou is not None
        assert row.iou.value == pytest.approx(iou)
        assert row.iou.low <= row.iou.high
    # Several clusters a class only where there are more of them.
    assert ("majority_miou" in found.whole) == (found.clusters > 4)
    if found.clusters > 4:
        many = majority_scores(counts)
        assert found.whole["majority_miou"].value == pytest.approx(many.miou)
        assert [r.majority_iou.value for r in found.classes if r.majority_iou] == pytest.approx(list(many.iou))


def test_means_over_photos_and_best_overlap_by_class() -> None:
    preds, truths = scenes()
    found = measure(maps(preds), FakeTruth(truths, class_names=("background", "b", "c", "d")), FEW)
    values = [p.values["covering"] for p in found.photos]
    assert found.means["covering"].value == pytest.approx(np.mean(values))
    assert found.means["covering"].photos == 6
    of_class: dict[int, list[float]] = {}
    for p, t in zip(preds, truths, strict=True):
        for c in (1, 2, 3):
            best = [overlap for label, overlap in overlaps_by_hand(p, t, "components") if label == c]
            of_class.setdefault(c, []).extend(best)
    for row in found.classes[1:]:
        assert row.best_overlap is not None
        assert row.best_overlap.value == pytest.approx(np.mean(of_class[row.number]))
        assert row.objects == len(of_class[row.number])
    assert found.classes[0].best_overlap is None
    assert found.whole["mabo"].value == pytest.approx(np.mean([np.mean(v) for v in of_class.values()]))
    assert "hungarian_miou" not in found.whole
    assert "nothing says that labels mean the same" in found.left_out[0]


@pytest.mark.parametrize("ids", ["group", "photo", "unknown"])
def test_no_matching_over_photos_where_labels_differ(ids: str) -> None:
    preds, truths = scenes(2)
    found = measure(maps(preds, ids=ids), FakeTruth(truths), FEW)
    assert [*found.whole] == ["mabo"]
    assert found.left_out[0].startswith("No matching of clusters")
    assert found.clusters == 0


def test_several_annotators_without_classes() -> None:
    preds, truths = scenes(3)
    several = [[t, t * 0, np.full_like(t, -1)] for t in truths]
    found = measure(maps(preds), FakeTruth(truths, several, kind="bsds"), FEW)
    alone = measure(maps(preds), FakeTruth(truths, [[t] for t in truths], kind="bsds"), FEW)
    whole = measure(maps(preds), FakeTruth(truths, [[t * 0] for t in truths], kind="bsds"), FEW)
    for name in ("covering", "rand", "voi", "boundary_f"):
        expected = (alone.means[name].value + whole.means[name].value) / 2
        assert found.means[name].value == pytest.approx(expected), name
    assert found.photos[0].annotators == 2
    assert not found.whole
    assert not found.classes
    assert found.left_out == ("Nothing by class: bsds annotations name none.",)
    with pytest.raises(UserError, match="name no classes"):
        measure(maps(preds), FakeTruth(truths, kind="bsds"), QualitySettings(against="classes"))


def test_void_photos_are_left_out_and_counted() -> None:
    preds, truths = scenes(3)
    truths[1] = np.full_like(truths[1], -1)
    found = measure(maps(preds), FakeTruth(truths), FEW)
    assert found.names == ("p0.jpg", "p2.jpg")
    assert found.numbers == (0, 2)
    assert found.skipped == (("p1.jpg", "all of its truth is void"),)
    with pytest.raises(UserError, match=r"nothing to measure\. 3 photos: all of its truth is void"):
        measure(maps(preds), FakeTruth([np.full_like(t, -1) for t in truths]), FEW)


def test_missing_pairs() -> None:
    preds, truths = scenes(5)
    truth = FakeTruth([truths[0], None, truths[2], truths[3], None])
    with pytest.raises(UserError, match=r"^p1.jpg: has no annotation, nor have 2 more their pair \(of 5 photos\)"):
        measure(maps(preds, missing=(3, 4)), truth, FEW)
    with pytest.raises(UserError, match=r"^p3.jpg: has no label map \(of 5 photos\).*--allow-missing"):
        measure(maps(preds, missing=(3,)), FakeTruth(truths), FEW)
    found = measure(maps(preds, missing=(3, 4)), truth, QualitySettings(draws=5, allow_missing=True))
    assert found.names == ("p0.jpg", "p2.jpg")
    assert dict(found.skipped) == {
        "p1.jpg": "has no annotation",
        "p3.jpg": "has no label map",
        "p4.jpg": "has no label map",
    }


@pytest.mark.parametrize(
    ("pred", "message"),
    [
        (np.zeros((8, 8), np.float32), "one whole number a pixel, this one is float32"),
        (np.zeros((8, 8, 3), np.uint8), "one whole number a pixel"),
        (np.full((16, 20), -1), "at least 0, this map holds -1"),
        (np.zeros((20, 16), np.uint8), "the label map is 20 x 16 .* its truth 16 x 20"),
        (np.zeros((16, 30), np.uint8), "the label map is 16 x 30"),
    ],
)
def test_maps_that_do_not_fit(pred: np.ndarray, message: str) -> None:
    preds, truths = scenes(3)
    preds[1] = pred
    with pytest.raises(UserError, match=rf"^p1.jpg: .*{message}"):
        measure(maps(preds), FakeTruth(truths), FEW)


def test_sizes_that_were_rounded_fit() -> None:
    for shape in ((4, 5), (8, 10), (32, 40), (3, 3), (1, 1), (5, 6)):
        measure(maps([np.zeros(shape, np.uint8)]), FakeTruth([np.zeros((16, 20), np.int32)]), QualitySettings(draws=2))
    # A grid of any shape lies over a photo whose size is known.
    measure(maps([np.zeros((9, 9), np.uint8)], size=lambda i: (32, 40)), FakeTruth([np.zeros((16, 20), np.int32)]))
    with pytest.raises(UserError, match="the photo is 40 x 32"):
        measure(maps([np.zeros((9, 9), np.uint8)], size=lambda i: (40, 32)), FakeTruth([np.zeros((16, 20), np.int32)]))


def test_some_measures_alone_and_any_number_of_threads() -> None:
    preds, truths = scenes(4)
    chosen = QualitySettings(measures=("voi", "mabo"), draws=10)
    one = measure(maps(preds, ids="dataset"), FakeTruth(truths), chosen, workers=1)
    assert [*one.means] == ["voi"]
    assert [*one.whole] == ["mabo"]
    three = measure(maps(preds, ids="dataset"), FakeTruth(truths), chosen, workers=3)
    assert (three.means, three.whole, three.names) == (one.means, one.whole, one.names)


def test_against_classes() -> None:
    preds, truths = scenes(2)
    several = [[np.arange(t.size, dtype=np.int32).reshape(t.shape)] for t in truths]
    found = measure(maps(preds), FakeTruth(truths, several), QualitySettings(against="classes", draws=2))
    assert found.means == measure(maps(preds), FakeTruth(truths), QualitySettings(draws=2)).means


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ("iou",)}, "there is no 'iou'; there are covering"),
        ({"against": "parts"}, "regions or classes"),
        ({"min_pixels": 0}, "at least 1"),
        ({"tolerance": 1.5}, "share of the diagonal"),
        ({"draws": 0}, "at least 1 draw"),
        ({"level": 1.0}, "level between"),
    ],
)
def test_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        QualitySettings(**options)  # type: ignore[arg-type]


def test_names_of_classes(tmp_path) -> None:
    preds, truths = scenes(2)
    with pytest.raises(UserError, match="holds class 3, but only 2 classes have a name"):
        measure(maps(preds), FakeTruth(truths), FEW, class_names=("a", "b"))
    settings = QualitySettings(background=("sky",))
    with pytest.raises(UserError, match="no class 'sky'; there are a, b, c, d"):
        measure(maps(preds), FakeTruth(truths, class_names=("a", "b", "c", "d")), settings)
    by_number = measure(maps(preds), FakeTruth(truths), QualitySettings(background=("2",), draws=2))
    assert "fg_ari" in by_number.means
    assert [row.name for row in by_number.classes] == ["class 0", "class 1", "class 2", "class 3"]
    file = tmp_path / "names.txt"
    file.write_text("road\n tree \n\n")
    assert read_class_names(file) == ["road", "tree"]
    file.write_text("\n")
    with pytest.raises(UserError, match="holds no class name"):
        read_class_names(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_class_names(tmp_path / "none.txt")
