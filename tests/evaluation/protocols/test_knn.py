"""Neighbours as a protocol: the contract, scikit-learn's vote on the same features, and what it warns of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.protocols import knn
from cyborgs.evaluation.sets.classified import ClassifiedData
from cyborgs.evaluation.settings.photos import KnnSettings
from cyborgs.features.cache import Extraction, features
from cyborgs.features.transforms import Square
from tests.conftest import make_photos
from tests.evaluation.protocols.contract import CLASSES, ProtocolContract, make_backbone, make_classes

SETTINGS = KnnSettings(neighbours=(5, 1, 20), size=32)


class TestKnn(ProtocolContract):
    name = "knn"
    changes = {"size": 32}  # noqa: RUF012


def mixed(folder: Path) -> ClassifiedData:
    """Photos whose classes are drawn, so that not all votes are right."""
    for name in ("a", "b", "c"):
        make_photos(folder / name, 14, seed=ord(name))
    return knn.open_data(str(folder), SETTINGS, 0)


def found(data: ClassifiedData, settings: KnnSettings = SETTINGS, **context: object) -> Result:
    return knn.evaluate(make_backbone(), data, settings, Context(**context))  # type: ignore[arg-type]


def test_as_scikit_learn(tmp_path: Path) -> None:
    data = mixed(tmp_path / "set")
    result = found(data)
    backbone = make_backbone()
    how = Extraction(backbone.layers[-1], Square(32))
    train, test = (features(backbone, part.photos, how).astype(np.float64) for part in (data.train, data.test))
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    for k in (5, 1, 20):
        oracle = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
        right = oracle.fit(train, data.train.labels).predict(test) == data.test.labels
        assert result.figures[f"top1_k{k}"] == pytest.approx(right.mean())
    assert 0 < result.value < 1
    assert result.value == result.figures["top1_k5"]
    truth = data.test.labels
    assert np.mean(list(result.per_class.values())) == pytest.approx(result.value)  # classes are equally large
    assert result.figures["commonest_class"] == np.bincount(truth).max() / len(truth)


def test_colours_are_told_apart(tmp_path: Path) -> None:
    result = found(knn.open_data(str(make_classes(tmp_path / "set")), SETTINGS, 0))
    assert result.value == 1
    assert list(result.per_class) == list(CLASSES)
    assert result.figures["uniformity"] < 0
    assert 0 < result.figures["alignment"] < 1
    assert 1 < result.figures["effective_rank"] <= 9


def test_more_neighbours_than_photos(tmp_path: Path) -> None:
    data = knn.open_data(str(make_classes(tmp_path / "set")), SETTINGS, 0)
    result = found(data, replace(SETTINGS, neighbours=(200, 20, 2)))
    assert any("k = 200, 20 is more than the 9 photos that vote" in text for text in result.warnings)
    assert {"top1_k9", "top1_k2"} <= set(result.figures)
    assert "top1_k200" not in result.figures
    assert result.settings["neighbours"] == [9, 2]


def test_a_class_without_a_voter(tmp_path: Path) -> None:
    data = knn.open_data(str(make_classes(tmp_path / "set")), SETTINGS, 0)
    lacking = replace(data, train=data.train.part(np.flatnonzero(data.train.labels != 1).tolist()))
    result = found(lacking)
    assert any("no training photo has these classes" in text and "green" in text for text in result.warnings)
    assert result.per_class["green"] == 0


def test_collapse_is_told(tmp_path: Path) -> None:
    data = knn.open_data(str(make_classes(tmp_path / "set")), SETTINGS, 0)
    assert not any("collapsed" in text for text in found(data).warnings)
    backbone = make_backbone()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.fill_(1.0)
    result = knn.evaluate(backbone, data, SETTINGS, Context())
    assert any("collapsed" in text for text in result.warnings)
    assert result.figures["effective_rank"] == 1


def test_a_share_votes(tmp_path: Path) -> None:
    data = mixed(tmp_path / "set")
    result = found(data, share=0.3)
    part = data.share(0.3, 0)
    assert result.counts["train"] == len(part) == 6
    assert result.counts["skipped: train, beyond the share"] == 15
    whole = found(replace(data, train=part))
    assert whole.figures == result.figures
