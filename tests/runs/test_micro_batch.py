"""micro_batch auto: the run is the one with that number given; memory that is simulated decides."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from lightning_fabric import Fabric

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.machine import memory
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.models.backbone import Backbone
from cyborgs.runs import micro_batch as fit
from cyborgs.runs import recipe_file
from cyborgs.runs.build import Features, build_method
from cyborgs.runs.devices import make_fabric
from cyborgs.runs.micro_batch import find_micro_batch, micro_batches, most_expensive_plans
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import StepSeed
from cyborgs.views.micro_batches import made_up_batch
from tests.conftest import make_photos, tiny_byol, tiny_recipe
from tests.runs.test_pretrain import DieAt, StopAt, results, run

Patch = pytest.MonkeyPatch


def limit(
    monkeypatch: Patch, images: int, error: Callable[[], Exception] = lambda: torch.OutOfMemoryError("full")
) -> list[int]:
    """Networks that run out of memory above so many images; the sizes that were asked for."""
    asked: list[int] = []
    forward = Backbone.forward

    def limited(self: Backbone, x: torch.Tensor, layers: Any = None) -> Any:
        asked.append(len(x))
        if len(x) > images:
            raise error()
        return forward(self, x, layers)

    monkeypatch.setattr(Backbone, "forward", limited)
    return asked


def images_of(photos: Path) -> Images:
    return ScannedImages.from_scan(scan(list_images(photos)))


def find(recipe: Recipe, photos: Path) -> int:
    return find_micro_batch(Fabric(accelerator="cpu", devices=1), build_method(recipe), recipe, images_of(photos))


@pytest.mark.parametrize("negatives", ["micro", "global"])
def test_a_run_is_the_one_with_that_number_given(
    negatives: Any, photos: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    recipe = tiny_recipe(epochs=3, negatives=negatives)
    run(replace(recipe, micro_batch=4), photos, tmp_path / "given")
    limit(monkeypatch, 4)
    said = run(replace(recipe, micro_batch="auto"), photos, tmp_path / "found")
    assert "micro_batch: 4 images of a process fit in memory at once." in said
    ours, theirs = results(tmp_path / "found"), results(tmp_path / "given")
    assert ours["metrics"][0] == {"step": 0, "epoch": 0, "micro_batch": 4}  # type: ignore[index]
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == value, name
    assert (tmp_path / "found" / "recipe.yaml").read_bytes() == (tmp_path / "given" / "recipe.yaml").read_bytes()


@pytest.mark.parametrize("stop", [StopAt(step=3), DieAt(step=1)], ids=["checkpoint", "no checkpoint"])
def test_a_resumed_run_keeps_the_choice(stop: StopAt, photos: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(epochs=2, micro_batch="auto")
    with pytest.MonkeyPatch.context() as patch:
        limit(patch, 4)
        run(recipe, photos, tmp_path / "whole")
        with pytest.raises((Stopped, DieAt.Died)):
            run(recipe, photos, tmp_path / "run", callbacks=(stop,))
    said = run(recipe, photos, tmp_path / "run", resume=True)  # with more memory than before
    assert "fit in memory" not in said
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    with pytest.raises(UserError, match="micro_batch: 4 -> 8"):
        run(replace(recipe, micro_batch=8), photos, tmp_path / "run", resume=True)


def test_sizes_divide_the_share_and_are_whole_slices() -> None:
    assert micro_batches(tiny_recipe(batch_size=48), 48) == [48, 24, 16, 12, 8, 4]
    assert micro_batches(tiny_recipe(batch_size=48), 12) == [12, 4]
    assert micro_batches(tiny_byol(batch_size=6), 6) == [6, 3, 2]
    assert micro_batches(tiny_byol(batch_size=1), 1) == [1]


def test_the_dearest_steps_are_tried() -> None:
    def losses(**changes: Any) -> list[set[str]]:
        recipe = tiny_recipe()
        return [set(p.losses) for p in most_expensive_plans(replace(recipe, method=replace(recipe.method, **changes)))]

    assert losses() == [{"contrast", "cluster"}]
    assert losses(cluster_every=0) == [{"cluster"}, {"contrast"}]
    method = build_method(tiny_recipe()).train()
    batch = made_up_batch(tiny_recipe(batch_size=4).views, 4)
    figures = method.training_step(batch, most_expensive_plans(tiny_recipe())[0], StepSeed(0, 0, 0)).metrics
    assert figures["contrast/regions"] == 4  # all cells of the grid
    assert figures["contrast/matched"] == 4 / 16


def test_the_largest_k_and_nothing_else_is_drawn(photos: Path, monkeypatch: Patch) -> None:
    import cyborgs.masks.bootstrap as masks
    import cyborgs.methods.cyborgs.prototypes as step

    drawn: dict[str, set[int]] = {"step": set(), "masks": set()}
    batched, single = step.batched_kmeans, masks.spherical_kmeans

    def in_step(x: torch.Tensor, k: list[int], *args: Any, **options: Any) -> Any:
        drawn["step"].update(k)
        return batched(x, k, *args, **options)

    def in_masks(x: torch.Tensor, k: int, **options: Any) -> Any:
        drawn["masks"].add(k)
        return single(x, k, **options)

    monkeypatch.setattr(step, "batched_kmeans", in_step)
    monkeypatch.setattr(masks, "spherical_kmeans", in_masks)
    find(tiny_recipe(), photos)
    assert drawn == {"step": {6}, "masks": {6}}


def test_it_leaves_no_trace(photos: Path, monkeypatch: Patch) -> None:
    limit(monkeypatch, 4)
    recipe = tiny_recipe()
    method = build_method(recipe)
    assert isinstance(method, Cyborgs)
    before = {n: t.clone() for n, t in method.state_dict().items()}
    config, generator = method.config, torch.get_rng_state()
    assert find_micro_batch(Fabric(accelerator="cpu", devices=1), method, recipe, images_of(photos)) == 4
    assert all(torch.equal(t, before[n]) for n, t in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert method.config is config


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_running_out_is_recognised(error: Exception) -> None:
    assert memory.out_of_memory(error)
    assert not memory.out_of_memory(ValueError(str(error)))


def test_a_method_without_slices_takes_any_divisor(photos: Path, monkeypatch: Patch) -> None:
    asked = limit(monkeypatch, 3, MemoryError)
    assert find(tiny_byol(batch_size=6), photos) == 3
    assert max(asked) == 6


def test_other_errors_are_not_taken_for_it(photos: Path, monkeypatch: Patch) -> None:
    limit(monkeypatch, 2, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        find(tiny_byol(), photos)


def test_what_never_fits_is_said(photos: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        limit(patch, 3)
        with pytest.raises(UserError, match=r"micro_batch: the smallest possible, 4 images at once, does not fit"):
            run(tiny_recipe(micro_batch="auto"), photos, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()

    def full(self: Features, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[2:] == (48, 64)  # the largest of two sizes
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Features, "__call__", full)
    with pytest.raises(UserError, match=r"masks of the 4 largest photos does not fit.*masks\.short_side"):
        run(tiny_recipe(micro_batch="auto"), photos, tmp_path / "run")
    monkeypatch.undo()
    assert "is written" in run(tiny_recipe(micro_batch="auto", epochs=1), photos, tmp_path / "run")


@pytest.mark.parametrize(
    ("free", "expected", "tried"),
    [
        (10**6, 48, [4, 4, 8, 48]),  # everything fits: after two small ones the largest at once
        (1200, 24, [4, 4, 8, 24]),  # 0.9 * 1200 = 1080: 24 -> 840, 48 -> 1560
        (500, 12, [4, 4, 8, 12]),  # 450: 12 -> 480 would not fit, were the constant part not in the base
        (380, 8, [4, 4, 8]),  # 342
        (100, 4, [4, 4]),
    ],
)
def test_on_a_cpu_two_small_steps_predict(
    free: int, expected: int, tried: list[int], photos: Path, monkeypatch: Patch
) -> None:
    """A step of n images peaks at 30 n beyond what was there; (12 -> 360, 24 -> 720, 48 -> 1440)."""
    sizes: list[int] = []

    def step(self: fit._Trial, size: int) -> None:
        sizes.append(size)

    monkeypatch.setattr(fit._Trial, "_step", step)
    monkeypatch.setattr(memory, "resident", lambda: 10_000)
    monkeypatch.setattr(memory, "available", lambda: free)
    monkeypatch.setattr(memory, "peak", lambda: 10_000 + 30 * sizes[-1])
    recipe = tiny_recipe(batch_size=48, masks=replace(tiny_recipe().masks, source="grid"))
    assert find(recipe, photos) == expected
    assert sizes == tried


@pytest.mark.parametrize(("free", "fits"), [(10_000, True), (450, True), (400, False)])
def test_on_a_cpu_half_a_group_predicts_the_masks(free: int, fits: bool, photos: Path, monkeypatch: Patch) -> None:
    counts: list[int] = []

    def label(self: Any, pictures: list[np.ndarray], *_: int) -> list[Any]:
        counts.append(len(pictures))
        return []

    monkeypatch.setattr("cyborgs.masks.bootstrap.Bootstrap.label", label)
    monkeypatch.setattr(fit._Trial, "_step", lambda self, size: None)
    monkeypatch.setattr(memory, "resident", lambda: 0)
    monkeypatch.setattr(memory, "available", lambda: free)
    monkeypatch.setattr(memory, "peak", lambda: 100 * counts[-1] if counts else 0)  # 400 for the group of 4
    if fits:
        assert find(tiny_recipe(), photos) == 8
        assert counts == [1, 2, 4]
    else:
        with pytest.raises(UserError, match=r"masks\.group_size"):
            find(tiny_recipe(), photos)
        assert counts == [1, 2]


def test_a_step_without_memory_says_what_helps(photos: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    limit(monkeypatch, 4)
    with pytest.raises(UserError, match=r"memory ran out at step 0: full\. .*--micro-batch auto"):
        run(tiny_byol(), photos, tmp_path / "run")


def test_available_memory_minds_control_groups(tmp_path: Path) -> None:
    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert memory.available(tmp_path) is None
    write("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:   8000 kB\n")
    write("proc/self/cgroup", "0::/user/job\n")
    assert memory.available(tmp_path) == 8000 * 1024
    for group, most in (("user", "1000000"), ("user/job", "max")):
        write(f"sys/fs/cgroup/{group}/memory.max", f"{most}\n")
        write(f"sys/fs/cgroup/{group}/memory.current", "400000\n")
        write(f"sys/fs/cgroup/{group}/memory.stat", "anon 300000\ninactive_file 50000\n")
    assert memory.available(tmp_path) == 650_000
    write("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/docker/abc\n")  # version 1, seen from inside a container
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "700000")
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "200000")
    write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1000")
    assert memory.available(tmp_path) == 501_000


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_the_peak_is_measured_anew() -> None:
    first = np.ones(40_000_000)  # 320 MB
    del first
    assert memory.forget_peak()
    before = memory.resident()
    second = np.ones(10_000_000)
    del second
    assert before is not None
    assert 70e6 < memory.peak() - before < 120e6


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", RANK=str(rank),
        LOCAL_RANK=str(rank), GROUP_RANK="0", TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    recipe = tiny_recipe(batch_size=16, negatives="global")
    fabric = make_fabric(recipe)
    if rank == 1:
        limit(pytest.MonkeyPatch(), 4)  # one of the two is short of memory, in the middle of what both would sum
    method = build_method(recipe, 2)
    found = find_micro_batch(fabric, method, recipe, images_of(Path(folder) / "photos"))
    (Path(folder) / f"{rank}.txt").write_text(str(found))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_processes_agree_and_none_waits_for_one_that_failed(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["4", "4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("micro_batch: many", r"micro_batch: need auto or a whole number, got 'many'"),
        ("micro_batch: 3", r"micro_batch: need auto, 0 .* or a divisor of batch_size 64, got 3"),
        ("micro_batch: -8", r"micro_batch: need auto, 0 .* or a divisor of batch_size 64, got -8"),
        ("micro_batch: 4", r"micro_batch: need a multiple of method.slice_size 8, got 4"),
        ("negatives: all", r"'micro', 'global'.*negatives"),
    ],
)
def test_a_wrong_setting_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        recipe_file.load(path)
