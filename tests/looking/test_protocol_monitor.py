"""Protocols as monitors: the run stays as it is, what they train stops with it, the report shows their figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context, Result
from cyborgs.evaluation.protocols import protocol as protocols
from cyborgs.evaluation.protocols.catalogue import ENTRIES
from cyborgs.looking.monitors import monitors
from cyborgs.looking.protocol_monitor import fine_tunes
from cyborgs.models.backbone import Backbone
from cyborgs.report.catalogue import grouped
from cyborgs.report.history import read_history
from cyborgs.report.page import report as write_report
from cyborgs.report.summary import summary
from cyborgs.runs.monitor_config import MonitorConfig
from cyborgs.runs.recipe import Recipe
from tests.conftest import tiny_recipe
from tests.evaluation import toy_protocol
from tests.evaluation.protocols.contract import make_pixels
from tests.looking.test_monitors import Watch, classes, pretrain, results


class Toy:
    """The toy protocol, which may draw from the global generators, fail, or be stopped as a training is."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.calls = 0

    open_data = staticmethod(toy_protocol.open_data)

    def evaluate(self, backbone: Backbone, data: Any, settings: Any, context: Context) -> Result:
        assert not backbone.training
        assert (context.seed, context.out, context.cache, context.workers) == (0, None, None, 0)
        self.calls += 1
        if self.calls == self.stop_at:
            raise Stopped(15, 3)
        return toy_protocol.evaluate(backbone, data, settings, context)


def toy(monkeypatch: pytest.MonkeyPatch, **more: Any) -> Toy:
    module = Toy(**more)
    monkeypatch.setattr(protocols, "module", lambda name: module)
    return module


def judged(every: int = 1, protocol: str = "voc07", epochs: int = 2) -> Recipe:
    return tiny_recipe(epochs=epochs, monitor=MonitorConfig(every=every, labelled="labels", protocol=protocol))


def test_a_run_with_a_protocol_is_the_run_without(photos: Path, tmp_path: Path) -> None:
    labelled = str(make_pixels(tmp_path / "pixels"))
    config = MonitorConfig(every=1, labelled=labelled, protocol="dense-probe", classes=3)
    seen = pretrain(tiny_recipe(epochs=1, monitor=config), photos, tmp_path / "with")
    plain = pretrain(tiny_recipe(epochs=1), photos, tmp_path / "without")
    assert [line for line in seen if "monitor" not in line] == plain
    lines = [line for line in seen if line.get("monitor") == "dense-probe"]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(0 <= line["dense-probe/miou"] <= line["dense-probe/accuracy"] <= 1 for line in lines)
    files = {n: b for n, b in results(tmp_path / "with").items() if not n.startswith("monitors")}
    assert files == results(tmp_path / "without")


def test_nothing_of_the_run_is_touched_by_a_protocol(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = toy(monkeypatch)
    watch = Watch(monitors(judged(), photos, tmp_path / "run")[0])
    lines = pretrain(tiny_recipe(epochs=1), photos, tmp_path / "run", callbacks=[watch])
    assert watch.seen == 1
    assert module.calls == 2
    assert [sorted(n for n in line if "/" in n) for line in lines if line.get("monitor") == "voc07"] == [
        ["voc07/nothing", "voc07/top1"]
    ] * 2


@pytest.mark.parametrize("at", [1, 2])
def test_a_signal_that_a_protocols_training_takes_stops_the_run(
    at: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch)
    recipe = judged(epochs=1)
    whole = pretrain(recipe, photos, tmp_path / "whole")
    toy(monkeypatch, stop_at=at)
    with pytest.raises(Stopped) as stopped:
        pretrain(recipe, photos, tmp_path / "parts")
    assert (stopped.value.signal, stopped.value.step) == (15, 2 * (at - 1))
    assert str(pretrain(recipe, photos, tmp_path / "parts", resume=True)) == str(whole)  # as text: NaN is NaN
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_the_report_has_the_figures_of_a_protocol(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(monkeypatch)
    pretrain(judged(every=2), photos, tmp_path / "run")
    history = read_history(tmp_path / "run" / "metrics.jsonl")
    groups = dict(grouped({**history.series, **history.monitors}, history.monitors))
    assert {"voc07/top1", "neighbours/similarity"} <= set(groups["Monitors"])
    assert not any("voc07/top1" in names for name, names in groups.items() if name != "Monitors")
    said = " ".join(summary(None, None, history))
    assert "voc07 (preset small), top1: " in said
    page = write_report(tmp_path / "run", data=None, recipes={}, find=lambda *_: None)
    assert "voc07/top1" in page.read_text()


def test_which_protocols_train() -> None:
    trains = {name for name, entry in ENTRIES.items() if fine_tunes(entry.settings)}
    assert trains == {
        *("imagenet-1pct", "imagenet-10pct", "folder-classification"),
        *(
            "coco-stuff",
            "coco-stuff-probe",
            "cityscapes",
            "voc-segmentation",
            "ade20k",
            "camvid",
            "folder-segmentation",
        ),
    }


def test_mistakes_with_protocols(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"monitor\.labelled: need the labelled photos for monitor\.protocol"):
        MonitorConfig(every=1, protocol="knn")
    for protocol, words in (
        ("knm", "monitor.protocol: no protocol is named 'knm'. There are: voc07"),
        ("knn", "labels"),
    ):
        with pytest.raises(UserError, match=words):
            pretrain(judged(protocol=protocol), photos, tmp_path / "run")
    config = MonitorConfig(every=1, labelled="labels", protocol="voc07", classes=3)
    with pytest.raises(UserError, match=r"monitor\.classes: voc07 knows its classes"):
        pretrain(tiny_recipe(monitor=config), photos, tmp_path / "run")
    toy(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"monitor\.protocol: coco-stuff trains, and that needs a run of one process"):
        pretrain(judged(protocol="coco-stuff"), photos, tmp_path / "run")
    assert monitors(judged(), photos, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_protocol_that_trains_leaves_the_run_as_it_is(photos: Path, tmp_path: Path) -> None:
    labelled = str(classes(tmp_path / "labelled", 6))
    config = MonitorConfig(every=1, labelled=labelled, protocol="folder-classification")
    seen = pretrain(tiny_recipe(epochs=2, monitor=config), photos, tmp_path / "with")
    plain = pretrain(tiny_recipe(epochs=2), photos, tmp_path / "without")
    assert [line for line in seen if "monitor" not in line] == plain
    lines = [line for line in seen if line.get("monitor") == "folder-classification"]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert all(0 <= line["folder-classification/top1"] <= 1 for line in lines)
    files = {n: b for n, b in results(tmp_path / "with").items() if not n.startswith("monitors")}
    assert files == results(tmp_path / "without")
