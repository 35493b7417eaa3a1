"""What every method must do: a newcomer inherits it by one line."""

from __future__ import annotations

import io
import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cyborgs import distributed
from cyborgs.api import report
from cyborgs.data.images import Images
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.engine.accumulate import Gradients
from cyborgs.forecast.dry_run import dry_run
from cyborgs.methods.method import JointMethod, Method
from cyborgs.methods.registry import method_class, name_of, settings_of
from cyborgs.models.backbone import Backbone
from cyborgs.runs import recipe_file
from cyborgs.runs.build import build_method
from cyborgs.runs.micro_batch import find_micro_batch, made_up_batch, micro_batches
from cyborgs.runs.pretrain import Run
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.workload import workload
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, StepWork, View, ViewGeometry
from tests.conftest import make_photos
from tests.runs.launch import CONTEXT
from tests.runs.test_pretrain import StopAt, results, run


def make_batch(images: int = 4, size: int = 32, grid: int = 2, seed: int = 0, labels: int = 3, first: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(2):
        geometry = ViewGeometry.stack(
            [
                ViewGeometry(int(rng.integers(8)), int(rng.integers(8)), 40, 40, bool(rng.integers(2)), 48, 48)
                for _ in range(images)
            ]
        )
        pixels = torch.from_numpy(rng.integers(0, 256, (images, 3, size, size), dtype=np.uint8))
        views.append(
            View(pixels, geometry, torch.from_numpy(rng.integers(0, labels, (images, grid, grid), dtype=np.uint8)))
        )
    order = torch.from_numpy(np.stack([rng.permutation(256).astype(np.uint8) for _ in range(images)]))
    return Batch(tuple(views), torch.arange(images), first, order)


def make_double(method: Method) -> Method:
    """Networks and pixels in float64, where rounding does not hide a mistake."""
    method.double()
    method.backbone.normalise = lambda x: x.double() / 128 - 1  # type: ignore[method-assign]
    return method


def plans_of(recipe: Recipe) -> list[EpochPlan]:
    """Plans that differ in their losses."""
    plans = map(recipe.method.plan, range(recipe.epochs))
    return list({tuple(plan.losses): plan for plan in plans}.values())


def accumulated(
    method: Method, parts: Sequence[Batch], plan: EpochPlan, negatives: Literal["micro", "global"]
) -> dict[str, Tensor]:
    """Gradients and losses of a step in parts."""
    method.zero_grad()
    fabric = Fabric(accelerator="cpu", devices=1)
    work = Gradients(fabric, fabric.setup_module(method), method, negatives)
    values = work(parts, plan, StepSeed(0, plan.epoch, 1), False)
    losses = {name: value for name, value in values.items() if name.startswith("loss")}
    return losses | {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


def measure_processes(recipe: Recipe, images: int, world: int, rank: int) -> dict[str, Tensor]:
    """Losses, gradients and running statistics of one step of each plan, of this process's part of a batch."""
    found: dict[str, Tensor] = {}
    batch = made_up_batch(recipe.views, images)
    share = images // world
    for number, plan in enumerate(plans_of(recipe)):
        method = make_double(build_method(recipe, world)).train()
        wrapped = DistributedDataParallel(method, find_unused_parameters=True) if world > 1 else method
        work = StepWork(batch[rank * share : (rank + 1) * share], plan, StepSeed(0, plan.epoch, 0))
        losses, _ = wrapped(work)
        sum(weight * losses[name] for name, weight in plan.losses.items()).backward()
        for name, loss in losses.items():
            found[f"{number}/{name}"] = distributed.all_reduce_sum(loss.detach().reshape(1)) / world
        grads = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
        running = {name: buffer for name, buffer in method.named_buffers() if "running" in name}
        found |= {f"{number}/{name}": value for name, value in (grads | running).items()}
    return found


def _process(rank: int, world: int, port: int, folder: str, recipe: Recipe, images: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(measure_processes(recipe, images, world, rank), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


class MethodContract:
    """Subclasses give ``recipe``, whose batch is at least 8: all that every method must do, from its plan to its report."""

    recipe: Recipe

    @pytest.fixture
    def method(self) -> Method:
        method = build_method(self.recipe).train()
        torch.manual_seed(2)
        with torch.no_grad():  # some networks start with residual branches at zero, where no gradient passes
            for parameter in method.backbone.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return method

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        """(photos, folder) of a run that nobody stopped."""
        folder = tmp_path_factory.mktemp("whole")
        photos = make_photos(folder / "photos")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
            run(cls.recipe, photos, folder / "run")
        return photos, folder / "run"

    def batch(self) -> Batch:
        return made_up_batch(self.recipe.views, self.recipe.batch_size)

    def step(self, method: Method, plan: EpochPlan, batch: Batch | None = None) -> StepOutput:
        return method.training_step(batch or self.batch(), plan, StepSeed(0, plan.epoch, 0))

    def test_is_found_by_its_name(self) -> None:
        name = name_of(self.recipe.method)
        assert settings_of(name) is type(self.recipe.method)
        assert type(build_method(self.recipe)) is method_class(name)

    def test_settings_load_no_torch(self) -> None:
        module = type(self.recipe.method).__module__
        code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0

    def test_settings_survive_recipe_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "recipe.yaml").write_text(recipe_file.to_text(self.recipe))
        assert recipe_file.load(tmp_path / "recipe.yaml") == self.recipe

    def test_plans_agree_with_what_the_settings_ask_for(self) -> None:
        config = self.recipe.method
        for epoch in range(self.recipe.epochs):
            plan = config.plan(epoch)
            assert plan == config.plan(epoch)
            assert plan.epoch == epoch
            assert plan.losses
            assert all(weight > 0 for weight in plan.losses.values())
            assert set(plan.refresh) <= set(config.artefacts)
            assert set(plan.rides) <= {"labels" if name == "masks" else name for name in config.artefacts}
        assert config.resolved(7).resolved(3) == config.resolved(7)
        assert config.default_views().crops
        assert config.default_optimizer().lr > 0
        for fixed in (config.most_expensive(), config.most_expensive(quick=True), config.typical()):
            assert [fixed.plan(e) for e in range(9)] == [config.plan(e) for e in range(9)]

    def test_gives_the_planned_losses_and_no_others(self, method: Method) -> None:
        for plan in plans_of(self.recipe):
            output = self.step(method, plan)
            assert set(output.losses) == set(plan.losses)
            for loss in output.losses.values():
                assert loss.ndim == 0
                assert torch.isfinite(loss)
                assert loss.requires_grad
            for figure in output.metrics.values():
                assert figure.ndim == 0
                assert not figure.requires_grad

    def test_gradients_reach_all_but_the_target(self, method: Method) -> None:
        reached: set[str] = set()
        for plan in plans_of(self.recipe):
            method.zero_grad()
            sum(self.step(method, plan).losses.values()).backward()  # type: ignore[union-attr]
            reached |= {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        trained = {n for n, p in method.named_parameters() if p.requires_grad}
        assert trained - reached == set()
        assert not any("target" in name for name in trained)

    def test_the_same_seed_gives_the_same_step(self) -> None:
        plan = plans_of(self.recipe)[-1]
        first, second = (self.step(build_method(self.recipe).train(), plan) for _ in range(2))
        for name, loss in first.losses.items():
            assert torch.equal(loss, second.losses[name])

    def test_the_target_moves_after_the_step_alone(self, method: Method) -> None:
        def target() -> list[torch.Tensor]:
            return [p.clone() for n, p in method.named_parameters() if "target" in n]

        before = target()
        self.step(method, plans_of(self.recipe)[-1])
        assert all(torch.equal(a, b) for a, b in zip(before, target(), strict=True))
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.requires_grad:
                    parameter.add_(1.0)
        method.after_step(0.5)
        assert not any(torch.equal(a, b) for a, b in zip(before, target(), strict=True))

    def test_all_state_is_in_the_state_dict(self, method: Method) -> None:
        plan = plans_of(self.recipe)[-1]
        self.step(method, plan)
        method.after_step(0.1)
        other = build_method(replace(self.recipe, seed=1)).train()
        other.load_state_dict(method.state_dict())
        first, second = self.step(method, plan), self.step(other, plan)
        for name, loss in first.losses.items():
            assert torch.equal(loss, second.losses[name])

    def test_micro_batches_have_the_gradients_of_the_whole(self, method: Method) -> None:
        """In eval mode: BatchNorm of a micro-batch has its own statistics."""
        config, batch = self.recipe.method, self.batch()
        size = micro_batches(self.recipe, len(batch))[1]
        parts = [batch[start : start + size] for start in range(0, len(batch), size)]
        make_double(method).eval()
        for plan in plans_of(self.recipe):
            found = accumulated(method, parts, plan, "global" if config.has_negatives else "micro")
            expected = accumulated(method, [batch], plan, "micro")
            assert found.keys() == expected.keys()
            if config.has_negatives and not isinstance(method, JointMethod):
                continue  # each micro-batch has the negatives of its own images
            for name, value in expected.items():
                limit = 1e-8 * max(1e-3, float(value.abs().max()))
                torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")

    def test_two_processes_have_losses_and_gradients_of_one(self, tmp_path: Path) -> None:
        if self.recipe.method.batchnorm != "sync":
            pytest.skip("BatchNorm of each process has its own statistics")
        images = self.recipe.batch_size
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (2, port, str(tmp_path), self.recipe, images)
        processes = [CONTEXT.Process(target=_process, args=(rank, *arguments)) for rank in range(2)]
        for process in processes:
            process.start()
        one = measure_processes(self.recipe, images, 1, 0)
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0, 0]
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
            assert found.keys() == one.keys()
            for name, value in one.items():
                limit = 1e-5 * max(1e-3, float(value.abs().max()))
                torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")

    def test_a_micro_batch_that_fits_is_found(
        self, method: Method, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The network runs out of memory above what the smallest micro-batch needs; weights are left as they were."""
        images = Images.from_scan(scan(list_images(photos)))
        sizes = micro_batches(self.recipe, self.recipe.batch_size)
        forward, asked, most = Backbone.forward, [0], 10**9

        def limited(backbone: Backbone, x: Tensor, layers: Any = None) -> Any:
            asked.append(len(x))
            if len(x) > most:
                raise torch.OutOfMemoryError("full")
            return forward(backbone, x, layers)

        monkeypatch.setattr(Backbone, "forward", limited)
        for plan in plans_of(self.recipe):
            self.step(method, plan, self.batch()[: sizes[-1]])
        before = {name: value.clone() for name, value in method.state_dict().items()}
        fabric, most = Fabric(accelerator="cpu", devices=1), max(asked)
        assert find_micro_batch(fabric, method, self.recipe, images) == sizes[-1]
        after = method.state_dict()
        assert all(torch.equal(value, after[name]) for name, value in before.items())

    def test_a_dry_run_foresees_each_kind_of_epoch(self, photos: Path, tmp_path: Path) -> None:
        text = "\n".join(dry_run(self.recipe, data=photos, out=tmp_path / "run", stream=io.StringIO()))
        for kind in workload(self.recipe.resolved(22), 22).epochs:
            assert str(kind) in text
        assert "Predicted from a few measured steps" in text
        assert not (tmp_path / "run").exists()

    def test_resumed_equals_uninterrupted(self, whole: tuple[Path, Path], tmp_path: Path) -> None:
        photos, folder = whole
        steps = self.recipe.epochs * self.recipe.steps_per_epoch(22)
        run_until = StopAt(step=steps // 2 + 1)
        with pytest.raises(Exception, match=str(steps // 2 + 1)):
            run(self.recipe, photos, tmp_path / "run", callbacks=(run_until,))
        run(self.recipe, photos, tmp_path / "run", resume=True)
        ours, theirs = results(tmp_path / "run"), results(folder)
        assert ours.keys() == theirs.keys()
        assert [name for name, value in theirs.items() if ours[name] != value] == []

    def test_health_has_its_figures(self, whole: tuple[Path, Path]) -> None:
        lines = [line for line in Run(whole[1]).metrics if "loss" in line]
        assert lines
        for line in lines:
            plan = self.recipe.method.plan(line["epoch"])
            assert {"gradient/norm", "update/ratio", *(f"loss/{name}" for name in plan.losses)} <= line.keys()
            assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))
        assert any("embed/std_online" in line for line in lines), "nobody would see a collapse"

    def test_its_run_is_reported(self, whole: tuple[Path, Path], tmp_path: Path) -> None:
        page = report(whole[1], data=whole[0], out=tmp_path / "report.html").read_text()
        assert "<svg" in page
        assert name_of(self.recipe.method) in page
