"""Whole runs: phases, resuming bit for bit, results."""

from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cyborgs.engine.callback import Callback, Training
from cyborgs.engine.contract import Stopped
from cyborgs.engine.log import TIMES
from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.errors import UserError
from cyborgs.masks.store import MaskStore
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.models.weights import load_backbone
from cyborgs.runs.pretrain import pretrain
from cyborgs.runs.recipe import Recipe
from tests.conftest import make_photos, tiny_byol, tiny_recipe


def run(recipe: Recipe, photos: Path, out: Path, resume: bool = False, callbacks: tuple[Callback, ...] = ()) -> str:
    stream = io.StringIO()
    pretrain(recipe, data=photos, out=out, resume=resume, callbacks=callbacks, stream=stream)
    return stream.getvalue()


def results(out: Path) -> dict[str, object]:
    """Everything of a run that may not depend on how often it was stopped."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    files = [out / "backbone.safetensors", *sorted((out / "masks").rglob("*")), *sorted((out / "snapshots").rglob("*"))]
    return {
        "metrics": metrics,
        **{str(f.relative_to(out)): f.read_bytes() for f in files if f.is_file() and f.name != ".lock"},
    }


class StopAt(Callback):
    """Asks the trainer to stop at a step, or in the middle of a refresh."""

    def __init__(self, step: int | None = None, cycle: int | None = None) -> None:
        self.step, self.cycle = step, cycle

    def on_step(self, trainer: Training) -> None:
        if trainer.progress.step == self.step:
            trainer.stop()

    def on_refresh(self, trainer: Training, name: str, done: int, total: int) -> None:
        if trainer.progress.cycle == self.cycle and done == total // 2:
            trainer.stop()


class DieAt(StopAt):
    """Ends the process's work at once, as a crash would: no checkpoint is written."""

    class Died(Exception):
        pass

    def on_step(self, trainer: Training) -> None:
        if trainer.progress.step == self.step:
            raise self.Died


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("whole")
    photos = make_photos(folder / "photos")
    run(tiny_recipe(snapshot_refreshes=True), photos, folder / "run")
    return photos, folder / "run"


def test_the_log_shows_each_phase(uninterrupted: tuple[Path, Path]) -> None:
    lines = [json.loads(line) for line in (uninterrupted[1] / "metrics.jsonl").read_text().splitlines()]
    seen = [
        (line["epoch"], line.get("phase", line.get("refresh")), "loss/contrast" in line, "loss/cluster" in line)
        for line in lines
    ]
    expected = []
    for epoch in range(6):
        if epoch in (1, 2, 4):
            expected.append((epoch, "masks", False, False))
        phase = "warm-up" if epoch == 0 else "training"
        expected += [(epoch, phase, epoch > 0, epoch % 2 == 0)] * 2
    assert seen == expected
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))


def test_the_folder_holds_the_result(uninterrupted: tuple[Path, Path]) -> None:
    out = uninterrupted[1]
    for name in (
        "recipe.yaml",
        "images.csv",
        "skipped.csv",
        "metrics.jsonl",
        "backbone.safetensors",
        "checkpoints/last",
    ):
        assert (out / name).is_file(), name
    assert list((out / "tensorboard").iterdir())
    store = MaskStore(out)
    assert store.generations() == [0, 1, 2]
    assert store.generation == 2
    assert len(store) == 22
    assert store[0].shape == (6, 8)
    assert sorted(p.name for p in (out / "snapshots").iterdir()) == [
        f"epoch-000{e}.safetensors" for e in (0, 1, 2, 4, 6)
    ]


