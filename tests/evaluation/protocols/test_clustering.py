"""Clustering as a protocol: one id space for all photos, matched as PiCIE's figures are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.dense.linear import cell_labels
from cyborgs.evaluation.protocols import clustering
from cyborgs.evaluation.protocols.clustering import Cropped
from cyborgs.evaluation.settings.pixels import ClusteringSettings
from cyborgs.metrics.judged import PixelCounts
from cyborgs.metrics.segmentation import class_scores, confusion, hungarian_scores, majority_scores
from cyborgs.models.backbone import Backbone
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_pixels

SETTINGS = ClusteringSettings(side=64, linear=False, clusters=(3, 2, 6))


class TestClustering(ProtocolContract):
    name = "clustering"
    changes = {"side": 64, "linear_epochs": 1}  # noqa: RUF012


class TestOverclustering(ProtocolContract):
    name = "clustering"
    changes = {"side": 64, "crop": True, "clusters": (8,), "linear": False}  # noqa: RUF012


def layers() -> dict[str, Any]:
    """A fine layer: at stride 32 little is left of these photos."""
    return {"layers": (make_backbone().layers[0],)}


def unit_cells(backbone: Backbone, image: np.ndarray, names: Sequence[str]) -> torch.Tensor:
    """Maps (D, h, w), joined at the first one's grid, the finest."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        maps = list(backbone(backbone.normalise(pixels), list(names)).values())
    joined = torch.cat([F.interpolate(m, size=maps[0].shape[2:], mode="bilinear") for m in maps], dim=1)
    return F.normalize(joined[0], dim=0)


@pytest.mark.parametrize("joined", [1, 2])
def test_all_numbers_of_clusters_as_written_out(tmp_path: Path, joined: int) -> None:
    """Unit cells of all training photos, k-means, cosines that are enlarged, their largest, counts, both matchings."""
    settings = replace(SETTINGS, layers=make_backbone().layers[:joined])
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    result = clustering.evaluate(make_backbone(), data, settings, Context())
    backbone = make_backbone().eval()
    train, test = Cropped(data.train, 64), Cropped(data.test, 64)

    cells = torch.cat([unit_cells(backbone, train.read(i), settings.layers).flatten(1).T for i in range(6)])
    for k in settings.clusters:
        centroids = clustering.cluster_cells([cells], [k], layers=settings.layers, iterations=20, restarts=5)[
            k
        ].centroids
        counts = []
        for photos, n in ((test, 4), (train, 6)):
            total = np.zeros((k, 3), np.int64)
            for i in range(n):
                unit = unit_cells(backbone, photos.read(i), settings.layers)
                cosines = torch.einsum("kd,dhw->khw", centroids, unit)[None]
                labels = F.interpolate(cosines, size=(64, 64), mode="bilinear")[0].argmax(dim=0).numpy()
                total += confusion(labels, photos.truth(i), k, 3, 255)
            counts.append(total)
        score = hungarian_scores(counts[0]) if k <= 3 else majority_scores(counts[0], counts[1])
        assert result.figures[f"miou_k{k}"] == pytest.approx(score.miou, abs=1e-3)  # ties of cosines
        assert result.figures[f"accuracy_k{k}"] == pytest.approx(score.accuracy, abs=1e-3)
    assert result.value == result.figures["miou_k3"]
    assert result.settings["matching"] == {"3": "one to one", "2": "one to one", "6": "majority of training"}
    assert result.figures["miou_k2"] < 0.7  # a class has no cluster


def test_a_long_feature_reaches_no_further_than_a_short_one() -> None:
    """Two cells, the second of a hundredfold length: the border between their clusters is in the middle."""

    class One:
        classes, ignore = 2, None

        def truth(self, i: int) -> np.ndarray:
            return np.repeat(np.array([[0, 1]], np.uint8), 8, axis=1)

    photos: Any = One()
    joined = torch.tensor([[[1.0, 0.0]], [[0.0, 100.0]]])
    assert clustering._count(photos, 0, joined, {2: torch.eye(2)})[2].tolist() == [[8, 0], [0, 8]]


