"""Runs with fixed masks: each source end to end, found by the second run, kept on resume, annotations that lack photos."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.forecast import generation_cost
from cyborgs.forecast.suitability import advise
from cyborgs.machine.cores import this_machine
from cyborgs.masks.config import FelzenszwalbConfig, MaskConfig, SelectiveSearchConfig
from cyborgs.masks.static import default_cache
from cyborgs.masks.store import MaskStore
from cyborgs.runs import recipe_file
from cyborgs.runs.build import build_method, build_source
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import generation_bytes, held_bytes
from tests.conftest import tiny_recipe
from tests.masks.test_ground_truth import FakeTruth
from tests.runs.test_pretrain import DieAt, StopAt, results, run
from tests.runs.test_several_processes import first_masks
from tests.runs.test_several_processes import run as launched

CPU = torch.device("cpu")
COLOURS = {
    "felzenszwalb": MaskConfig(source="felzenszwalb", felzenszwalb=FelzenszwalbConfig(scale=100, min_size=20)),
    "selective-search": MaskConfig(source="selective-search", selective_search=SelectiveSearchConfig(min_side=12)),
}
FREE = {"grid": MaskConfig(source="grid", grid=3), "whole": MaskConfig(source="whole")}


def regions(i: int) -> np.ndarray:
    """Of photo i of ``make_photos``, at a quarter of its size."""
    return np.arange(16 * 12 if i % 2 == 0 else 140, dtype=np.int32).reshape((12, 16) if i % 2 == 0 else (14, 10)) // 50


class Opened:
    """Stands in for what opens annotations; notes with what it was called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.missing: tuple[str, ...] = ()
        module = ModuleType("cyborgs.data.annotations.open")
        module.open_truth = self.open  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def open(self, spec: str, names: Sequence[str], root: str | Path | None = None) -> FakeTruth:
        self.calls.append((spec, list(names)))
        missing = tuple(i for i, name in enumerate(names) if name in self.missing)
        return FakeTruth(missing, {i: regions(i) for i in range(len(names))})


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


def truth(tmp_path: Path) -> MaskConfig:
    file = tmp_path / "labels.json"
    file.write_text("{}")
    return MaskConfig(source="ground-truth", truth=f"coco:{file}")


def short(masks: MaskConfig, **changes: object) -> Recipe:
    """Two epochs, the second one with loss 1."""
    return tiny_recipe(epochs=2, masks=masks, **changes)


def photos_of(folder: Path) -> Images:
    return ScannedImages.from_scan(scan(list_images(folder)))


@pytest.mark.parametrize("name", [*FREE, *COLOURS])
def test_runs_to_its_end(name: str, photos: Path, tmp_path: Path):
    masks = (FREE | COLOURS)[name]
    said = run(short(masks), photos, tmp_path / "run")
    images = photos_of(photos)
    store = MaskStore(tmp_path / "run")
    assert store.generations() == [0]
    source = build_source(short(masks), build_method(short(masks)), CPU)
    assert source is not None
    for i in (0, 1, 21):
        assert np.array_equal(store[i], source.label([images.read(i)], 0, 0, 0)[0].labels)
    assert store.manifest["source"]["source"] == name
    assert ("masks: made; kept in" in said) == (name in COLOURS)
    lines = [line for line in results(tmp_path / "run")["metrics"] if "loss/contrast" in line]  # type: ignore[attr-defined]
    assert len(lines) == 2


