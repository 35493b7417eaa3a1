"""Fine-tuning for classification: the contract, what is learnt, the grid and its choice, lists of names."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cyborgs.engine.contract import LossError
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.protocols import classification
from cyborgs.evaluation.protocols.catalogue import ENTRIES
from cyborgs.evaluation.protocols.classification import Classifier, Crops, Point, evaluate, open_data
from cyborgs.evaluation.sets.labelled import Classified
from cyborgs.evaluation.settings.photos import ClassificationSettings
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.evaluation.training.finetune import Objective
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_classes

QUICK = FineTuneConfig(epochs=2, batch_size=6, checkpoint_every=2)
SETTINGS = ClassificationSettings(size=32, rates=(0.01,), head_factors=(10.0,), training=QUICK)


class TestFolderClassification(ProtocolContract):
    name = "folder-classification"
    changes: ClassVar = {"size": 32, "training": QUICK}


class TestImageNet1Percent(ProtocolContract):
    """ImageNet's layout; of so few photos a share of a hundredth is one of each class."""

    name = "imagenet-1pct"
    changes: ClassVar = {"size": 32, "training": QUICK}

    @classmethod
    def make_data(cls, folder: Path) -> str:
        make_classes(folder / "train", 6)
        make_classes(folder / "val", 2)
        return str(folder)

    def test_its_own_split_is_said(self, result: Result) -> None:
        assert result.counts["train"] == 3
        assert result.warnings[0].startswith("own split: 3 of 18 training photos, a stratified share drawn from seed 0")


@pytest.fixture
def folders(tmp_path: Path) -> str:
    make_classes(tmp_path / "set/train", 6)
    make_classes(tmp_path / "set/val", 4)
    return str(tmp_path / "set")


def run(where: str, settings: ClassificationSettings = SETTINGS, **context: Any) -> Result:
    return evaluate(make_backbone(), open_data(where, settings, 0), settings, Context(**context))


def test_it_learns_colours(folders: str) -> None:
    training = replace(QUICK, epochs=8, batch_size=9)
    result = run(folders, replace(SETTINGS, head_factors=(1.0,), training=training))
    assert result.value > 0.8
    assert result.per_class.keys() == {"blue", "green", "red"}
    assert np.mean(list(result.per_class.values())) == pytest.approx(result.figures["class_mean"])
    assert "top5" not in result.figures
    assert result.warnings == ("top-5 says nothing of 3 classes and is left out.",)


def test_the_first_step_is_plain_sgd_on_everything() -> None:
    """The loss of the whole network and its rates by group, written out."""
    backbone = make_backbone()
    objective = Classifier(backbone, 4, seed=2).train()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    targets = torch.tensor([0, 1, 2, 3, 0])
    maps = copy.deepcopy(backbone)(backbone.normalise(images), layers=[backbone.layers[-1]])[backbone.layers[-1]]
    logits = maps.mean((2, 3)) @ objective.head.weight.T
    expected = -F.log_softmax(logits, 1)[torch.arange(5), targets].mean()
    (name, loss), *others = objective.losses(images, targets).items()
    assert (name, others) == ("class", [])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in objective.head.parameters())
    groups = objective.groups(100.0)
    assert [g.get("lr_scale", 1.0) for g in groups] == [1.0, 100.0]
    assert sum(len(g["params"]) for g in groups) == len(list(objective.parameters()))
    assert all(p.grad is None for p in backbone.parameters())


def test_the_head_starts_small_from_the_seed_alone() -> None:
    backbone = make_backbone()
    weights = Classifier(backbone, 500, seed=1).head.weight.detach()
    assert abs(float(weights.std()) - 0.01) < 2e-4
    assert abs(float(weights.mean())) < 2e-4
    torch.manual_seed(7)
    again = Classifier(backbone, 500, seed=1).head
    assert torch.equal(weights, again.weight)
    assert not again.bias.any()
    assert not torch.equal(weights, Classifier(backbone, 500, seed=2).head.weight)


def test_frozen_parameters_of_the_backbone_are_trained_too() -> None:
    backbone = make_backbone().requires_grad_(False)
    assert all(p.requires_grad for p in Classifier(backbone, 2, 0).parameters())
    assert not any(p.requires_grad for p in backbone.parameters())


