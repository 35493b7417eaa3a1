"""What every protocol must do: a newcomer inherits it by one line, ``class TestKnn(ProtocolContract): name = "knn"``."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Data, Result
from cyborgs.evaluation.protocols.protocol import entry, module, settings_of
from cyborgs.metrics.intervals import figure_interval
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig

CLASSES = ("blue", "green", "red")


def make_classes(folder: Path, each: int = 6, size: tuple[int, int] = (40, 52)) -> Path:
    """Class folders that colour alone tells apart."""
    rng = np.random.default_rng(1)
    for channel, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
            image[..., channel] += 180
            cv2.imwrite(str(folder / name / f"{i}.png"), image)
    return folder


def make_pixels(folder: Path, train: int = 6, val: int = 4, classes: int = 3, seed: int = 0) -> Path:
    """``images`` and ``labels``, in both ``train`` and ``val``: blocks of 32 pixels whose colour is their class, some void."""
    rng = np.random.default_rng(seed)
    colours = np.array([[200, 40, 40], [40, 200, 60], [50, 60, 210], [220, 220, 40]], np.uint8)[:classes]
    for split, count in (("train", train), ("val", val)):
        for part in ("images", "labels"):
            (folder / part / split).mkdir(parents=True)
        for i in range(count):
            labels = np.kron(rng.integers(0, classes, ((2, 3), (3, 2))[i % 2]), np.ones((32, 32))).astype(np.uint8)
            noise = rng.integers(0, 20, (*labels.shape, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / "images" / split / f"p{i}.png"), colours[labels] + noise)
            labels[:3] = 255
            cv2.imwrite(str(folder / "labels" / split / f"p{i}.png"), labels)
    return folder


def make_backbone(name: str = "timm:test_resnet", seed: int = 0) -> Backbone:
    """A tiny random network, in train mode: a protocol must give it back so."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Backbone(BackboneConfig(name=name)).train()


def same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    """Equal names and numbers; NaN equals NaN."""
    return list(a) == list(b) and np.array_equal(list(a.values()), list(b.values()), equal_nan=True)


class ProtocolContract:
    """Subclasses give the protocol's ``name``, and what makes it tiny."""

    name: str
    changes: Mapping[str, Any] = {}
    """Fields of the small preset's settings that are changed, so that a test takes a second."""
    network = "timm:test_resnet"

    @classmethod
    def make_data(cls, folder: Path) -> str:
        """Write tiny data in the protocol's layout; gives what ``--data`` is."""
        made = make_pixels if entry(cls.name).needs == "pixels" else make_classes
        return str(made(folder))

    @pytest.fixture(scope="class")
    @classmethod
    def where(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
        return cls.make_data(tmp_path_factory.mktemp("data") / "set")

    @classmethod
    def settings(cls) -> Any:
        return replace(settings_of(cls.name, "small"), **cls.changes)

    @classmethod
    def opened(cls, where: str, seed: int = 0) -> Any:
        opener: Any = module(cls.name)
        return opener.open_data(where, cls.settings(), seed, entry(cls.name).data_set)

    @classmethod
    def evaluated(cls, where: str, backbone: Backbone | None = None, **context: Any) -> Result:
        if backbone is None:
            backbone = make_backbone(cls.network)
        found = module(cls.name).evaluate(backbone, cls.opened(where), cls.settings(), Context(**context))
        return found

    @pytest.fixture(scope="class")
    @classmethod
    def result(cls, where: str) -> Result:
        return cls.evaluated(where)

    def test_says_what_it_found(self, result: Result) -> None:
        assert 0 <= result.value <= 1
        assert all(isinstance(figure, float) for figure in result.figures.values())
        assert all(isinstance(figure, float) for figure in result.per_class.values())
        assert (result.counts["train"] > 0) == (entry(self.name).needs != "photos")
        assert result.counts["test"] > 0
        assert result.seed == 0
        assert set(asdict(self.settings())) <= set(result.settings)
        json.dumps(dict(result.settings), allow_nan=False)
        assert all(isinstance(text, str) and text for text in result.warnings)

    def test_what_was_measured_of_each_image_gives_the_figure(self, result: Result) -> None:
        n = len(result.judged)
        assert n == result.counts["test"]
        assert result.judged.score(np.ones(n, np.int64)) == pytest.approx(result.value, abs=1e-12)
        (found,) = figure_interval(lambda w: np.array([result.judged.score(w)]), n, draws=20)
        assert found.value == pytest.approx(result.value, abs=1e-12)
        assert math.isnan(found.low) or found.low <= found.high

    def test_is_the_same_again(self, where: str, result: Result, tmp_path: Path) -> None:
        """With another state of the global generators, in an own folder, with a cache, empty and then filled."""
        for _ in range(2):
            torch.manual_seed(99)
            np.random.seed(99)
            again = self.evaluated(where, cache=tmp_path / "cache")
            assert same(again.figures, result.figures)
            assert same(again.per_class, result.per_class)
            assert (again.settings, again.counts, again.warnings) == (result.settings, result.counts, result.warnings)

    def test_leaves_backbone_and_generators_as_they_were(self, where: str) -> None:
        backbone = make_backbone(self.network)
        modes = {name: m.training for name, m in backbone.named_modules()}
        wanted = [p.requires_grad for p in backbone.parameters()]
        before = copy.deepcopy(backbone.state_dict())
        torch.manual_seed(5)
        np.random.seed(5)
        self.evaluated(where, backbone)
        found, found_np = torch.rand(3), np.random.rand(3)
        torch.manual_seed(5)
        np.random.seed(5)
        assert torch.equal(found, torch.rand(3))
        assert np.array_equal(found_np, np.random.rand(3))
        after = backbone.state_dict()
        assert list(after) == list(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert all(p.grad is None for p in backbone.parameters())
        assert [p.requires_grad for p in backbone.parameters()] == wanted
        assert {name: m.training for name, m in backbone.named_modules()} == modes

    def test_a_share_of_the_labels(self, where: str, result: Result) -> None:
        found = self.evaluated(where, share=0.5)
        assert 0 <= found.value <= 1
        assert found.counts["test"] == result.counts["test"]

    def test_data_has_a_fingerprint(self, where: str) -> None:
        data: Data = self.opened(where)
        assert data.fingerprint
        assert data.fingerprint == self.opened(where).fingerprint
        assert data.counts["test"] > 0

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere"):
            self.opened(str(tmp_path / "nowhere"))

    def test_damaged_weights(self, where: str) -> None:
        """NaN in the network ends with an error, never with a figure."""
        backbone = make_backbone(self.network)
        with torch.no_grad():
            next(backbone.parameters()).fill_(math.nan)
        with pytest.raises(UserError, match=r"(?i)\bnan\b|not finite"):
            self.evaluated(where, backbone)
