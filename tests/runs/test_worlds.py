"""Runs in 1, 2 and 3 processes: the same samples, the same masks of equal weights, and close ones after 20 steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cyborgs.data.scenes import write_scenes
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.store import MaskStore
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_recipe
from tests.runs import worlds
from tests.runs.launch import Ended, launch
from tests.runs.worlds import note_images

PHOTOS = 24
WORLDS = (1, 2, 3)


def recipe(epochs: int, size: int = 32) -> Recipe:
    """2 steps an epoch, masks made of the first weights and after 20 steps; a learning rate as the paper's warm-up has.

    The tiny recipe's own is many times higher: its weights move so fast that rounding alone changes masks. (In float64
    one process and two agree to 1e-13 for as long.)
    """
    base = tiny_recipe(epochs=epochs, batch_size=12)
    assert isinstance(base.method, CyborgsConfig)
    method = replace(base.method, warmup_epochs=0, refresh_every=10, cluster_every=3, slice_size=2)
    optimizer = replace(base.optimizer, lr=0.02, lr_batch=12)
    return replace(base, method=method, optimizer=optimizer, views=ViewSpec(size, 2))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes: on smooth noise clusters have no edges, and lie wherever rounding puts them."""
    return write_scenes(tmp_path_factory.mktemp("data"), PHOTOS, size=(96, 72)).photos


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[int, Path]:
    """One epoch in each number of processes."""
    found = {}
    for world in WORLDS:
        folder = tmp_path_factory.mktemp(f"world{world}")
        ended = launch(world, recipe(1), photos, folder / "out", change=note_images, args=(str(folder),))
        assert ended.codes == [0] * world, ended.said
        found[world] = folder
    return found


