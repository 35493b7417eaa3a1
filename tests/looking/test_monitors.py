"""Monitors measure what they say, and leave no trace in what is trained."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import cyborgs
from cyborgs.cli import main
from cyborgs.data.images import ScannedImages
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import TIMES
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.looking.monitors import Monitors, monitors
from cyborgs.runs import recipe_file
from cyborgs.runs.monitor_config import MonitorConfig
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan
from tests.conftest import make_photos, tiny_byol, tiny_recipe
from tests.runs import test_several_processes as processes


def classes(folder: Path, each: int = 4) -> Path:
    """Two classes that colour alone tells apart."""
    rng = np.random.default_rng(1)
    for name, channel in (("blue", 0), ("red", 2)):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = rng.integers(0, 40, (40, 52, 3), dtype=np.uint8)
            image[..., channel] += 200
            cv2.imwrite(str(folder / name / f"{i}.png"), image)
    return folder


def labelled_list(folder: Path, count: int = 4) -> Path:
    make_photos(folder / "photos", count)
    lines = []
    for i in range(count):
        image = cv2.imread(str(folder / f"photos/photo{i:02d}.png"))
        cv2.imwrite(str(folder / f"label{i}.png"), (image[..., 0] > 127).astype(np.uint8))
        lines.append(f"photos/photo{i:02d}.png label{i}.png\n")
    (folder / "list.txt").write_text("".join(lines))
    return folder / "list.txt"


def pretrain(recipe: Recipe, data: Path, out: Path, **more: Any) -> list[dict[str, Any]]:
    run = cyborgs.pretrain(recipe, data=data, out=out, stream=io.StringIO(), **more)
    return [{k: v for k, v in line.items() if k not in TIMES} for line in run.metrics]


def results(out: Path) -> dict[str, bytes]:
    kinds = [out / "backbone.safetensors", *out.glob("masks/**/*"), *out.glob("monitors/**/*")]
    return {str(f.relative_to(out)): f.read_bytes() for f in kinds if f.is_file()}


@pytest.fixture
def watched(tmp_path: Path) -> Recipe:
    folder = str(classes(tmp_path / "labelled"))
    return tiny_recipe(epochs=3, monitor=MonitorConfig(every=2, labelled=folder))


def test_a_run_with_monitors_is_the_run_without(photos: Path, tmp_path: Path, watched: Recipe) -> None:
    seen = pretrain(watched, photos, tmp_path / "with")
    plain = pretrain(replace(watched, monitor=MonitorConfig()), photos, tmp_path / "without")
    lines = [line for line in seen if "monitor" in line]
    assert [line for line in seen if "monitor" not in line] == plain
    assert [(line["monitor"], line["epoch"], line["step"]) for line in lines] == [
        (name, epoch, 2 * epoch) for epoch in (0, 2, 3) for name in ("neighbours", "knn")
    ]
    for line in lines[::2]:
        assert -1 <= line["neighbours/similarity_any"] <= line["neighbours/similarity"] <= 1.0001
    assert all(line["knn/commonest_class"] == 0.5 and 0 <= line["knn/top1"] <= 1 for line in lines[1::2])
    # The weights change what is measured.
    assert lines[0]["neighbours/similarity"] != lines[-2]["neighbours/similarity"]
    files = results(tmp_path / "with")
    pictures = [f"monitors/epoch-000{e}/neighbours.{kind}" for e in (0, 2, 3) for kind in ("jpg", "json")]
    assert {name: data for name, data in files.items() if name not in pictures} == results(tmp_path / "without")
    assert set(pictures) <= set(files)
    said = json.loads(files["monitors/epoch-0002/neighbours.json"])["rows"]
    assert len(said) == 4
    for row in said:
        names = [one["photo"] for one in row["neighbours"]]
        assert len({row["photo"], *names}) == 5


class Watch(Callback):
    """Compares the whole state around each measurement."""

    def __init__(self, inner: Callback) -> None:
        self.inner = inner
        self.seen = 0

    def state(self, trainer: Trainer) -> list[Any]:
        module = trainer.trainable
        numpy_state = np.random.get_state()
        return [
            torch.get_rng_state().numpy().tobytes(),
            [numpy_state[1].tobytes(), *numpy_state[2:]],
            {name: value.numpy().tobytes() for name, value in module.state_dict().items()},
            {name: part.training for name, part in module.named_modules()},
            [getattr(part, "inplace", None) for part in module.modules()],
        ]

    def on_epoch(self, trainer: Trainer, plan: EpochPlan) -> None:
        before = self.state(trainer)
        self.inner.on_epoch(trainer, plan)
        assert self.state(trainer) == before
        self.seen += 1

    def on_end(self, trainer: Trainer) -> None:
        before = self.state(trainer)
        self.inner.on_end(trainer)
        assert self.state(trainer) == before


def test_nothing_of_the_run_is_touched(photos: Path, tmp_path: Path) -> None:
    config = MonitorConfig(every=1, labelled=str(labelled_list(tmp_path / "set")), classes=2)
    recipe = tiny_recipe(epochs=1, monitor=config)
    watch = Watch(monitors(recipe, photos, tmp_path / "run")[0])
    lines = pretrain(replace(recipe, monitor=MonitorConfig()), photos, tmp_path / "run", callbacks=[watch])
    assert watch.seen == 1
    probes = [line for line in lines if line.get("monitor") == "probe"]
    assert len(probes) == 2
    assert all(0 <= line["probe/miou"] <= line["probe/accuracy"] <= 1 for line in probes)


class StopIn(Callback):
    """Asks to stop while the masks are made: the run leaves with the epoch's beginning behind it, not done."""

    def on_refresh(self, trainer: Trainer, name: str, done: int, total: int) -> None:
        if trainer.progress.step == 2 and done == 0:
            trainer.stop()