@pytest.mark.parametrize(
    "stop",
    [
        StopAt(step=1),  # in the warm-up
        StopAt(step=2),  # at its end, before the masks
        StopAt(cycle=0),  # while the first masks are made
        StopAt(step=3),  # right after them, in the middle of an epoch
        StopAt(cycle=1),
        StopAt(step=9),
        StopAt(step=12),  # after the last step, before the result is written
        DieAt(step=5),  # without a checkpoint of its own
        DieAt(step=11),
    ],
    ids=lambda s: f"{type(s).__name__}-step{s.step}-cycle{s.cycle}",
)
def test_resumed_equals_uninterrupted(stop: StopAt, uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    photos, whole = uninterrupted
    recipe = tiny_recipe(snapshot_refreshes=True)
    with pytest.raises((Stopped, DieAt.Died)):
        run(recipe, photos, tmp_path / "run", callbacks=(stop,))
    assert not (tmp_path / "run" / "backbone.safetensors").exists()
    said = run(recipe, photos, tmp_path / "run", resume=True)
    assert "going on from step" in said
    ours, theirs = results(tmp_path / "run"), results(whole)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == value, name


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(kind="sgd", lr=0.05, lr_batch=8, momentum_end=0.5, clip=0.5),
        OptimizerConfig(kind="adamw", lr=0.001, lr_batch=8, weight_decay=0.05, weight_decay_end=0.5, layer_decay=0.7),
        OptimizerConfig(kind="lars", lr=0.5, lr_batch=8, decay_vectors=True),
    ],
    ids=lambda config: config.kind,
)
def test_each_optimiser_resumes_bit_for_bit(optimizer: OptimizerConfig, photos: Path, tmp_path: Path) -> None:
    """Figures of the optimiser's state included: it lies in memory as before."""
    recipe = tiny_byol(optimizer=optimizer, epochs=3)
    run(recipe, photos, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, photos, tmp_path / "run", callbacks=(StopAt(step=3),))
    layouts: list[bool] = []

    class Look(Callback):
        def on_step(self, trainer: Training) -> None:
            for parameter, state in trainer.optimizer.state.items():
                layouts.extend(v.stride() == parameter.stride() for v in state.values() if v.shape == parameter.shape)

    run(recipe, photos, tmp_path / "run", resume=True, callbacks=(Look(),))
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    assert layouts
    assert all(layouts)
    assert all("update/ratio" in line for line in results(tmp_path / "run")["metrics"] if "lr" in line)  # type: ignore[attr-defined]


def test_stopped_before_the_first_checkpoint_starts_at_0(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DieAt.Died):
        run(tiny_byol(), photos, tmp_path / "run", callbacks=(DieAt(step=1),))
    assert "no checkpoint yet, starting at step 0" in run(tiny_byol(), photos, tmp_path / "run", resume=True)


def test_a_finished_run_says_so(uninterrupted: tuple[Path, Path]) -> None:
    photos, out = uninterrupted
    before = results(out)
    assert "this run is finished" in run(tiny_recipe(snapshot_refreshes=True), photos, out, resume=True)
    assert results(out) == before


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # of a machine with fewer cores
@pytest.mark.parametrize("workers", [1, 4])
def test_workers_change_nothing(workers: int, uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    photos, whole = uninterrupted
    run(tiny_recipe(snapshot_refreshes=True, workers=workers), photos, tmp_path / "run")
    assert results(tmp_path / "run") == results(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"epochs": 7}, "epochs: 6 -> 7"), ({"seed": 3}, "seed: 0 -> 3"), ({"batch_size": 16}, "batch_size: 8 -> 16")],
)
def test_another_recipe_is_refused(change: dict[str, object], named: str, uninterrupted: tuple[Path, Path]) -> None:
    photos, out = uninterrupted
    with pytest.raises(UserError, match=named):
        run(tiny_recipe(snapshot_refreshes=True, **change), photos, out, resume=True)


def test_other_photos_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tiny_byol(), photos, tmp_path / "run", callbacks=(StopAt(step=1),))
    (photos / "photo00.png").unlink()
    with pytest.raises(UserError, match="the photos changed"):
        run(tiny_byol(), photos, tmp_path / "run", resume=True)


def test_an_existing_folder_is_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        run(tiny_byol(), photos, out)
    with pytest.raises(UserError, match="holds no run to resume"):
        run(tiny_byol(), photos, out, resume=True)
    assert [f.name for f in out.iterdir()] == ["thesis.txt"]


