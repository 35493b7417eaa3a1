"""VOC07's two published variants, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from cyborgs.data.decode import decode
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.photos import svm
from cyborgs.evaluation.protocols import voc07
from cyborgs.evaluation.sets.voc_lists import CLASSES, VocData
from cyborgs.evaluation.settings.photos import Voc07Settings
from cyborgs.features.transforms import Square, Squash
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone
from tests.evaluation.voc import KNOWN, make_voc


class TestVoc07(ProtocolContract):
    name = "voc07"

    @classmethod
    def make_data(cls, folder: Path) -> str:
        return str(make_voc(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VocData:
    return voc07.open_data(str(make_voc(tmp_path_factory.mktemp("voc"))), Voc07Settings(), 0)


@pytest.mark.parametrize("variant", ["virtex", "openselfsup"])
def test_each_step_as_written_out(data: VocData, variant: str) -> None:
    """Features photo by photo, norm, scikit-learn's SVM and cross-validation, AP by its formula."""
    backbone = make_backbone().eval()
    layer = backbone.layers[-1]
    costs = (0.1, 1.0)
    settings = Voc07Settings(variant=variant, costs=costs)
    result = voc07.evaluate(backbone, data, settings, Context())

    def feature(photo: Path) -> np.ndarray:
        image = decode(photo.read_bytes(), str(photo))
        square = Square(224, 256)(image) if variant == "virtex" else Squash(224, 256)(image)
        with torch.no_grad():
            one = torch.from_numpy(square).permute(2, 0, 1)[None].contiguous()
            m = backbone(backbone.normalise(one), [layer])[layer][0].double().numpy()
        if variant == "virtex":
            x = m.mean(axis=(1, 2))
            return x / np.linalg.norm(x)
        x = np.stack([m[:, y : y + 6, x : x + 6].mean(axis=(1, 2)) for y in (0, 1) for x in (0, 1)], 1).ravel()
        return x / (np.linalg.norm(x) + 1e-5)

    train, test = (np.stack([feature(p) for p in part.photos.paths]) for part in (data.train, data.test))
    aps = []
    for name in KNOWN:
        c = CLASSES.index(name)
        y = np.where(data.train.labels[:, c] == 1, 1, -1)  # difficult ones are negatives
        models = [
            LinearSVC(C=cost, dual=True, max_iter=2000, class_weight={1: 2, -1: 1}, random_state=0) for cost in costs
        ]
        means = [cross_val_score(m, train, y, cv=3, scoring="average_precision").mean() for m in models]
        scores = models[int(np.argmax(means))].fit(train, y).decision_function(test)
        kept = data.test.labels[:, c] != 0
        scores, present = scores[kept], data.test.labels[kept, c] == 1
        if variant == "virtex":
            aps.append(average_precision_score(present, scores))
        else:
            hits = present[np.argsort(-scores)]
            precision = hits.cumsum() / np.arange(1, len(hits) + 1)
            recall = hits.cumsum() / hits.sum()
            highest = [precision[i:].max() for i in range(len(hits))]
            aps.append(sum((r - q) * p for q, r, p in zip([0, *recall], recall, highest, strict=False)))
        assert result.per_class[name] == pytest.approx(aps[-1], abs=1e-6)
        assert result.settings["chosen_costs"][name] == costs[int(np.argmax(means))]
    assert result.value == pytest.approx(np.mean(aps), abs=1e-6)
    assert result.metric == "map"


def test_classes_with_too_few_images_are_named(data: VocData) -> None:
    result = voc07.evaluate(make_backbone(), data, Voc07Settings(costs=(1.0,)), Context())
    assert np.isnan(result.per_class["sheep"])
    (told,) = [text for text in result.warnings if "left out of the mean" in text]
    assert "17 of 20 classes have fewer than 3" in told
    assert "sheep" in told
    assert "cat" not in told
    bare = replace(data, train=data.train.part(np.arange(3)))
    with pytest.raises(UserError, match="no class has 3 training images with it"):
        voc07.evaluate(make_backbone(), bare, Voc07Settings(), Context())


def test_unconverged_svms_are_told(data: VocData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MAX_ITERATIONS", 1)
    result = voc07.evaluate(make_backbone(), data, Voc07Settings(costs=(1.0,)), Context())
    assert any("12 of 12 SVMs did not converge" in text and "dog" in text for text in result.warnings)


def test_difficult_images_may_be_dropped(data: VocData) -> None:
    settings = Voc07Settings(costs=(1.0,), difficult_in_training="drop")
    dropped = voc07.evaluate(make_backbone(), data, settings, Context()).judged.scores
    kept = voc07.evaluate(make_backbone(), data, replace(settings, difficult_in_training="negative"), Context())
    cat = [name for name in CLASSES if name in KNOWN].index("cat")
    assert not np.array_equal(dropped[:, cat], kept.judged.scores[:, cat])


def test_published_costs() -> None:
    assert voc07.COSTS["virtex"] == (0.01, 0.1, 1.0, 10.0)
    found = voc07.COSTS["openselfsup"]
    assert len(found) == 19
    assert set(found) == {1.0, 10.0, 100.0, *(0.5**k for k in range(4, 20))}


def test_a_class_that_no_test_image_has(data: VocData) -> None:
    labels = data.test.labels.copy()
    labels[:, CLASSES.index("cat")] = -1
    lacking = replace(data, test=replace(data.test, labels=labels))
    result = voc07.evaluate(make_backbone(), lacking, Voc07Settings(costs=(1.0,)), Context())
    assert np.isnan(result.per_class["cat"])
    assert any("no test image has these classes" in text and "cat" in text for text in result.warnings)
    assert result.value == pytest.approx(np.mean([result.per_class["dog"], result.per_class["person"]]))
