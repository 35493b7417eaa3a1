"""Photos without labels: the contract, the figures as loops over pairs, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.protocols import knn, label_free
from cyborgs.evaluation.settings.photos import KnnSettings, LabelFreeSettings
from cyborgs.features.cache import Extraction, features
from cyborgs.features.colour_order import colour_doubt
from cyborgs.features.transforms import Drawn, Square
from cyborgs.metrics.judged import Pairs
from tests.conftest import make_photos
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_classes

SETTINGS = LabelFreeSettings(images=9, size=32)


class TestLabelFree(ProtocolContract):
    name = "label-free"
    changes = {"size": 32}  # noqa: RUF012


def test_figures_are_loops_over_pairs(tmp_path: Path) -> None:
    """Of a draw with repeats too, in which a photo is no pair with itself."""
    data = label_free.open_data(str(make_photos(tmp_path / "set", 12)), SETTINGS, 3)
    assert data.counts == {"train": 0, "test": 9, "skipped: photos beyond --images": 3}
    result = label_free.evaluate(make_backbone(), data, SETTINGS, Context())
    backbone = make_backbone()

    def unit(transform: Square | Drawn) -> np.ndarray:
        rows = features(backbone, data.test.photos, Extraction(backbone.layers[-1], transform)).astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    x, crops = unit(Square(32)), unit(Drawn(32, 0))

    def uniformity(drawn: list[int]) -> float:
        pairs = [math.exp(-2 * ((x[i] - x[j]) ** 2).sum()) for i in drawn for j in drawn if i != j]
        return math.log(sum(pairs) / len(pairs))

    assert result.figures["uniformity"] == pytest.approx(uniformity(list(range(9))), abs=1e-6)
    assert result.value == result.figures["evenness"] == pytest.approx(uniformity(list(range(9))) / -4, abs=1e-6)
    assert result.figures["alignment"] == pytest.approx(((x - crops) ** 2).sum(axis=1).mean(), rel=1e-4)
    spectrum = np.linalg.eigvalsh(np.cov(x.T, bias=True)).clip(1e-20)
    shares = spectrum / spectrum.sum()
    assert result.figures["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-3)
    assert result.judged.score(np.array([3, 0, 1, 0, 2, 0, 1, 2, 0])) == pytest.approx(
        uniformity([0, 0, 0, 2, 4, 4, 6, 7, 7]) / -4, abs=1e-6
    )


def test_the_ends_of_evenness() -> None:
    ones, apart = np.ones((4, 4)), np.full((4, 4), np.exp(-4.0))
    np.fill_diagonal(apart, 1)
    every = np.ones(4, np.int64)
    assert Pairs(ones).score(every) == 0
    assert Pairs(apart).score(every) == pytest.approx(1)
    assert Pairs(apart).score(np.array([3, 0, 1, 0])) == pytest.approx(1)
    assert math.isnan(Pairs(apart).score(np.array([4, 0, 0, 0])))


def test_the_same_figures_as_beside_the_vote(tmp_path: Path) -> None:
    voted = KnnSettings(neighbours=(3,), size=32)
    classes = knn.open_data(str(make_classes(tmp_path / "set")), voted, 0)
    wanted = knn.evaluate(make_backbone(), classes, voted, Context()).figures
    (tmp_path / "list.txt").write_text("\n".join(map(str, classes.test.photos.paths)))
    data = label_free.open_data(str(tmp_path / "list.txt"), SETTINGS, 0)
    found = label_free.evaluate(make_backbone(), data, SETTINGS, Context()).figures
    for name in ("alignment", "uniformity", "effective_rank"):
        assert found[name] == wanted[name]


def test_collapse_and_a_share_of_no_labels_are_told(tmp_path: Path) -> None:
    data = label_free.open_data(str(make_photos(tmp_path / "set", 12)), SETTINGS, 0)
    backbone = make_backbone()
    assert label_free.evaluate(backbone, data, SETTINGS, Context()).warnings == ()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.zero_()
        for module in backbone.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.fill_(1.0)
    result = label_free.evaluate(backbone, data, SETTINGS, Context(share=0.5))
    assert result.value == pytest.approx(0, abs=1e-9)
    assert [text.split()[-1] for text in result.warnings] == ["photos.", "nothing."]


def test_which_photos(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "set", 12)
    (folder / "notes.md").write_text("no photo")
    few = [label_free.open_data(str(folder), replace(SETTINGS, images=n), 1).test.photos.paths for n in (4, 9, 12, 4)]
    assert set(few[0]) < set(few[1]) < set(few[2])
    assert few[0] == few[3]
    assert label_free.open_data(str(folder), SETTINGS, 0).counts["skipped: files that are no photos"] == 1
    assert label_free.open_data(str(folder), SETTINGS, 1).fingerprint


def test_refusals(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "set", 1)
    with pytest.raises(UserError, match="one photo alone"):
        label_free.open_data(str(folder), SETTINGS, 0)
    (tmp_path / "list.txt").write_text("set/photo00.png\nset/gone.png\n")
    with pytest.raises(UserError, match=r"gone\.png does not exist; 1 of 2"):
        label_free.open_data(str(tmp_path / "list.txt"), SETTINGS, 0)
    (tmp_path / "list.txt").write_text("set/photo00.png\nset/photo00.png\n")
    with pytest.raises(UserError, match="listed twice"):
        label_free.open_data(str(tmp_path / "list.txt"), SETTINGS, 0)
    make_photos(folder, 2)
    (folder / "photo01.png").write_bytes(b"no photo")
    data = label_free.open_data(str(folder), SETTINGS, 0)
    with pytest.raises(UserError, match="photo01"):
        label_free.evaluate(make_backbone(), data, SETTINGS, Context())


def test_colours_are_doubted_of_photos_that_are_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = label_free.open_data(str(make_photos(tmp_path / "set", 4)), SETTINGS, 0)
    seen = []
    monkeypatch.setattr("cyborgs.features.colour_order.colour_warning", lambda backbone, photos: seen.extend(photos))
    colour_doubt(make_backbone(), data)
    assert [photo.shape for photo in seen] == [data.test.read(i).shape for i in range(4)]