def test_a_folder_in_use_is_refused(photos: Path, tmp_path: Path) -> None:
    caught: list[str] = []

    class StartAgain(Callback):
        def on_step(self, trainer: Training) -> None:
            if trainer.progress.step == 1:
                with pytest.raises(UserError, match="another process is writing") as error:
                    run(tiny_byol(), photos, tmp_path / "run", resume=True)
                caught.append(str(error.value))

    run(tiny_byol(epochs=1), photos, tmp_path / "run", callbacks=(StartAgain(),))
    assert caught


def test_a_batch_larger_than_the_data_set_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"22 usable photos, fewer than batch_size 64"):
        run(tiny_recipe(batch_size=64), photos, tmp_path / "run")


def test_unreadable_photos_are_listed_and_said(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    said = run(tiny_byol(epochs=1), photos, tmp_path / "run")
    assert "22 photos, 1 skipped" in said
    assert "1 files were skipped" in said
    assert "broken.jpg" in (tmp_path / "run" / "skipped.csv").read_text()
    for i in range(5):
        (photos / f"broken{i}.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"6 of 28 files cannot be read, more than max_skipped = 10%"):
        run(tiny_byol(epochs=1), photos, tmp_path / "run2")


@pytest.mark.parametrize("source", ["grid", "whole"])
def test_fixed_masks_are_made_once(source: str, photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    run(replace(recipe, masks=replace(recipe.masks, source=source)), photos, tmp_path / "run")  # type: ignore[arg-type]
    store = MaskStore(tmp_path / "run")
    assert store.generations() == [0]
    assert store[3].shape == ((5, 5) if source == "grid" else (1, 1))


def test_micro_batches_make_as_many_steps(photos: Path, tmp_path: Path) -> None:
    run(tiny_recipe(micro_batch=4, epochs=2), photos, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


def test_the_result_loads(uninterrupted: tuple[Path, Path]) -> None:
    import cyborgs

    backbone = cyborgs.load_backbone(uninterrupted[1])
    maps = backbone(torch.zeros(1, 3, 64, 64))
    assert {m.shape[0] for m in maps.values()} == {1}


def test_ctrl_c_writes_a_checkpoint(photos: Path, tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_step(self, trainer: Training) -> None:
            if trainer.progress.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped):
        run(tiny_byol(), photos, tmp_path / "run", callbacks=(Interrupt(),))
    assert (tmp_path / "run" / "checkpoints" / "last").read_text() == "step-000002"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (tiny_byol(), r"loss/byol is nan at step 2 \(epoch 0\): backbone\S+ and \d+ other parameters were not finite"),
        (tiny_recipe(), r"features are not finite at step 2 .*: backbone\S+ and"),  # k-means sees them first
        (tiny_byol(log_every=100, checkpoint_every=1), r"weights are not finite after step 1"),
    ],
    ids=["loss", "features", "weights"],
)
def test_numbers_that_are_not_finite_are_named(recipe: Recipe, message: str, photos: Path, tmp_path: Path) -> None:
    class Poison(Callback):
        def on_step(self, trainer: Training) -> None:
            with torch.no_grad():
                for parameter in trainer.trainable.parameters():  # of the target too
                    parameter.fill_(float("nan"))

    with pytest.raises(UserError, match=message):
        run(recipe, photos, tmp_path / "run", callbacks=(Poison(),))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_losses_are_weighed_by_the_plan(uninterrupted: tuple[Path, Path]) -> None:
    config = tiny_recipe().method
    lines = [json.loads(line) for line in (uninterrupted[1] / "metrics.jsonl").read_text().splitlines()]
    for line in (line for line in lines if "loss" in line):
        weights = config.plan(line["epoch"]).losses
        assert line["loss"] == pytest.approx(sum(w * line[f"loss/{name}"] for name, w in weights.items()), rel=1e-5)


def test_a_mistake_does_not_spoil_the_folder(photos: Path, tmp_path: Path) -> None:
    """The same command with the mistake mended goes through."""
    out = tmp_path / "run"
    with pytest.raises(UserError, match="no such folder"):
        run(tiny_byol(epochs=1), tmp_path / "typo", out)
    with pytest.raises(UserError, match="layer9"):
        run(replace(tiny_byol(epochs=1), method=ByolConfig(layer="layer9")), photos, out)
    with pytest.raises(UserError, match="fewer than batch_size"):
        run(tiny_byol(epochs=1, batch_size=64), photos, out)
    assert "is written" in run(tiny_byol(epochs=1), photos, out)


def test_resuming_needs_no_init_file(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    photos, whole = uninterrupted
    weights = tmp_path / "given.safetensors"
    weights.write_bytes((whole / "backbone.safetensors").read_bytes())
    recipe = tiny_byol(epochs=2)
    recipe = replace(recipe, backbone=replace(recipe.backbone, init=str(weights)))
    with pytest.raises(Stopped):
        run(recipe, photos, tmp_path / "run", callbacks=(StopAt(step=1),))
    weights.unlink()
    assert "is written" in run(recipe, photos, tmp_path / "run", resume=True)


def test_init_starts_from_given_weights(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    photos, whole = uninterrupted
    recipe = tiny_byol(epochs=1, snapshots=(0,))
    backbone = replace(recipe.backbone, init=str(whole / "backbone.safetensors"))
    run(replace(recipe, backbone=backbone), photos, tmp_path / "run")
    given = load_backbone(whole).weights()
    start = load_backbone(tmp_path / "run" / "snapshots" / "epoch-0000.safetensors").weights()
    assert given.keys() == start.keys()
    assert all(torch.equal(given[name], start[name]) for name in given)


def test_own_mean_and_std_reach_the_result(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_byol(epochs=1)
    backbone = replace(recipe.backbone, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    run(replace(recipe, backbone=backbone), photos, tmp_path / "run")
    config = load_backbone(tmp_path / "run").config
    assert (config.mean, config.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_snapshots_at_stated_epochs(photos: Path, tmp_path: Path) -> None:
    run(tiny_byol(epochs=3, snapshots=(1, 3)), photos, tmp_path / "run")
    names = [p.name for p in sorted((tmp_path / "run" / "snapshots").iterdir())]
    assert names == ["epoch-0001.safetensors", "epoch-0003.safetensors"]
    last = load_backbone(tmp_path / "run" / "snapshots" / names[1]).weights()
    result = load_backbone(tmp_path / "run").weights()
    assert all(torch.equal(last[name], result[name]) for name in result)


def test_kept_generations_are_pruned(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe()
    run(replace(recipe, masks=replace(recipe.masks, keep_generations=1)), photos, tmp_path / "run")
    assert MaskStore(tmp_path / "run").generations() == [2]


def test_area_interpolation_gives_another_run(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_byol(epochs=1)
    for name in ("linear", "area"):
        views = replace(recipe.views, interpolation=name)
        run(replace(recipe, views=views), photos, tmp_path / name)
    first, second = (results(tmp_path / name)["metrics"] for name in ("linear", "area"))
    assert first != second


def test_odd_names_and_links_are_read_or_listed(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "photo00.png").rename(photos / "фото 写真 ☂.png")
    (photos / "photo01.png").rename(photos / os.fsdecode(b"bytes-\xff\xfe.png"))
    (photos / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    (photos / "circle").symlink_to(photos)
    said = run(tiny_byol(epochs=1, max_skipped=0.5), photos, tmp_path / "run")
    assert "22 photos, 2 skipped" in said
    listed = (tmp_path / "run" / "images.csv").read_text(encoding="utf-8", errors="surrogateescape")
    assert "фото 写真 ☂.png" in listed
    assert os.fsdecode(b"bytes-\xff\xfe.png") in listed
    skipped = (tmp_path / "run" / "skipped.csv").read_text()
    assert "nowhere.jpg" in skipped
    assert "circle" in skipped
