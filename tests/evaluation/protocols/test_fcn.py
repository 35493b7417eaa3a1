"""The FCN protocol and the frozen probe on made photos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cyborgs.engine.contract import Stopped
from cyborgs.engine.signals import Stop
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.dense import run
from cyborgs.evaluation.dense.run import figures_of, inference
from cyborgs.evaluation.protocols import fcn, stuff_probe
from cyborgs.evaluation.protocols.catalogue import ENTRIES
from cyborgs.evaluation.protocols.protocol import module, settings_of
from cyborgs.evaluation.settings.pixels import FcnSettings, StuffProbeSettings
from cyborgs.evaluation.training import finetune
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.metrics.segmentation import class_scores, confusion
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_pixels, same

TINY: dict[str, Any] = {
    "output_stride": 32,
    "crop": 64,
    "head_channels": 8,
    "training": replace(FcnSettings().training, iterations=3, batch_size=2, checkpoint_every=2),
}


def probe_settings() -> StuffProbeSettings:
    return StuffProbeSettings(crop=64, resize=(0, 0), test_resize=(0, 0), training=TINY["training"])


class TestFolderSegmentation(ProtocolContract):
    name = "folder-segmentation"
    changes = TINY


class TestStuffProbe(ProtocolContract):
    name = "coco-stuff-probe"

    @classmethod
    def settings(cls) -> Any:
        return probe_settings()

    @classmethod
    def opened(cls, where: str, seed: int = 0) -> Any:
        return stuff_probe.open_data(where, cls.settings(), seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fcn.open_data(str(make_pixels(tmp_path_factory.mktemp("data"), 4, 2)), FcnSettings(), 0)


def tiny(**changes: Any) -> FcnSettings:
    return replace(FcnSettings(resize=(0, 0), test_resize=(0, 0)), **(TINY | changes))


def test_figures_are_torchmetrics() -> None:
    classification = pytest.importorskip("torchmetrics").classification
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (40, 50))
    truth[truth == 3] = 2  # a class that the truth lacks
    pred = np.where(rng.random((40, 50)) < 0.6, truth, rng.integers(0, 5, (40, 50)))
    truth[:7] = 255
    counts = confusion(pred, truth, 5, 5, 255)
    arguments = torch.from_numpy(pred), torch.from_numpy(truth)
    iou = classification.MulticlassJaccardIndex(5, average=None, ignore_index=255)(*arguments).numpy()
    recall = classification.MulticlassAccuracy(5, average=None, ignore_index=255)(*arguments).numpy()
    right = classification.MulticlassAccuracy(5, average="micro", ignore_index=255)(*arguments).item()
    present = [0, 1, 2, 4]
    figures = figures_of(counts)
    assert figures["miou"] == pytest.approx(iou[present].mean(), abs=1e-6)
    strict = classification.MulticlassJaccardIndex(5, ignore_index=255)(*arguments).item()  # macro
    assert figures["miou_all_seen"] == pytest.approx(strict, abs=1e-6)
    assert figures["mean_accuracy"] == pytest.approx(recall[present].mean(), abs=1e-6)
    assert figures["pixel_accuracy"] == pytest.approx(right, abs=1e-6)
    np.testing.assert_allclose(np.array(class_scores(counts).iou)[present], iou[present], rtol=1e-6)


def test_void_counts_nowhere() -> None:
    truth = np.array([[0, 1, 255, 255]])
    figures = figures_of(confusion(np.array([[0, 1, 1, 0]]), truth, 2, 2, 255))
    assert figures == {"miou": 1.0, "miou_all_seen": 1.0, "mean_accuracy": 1.0, "pixel_accuracy": 1.0}
    assert all(np.isnan(x) for x in figures_of(np.zeros((3, 3), np.int64)).values())


def test_the_judgement_is_that_of_the_trained_network(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside counts made here, by whole photos, of the objective that was trained."""
    kept: list[Any] = []
    training = finetune.fine_tune
    monkeypatch.setattr(
        run, "fine_tune", lambda objective, *a, **k: (kept.append(objective), training(objective, *a, **k))[1]
    )
    result = fcn.evaluate(make_backbone(), data, tiny(), Context())
    (objective,) = kept
    assert not any(m.training for m in objective.modules())
    total = np.zeros((3, 3), np.int64)
    for i in range(len(data.test)):
        image, truth = data.test.pair(i)
        with torch.no_grad():
            logits = objective.logits(torch.from_numpy(image).permute(2, 0, 1)[None])
        large = torch.nn.functional.interpolate(logits, truth.shape, mode="bilinear", align_corners=True)
        for p, t in zip(large[0].argmax(0).flatten().tolist(), truth.ravel().tolist(), strict=True):
            if t != 255:
                total[p, t] += 1
    iou = np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))
    assert result.value == pytest.approx(iou.mean(), abs=1e-12)
    assert result.figures["pixel_accuracy"] == pytest.approx(np.diag(total).sum() / total.sum(), abs=1e-12)
    assert list(result.per_class.values()) == pytest.approx(iou.tolist())
    assert list(result.per_class) == ["0", "1", "2"]