def test_scores_are_logits_of_the_middle_square(folders: str) -> None:
    backbone = make_backbone()
    objective = Classifier(backbone, 3, 0)
    photos = open_data(folders, SETTINGS, 0).test
    found = objective.scores(photos.photos, 32, Context())
    network = copy.deepcopy(backbone).eval()
    for i in (0, 7):
        image = photos.read(i)  # 40 x 52: short side to 32 * 8 / 7 = 36.57
        scaled = cv2.resize(image, (round(52 * 36.571429 / 40), 37), interpolation=cv2.INTER_AREA)
        top, left = (37 - 32) // 2, (scaled.shape[1] - 32) // 2
        square = torch.from_numpy(scaled[top : top + 32, left : left + 32].copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            maps = network(network.normalise(square), layers=[network.layers[-1]])[network.layers[-1]]
        expected = maps.mean((2, 3)).double() @ objective.head.weight.T.double()
        np.testing.assert_allclose(found[i], expected[0].detach().numpy(), rtol=1e-4, atol=1e-6)


def test_crops_depend_on_what_is_drawn_alone(folders: str) -> None:
    crops = Crops(open_data(folders, SETTINGS, 0).train, 24)
    (a, c), (b, _) = (crops.sample(7, np.random.default_rng(3)) for _ in range(2))
    other, _ = crops.sample(7, np.random.default_rng(4))
    assert a.shape == (24, 24, 3)
    assert (int(c), c.dtype) == (1, np.int64)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)


class Recorded:
    """Stands for the training: what it is asked for, and figures of one's own."""

    def __init__(self, right: dict[Point, float]) -> None:
        self.right = right
        self.calls: list[tuple[Point, set[Path], tuple[Path, ...]]] = []

    def __call__(self, backbone, train: Classified, judged, point: Point, settings, context):
        self.calls.append((point, set(train.photos.paths), judged.paths))
        if self.right[point] < 0:
            raise LossError(f"not finite at {point}")
        classes = [("blue", "green", "red").index(p.parent.name) for p in judged]
        scores = np.zeros((len(judged), 3))
        hits = round(self.right[point] * len(judged))
        for i, c in enumerate(classes):
            scores[i, c if i < hits else (c + 1) % 3] = 1
        return scores


GRID = replace(SETTINGS, rates=(0.01, 0.1), head_factors=(1.0, 10.0))
POINTS = [Point(0.01, 1.0), Point(0.01, 10.0), Point(0.1, 1.0), Point(0.1, 10.0)]