@pytest.mark.parametrize("name", COLOURS)
def test_the_second_run_finds_them(name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = short(COLOURS[name])
    run(recipe, photos, tmp_path / "first")

    def never(*_: object) -> None:
        raise AssertionError("made anew")

    monkeypatch.setattr("cyborgs.masks.felzenszwalb.segments", never)
    monkeypatch.setattr("cyborgs.masks.selective_search.boxes", never)
    said = run(recipe, photos, tmp_path / "second")
    source = build_source(recipe, build_method(recipe), CPU)
    assert f"masks: found in {default_cache(source, photos_of(photos))}" in said  # type: ignore[arg-type]
    first, second = results(tmp_path / "first"), results(tmp_path / "second")
    assert first.pop("metrics") == second.pop("metrics")
    assert first.keys() == second.keys()
    assert first == second


@pytest.mark.parametrize("stop", [StopAt(cycle=0), StopAt(step=3), DieAt(step=4)], ids=["masks", "step", "death"])
def test_resumed_equals_uninterrupted(stop: StopAt, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = short(COLOURS["felzenszwalb"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache0"))
    run(recipe, photos, tmp_path / "whole")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache1"))
    with pytest.raises((Stopped, DieAt.Died)):
        run(recipe, photos, tmp_path / "run", callbacks=(stop,))
    said = run(recipe, photos, tmp_path / "run", resume=True)
    # From a checkpoint that knows them they are not even looked for.
    assert ("masks: " in said) == (stop.cycle == 0)
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_annotations(photos: Path, tmp_path: Path, opened: Opened):
    images = photos_of(photos)
    names = [images.name(i) for i in range(len(images))]
    opened.missing = tuple(names[i] for i in (2, 5, 6, 9))
    recipe = short(truth(tmp_path))
    said = run(recipe, photos, tmp_path / "run")
    assert opened.calls == [(recipe.masks.truth, names)]
    told = f"masks.truth: 4 of 22 photos have no annotation ({names[2]}, {names[5]}, {names[6]}, ...)"
    assert said.count("have no annotation") == said.count(told) == 1
    store = MaskStore(tmp_path / "run")
    assert store.void == 255
    assert store[2].tolist() == [[255]]
    assert store[3].tolist() == regions(3).tolist()
    assert str(tmp_path) not in str(store.manifest)
    again = run(recipe, photos, tmp_path / "again")
    assert "masks: found in" in again
    assert again.count(told) == 1
    first, second = results(tmp_path / "run"), results(tmp_path / "again")
    assert first == second
    Path(recipe.masks.truth.partition(":")[2]).write_text("[]")
    assert "masks: made; kept in" in run(recipe, photos, tmp_path / "changed")


def test_more_regions_than_labels_are_counted(
    photos: Path, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
):
    """Photos 1 and 4 have 300 and 260: 45 and 5 too many."""
    names = [photos_of(photos).name(i) for i in range(22)]
    counts = {1: 300, 4: 260}

    def many(i: int) -> np.ndarray:
        shape = (48, 64) if i % 2 == 0 else (56, 40)
        return np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape) % counts.get(i, 255)

    monkeypatch.setitem(globals(), "regions", many)
    said = run(short(truth(tmp_path)), photos, tmp_path / "run")
    assert (
        "masks.truth: 2 of 22 photos have more than 255 regions; the smallest of them, 50 in all "
        f"({names[1]}: 45, {names[4]}: 5), are void."
    ) in said


def test_annotations_of_other_photos(photos: Path, tmp_path: Path, opened: Opened):
    images = photos_of(photos)
    opened.missing = tuple(images.name(i) for i in range(len(images)))
    with pytest.raises(UserError, match=r"masks\.truth: none of the 22 photos has an annotation"):
        run(short(truth(tmp_path)), photos, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_annotations_by_a_relative_path(photos: Path, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch):
    """Kept as an absolute one; a run whose masks are made goes on without them, from anywhere."""
    masks = truth(tmp_path)
    monkeypatch.chdir(tmp_path)
    relative = short(replace(masks, truth="coco:labels.json"))
    with pytest.raises(Stopped):
        run(relative, photos, tmp_path / "run", callbacks=(StopAt(step=3),))
    kept = recipe_file.load(tmp_path / "run" / "recipe.yaml")
    assert kept.masks.truth == masks.truth
    monkeypatch.chdir(photos)
    (tmp_path / "labels.json").unlink()
    run(kept, photos, tmp_path / "run", resume=True)
    assert len(opened.calls) == 1
    assert (tmp_path / "run" / "backbone.safetensors").exists()


def test_annotations_that_are_not_there(photos: Path, tmp_path: Path, opened: Opened):
    masks = MaskConfig(source="ground-truth", truth=f"folder:{tmp_path / 'labels'}")
    with pytest.raises(UserError, match=r"masks\.truth: .*labels: cannot be read: it is not there"):
        run(short(masks), photos, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_ground_truth_needs_photos():
    recipe = tiny_recipe(masks=MaskConfig(source="ground-truth", truth="coco:x.json"))
    with pytest.raises(UserError, match="ground-truth needs the photos"):
        build_source(recipe, build_method(recipe), CPU)


def test_bytes_and_time_beforehand(photos: Path, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch):
    images = photos_of(photos)
    every = {**COLOURS, "ground-truth": truth(tmp_path)}
    for number, (name, masks) in enumerate(every.items()):
        recipe = short(masks)
        folder = tmp_path / f"cost{number}"
        method = build_method(recipe)
        some = images.subset([0, 7, 14, 21])
        seconds, size = generation_cost.measure_generation(recipe, method, CPU, images, some, folder, 1, print)
        assert seconds > 0, name
        assert len(MaskStore(folder)) == 4
        run(recipe, photos, tmp_path / f"run{number}")
        held = held_bytes(tmp_path / f"run{number}" / "masks")
        assert 0.3 * held < size < 8 * held  # a small store has fixed bytes, which are multiplied here
        assert generation_bytes(recipe, images) > 0.3 * held
        if name != "ground-truth":  # annotations are read quickly
            folder = tmp_path / f"found{number}"
            assert generation_cost.measure_generation(recipe, method, CPU, images, some, folder, 1, print)[0] == 0


def test_slots_for_regions_that_a_source_cannot_fill():
    base = tiny_recipe()
    sizes = np.array([[480, 640]] * 100)

    def told(masks: MaskConfig) -> bool:
        recipe = replace(base, masks=masks, views=replace(base.views, size=224, grid=7))
        return any("slots for regions" in sentence for sentence in advise(recipe, sizes, this_machine()))

    assert told(MaskConfig(source="selective-search", selective_search=SelectiveSearchConfig(boxes=9)))
    assert not told(MaskConfig(source="selective-search"))
    assert not told(MaskConfig(source="felzenszwalb"))


@pytest.mark.slow
def test_two_processes_make_the_masks_of_one(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = short(COLOURS["selective-search"])
    for processes in (1, 2):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{processes}"))
        said = launched(processes, recipe, photos, tmp_path / f"run{processes}")
        assert said.count("masks: made; kept in") == 1
    assert first_masks(tmp_path / "run1") == first_masks(tmp_path / "run2")
    said = launched(2, recipe, photos, tmp_path / "again")
    assert said.count("masks: found in") == 1
    assert first_masks(tmp_path / "again") == first_masks(tmp_path / "run1")
