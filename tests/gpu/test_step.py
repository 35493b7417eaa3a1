"""What only a GPU shows: ``pytest -m gpu``. Each helper also runs on a CPU, in ``test_the_helpers_run_on_a_cpu``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from cyborgs.engine.accumulate import Gradients
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.methods.method import Method
from cyborgs.ops import batched_kmeans
from cyborgs.recipes import RECIPES
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan, StepSeed
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.contract import make_batch
from tests.waits import waits

gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
DEVICES = [pytest.param("cuda", marks=[gpu, needs_gpu])]
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
TINY = {"cyborgs": tiny_recipe(views=ViewSpec(64, 2)), "byol": tiny_byol(views=ViewSpec(64, 2))}


def plans(recipe: Recipe) -> list[EpochPlan]:
    """One plan of each kind of epoch."""
    every = [recipe.method.plan(epoch) for epoch in range(recipe.epochs)]
    return list({tuple(plan.losses): plan for plan in every}.values())


def stepper(recipe: Recipe, device: str, precision: str, images: int = 8) -> tuple[Method, Callable[[EpochPlan], Any]]:
    """A method on the device, and a whole unlogged step of the optimiser; it returns the loss, still there."""
    method = build_method(recipe).train()
    if precision == "bf16":
        method.to(memory_format=torch.channels_last)
    optimizer = build_optimizer(recipe.optimizer, parameter_groups(method, recipe.optimizer), 0.1)
    fabric = Fabric(accelerator=device, devices=1, precision=PRECISIONS[precision])  # type: ignore[arg-type]
    module, wrapped = fabric.setup(method, optimizer)
    gradients = Gradients(fabric, module, method)
    size = recipe.views.size
    batch = make_batch(images, size, recipe.views.grid or size // 32).to(device)

    def step(plan: EpochPlan) -> torch.Tensor:
        values = gradients([batch], plan, StepSeed(0, plan.epoch, 0), False)
        wrapped.step()
        wrapped.zero_grad(set_to_none=True)
        method.after_step(0.5)
        return values["loss"]

    return method, step


def state_after_steps(recipe: Recipe, device: str, precision: str) -> list[torch.Tensor]:
    """All weights and buffers after two steps of each kind."""
    method, step = stepper(recipe, device, precision)
    for plan in plans(recipe):
        step(plan)
        step(plan)
    return [tensor.clone() for tensor in method.state_dict().values()]


def check_equal_runs(recipe: Recipe, device: str, precision: str) -> None:
    first, second = (state_after_steps(recipe, device, precision) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def check_memory_format(recipe: Recipe, device: str, images: int = 8) -> None:
    method, step = stepper(recipe, device, "bf16", images)
    for plan in plans(recipe):
        step(plan)
    weights = [p for p in method.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
    pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8, device=device).to(memory_format=torch.channels_last)
    with torch.autocast(device, torch.bfloat16):
        maps = method.backbone(method.backbone.normalise(pixels))
    for m in maps.values():
        assert min(m.shape[1:]) == 1 or m.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_step_of_each_recipe(name: str, precision: str, device: str) -> None:
    recipe = RECIPES[name]()
    recipe = replace(recipe, backbone=replace(recipe.backbone, init=""), batch_size=8)
    _, step = stepper(recipe, device, precision)
    for plan in plans(recipe):
        assert bool(torch.isfinite(step(plan)))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TINY)
def test_no_synchronisation_in_a_step(name: str, precision: str, device: str) -> None:
    _, step = stepper(TINY[name], device, precision)
    for plan in plans(TINY[name]):
        for _ in range(2):  # the first ones make what later ones find
            step(plan)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(plan)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TINY)
def test_memory_format_is_kept(name: str, device: str) -> None:
    check_memory_format(TINY[name], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", TINY)
@pytest.mark.usefixtures("deterministic")
def test_two_runs_are_equal_with_deterministic_algorithms(name: str, precision: str, device: str) -> None:
    check_equal_runs(TINY[name], device, precision)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TINY)
def test_two_runs_are_equal(name: str, device: str) -> None:
    """cuDNN chooses among its algorithms by rule, not by trying, unless it is told to benchmark."""
    check_equal_runs(TINY[name], device, "fp32")


@pytest.mark.parametrize("name", TINY)
def test_the_helpers_run_on_a_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_kmeans, "may_read", lambda x: False)  # on a CPU it looks at values, to stop early
    recipe = TINY[name]
    _, step = stepper(recipe, "cpu", "bf16", 4)
    for plan in plans(recipe):
        step(plan)
        with waits() as found:
            assert step(plan).ndim == 0
        assert found == []
    check_memory_format(recipe, "cpu", 4)
    check_equal_runs(recipe, "cpu", "fp32")
