"""The neighbours' votes for several classes an image: the contract, a plain loop, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsRegressor

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.photos.voting import shares_of_votes
from cyborgs.evaluation.protocols import voc_knn
from cyborgs.evaluation.sets.voc_lists import CLASSES, VocData
from cyborgs.evaluation.settings.photos import VocKnnSettings
from cyborgs.features.cache import Extraction, features
from cyborgs.features.transforms import Square
from cyborgs.metrics.average_precision import envelope_average_precision
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone
from tests.evaluation.voc import KNOWN, make_voc

SETTINGS = VocKnnSettings(neighbours=(5, 1, 10), size=32)


class TestVocKnn(ProtocolContract):
    name = "voc07-knn"
    changes = {"size": 32}  # noqa: RUF012

    @classmethod
    def make_data(cls, folder: Path) -> str:
        return str(make_voc(folder))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VocData:
    return voc_knn.open_data(str(make_voc(tmp_path_factory.mktemp("voc"))), SETTINGS, 0)


def found(data: VocData, settings: VocKnnSettings = SETTINGS) -> Result:
    return voc_knn.evaluate(make_backbone(), data, settings, Context())


def test_as_scikit_learn(data: VocData) -> None:
    """Its weighted neighbours on the same features, its AP."""
    mixed = np.random.default_rng(0).permutation(data.train.labels)  # so that not all votes are right
    labels = data.test.labels.copy()
    labels[1, CLASSES.index("dog")] = 0
    data = replace(data, train=replace(data.train, labels=mixed), test=replace(data.test, labels=labels))
    result = found(data)
    backbone = make_backbone()
    how = Extraction(backbone.layers[-1], Square(32))
    train, test = (features(backbone, part.photos, how).astype(np.float64) for part in (data.train, data.test))
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    columns = [CLASSES.index(name) for name in KNOWN]
    assert (data.train.labels == 0).any()
    for k in (5, 1, 10):
        # The squared distance of unit vectors is 2 - 2 cos.
        oracle = KNeighborsRegressor(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
        scores = oracle.fit(train, data.train.labels[:, columns] == 1).predict(test)
        aps, envelopes = [], []
        for c, column in enumerate(columns):
            kept = data.test.labels[:, column] != 0
            present, ranked = data.test.labels[kept, column] == 1, scores[kept, c].round(12)
            aps.append(average_precision_score(present, ranked))
            envelopes.append(envelope_average_precision(ranked, present))
        assert result.figures[f"map_k{k}"] == pytest.approx(np.mean(aps))
        if k == 5:
            assert result.value == pytest.approx(np.mean(aps))
            assert result.figures["map_envelope"] == pytest.approx(np.mean(envelopes))
            assert [result.per_class[name] for name in KNOWN] == pytest.approx(aps)
    assert 0 < result.value < 1


def test_shares_of_votes_as_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    near = torch.rand(4, 6, generator=generator).double().sort(descending=True).values
    present = torch.rand(4, 6, 3, generator=generator) < 0.4
    shares = shares_of_votes(near, present, 0.1)
    for q in range(4):
        weights = [np.exp(float(x) / 0.1) for x in near[q]]
        for c in range(3):
            wanted = sum(w for w, p in zip(weights, present[q, :, c], strict=True) if p) / sum(weights)
            assert float(shares[q, c]) == pytest.approx(wanted, rel=1e-12)


def test_classes_that_cannot_be_judged(data: VocData) -> None:
    train, test = data.train.labels.copy(), data.test.labels.copy()
    train[:, CLASSES.index("cat")] = 0  # difficult ones alone are none
    test[:, CLASSES.index("dog")] = -1
    lacking = replace(data, train=replace(data.train, labels=train), test=replace(data.test, labels=test))
    result = found(lacking)
    (unseen,) = [text for text in result.warnings if "no training image" in text]
    (absent,) = [text for text in result.warnings if "no test image" in text]
    assert "cat" in unseen
    assert absent.endswith("of the mean: dog.")
    assert np.isnan(result.per_class["cat"])
    assert np.isnan(result.per_class["dog"])
    assert result.value == result.per_class["person"]


def test_no_class_at_all(data: VocData) -> None:
    with pytest.raises(UserError, match="no training image has any of the 20 classes"):
        found(replace(data, train=replace(data.train, labels=-np.ones_like(data.train.labels))))


def test_more_neighbours_than_images(data: VocData) -> None:
    result = found(data, replace(SETTINGS, neighbours=(200, 2)))
    assert any("k = 200 is more than the 18 photos that vote" in text for text in result.warnings)
    assert result.settings["neighbours"] == [18, 2]