def test_dilated_and_by_windows(data: Any) -> None:
    settings = tiny(output_stride=8, inference="slide", slide_stride=40)
    result = fcn.evaluate(make_backbone("resnet18"), data, settings, Context())
    assert 0 <= result.value <= 1


def test_bf16_and_loader_processes(data: Any) -> None:
    settings = tiny()
    training = replace(settings.training, precision="bf16-mixed")
    plain, mixed = (
        fcn.evaluate(make_backbone(), data, replace(settings, training=t), Context(workers=w))
        for t, w in ((settings.training, 1), (training, 0))
    )
    assert np.isfinite(mixed.value)
    assert same(plain.figures, fcn.evaluate(make_backbone(), data, settings, Context()).figures)


def test_a_training_that_was_stopped_goes_on_to_the_same_figures(
    data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose draws come from the step."""

    def go(out: Path | None) -> Result:
        return fcn.evaluate(make_backbone(), data, tiny(), Context(out=out))

    def stopped(*arguments: Any, **named: Any) -> Any:
        stop = Stop()
        stop.ask()
        return finetune.fine_tune(*arguments, **named, stop=stop)

    with monkeypatch.context() as patch:
        patch.setattr(run, "fine_tune", stopped)
        with pytest.raises(Stopped):
            go(tmp_path)
    torch.manual_seed(7)
    resumed, whole = go(tmp_path), go(None)
    assert same(resumed.figures, whole.figures)
    assert np.array_equal(resumed.judged.total(np.ones(2, np.int64)), whole.judged.total(np.ones(2, np.int64)))  # type: ignore[attr-defined]


def test_another_backbone_does_not_go_on_in_the_same_folder(data: Any, tmp_path: Path) -> None:
    fcn.evaluate(make_backbone(), data, tiny(), Context(out=tmp_path))
    with pytest.raises(UserError, match="another identity"):
        fcn.evaluate(make_backbone(seed=1), data, tiny(), Context(out=tmp_path))


def test_a_share_names_the_classes_that_it_lacks(tmp_path: Path) -> None:
    folder = make_pixels(tmp_path, 4, 2)
    for i in range(4):  # class 2 in one training photo alone, which is drawn first, and lacks class 1
        path = str(folder / "labels" / "train" / f"p{i}.png")
        labels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        labels[labels == (1 if i == 0 else 2)] = 2 if i == 0 else 1
        if i == 0:
            labels[10:20] = 2
        cv2.imwrite(path, labels)
    data = fcn.open_data(str(folder), tiny(), 0)
    told = []
    for seed in range(2):
        found = fcn.evaluate(make_backbone(), data, tiny(), Context(share=0.25, seed=seed))
        assert found.counts["train"] == 1
        assert found.counts["skipped: train, beyond the share"] == 3
        told += found.warnings
    assert sum("1 classes of the test photos have no pixel in this share of train: 1" in text for text in told) == 2


def test_classes_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    root = make_pixels(tmp_path, 2, 2)
    count = fcn.open_data(str(root), tiny(), 0).train.classes
    (root / "classes.txt").write_text("sky\n" * 2 + "".join(f"{c}\n" for c in range(2, count)))
    result = fcn.evaluate(make_backbone(), fcn.open_data(str(root), tiny(), 0), tiny(), Context())
    assert list(result.per_class)[:2] == ["sky (0)", "sky (1)"]
    assert len(result.per_class) == count


def test_a_class_that_train_lacks(tmp_path: Path) -> None:
    folder = make_pixels(tmp_path, 4, 2)
    for i in range(4):
        path = str(folder / "labels" / "train" / f"p{i}.png")
        labels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        labels[labels == 2] = 255
        cv2.imwrite(path, labels)
    data = fcn.open_data(str(folder), tiny(), 0)
    result = fcn.evaluate(make_backbone(), data, tiny(), Context())
    assert any("no training pixel: 2" in text for text in result.warnings)
    assert result.per_class["2"] == pytest.approx(0, abs=0.3)


def test_a_training_photo_without_a_labelled_pixel(tmp_path: Path) -> None:
    folder = make_pixels(tmp_path, 4, 2)
    path = str(folder / "labels" / "train" / "p0.png")
    cv2.imwrite(path, np.full_like(cv2.imread(path, cv2.IMREAD_UNCHANGED), 255))
    data = fcn.open_data(str(folder), tiny(), 0)
    assert np.isfinite(fcn.evaluate(make_backbone(), data, tiny(crop=200), Context()).value)  # larger than the photos


def test_a_network_that_cannot_be_dilated(data: Any) -> None:
    with pytest.raises(UserError, match="Set output_stride 32"):
        fcn.evaluate(make_backbone(), data, tiny(output_stride=8), Context())


def test_the_probe_takes_the_published_map_and_says_it(data: Any) -> None:
    settings = probe_settings()
    found = stuff_probe.evaluate(make_backbone("resnet18"), data, settings, Context())
    assert found.settings["layer"] == "layer2.1"
    with pytest.raises(UserError, match="has no layer 'layer9'"):
        stuff_probe.evaluate(make_backbone(), data, replace(settings, layer="layer9"), Context())


def test_windows_are_two_thirds_of_the_crop_apart_if_nothing_is_said() -> None:
    how = inference(5, 255, FcnSettings(inference="slide"))
    assert (how.window, how.stride) == (512, 341)
    assert inference(5, 255, FcnSettings()).window == 0


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("crop", 8, "crop: need 16 to"),
        ("resize", (512, 2048), "resize: need a long and a short side"),
        ("test_resize", (0, 5), "test_resize"),
        ("scales", (0.0, 2.0), "scales"),
        ("scales", (2.0, 0.5), "scales"),
        ("max_class_share", 1.5, "max_class_share"),
        ("auxiliary_weight", -1.0, "auxiliary_weight"),
        ("head_channels", 1, "head_channels"),
        ("slide_stride", 513, "slide_stride: need 0 to 512, got 513"),
        ("classes", 256, "classes"),
        ("ignore", 256, "ignore"),
        ("images", -1, "images"),
    ],
)
def test_settings_that_cannot_be(field: str, value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        replace(FcnSettings(), **{field: value})


def test_the_published_settings() -> None:
    """As docs/evaluation.md has them."""
    city: Any = ENTRIES["cityscapes"].settings
    assert (city.crop, city.resize, city.slide_stride, city.output_stride) == (769, (2049, 1025), 513, 8)
    assert city.training == FineTuneConfig(
        epochs=0, iterations=40_000, batch_size=8, weight_decay=5e-4, schedule="poly", min_lr=1e-4
    )
    stuff: Any = ENTRIES["coco-stuff"].settings
    assert (stuff.crop, stuff.resize, stuff.inference) == (512, (2048, 512), "whole")
    assert (stuff.training.iterations, stuff.training.batch_size) == (20_000, 16)
    assert {name for name, entry in ENTRIES.items() if entry.module == "fcn"} == {
        *("coco-stuff", "cityscapes", "voc-segmentation", "ade20k", "camvid", "folder-segmentation")
    }


def learned(name: str, where: Path, settings: Any) -> Result:
    found: Any = module(name)
    data = found.open_data(str(make_pixels(where)), settings, 0, "")
    result: Result = found.evaluate(make_backbone("resnet18"), data, settings, Context())
    return result


@pytest.mark.slow
def test_the_small_preset_learns(tmp_path: Path) -> None:
    """Blocks that colour tells apart; a ResNet-18 that has learned nothing yet. The crop is a quarter, for its time."""
    result = learned("folder-segmentation", tmp_path, replace(settings_of("folder-segmentation", "small"), crop=64))  # type: ignore[call-arg]
    assert result.value > 0.5


@pytest.mark.slow
def test_the_small_preset_of_the_probe_learns(tmp_path: Path) -> None:
    """The map of a random ResNet-18 tells colours apart as well."""
    result = learned("coco-stuff-probe", tmp_path, settings_of("coco-stuff-probe", "small"))
    assert result.value > 0.5