def test_the_best_point_on_val_is_told(folders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Recorded(dict(zip(POINTS, (0.5, 0.75, 0.75, -1.0), strict=True)))
    monkeypatch.setattr(classification, "trained", training)
    said: list[str] = []
    result = run(folders, GRID, say=said.append)
    assert [call[0] for call in training.calls] == POINTS
    assert result.value == 0.75
    assert result.settings["chosen"] == {"lr": 0.01, "head_lr_factor": 10.0}  # the first of equals
    assert list(result.settings["grid"].values()) == [0.5, 0.75, 0.75, None]
    assert any("optimistic" in text for text in result.warnings)
    assert any("1 of 4 points of the grid diverged: lr 0.1, head x10" in text for text in result.warnings)
    assert said[1] == "lr 0.01, head x10 (2 of 4): top-1 75.0%"
    training.right = dict.fromkeys(POINTS, -1.0)
    with pytest.raises(UserError, match=r"no point of the grid could be trained.*not finite"):
        run(folders, GRID)


def test_chosen_on_a_tenth_and_trained_on_all(folders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Recorded(dict(zip(POINTS, (0.5, 0.5, 1.0, 0.0), strict=True)))
    monkeypatch.setattr(classification, "trained", training)
    result = run(folders, replace(GRID, choose_on="train-tenth"))
    data = open_data(folders, GRID, 0)
    everything, test = set(data.train.photos.paths), data.test.photos.paths
    for _, train, judged in training.calls[:4]:
        assert len(judged) == 3  # a tenth of 6, at least one, of each class
        assert {p.parent.name for p in judged} == {"blue", "green", "red"}
        assert train | set(judged) == everything
        assert not train & set(judged)
    assert training.calls[4] == (POINTS[2], everything, test)
    assert len(training.calls) == 5
    assert result.settings["chosen"] == {"lr": 0.1, "head_lr_factor": 1.0}
    assert not any("optimistic" in text for text in result.warnings)


def test_no_tenth_of_one_photo_a_class(folders: str) -> None:
    with pytest.raises(UserError, match="no class has two training photos"):
        run(folders, replace(GRID, choose_on="train-tenth"), share=0.01)


def test_share_of_settings_and_context_multiply(folders: str, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Recorded({POINTS[0]: 1.0, POINTS[1]: 1.0})
    monkeypatch.setattr(classification, "trained", training)
    settings = replace(SETTINGS, share=0.5)
    sizes = [len((run(folders, settings, share=share), training.calls[-1])[1][1]) for share in (1.0, 0.5)]
    assert sizes == [9, 6]  # 3 and 1.5, rounded up, of each of three classes


def test_a_training_that_was_cut_off_goes_on(folders: str, tmp_path: Path) -> None:
    """A folder for each training; a second call finds them finished, and gives the same."""
    first = run(folders, out=tmp_path / "out")
    place = tmp_path / "out/lr0.01-head10-18"
    assert (place / "metrics.jsonl").exists()
    before = (place / "metrics.jsonl").read_bytes()
    again = run(folders, out=tmp_path / "out")
    assert (place / "metrics.jsonl").read_bytes() == before
    assert again.figures == first.figures == run(folders).figures
    with pytest.raises(UserError, match="another identity"):
        evaluate(make_backbone(seed=1), open_data(folders, SETTINGS, 0), SETTINGS, Context(out=tmp_path / "out"))


def test_bf16(folders: str) -> None:
    result = run(folders, replace(SETTINGS, training=replace(QUICK, precision="bf16-mixed")))
    assert 0 <= result.value <= 1


def test_workers_change_nothing(folders: str) -> None:
    assert run(folders, workers=2).figures == run(folders).figures


def imagenet(root: Path) -> str:
    for wnid in ("n01", "n02"):
        for part, count in (("train", 4), ("val", 2)):
            (root / part / wnid).mkdir(parents=True)
            for k in range(count):
                name = f"{wnid}_{k}.JPEG" if part == "train" else f"{wnid}{k}.JPEG"
                cv2.imwrite(str(root / part / wnid / "x.png"), np.full((40, 40, 3), 9, np.uint8))
                (root / part / wnid / "x.png").rename(root / part / wnid / name)
    return str(root)


def listed(where: str, path: Path, *names: str) -> Any:
    path.write_text("\n".join(names) + "\n")
    return open_data(where, replace(SETTINGS, labels=str(path)), 0)


def test_the_published_lists(tmp_path: Path) -> None:
    where, path = imagenet(tmp_path / "imagenet"), tmp_path / "1percent.txt"
    data = listed(where, path, "n01_2.JPEG", "n02_0.JPEG", "n02_3.JPEG")
    assert [p.name for p in data.train.photos.paths] == ["n01_2.JPEG", "n02_0.JPEG", "n02_3.JPEG"]
    assert data.train.labels.tolist() == [0, 1, 1]
    assert data.counts["skipped: train, not in the list"] == 5
    assert listed(where, path, "n01/n01_2.JPEG", "n02/n02_0.JPEG").train.labels.tolist() == [0, 1]
    settings = replace(SETTINGS, labels=str(path), share=0.01)
    result = evaluate(make_backbone(), open_data(where, settings, 0), settings, Context())
    assert result.counts["train"] == 2  # the list's, whatever the share
    assert not any("own split" in text for text in result.warnings)


def test_lists_that_are_refused(tmp_path: Path) -> None:
    where, path = imagenet(tmp_path / "imagenet"), tmp_path / "1percent.txt"

    def refused(message: str, *names: str) -> None:
        with pytest.raises(UserError, match=message):
            listed(where, path, *names)

    refused(r"n03_1\.JPEG is not among the 8 training photos; 2 of 3 names", "n01_2.JPEG", "n03_1.JPEG", "n01_9.JPEG")
    refused(r"n01_2\.JPEG is listed twice \(1 such", "n01_2.JPEG", "n01/n01_2.JPEG", "n02_1.JPEG")
    refused("need photos of at least two classes", "n01_2.JPEG", "n01_1.JPEG")
    Path(where, "train/n02/n01_3.JPEG").write_bytes(b"x")
    refused(r"line 1: n01_3\.JPEG fits 2 photos", "n01_3.JPEG")
    refused(r"line 1: n02/n01_3\.JPEG says class n01, but lies in n02", "n02/n01_3.JPEG")
    with pytest.raises(UserError, match=r"none\.txt: the list cannot be read"):
        open_data(where, replace(SETTINGS, labels=str(tmp_path / "none.txt")), 0)


def test_settings_that_cannot_be_meant() -> None:
    for changes, message in (
        ({"share": 0.0}, "share: need more than 0"),
        ({"rates": ()}, "rates: need at least one"),
        ({"head_factors": (1.0, -1.0)}, "head_factors: need positive"),
        ({"size": 0}, "size: need positive"),
        ({"training": replace(QUICK, batch_size=1)}, "training.batch_size: need at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(SETTINGS, **changes)


def test_the_published_settings() -> None:
    for name, share, decay in (("imagenet-1pct", 0.01, 5e-4), ("imagenet-10pct", 0.1, 1e-4)):
        found = ENTRIES[name].settings
        assert isinstance(found, ClassificationSettings)
        assert (found.share, found.training.weight_decay, found.size, found.training.epochs) == (share, decay, 224, 20)
        assert found.rates == (0.001, 0.01, 0.1)
        assert found.head_factors == (1.0, 10.0, 100.0)
        assert (found.training.batch_size, found.training.momentum, found.training.gamma) == (256, 0.9, 0.2)
        assert [round(m * 20) for m in found.training.milestones] == [12, 16]
    assert issubclass(Classifier, Objective)
