"""Counts and bytes of a run beforehand are those of the run; what cannot fit on the disk is refused before step 0."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.cli import main
from cyborgs.data.images import ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import Stopped
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.recipes import RECIPES
from cyborgs.runs import recipe_file
from cyborgs.runs import workload as needs
from cyborgs.runs.build import build_method
from cyborgs.runs.pretrain import pretrain
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import Kind, Space, held_bytes, require_space, space, space_of, workload
from tests.conftest import tiny_byol, tiny_recipe


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(log_every=3, checkpoint_every=5, snapshots=(0, 2, 6, 9), keep_checkpoints=3),
        tiny_recipe(snapshot_refreshes=True, log_every=1, masks=MaskConfig(source="grid")),
        tiny_byol(log_every=4, checkpoint_every=4),
    ],
    ids=["cyborgs", "grid", "byol"],
)
def test_counts_and_bytes_are_those_of_the_run(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    work = workload(recipe, 22)
    out = tmp_path / "run"
    run = pretrain(recipe, data=photos, out=out, stream=io.StringIO())
    steps = [line for line in run.metrics if "refresh" not in line]
    assert work.steps_per_epoch == 2
    assert work.lines == len(run.metrics)
    assert sum(work.logged.values()) == len(steps)
    for kind, logged in work.logged.items():
        losses = {"phase": kind.phase, "losses": sorted(f"loss/{name}" for name in kind.losses)}
        seen = [
            line
            for line in steps
            if {"phase": line["phase"], "losses": sorted(k for k in line if k.startswith("loss/"))} == losses
        ]
        assert len(seen) == logged
    assert work.generations == sum("refresh" in line for line in run.metrics)
    assert work.snapshots == len(list((out / "snapshots").glob("*"))) if (out / "snapshots").exists() else True
    needed = space_of(recipe, build_method(recipe), ScannedImages.from_scan(scan(list_images(photos))))
    kept = min(recipe.keep_checkpoints, work.checkpoints)
    checkpoints = held_bytes(out / "checkpoints") * (kept + 1) / kept
    # state.json is taken as large as that of a large network
    assert checkpoints <= needed.checkpoints <= checkpoints + (kept + 1) * needs.STATE_BYTES
    # The mask store's fixed bytes count among the 64 of a map; tiny maps are next to nothing else.
    assert held_bytes(out / "masks") <= needed.masks + 2000 * work.generations
    assert needed.result == pytest.approx((out / "backbone.safetensors").stat().st_size, rel=0.02)
    assert needed.snapshots == pytest.approx(held_bytes(out / "snapshots"), rel=0.02)
    assert held_bytes(out / "metrics.jsonl") < needed.logs


def test_checkpoints_are_counted(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cyborgs.engine.checkpoint import Checkpoints

    steps: list[int] = []
    save = Checkpoints.save

    def counted(self: Checkpoints, step: int, *rest: object) -> Path:
        steps.append(step)
        return save(self, step, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Checkpoints, "save", counted)
    recipe = tiny_recipe(checkpoint_every=5)
    pretrain(recipe, data=photos, out=tmp_path / "run", stream=io.StringIO())
    assert workload(recipe, 22).checkpoints == len(steps)


def test_the_papers_run() -> None:
    recipe = RECIPES["cyborgs-coco"]().resolved(118_287)
    work = workload(recipe, 118_287)
    contrast, both = Kind("training", ("contrast",)), Kind("training", ("contrast", "cluster"))
    assert {str(kind): len(epochs) for kind, epochs in work.epochs.items()} == {
        "warm-up (cluster)": 5,
        str(both): 159,
        str(contrast): 636,
    }
    assert work.generations == 8
    assert work.snapshots == 7
    assert work.checkpoints == 800 * 1848 // 500 + 8 + 1


@pytest.mark.parametrize(
    ("keep", "generations", "held"), [(0, 1, 2), (0, 4, 5), (1, 4, 3), (2, 4, 4), (9, 4, 5), (2, 1, 2)]
)
def test_masks_that_are_kept(keep: int, generations: int, held: int) -> None:
    """Those before, and the last one twice: in parts and as a whole."""
    recipe = tiny_recipe(masks=MaskConfig(keep_generations=keep))
    work = replace(workload(recipe, 22), generations=generations)
    assert space(recipe, work, 22, checkpoint=1, backbone=1, generation=1000).masks == held * 1000


def test_maps_of_photos_have_room(tmp_path: Path) -> None:
    """1,842 bytes were measured for 640x480 at K = 129, and 2,151 at 256."""
    images = ScannedImages(tmp_path, [("a.jpg", 480, 640, 0)] * 10)
    for clusters, measured in (((129, 129), 1842), ((2, 256), 2151)):
        recipe = tiny_recipe(method=CyborgsConfig(clusters=clusters), masks=MaskConfig())
        assert 10 * measured <= needs.generation_bytes(recipe, images) <= 1.35 * 10 * measured
    capped = tiny_recipe(masks=MaskConfig(short_side=240))
    assert needs.mask_pixels(capped, images).tolist() == [240 * 320] * 10


def test_too_little_room_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(needs, "free_bytes", lambda path: 1000)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(recipe_file.to_text(tiny_recipe()))
    out = tmp_path / "run"
    assert main(["pretrain", str(recipe), "--data", str(photos), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    for part in (str(out), "1.0 kB (1000 bytes) are free", "--keep-checkpoints", "--masks.keep-generations"):
        assert part in said
    assert "Traceback" not in said
    assert not (out / "recipe.yaml").exists()
    assert not (out / "checkpoints").exists()


def test_what_is_there_counts_on_resume(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Callback):
        def on_step(self, trainer: Trainer) -> None:
            if trainer.progress.step == 8:
                trainer.stop()

    recipe, out = tiny_recipe(checkpoint_every=1), tmp_path / "run"
    with pytest.raises(Stopped):
        pretrain(recipe, data=photos, out=out, callbacks=[Stop()], stream=io.StringIO())
    needed = space_of(recipe, build_method(recipe), ScannedImages.from_scan(scan(list_images(photos)))).total
    there = held_bytes(out)
    assert 0 < there < needed
    monkeypatch.setattr(needs, "free_bytes", lambda path: needed - there - 4096)  # more than the lock file takes
    with pytest.raises(UserError, match="too little room"):
        pretrain(recipe, data=photos, out=out, resume=True, stream=io.StringIO())
    monkeypatch.setattr(needs, "free_bytes", lambda path: needed - there)
    pretrain(recipe, data=photos, out=out, resume=True, stream=io.StringIO())
    assert (out / "backbone.safetensors").exists()


def test_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    require_space(tmp_path / "a", Space(1, 1, 1, 1, 1))
