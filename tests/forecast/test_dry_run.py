"""A dry run measures real steps, writes nothing that stays, and comes near what a run holds."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.contract import Stopped
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.forecast import generation_cost, rehearsal
from cyborgs.forecast.dry_run import dry_run
from cyborgs.forecast.rehearsal import Measured, Rehearsal
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.methods.cyborgs.prototypes import draw_slice_clusters
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs import recipe_file
from cyborgs.runs import workload as needs
from cyborgs.runs.devices import make_fabric
from cyborgs.runs.pretrain import pretrain
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import workload
from tests.conftest import make_photos, tiny_byol, tiny_recipe


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made in this test: of a short name, since sockets of loader processes lie there."""
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


def everything(folder: Path) -> str:
    """A hash of all names and bytes in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def measured(recipe: Recipe, photos: Path) -> Measured:
    images = ScannedImages.from_scan(scan(list_images(photos)))
    recipe = recipe.resolved(len(images))
    return Rehearsal(make_fabric(recipe), recipe, images, lambda text: None).measure()


def test_nothing_stays(photos: Path, tmp_path: Path, temporary: Path) -> None:
    before = everything(photos)
    stream = io.StringIO()
    paragraphs = list(dry_run(tiny_recipe(), data=photos, out=tmp_path / "run", stream=stream))
    text = "\n".join(paragraphs)
    assert everything(photos) == before
    assert not (tmp_path / "run").exists()
    assert list(temporary.glob("cyborgs-*")) == []
    assert "photos: 22, skipped: 0" in text
    assert text.index("Advice") < text.index("Predicted from a few measured steps")
    for part in ("warm-up (cluster)", "training (contrast)", "training (contrast + cluster)", "making masks", "disk"):
        assert part in text
    for part in (
        "measuring warm-up",
        "measuring the largest group",
        "measuring bootstrapping",
        "measuring a checkpoint",
    ):
        assert part in stream.getvalue()


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(workers=1),
        tiny_recipe(masks=MaskConfig(source="grid", grid=3)),
        tiny_byol(micro_batch=4, logger="none"),
        tiny_recipe(batch_size=20, epochs=2, masks=MaskConfig(group_size=64)),
    ],
    ids=["workers", "grid", "byol", "one step an epoch, one group"],
)
def test_each_kind_of_run(recipe: Recipe, photos: Path, temporary: Path) -> None:
    found = measured(recipe, photos)
    assert list(found.steps) == list(workload(recipe, 22).epochs)
    for times in found.steps.values():
        assert times.ends[0] > 0
        assert times.steady > 0
        assert len(times.ends) == max(1, recipe.steps_per_epoch(22) - 1)
    assert (found.generation_seconds > 0) == (recipe.masks.source != "none")
    assert (found.workers > 0) == (recipe.workers > 0)
    assert found.peak > 50_000_000
    assert list(temporary.glob("cyborgs-*")) == []


def test_bytes_are_those_of_the_run(photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(masks=MaskConfig(group_size=4), keep_checkpoints=1)
    found = measured(recipe, photos)
    out = pretrain(recipe, data=photos, out=tmp_path / "run", stream=io.StringIO()).folder
    assert found.checkpoint_bytes == pytest.approx(needs.held_bytes(out / "checkpoints"), rel=0.02)
    assert found.backbone_bytes == pytest.approx((out / "backbone.safetensors").stat().st_size, rel=0.02)
    generations = list((out / "masks").glob("generation-*"))
    assert found.generation_bytes == pytest.approx(sum(map(needs.held_bytes, generations)) / 3, rel=0.25)


def test_a_long_epoch_is_left_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos(tmp_path / "photos", 60)
    monkeypatch.setattr(rehearsal, "MOST_STEPS", 4)
    seen: list[int] = []
    step = Trainer._step

    def counted(self: Trainer, plan: object, number: int, *rest: object) -> object:
        seen.append(number)
        return step(self, plan, number, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_step", counted)
    found = measured(tiny_byol(batch_size=4), photos)
    assert seen == [0, 0, 1, 2, 3]
    (times,) = found.steps.values()
    assert len(times.ends) == 3


def test_k_is_the_largest_for_memory_and_the_mean_for_time(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    draw = draw_slice_clusters

    def noted(config: CyborgsConfig, *rest: object) -> int:
        drawn.append(config.clusters[0])
        assert config.clusters[0] == config.clusters[1]
        return draw(config, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("cyborgs.methods.cyborgs.prototypes.draw_slice_clusters", noted)
    groups: list[tuple[int, int]] = []
    build = generation_cost.build_source

    def built(recipe: Recipe, method: Cyborgs, device: torch.device, images: Images) -> object:
        groups.append(method.config.clusters)
        return build(recipe, method, device, images)

    monkeypatch.setattr(generation_cost, "build_source", built)
    measured(tiny_recipe(), photos)
    slices = 2  # of 4 images in a batch of 8
    # Warm-up and then both losses: a step with the largest, two with the mean.
    assert drawn == ([6] * slices + [4] * 2 * slices) * 2
    assert groups == [(6, 6), (4, 4)]


def test_the_largest_group_is_one_that_will_come() -> None:
    class Source:
        def groups(self, count: int, seed: int, cycle: int) -> list[object]:
            return [np.array(g) for g in ([[0, 1], [2, 3]], [[0, 3], [1, 2]])[cycle]]

    pixels = np.array([10.0, 1.0, 5.0, 8.0])
    assert generation_cost._heaviest(Source(), 0, 1, pixels) == [2, 3]  # type: ignore[arg-type]
    assert generation_cost._heaviest(Source(), 0, 2, pixels) == [0, 3]  # type: ignore[arg-type]


def test_memory_that_cannot_be_had_is_said(photos: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> object:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(Cyborgs, "training_step", fails)
    with pytest.raises(UserError, match=r"does not fit into memory.*--micro-batch"):
        measured(tiny_recipe(), photos)
    assert list(temporary.glob("cyborgs-*")) == []

    def wrong(*args: object, **kwargs: object) -> object:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Cyborgs, "training_step", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        measured(tiny_recipe(), photos)


def test_an_interruption_leaves_nothing(photos: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after = Cyborgs.after_step

    def interrupted(self: Cyborgs, progress: float) -> None:
        after(self, progress)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Cyborgs, "after_step", interrupted)
    monkeypatch.setattr("cyborgs.forecast.stopwatch.StepTimer.on_step", lambda self, trainer: None)
    with pytest.raises(Stopped):
        measured(tiny_recipe(), photos)
    assert list(temporary.glob("cyborgs-*")) == []


def test_the_disk_is_looked_at_before_anything_is_measured(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "free_bytes", lambda path: 10)
    monkeypatch.setattr(Rehearsal, "measure", lambda self: pytest.fail("measured"))
    paragraphs = dry_run(tiny_recipe(), data=photos, out=tmp_path / "run")
    assert "photos: 22" in next(paragraphs)
    with pytest.raises(UserError, match="too little room"):
        list(paragraphs)


def test_long_and_large_runs_are_advised(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Rehearsal.measure

    def slow(self: Rehearsal) -> Measured:
        return replace(measure(self), generation_seconds=1e6, peak=10**15)

    monkeypatch.setattr(Rehearsal, "measure", slow)
    text = "\n".join(dry_run(tiny_recipe(epochs=2), data=photos, out=tmp_path / "run", stream=io.StringIO()))
    assert "The run would take 12 days" in text
    assert "it may be killed" in text


@pytest.mark.slow
def test_two_processes_measure_together(photos: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(recipe_file.to_text(tiny_recipe()))
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "cyborgs", "pretrain"]
    result = subprocess.run(
        [sys.executable, *launch, str(recipe), "--data", str(photos), "--out", str(tmp_path / "run"), "--dry-run"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "2 processes, 0 loader processes each" in result.stdout
    assert result.stdout.count("Predicted from a few measured steps") == 1
    assert not (tmp_path / "run").exists()
