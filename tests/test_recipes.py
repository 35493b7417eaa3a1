"""Every shipped recipe builds and makes a step of each kind, at tiny sizes; the paper's settings are the paper's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.engine.schedule import learning_rate
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.recipes import RECIPES
from cyborgs.runs.build import build_method
from cyborgs.structures import EpochPlan, StepSeed
from cyborgs.views.config import Crop, ViewSpec
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.contract import make_batch


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_builds_and_steps(name: str) -> None:
    recipe = RECIPES[name]()
    recipe = replace(recipe, views=ViewSpec(32, 2), batch_size=8, method=replace(recipe.method, hidden=64)).resolved(80)
    method = build_method(recipe).train()
    optimizer = build_optimizer(recipe.optimizer, parameter_groups(method, recipe.optimizer), recipe.optimizer.lr)
    plans = {tuple(p.losses): p for p in (recipe.method.plan(e) for e in range(recipe.epochs))}
    for step, plan in enumerate(plans.values()):
        losses = method.training_step(make_batch(8, 32), plan, StepSeed(0, plan.epoch, step)).losses
        total = sum(weight * losses[loss] for loss, weight in plan.losses.items())
        assert torch.isfinite(total)
        total.backward()
        before = next(method.backbone.parameters()).clone()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.optimizer, step, 10, recipe.epochs, recipe.batch_size)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0.5)
        assert not torch.equal(before, next(method.backbone.parameters()))


def test_convnext_steps_too() -> None:
    """Layers by their strides, clustered layer the last block at stride 8, head dropped."""
    recipe = RECIPES["small"]()
    recipe = replace(
        recipe,
        backbone=BackboneConfig(name="convnext_tiny"),
        views=ViewSpec(64, 2),
        method=replace(recipe.method, hidden=64),
    )
    method = build_method(recipe).train()
    plan = EpochPlan(5, (), {"contrast": 1.0, "cluster": 0.1})
    losses = method.training_step(make_batch(8, 64), plan, StepSeed(0, 5, 0)).losses
    sum(losses.values()).backward()  # type: ignore[union-attr]
    trained = {n for n, p in method.backbone.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert len(trained) > 0.9 * len(list(method.backbone.parameters()))


def test_the_papers_settings() -> None:
    recipe = RECIPES["cyborgs-coco"]()
    method, optimizer = recipe.method, recipe.optimizer
    assert isinstance(method, CyborgsConfig)
    assert (recipe.backbone.name, recipe.epochs, recipe.batch_size, recipe.views.size) == ("resnet50", 800, 64, 224)
    assert (method.warmup_epochs, method.refresh_every, method.cluster_every, method.cluster_weight) == (5, 100, 5, 0.1)
    assert (method.clusters, method.warmup_clusters, method.kappa, method.momentum) == ((2, 256), 8, 10.0, 0.996)
    assert (method.regions, method.temperature, recipe.views.grid, recipe.masks.group_size) == (16, 0.1, 7, 16)
    assert (optimizer.kind, optimizer.lr, optimizer.lr_batch, optimizer.weight_decay) == ("lars", 0.1, 64, 1.5e-6)


def test_parameter_counts_of_the_heads() -> None:
    recipe = RECIPES["cyborgs-coco"]()
    method = build_method(recipe)
    counts = {name: sum(p.numel() for p in getattr(method, name).parameters()) for name in ("projector", "predictor")}
    assert counts == {"projector": 15_740_928, "predictor": 2_109_440}
    assert method.fused == ("layer2", "layer3", "layer4")
    assert method.clustered == ("layer2.2",)


@pytest.mark.parametrize(
    ("recipe", "change", "message"),
    [
        (tiny_byol, {"crops": (Crop(), Crop(), Crop())}, "views.crops: need two, got 3"),
        (tiny_recipe, {"crops": (Crop(),)}, "views.crops: need two, got 1"),
        (tiny_recipe, {"crops": (Crop(), Crop(size=64))}, r"views.crops.1.size: need 0 or 32, got 64"),
        (tiny_recipe, {"crops": (Crop(grid=1), Crop())}, r"views.crops.0.grid: need 0 or 2, got 1"),
        (tiny_recipe, {"crops": (Crop(), Crop(photo="neighbours"))}, r"views.crops.1.photo: need 'own'"),
    ],
)
def test_views_that_a_method_cannot_be_trained_on(recipe, change, message):  # type: ignore[no-untyped-def]
    base = recipe()
    with pytest.raises(ValueError, match=message):
        replace(base, views=replace(base.views, **change))


def test_byol_takes_views_of_two_sizes() -> None:
    base = tiny_byol()
    assert replace(base, views=replace(base.views, crops=(Crop(), Crop(size=64)))).views.crops[1].size == 64
