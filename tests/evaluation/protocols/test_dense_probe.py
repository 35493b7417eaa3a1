"""The dense probe as a protocol: the probe's own figures, photo by photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.dense.linear import ProbeSettings, linear_segmentation
from cyborgs.evaluation.protocols import dense_probe
from cyborgs.evaluation.settings.pixels import DenseProbeSettings
from cyborgs.features.neighbours import compared_layers
from cyborgs.metrics.judged import PixelCounts
from cyborgs.metrics.segmentation import class_scores, miou_all_seen
from tests.evaluation.protocols.contract import ProtocolContract, make_backbone, make_pixels

SETTINGS = DenseProbeSettings(epochs=2, min_steps=10)


class TestDenseProbe(ProtocolContract):
    name = "dense-probe"
    changes = {"epochs": 2, "min_steps": 10}  # noqa: RUF012


def test_it_is_the_probe(tmp_path: Path) -> None:
    data = dense_probe.open_data(str(make_pixels(tmp_path / "set")), SETTINGS, 0)
    result = dense_probe.evaluate(make_backbone(), data, SETTINGS, Context(seed=3))
    backbone = make_backbone()
    probe = ProbeSettings(epochs=2, min_steps=10)
    found = linear_segmentation(
        backbone, data.train, data.test, layers=compared_layers(backbone), seed=3, settings=probe
    )
    figures = dict(result.figures)
    assert figures.pop("miou_all_seen") == miou_all_seen(np.sum(found.counts, axis=0)) <= found.miou
    assert figures == {"miou": found.miou, "accuracy": found.accuracy}
    assert list(result.per_class.values()) == list(found.iou)
    assert isinstance(result.judged, PixelCounts)
    total = result.judged.total(np.ones(4, np.int64))
    assert total.sum() == sum((data.test.truth(i) != 255).sum() for i in range(4))
    assert class_scores(total).iou == found.iou
    alone = result.judged.total(np.array([0, 0, 1, 0]))
    assert alone.sum() == (data.test.truth(2) != 255).sum()


def test_a_share_and_layers(tmp_path: Path) -> None:
    data = dense_probe.open_data(str(make_pixels(tmp_path / "set")), SETTINGS, 0)
    settings = replace(SETTINGS, layers=compared_layers(make_backbone())[:1])
    result = dense_probe.evaluate(make_backbone(), data, settings, Context(share=0.34))
    assert result.counts["train"] == 2
    assert result.counts["skipped: train, beyond the share"] == 4
    assert len(result.settings["layers"]) == 1
    with pytest.raises(UserError, match="no layer 'layer9'"):
        dense_probe.evaluate(make_backbone(), data, replace(SETTINGS, layers=("layer9",)), Context())


def test_maps_in_memory_give_the_same(tmp_path: Path) -> None:
    data = dense_probe.open_data(str(make_pixels(tmp_path / "set")), SETTINGS, 0)
    memory: dict[str, object] = {}
    for share in (0.5, 1.0):
        for seed in (0, 1):
            alone = dense_probe.evaluate(make_backbone(), data, SETTINGS, Context(seed=seed, share=share))
            kept = dense_probe.evaluate(make_backbone(), data, SETTINGS, Context(seed=seed, share=share, memory=memory))
            assert kept.value == pytest.approx(alone.value, abs=1e-3)
    before = memory["dense-probe maps"]
    dense_probe.evaluate(make_backbone(), data, SETTINGS, Context(memory=memory))
    assert memory["dense-probe maps"] is before
    dense_probe.evaluate(make_backbone(seed=1), data, SETTINGS, Context(memory=memory))
    assert memory["dense-probe maps"] is not before