@pytest.mark.parametrize(("joined", "epochs"), [(1, 1), (1, 40), (2, 40)])
def test_the_linear_probe_as_written_out(tmp_path: Path, joined: int, epochs: int) -> None:
    """A convolution on unit cells, SGD 0.1 with momentum 0.9 by half a cosine, as many passes as are asked for."""
    settings = replace(
        SETTINGS,
        clusters=(3,),
        linear=True,
        linear_epochs=epochs,
        layers=make_backbone().layers[:joined],
    )
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    result = clustering.evaluate(make_backbone(), data, settings, Context())
    backbone = make_backbone().eval()
    train, test = Cropped(data.train, 64), Cropped(data.test, 64)
    x = torch.stack([unit_cells(backbone, train.read(i), settings.layers) for i in range(6)])
    targets = torch.stack([torch.from_numpy(cell_labels(train.truth(i), (8, 8), 3, 255)) for i in range(6)])
    probe = torch.nn.Conv2d(x.shape[1], 3, 1)
    for parameter in probe.parameters():
        torch.nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(probe.parameters(), 0.1, 0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):  # six photos are one step
        logits = F.interpolate(probe(x), size=(8, 8), mode="bilinear")
        optimizer.zero_grad()
        F.cross_entropy(logits, targets, ignore_index=-1).backward()
        optimizer.step()
        schedule.step()
    counts = np.zeros((3, 3), np.int64)
    for i in range(4):
        logits = probe(unit_cells(backbone, test.read(i), settings.layers)[None])
        labels = F.interpolate(logits, size=(64, 64), mode="bilinear")[0].argmax(dim=0).numpy()
        counts += confusion(labels, test.truth(i), 3, 3, 255)
    wanted = class_scores(counts)
    assert result.figures["linear_miou"] == pytest.approx(wanted.miou, abs=0.005)  # maps are kept in half precision
    assert result.figures["linear_accuracy"] == pytest.approx(wanted.accuracy, abs=0.005)


def test_the_linear_probe_learns_as_long_as_it_is_told_to(tmp_path: Path) -> None:
    settings = replace(SETTINGS, clusters=(3,), linear=True, **layers())
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    found = [
        clustering.evaluate(make_backbone(), data, replace(settings, linear_epochs=n), Context()).figures
        for n in (1, 300)
    ]
    assert found[0]["linear_accuracy"] < 0.7 < 0.8 < found[1]["linear_accuracy"]
    assert found[0]["accuracy"] == found[1]["accuracy"]


def test_colours_are_clustered(tmp_path: Path) -> None:
    settings = replace(SETTINGS, clusters=(), linear=True, linear_epochs=300, **layers())
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    result = clustering.evaluate(make_backbone(), data, settings, Context())
    assert result.figures["accuracy_k3"] > 0.6
    assert result.figures["linear_accuracy"] > 0.8
    assert result.settings["clusters"] == [3]


def test_a_probe_that_cannot_hold_all_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, clusters=(3,), linear=True, linear_epochs=1)
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    backbone = make_backbone()
    monkeypatch.setattr(clustering, "LINEAR_ROOM", 2 * backbone.widths[backbone.layers[-1]] * 2 * 2 * 3)
    result = clustering.evaluate(backbone, data, settings, Context())
    assert "the linear probe learns from 3 of 6 training photos, as many as fit." in result.warnings


def test_the_middle_square(tmp_path: Path) -> None:
    data = clustering.open_data(str(make_pixels(tmp_path / "set", classes=3)), SETTINGS, 0)
    cropped = Cropped(data.train, 64)
    for i in range(len(cropped)):
        whole = data.train.truth(i)
        image, labels = cropped.pair(i)
        assert image.shape == (64, 64, 3)
        assert labels.shape == (64, 64)
        top, left = (whole.shape[0] - 64) // 2, (whole.shape[1] - 64) // 2
        assert np.array_equal(labels, whole[top : top + 64, left : left + 64])
        assert np.array_equal(image, data.train.read(i)[top : top + 64, left : left + 64])
    assert Cropped(data.train, 17).truth(0).shape == (17, 17)
    assert Cropped(data.train, 200).read(1).shape == (200, 200, 3)


def test_a_draw_is_matched_anew() -> None:
    photos = np.array([[[5, 0], [0, 5]], [[0, 9], [9, 0]]])  # the second names its clusters the other way round
    judged = PixelCounts(list(photos), hungarian_scores)
    assert judged.score(np.array([1, 0])) == judged.score(np.array([0, 2])) == 1
    assert judged.score(np.array([1, 1])) == pytest.approx(hungarian_scores(photos.sum(axis=0)).miou)
    assert judged.score(np.array([1, 1])) < 1


def test_more_clusters_than_cells(tmp_path: Path) -> None:
    settings = replace(SETTINGS, clusters=(100,), side=32)
    data = clustering.open_data(str(make_pixels(tmp_path / "set")), settings, 0)
    with pytest.raises(UserError, match="100 were asked for, but the photos have 6 cells"):
        clustering.evaluate(make_backbone(), data, settings, Context())