class StopAt(Callback):
    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == 1:
            trainer.stop()


@pytest.mark.parametrize("stop", [StopIn(), StopAt()], ids=["in a refresh", "in an epoch"])
def test_a_resumed_run_has_the_same_lines_and_pictures(
    stop: Callback, photos: Path, tmp_path: Path, watched: Recipe
) -> None:
    watched = replace(watched, epochs=2, monitor=replace(watched.monitor, every=1))
    whole = pretrain(watched, photos, tmp_path / "whole")
    assert len([line for line in whole if "monitor" in line]) == 6
    with pytest.raises(Stopped):
        pretrain(watched, photos, tmp_path / "parts", callbacks=[stop])
    assert pretrain(watched, photos, tmp_path / "parts", resume=True) == whole
    assert results(tmp_path / "parts") == results(tmp_path / "whole")


def test_what_fails_later_is_said_and_the_run_goes_on(photos: Path, tmp_path: Path, watched: Recipe) -> None:
    class Remove(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.progress.step == 1:
                (Path(watched.monitor.labelled) / "red" / "0.png").unlink()

    stream = io.StringIO()
    run = cyborgs.pretrain(watched, data=photos, out=tmp_path / "run", callbacks=[Remove()], stream=stream)
    lines = [line for line in run.metrics if line.get("monitor") == "knn"]
    assert [("knn/top1" in line, "failed" in line) for line in lines] == [
        (True, False), (False, True), (False, True)
    ]  # fmt: skip
    assert "red/0.png" in lines[1]["failed"]
    assert "monitor knn: " in stream.getvalue()


def test_what_fails_at_the_start_stops_the_run(photos: Path, tmp_path: Path, watched: Recipe) -> None:
    (Path(watched.monitor.labelled) / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"red/0\.png"):
        pretrain(watched, photos, tmp_path / "run")


@pytest.mark.slow
def test_two_processes_measure_once(photos: Path, tmp_path: Path, watched: Recipe) -> None:
    processes.run(2, watched, photos, tmp_path / "with")
    processes.run(2, replace(watched, monitor=MonitorConfig()), photos, tmp_path / "without")
    seen, plain = (
        [
            {k: v for k, v in json.loads(line).items() if k not in TIMES}
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        ]
        for name in ("with", "without")
    )
    assert [line for line in seen if "monitor" not in line] == plain
    assert len(seen) == len(plain) + 6
    assert (tmp_path / "with/backbone.safetensors").read_bytes() == (
        tmp_path / "without/backbone.safetensors"
    ).read_bytes()


def test_off_by_default(photos: Path, tmp_path: Path) -> None:
    assert monitors(Recipe(), photos, tmp_path) == []
    assert isinstance(monitors(tiny_recipe(monitor=MonitorConfig(every=1)), photos, tmp_path)[0], Monitors)


def test_a_method_without_masks_has_monitors_too(photos: Path, tmp_path: Path) -> None:
    lines = pretrain(tiny_byol(epochs=1, monitor=MonitorConfig(every=5)), photos, tmp_path / "run")
    assert [line["epoch"] for line in lines if line.get("monitor") == "neighbours"] == [0, 1]


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (["--monitor.every", "-1"], "monitor.every: need 0 (none) or a number of epochs, got -1"),
        (["--monitor.labelled", "x"], "monitor.every: need at least 1 where monitor.labelled"),
        (["--monitor.every", "1", "--monitor.labelled", "{one}"], "need a subfolder for each class, at least 2"),
        (["--monitor.every", "1", "--monitor.labelled", "{few}"], "red: need at least two photos of each class"),
        (["--monitor.every", "1", "--monitor.labelled", "none.txt"], "monitor.classes: none.txt is a list of label"),
        (["--monitor.every", "1", "--monitor.labelled", "none.txt", "--monitor.classes", "3"], "none.txt: the list"),
        (["--monitor.every", "1", "--monitor.labelled", "{few}", "--monitor.classes", "3"], "monitor.classes: "),
        (["--monitor.every", "1", "--monitor.classes", "1"], "monitor.classes: need 2 to 256, got 1"),
    ],
    ids=lambda v: " ".join(v)[-40:] if isinstance(v, list) else "",
)
def test_mistakes(
    monitor: list[str], message: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = classes(tmp_path / "few")
    for i in range(1, 4):
        (few / "red" / f"{i}.png").unlink()
    (tmp_path / "recipe.yaml").write_text(recipe_file.to_text(tiny_recipe()))
    words = [word.format(one=photos, few=few) for word in monitor]
    out = tmp_path / "out"
    code = main(["pretrain", str(tmp_path / "recipe.yaml"), "--data", str(photos), "--out", str(out), *words])
    captured = capsys.readouterr()
    text = " ".join((captured.out + captured.err).replace("│", " ").split())
    assert code != 0
    assert message in text
    assert not (out / "recipe.yaml").exists()


def test_settings_neither_differ_on_resume_nor_enter_the_result() -> None:
    plain, watched = tiny_recipe(), tiny_recipe(monitor=MonitorConfig(every=3))
    assert recipe_file.differences(watched, plain) == []
    assert recipe_file.for_result(watched) == recipe_file.for_result(plain)
    assert recipe_file.from_dict(recipe_file.to_dict(watched)) == watched


def test_photos_from_the_runs_list(photos: Path, tmp_path: Path) -> None:
    images = ScannedImages(photos, [("photo00.png", 48, 64, 2**64 - 1), ("a,\n\udce9.png", 5, 6, 7)])
    images.write_csv(tmp_path)
    again = ScannedImages.read_csv(tmp_path, photos)
    assert again.fingerprint() == images.fingerprint()
    assert again.read(0).shape == (48, 64, 3)
    (tmp_path / "images.csv").write_text("index,name\n0,a\n")
    with pytest.raises(UserError, match=r"images\.csv"):
        ScannedImages.read_csv(tmp_path, photos)
