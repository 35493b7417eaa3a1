"""What every method must do: a newcomer inherits it by one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cyborgs.methods.method import Method
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import Batch, EpochPlan, StepOutput, StepSeed, View, ViewGeometry


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


class MethodContract:
    """Subclasses give ``recipe``; its method steps, reaches all that is trained, and keeps all its state."""

    recipe: Recipe

    @pytest.fixture
    def method(self) -> Method:
        method = build_method(self.recipe).train()
        torch.manual_seed(2)
        with torch.no_grad():  # some networks start with residual branches at zero, where no gradient passes
            for parameter in method.backbone.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return method

    def plans(self) -> list[EpochPlan]:
        """Plans that differ in their losses."""
        config = self.recipe.method
        return list({tuple(config.plan(e).losses): config.plan(e) for e in range(self.recipe.epochs)}.values())

    def step(self, method: Method, plan: EpochPlan, batch: Batch | None = None) -> StepOutput:
        return method.training_step(batch or make_batch(), plan, StepSeed(0, plan.epoch, 0))

    def test_gives_the_planned_losses_and_no_others(self, method: Method) -> None:
        for plan in self.plans():
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
        for plan in self.plans():
            method.zero_grad()
            sum(self.step(method, plan).losses.values()).backward()  # type: ignore[union-attr]
            reached |= {n for n, p in method.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        trained = {n for n, p in method.named_parameters() if p.requires_grad}
        assert trained - reached == set()
        assert not any("target" in name for name in trained)

    def test_the_same_seed_gives_the_same_step(self) -> None:
        plan = self.plans()[-1]
        first, second = (self.step(build_method(self.recipe).train(), plan) for _ in range(2))
        for name, loss in first.losses.items():
            assert torch.equal(loss, second.losses[name])

    def test_the_target_moves_after_the_step_alone(self, method: Method) -> None:
        def target() -> list[torch.Tensor]:
            return [p.clone() for n, p in method.named_parameters() if "target" in n]

        before = target()
        self.step(method, self.plans()[-1])
        assert all(torch.equal(a, b) for a, b in zip(before, target(), strict=True))
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.requires_grad:
                    parameter.add_(1.0)
        method.after_step(0.5)
        assert not any(torch.equal(a, b) for a, b in zip(before, target(), strict=True))

    def test_all_state_is_in_the_state_dict(self, method: Method) -> None:
        plan = self.plans()[-1]
        self.step(method, plan)
        method.after_step(0.1)
        other = build_method(replace(self.recipe, seed=1)).train()
        other.load_state_dict(method.state_dict())
        first, second = self.step(method, plan), self.step(other, plan)
        for name, loss in first.losses.items():
            assert torch.equal(loss, second.losses[name])
