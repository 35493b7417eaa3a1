"""What a monitor votes on: the folder, the split, the figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cyborgs.evaluation.knn import halves, knn_accuracy, read_classes
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from tests.evaluation.test_monitors import classes


def test_halves_of_each_class() -> None:
    labels = np.array([0] * 5 + [1] * 2 + [2] * 8)
    bank, judged = halves(labels, 0)
    assert sorted([*bank, *judged]) == list(range(15))
    assert np.bincount(labels[bank]).tolist() == [3, 1, 4]
    assert halves(labels, 0)[0].tolist() == bank.tolist()
    assert halves(labels, 1)[0].tolist() != bank.tolist()


def test_colours_are_told_apart_by_any_network(tmp_path: Path) -> None:
    photos = read_classes(classes(tmp_path / "set", each=5))
    assert photos.classes == ("blue", "red")
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="timm:test_resnet"))
    layer = backbone.default_layers()[-1]
    assert knn_accuracy(backbone, photos, layer=layer, size=32, seed=0) == (1.0, 0.5)
    mixed = type(photos)(photos.photos, photos.labels[np.argsort(np.arange(10) % 2, kind="stable")], photos.classes)
    assert knn_accuracy(backbone, mixed, layer=layer, size=32, seed=0)[0] < 1
