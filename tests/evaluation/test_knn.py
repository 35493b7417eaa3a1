"""The weighted vote against scikit-learn and against a loop, the split, the square."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from cyborgs.evaluation.knn import halves, knn_accuracy, read_classes, square, vote
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.ops.normalise import unit_rows
from tests.evaluation.test_monitors import classes


def sample(n: int = 60, queries: int = 25) -> tuple[torch.Tensor, np.ndarray, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(4, 8, generator=generator)
    labels = torch.randint(0, 4, (n,), generator=generator)
    bank = unit_rows(centres[labels] + 1.5 * torch.randn(n, 8, generator=generator))
    other = unit_rows(centres[torch.arange(queries) % 4] + 1.5 * torch.randn(queries, 8, generator=generator))
    return bank, labels.numpy(), other


@pytest.mark.parametrize("k", [1, 7, 20, 200])
def test_as_scikit_learn(k: int) -> None:
    bank, labels, queries = sample()
    # The squared distance of unit vectors is 2 - 2 cos.
    oracle = KNeighborsClassifier(min(k, 60), weights=lambda d: np.exp((1 - d**2 / 2) / 0.07), algorithm="brute")
    oracle.fit(bank.double().numpy(), labels)
    assert vote(bank, labels, queries, 4, k=k).tolist() == oracle.predict(queries.double().numpy()).tolist()


def test_as_a_loop_with_ties() -> None:
    bank = torch.eye(3)[[0, 1, 2, 0]]
    labels = [2, 1, 0, 1]
    queries = unit_rows(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]))
    for k in (1, 2, 4):
        expected = []
        for query in queries.double():
            order = sorted(range(4), key=lambda i: (-float(query @ bank[i].double()), i))[:k]
            votes = [0.0] * 3
            for i in order:
                votes[labels[i]] += math.exp(float(query @ bank[i].double()) / 0.07)
            expected.append(int(np.argmax(votes)))
        assert vote(bank, labels, queries, 3, k=k).tolist() == expected


def test_halves_of_each_class() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [2] * 8)
    bank, judged = halves(labels, 0)
    assert sorted([*bank, *judged]) == list(range(15))
    assert np.bincount(labels[bank]).tolist() == [3, 1, 4]
    assert halves(labels, 0)[0].tolist() == bank.tolist()
    assert halves(labels, 1)[0].tolist() != bank.tolist()


def test_square() -> None:
    image = np.zeros((40, 90, 3), np.uint8)
    image[:, 25:65] = 200  # the middle
    for size in (32, 70):
        assert square(image, size).shape == (size, size, 3)
        assert (square(image, size) == 200).all()
    assert square(np.zeros((1, 500, 3), np.uint8), 32).shape == (32, 32, 3)


def test_colours_are_told_apart_by_any_network(tmp_path: Path) -> None:
    photos = read_classes(classes(tmp_path / "set", each=5))
    assert photos.classes == ("blue", "red")
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="timm:test_resnet"))
    layer = backbone.default_layers()[-1]
    assert knn_accuracy(backbone, photos, layer=layer, size=32, seed=0) == (1.0, 0.5)
    mixed = type(photos)(photos.photos, photos.labels[np.argsort(np.arange(10) % 2, kind="stable")], photos.classes)
    assert knn_accuracy(backbone, mixed, layer=layer, size=32, seed=0)[0] < 1
