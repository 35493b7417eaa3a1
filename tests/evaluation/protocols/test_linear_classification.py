"""Linear classifiers on frozen features: both solvers keep the contract and find what is linear."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.protocols import linear_classification as protocol
from cyborgs.evaluation.settings.photos import LinearClassificationSettings
from cyborgs.evaluation.training.batches import LabelledBatches
from cyborgs.features.cache import Extraction, features
from cyborgs.features.transforms import Square
from tests.conftest import make_photos
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_classes

SGD = LinearClassificationSettings(epochs=3, batch_size=6, size=32)
LOGISTIC = LinearClassificationSettings(solver="logistic", size=32)


class TestLogistic(ProtocolContract):
    name = "linear-classification"
    changes = {"size": 32}  # noqa: RUF012


class TestSgd(ProtocolContract):
    name = "linear-classification"
    changes = {"solver": "sgd", "size": 32, "epochs": 2, "batch_size": 4}  # noqa: RUF012


@pytest.mark.parametrize("settings", [LOGISTIC, replace(SGD, epochs=15, lr=10.0)])
def test_colours_are_told_apart(tmp_path: Path, settings: LinearClassificationSettings) -> None:
    data = protocol.open_data(str(make_classes(tmp_path / "set")), settings, 0)
    result = protocol.evaluate(make_backbone(), data, settings, Context())
    assert result.value == 1
    assert "top5" not in result.figures


@pytest.mark.parametrize(("asked", "batch_size", "an_epoch"), [(6, 6, 2), (256, 9, 1)])
def test_sgd_is_torchs_own_on_the_features_of_each_crop(
    tmp_path: Path, asked: int, batch_size: int, an_epoch: int
) -> None:
    """Rate 0.3 x 6 / 256 by half a cosine, no decay, weights from N(0, 0.01); the network in eval mode.

    Of nine photos a step of 256 has nine.
    """
    data = protocol.open_data(str(make_classes(tmp_path / "set")), SGD, 0)
    result = protocol.evaluate(make_backbone(), data, replace(SGD, batch_size=asked), Context(seed=4))
    backbone = make_backbone().eval()
    layer = backbone.layers[-1]
    head = protocol.Head(backbone, layer, 3, 4).linear
    assert 0.005 < float(head.weight.detach().std()) < 0.02
    optimizer = torch.optim.SGD(head.parameters(), 1.0, 0.9)
    batches = LabelledBatches(protocol.Crops(data.train, 32), batch_size, an_epoch, 4, 0, False)
    for step in range(3 * an_epoch):
        (batch,) = next(iter(batches(step // an_epoch, step % an_epoch)))
        optimizer.param_groups[0]["lr"] = 0.3 * asked / 256 * (1 + np.cos(np.pi * step / (3 * an_epoch))) / 2
        with torch.no_grad():
            x = backbone(backbone.normalise(batch.images), [layer])[layer].mean(dim=(2, 3))
        optimizer.zero_grad()
        loss = F.cross_entropy(head(x), batch.targets)
        loss.backward()
        optimizer.step()
    assert result.settings["last_loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    test = torch.from_numpy(features(backbone, data.test.photos, Extraction(layer, Square(32))))
    wanted = head(test).argmax(dim=1).numpy() == data.test.labels
    assert result.value == wanted.mean()


def test_a_finished_training_is_found_again(tmp_path: Path) -> None:
    data = protocol.open_data(str(make_classes(tmp_path / "set")), SGD, 0)
    first = protocol.evaluate(make_backbone(), data, SGD, Context(out=tmp_path / "out"))
    again = protocol.evaluate(make_backbone(), data, SGD, Context(out=tmp_path / "out", workers=2))
    assert first.figures == again.figures
    with pytest.raises(UserError, match="another identity"):
        protocol.evaluate(make_backbone(seed=1), data, SGD, Context(out=tmp_path / "out"))


def test_logistic_is_scikit_learns_on_unit_features(tmp_path: Path) -> None:
    for name in "abcdef":
        make_photos(tmp_path / "set" / name, 8, seed=ord(name))
    data = protocol.open_data(str(tmp_path / "set"), LOGISTIC, 0)
    result = protocol.evaluate(make_backbone(), data, LOGISTIC, Context())
    backbone = make_backbone()
    how = Extraction(backbone.layers[-1], Square(32))
    train, test = (features(backbone, part.photos, how).astype(np.float64) for part in (data.train, data.test))
    train, test = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, test))
    model = LogisticRegression(C=result.settings["chosen_cost"], max_iter=1000).fit(train, data.train.labels)
    assert result.value == pytest.approx(model.score(test, data.test.labels))
    first = np.argsort(-model.decision_function(test), axis=1)[:, :5]
    wanted = (first == data.test.labels[:, None]).any(axis=1).mean()
    assert result.figures["top5"] == pytest.approx(wanted)
    assert result.value < result.figures["top5"]


def test_one_class_alone(tmp_path: Path) -> None:
    data = protocol.open_data(str(make_classes(tmp_path / "set")), LOGISTIC, 0)
    one = replace(data, train=data.train.part(np.flatnonzero(data.train.labels == 1).tolist()))
    with pytest.raises(UserError, match="one class alone"):
        protocol.evaluate(make_backbone(), one, LOGISTIC, Context())


def test_what_was_not_chosen_well_is_told(tmp_path: Path) -> None:
    data = protocol.open_data(str(make_classes(tmp_path / "set")), LOGISTIC, 0)
    few = protocol.evaluate(make_backbone(), data, LOGISTIC, Context(share=0.01))
    assert few.counts["train"] == 3
    assert any("no class has two training photos: C = 1.0 was taken" in text for text in few.warnings)
    two = replace(LOGISTIC, costs=(0.01, 0.1))
    assert any("end of the grid" in text for text in protocol.evaluate(make_backbone(), data, two, Context()).warnings)
