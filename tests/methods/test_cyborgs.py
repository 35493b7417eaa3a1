"""CYBORGS: the contract, and every setting of Table 2 changes what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cyborgs.errors import UserError
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs.build import Features, build_method, build_source
from cyborgs.structures import EpochPlan, StepSeed, View
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_recipe
from tests.methods.contract import MethodContract, make_batch

WARM = EpochPlan(0, (), {"cluster": 1.0}, "warm-up")
BOTH = EpochPlan(2, (), {"contrast": 1.0, "cluster": 0.1})
CONTRAST = EpochPlan(3, (), {"contrast": 1.0})


class TestCyborgs(MethodContract):
    recipe = tiny_recipe()


def method_with(**changes: Any) -> Cyborgs:
    recipe = tiny_recipe()
    assert isinstance(recipe.method, CyborgsConfig)
    method = build_method(replace(recipe, method=replace(recipe.method, **changes), views=ViewSpec(64, 2))).train()
    assert isinstance(method, Cyborgs)
    torch.manual_seed(1)
    with torch.no_grad():  # as after some steps: the target differs from the online network
        for parameter in method.target_backbone.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def losses(plan: EpochPlan, seed: StepSeed | None = None, **changes: Any) -> dict[str, float]:
    output = method_with(**changes).training_step(make_batch(8, 64), plan, seed or StepSeed(0, plan.epoch, 0))
    return {name: float(loss.detach()) for name, loss in output.losses.items()}


@pytest.mark.parametrize(
    ("plan", "change"),
    [
        (BOTH, {"clusters": (2, 2)}),  # Table 2e
        (BOTH, {"distance": "euclidean"}),  # Table 2f
        (BOTH, {"kappa": 5.0}),
        (BOTH, {"alignment": "none"}),
        (BOTH, {"prototypes": "paper"}),
        (BOTH, {"linked_start": True}),
        (BOTH, {"clustered_layers": ("layer2", "layer3")}),  # Table 2d
        (BOTH, {"kmeans_iterations": 1}),
        (BOTH, {"slice_size": 8}),
        (WARM, {"warmup_clusters": 3}),
        (CONTRAST, {"fused_layers": ("layer4",)}),  # Table 2c
        (CONTRAST, {"temperature": 0.5}),
        (CONTRAST, {"normalise": "matched"}),
        (CONTRAST, {"regions": 1}),
        (CONTRAST, {"embedding": 4}),
    ],
    ids=str,
)
def test_each_setting_changes_what_it_says(plan: EpochPlan, change: dict[str, Any]) -> None:
    name = "contrast" if plan is CONTRAST else "cluster"
    assert losses(plan)[name] != pytest.approx(losses(plan, **change)[name], rel=1e-6)


def test_the_warm_up_goes_no_further_than_the_clustered_layer() -> None:
    method = method_with()
    output = method.training_step(make_batch(8, 64), WARM, StepSeed(0, 0, 0))
    output.losses["cluster"].backward()
    touched = {n.split(".")[2] for n, p in method.named_parameters() if p.grad is not None and n.startswith("backbone")}
    assert "layer2" in touched
    assert not touched & {"layer3", "layer4"}
    assert all(p.grad is None for p in [*method.projector.parameters(), *method.predictor.parameters()])


def test_k_is_fixed_in_the_warm_up_and_drawn_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    import cyborgs.methods.cyborgs.prototypes as module

    drawn: list[int] = []
    real = module.batched_kmeans

    def spy(x: torch.Tensor, k: list[int], seeds: list[int], **options: Any) -> Any:
        drawn.extend(k)
        return real(x, k, seeds, **options)

    monkeypatch.setattr(module, "batched_kmeans", spy)
    method = method_with(clusters=(2, 64), warmup_clusters=5)
    for step in range(6):
        method.training_step(make_batch(8, 64), WARM, StepSeed(0, 0, step))
    assert set(drawn) == {5}
    drawn.clear()
    for step in range(6):
        method.training_step(make_batch(8, 64), BOTH, StepSeed(0, 2, step))
    assert len(drawn) == 6 * 2 * 2  # two slices, two views
    assert all(drawn[i : i + 2] == drawn[i + 2 : i + 4] for i in range(0, len(drawn), 4))  # both views alike
    assert len(set(drawn)) > 5
    # Never more than a quarter of a slice's 4 x 8 x 8 points.
    assert max(drawn) <= 64
    tight = method_with(clusters=(200, 256))
    drawn.clear()
    tight.training_step(make_batch(8, 64), BOTH, StepSeed(0, 2, 0))
    assert set(drawn) == {64}


def test_slices_depend_on_their_place_in_the_global_batch() -> None:
    """One batch of two slices is the mean of its slices computed apart, as other processes or micro-batches would."""
    batch = make_batch(8, 64)
    seed = StepSeed(0, 2, 1)
    method = method_with().eval()  # statistics of BatchNorm would differ between the parts
    whole = method.training_step(batch, WARM, seed).losses["cluster"]
    parts = [method.training_step(batch[i : i + 4], WARM, seed).losses["cluster"] for i in (0, 4)]
    values = [float(p.detach()) for p in parts]
    assert float(whole.detach()) == pytest.approx(sum(values) / 2, rel=1e-5)
    shifted = method.training_step(replace(batch[4:8], first=0), WARM, seed).losses["cluster"]
    assert float(shifted.detach()) != pytest.approx(values[1], rel=1e-6)


def test_views_with_other_regions_still_step() -> None:
    """No label in common, one region, and 256 labels."""
    for first, second in ((0, 1), (5, 5), (255, 254)):
        batch = make_batch(4, 64)
        views = tuple(
            View(v.images, v.geometry, torch.full_like(v.labels, label))
            for v, label in zip(batch.views, (first, second), strict=True)
        )
        output = method_with().training_step(replace(batch, views=views), CONTRAST, StepSeed(0, 3, 0))
        output.losses["contrast"].backward()
        assert torch.isfinite(output.losses["contrast"])
        assert (float(output.losses["contrast"].detach()) > 0) == (first == second)


def test_a_batch_of_void_alone_gives_zero() -> None:
    batch = make_batch(4, 64)
    views = tuple(View(v.images, v.geometry, torch.full_like(v.labels, 9)) for v in batch.views)
    method = method_with()
    output = method.training_step(replace(batch, views=views, void=9), CONTRAST, StepSeed(0, 3, 0))
    output.losses["contrast"].backward()
    assert float(output.losses["contrast"].detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_an_unknown_layer_lists_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"layer9.*layer2"):
        method_with(fused_layers=("layer9",))


def test_features_join_layers_at_the_finest_grid() -> None:
    method = method_with()
    backbone = method.backbone.eval()
    images = torch.randint(0, 256, (2, 3, 48, 80), dtype=torch.uint8)
    one = Features(backbone, ("layer2",), torch.device("cpu"))(images)
    two = Features(backbone, ("layer2", "layer3"), torch.device("cpu"))(images)
    assert one.shape == (2, 48, 6, 10)
    assert two.shape == (2, 48 + 192, 6, 10)
    assert torch.equal(two[:, :48], one)
    assert not one.requires_grad


def test_bootstrapping_runs_in_the_precision_of_the_run() -> None:
    method = method_with().eval()
    images = torch.randint(0, 256, (1, 3, 48, 64), dtype=torch.uint8)
    plain = build_source(tiny_recipe(), method, torch.device("cpu"))
    mixed = build_source(replace(tiny_recipe(), precision="bf16-mixed"), method, torch.device("cpu"))
    assert isinstance(plain, Bootstrap)
    assert isinstance(mixed, Bootstrap)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (layer,) = method.clustered
        expected = method.backbone(method.backbone.normalise(images), [layer])[layer]
    assert torch.equal(mixed.features(images), expected)
    assert plain.features(images).dtype == torch.float32


def test_fused_layers_alone_reach_the_contrast() -> None:
    """The loss's gradient enters the network by the named layers: layer4's weights get none from layer2 alone."""
    method = method_with(fused_layers=("layer2",))
    assert method.projector.hidden.in_features == method.backbone.widths["layer2"]
    method.training_step(make_batch(8, 64), CONTRAST, StepSeed(0, 3, 0)).losses["contrast"].backward()
    reached = {n.split(".")[2] for n, p in method.named_parameters() if p.grad is not None and n.startswith("backbone")}
    assert "layer2" in reached
    assert not reached & {"layer3", "layer4"}
    assert method_with(embedding=4).predictor.outputs.out_features == 4