@pytest.fixture(scope="module")
def long_folders(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> dict[int, Path]:
    """Twenty-two steps in each number of processes, started by torchrun."""
    found = {}
    for world in WORLDS:
        folder = tmp_path_factory.mktemp(f"long{world}")
        (folder / "recipe.yaml").write_text(recipe_file.to_text(recipe(11, 64)))
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
        command = ["pretrain", str(folder / "recipe.yaml"), "--data", str(photos), "--out", str(folder / "out")]
        result = subprocess.run(
            [sys.executable, *(launcher if world > 1 else []), worlds.__file__, str(folder), *command],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        found[world] = folder
    return found


def samples(folder: Path) -> dict[tuple[int, int], list[int]]:
    """(epoch, step) -> images of the global batch, in its order."""
    parts: dict[tuple[int, int], list[tuple[int, list[int]]]] = defaultdict(list)
    for file in folder.glob("images*"):
        for epoch, step, first, images in map(json.loads, file.read_text().splitlines()):
            parts[epoch, step].append((first, images))
    return {step: [i for _, images in sorted(found) for i in images] for step, found in parts.items()}


def generation(folder: Path, number: int) -> dict[str, bytes]:
    root = folder / "out" / "masks" / f"generation-{number:04d}"
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


def agreement(a: MaskStore, b: MaskStore, groups: list[np.ndarray]) -> float:
    """Share of equal cells after the labels of each group, inside which alone they mean something, are matched."""
    equal = cells = 0
    for group in groups:
        counts = np.zeros((256, 256), np.int64)
        for index in group:
            np.add.at(counts, (a[int(index)].ravel(), b[int(index)].ravel()), 1)
        rows, columns = linear_sum_assignment(counts, maximize=True)
        equal += int(counts[rows, columns].sum())
        cells += int(counts.sum())
    return equal / cells


def losses(folder: Path) -> list[dict[str, float]]:
    lines = map(json.loads, (folder / "out" / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line]


def check_samples(folders: dict[int, Path], epochs: int) -> None:
    one = samples(folders[1])
    assert sorted(one) == [(epoch, step) for epoch in range(epochs) for step in range(2)]
    assert all(len(set(images)) == 12 for images in one.values())
    assert samples(folders[2]) == samples(folders[3]) == one


def check_first_masks(folders: dict[int, Path]) -> None:
    one = generation(folders[1], 0)
    assert one
    assert generation(folders[2], 0) == generation(folders[3], 0) == one


def test_every_step_has_the_same_samples(folders: dict[int, Path]) -> None:
    check_samples(folders, 1)


def test_equal_weights_give_equal_masks(folders: dict[int, Path]) -> None:
    check_first_masks(folders)


def test_losses_start_equal(folders: dict[int, Path]) -> None:
    """In float32; ``tests/methods/test_processes.py`` compares losses and gradients in float64."""
    one = losses(folders[1])
    for world in WORLDS[1:]:
        first = losses(folders[world])[0]
        assert first["step"] == one[0]["step"] == 1
        assert first["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_torchrun_for_twenty_steps(long_folders: dict[int, Path]) -> None:
    check_samples(long_folders, 11)
    check_first_masks(long_folders)
    groups = Bootstrap(lambda images: images, clusters=(2, 6), group_size=4).groups(PHOTOS, recipe(11).seed, 1)
    stores = {world: MaskStore(folder / "out") for world, folder in long_folders.items()}
    for world in WORLDS[1:]:
        assert stores[world].generation == 1
        assert agreement(stores[1], stores[world], groups) >= 0.99
    # The measure sees a difference: the masks of the first weights agree less.
    assert agreement(stores[1], MaskStore(long_folders[1] / "out", 0), groups) < 0.9


def refused(ended: Ended) -> str:
    assert set(ended.codes) == {1}
    assert all("Traceback" not in said for said in ended.said)
    assert all("cyborgs pretrain: " not in said for said in ended.said[1:])
    return ended.said[0]


@pytest.mark.parametrize(("size", "slices", "unit"), [(9, 3, 3), (12, 4, 4)])
def test_a_batch_that_does_not_divide_is_refused(
    photos: Path, tmp_path: Path, size: int, slices: int, unit: int
) -> None:
    base = recipe(1)
    assert isinstance(base.method, CyborgsConfig)
    odd = replace(base, batch_size=size, method=replace(base.method, slice_size=slices))
    said = refused(launch(2, odd, photos, tmp_path / "out"))
    assert f"batch_size {size} cannot be shared by 2 processes in multiples of {unit} images" in said
    assert "--batch-size" in said
    assert not (tmp_path / "out" / "recipe.yaml").exists()


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_processes_goes_on(photos: Path, tmp_path: Path, before: int, after: int) -> None:
    base = tiny_recipe(epochs=2, batch_size=8)
    out = tmp_path / "out"
    stopped = launch(before, base, photos, out, change=stop_after_one_step)
    assert set(stopped.codes) == {130}, stopped.said
    ended = launch(after, base, photos, out, "--resume")
    assert set(ended.codes) == {0}, ended.said
    counted = "2 processes now, 1 before." if after == 2 else "1 process now, 2 before."
    assert f"{counted} Samples, schedule, and masks of equal weights stay" in ended.said[0]
    assert f"no longer bit for bit that of {before}" in ended.said[0]
    assert "BatchNorm's statistics and the negatives are those of all processes together, as before." in ended.said[0]
    assert [line["step"] for line in losses(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_micro_batches_are_told_of(photos: Path, tmp_path: Path) -> None:
    base = tiny_recipe(epochs=1, batch_size=8, micro_batch=4)
    out = tmp_path / "out"
    assert set(launch(2, base, photos, out, change=stop_after_one_step).codes) == {130}
    ended = launch(1, base, photos, out, "--resume")
    assert "a micro-batch's, are those of 4 images at once, 8 before." in ended.said[0]


def stop_after_one_step(rank: int) -> None:
    """As from code, on all processes."""
    from cyborgs.runs.processes import ProcessLayout

    ProcessLayout.on_step = lambda self, trainer: trainer.stop()  # type: ignore[method-assign]
