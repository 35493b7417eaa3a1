"""Parts of a batch: their gradients are the whole's where that is promised, and what BatchNorm and chance see."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from lightning_fabric import Fabric
from torch import Tensor, nn

from cyborgs import distributed
from cyborgs.engine.accumulate import Gradients
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs.build import build_method
from cyborgs.runs.devices import make_fabric
from cyborgs.seeds import derive
from cyborgs.structures import Batch, EpochPlan, StepSeed
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.contract import make_batch

BOTH = EpochPlan(2, (), {"contrast": 1.0, "cluster": 0.1})
CONTRAST = EpochPlan(3, (), {"contrast": 1.0})
WARM = EpochPlan(0, (), {"cluster": 1.0}, "warm-up")
IMAGES = 16


class RowNorm(nn.GroupNorm):
    """GroupNorm in a head, whose norm gets a weight per row that it has no use for."""

    def forward(self, x: torch.Tensor, row_weight: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x)


def each_image_by_itself(module: nn.Module) -> None:
    """BatchNorm -> GroupNorm, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            setattr(module, name, RowNorm(4, child.num_features))
        else:
            each_image_by_itself(child)


def method_with(*, group_norm: bool = True, double: bool = True, world: int = 1, **changes: Any) -> Cyborgs:
    recipe = replace(tiny_recipe(), views=ViewSpec(64, 2))
    assert isinstance(recipe.method, CyborgsConfig)
    method = build_method(replace(recipe, method=replace(recipe.method, **changes)), world).train()
    assert isinstance(method, Cyborgs)
    if group_norm:
        each_image_by_itself(method)
        method.backbone.forget_extractors()
        method.target_backbone.forget_extractors()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as after some steps: the target differs, and residual branches are not zero
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if double:
        method.double()
        # pixels are normalised to float32: the networks here are float64
        method.backbone.normalise = lambda x: x.double() / 128 - 1  # type: ignore[method-assign]
    return method


def whole_batch() -> Batch:
    """The second half has fewer regions, so that micro-batches differ in their rows and matched anchors."""
    batch = make_batch(IMAGES, 64, grid=2, labels=4)
    for view in batch.views:
        assert view.labels is not None
        view.labels[IMAGES // 2 :] = 7
    batch.views[1].labels[-3:] = 5  # type: ignore[index]  # no label in common
    return batch


def cut(batch: Batch, size: int) -> list[Batch]:
    return [batch[start : start + size] for start in range(0, len(batch), size)]


def gradients_of(
    method: nn.Module, parts: Sequence[Batch], plan: EpochPlan, negatives: Any, fabric: Fabric | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(gradients by parameter, figures) of a step."""
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    module = fabric.setup_module(method)
    values = Gradients(fabric, module, method, negatives)(parts, plan, StepSeed(0, plan.epoch, 1), True)
    return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}, values


def of_the_batch(figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without those of the first slice, which is another one in each micro-batch."""
    return {n: v for n, v in figures.items() if not n.startswith("cluster/") or n.endswith("over_log_k")}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = tolerance * max(1e-3, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(
    ("plan", "changes"),
    [
        (BOTH, {}),
        (CONTRAST, {}),
        (CONTRAST, {"normalise": "matched"}),
        (BOTH, {"prototypes": "paper", "clustered_layers": ("layer4",), "fused_layers": ("layer2",)}),
    ],
    ids=["both", "contrast", "matched", "deeper clusters"],
)
def test_cached_embeddings_give_the_whole_batchs_gradients(size: int, plan: EpochPlan, changes: dict[str, Any]) -> None:
    method = method_with(**changes)
    whole, figures = gradients_of(method, [whole_batch()], plan, "micro")
    method.zero_grad()
    cached, values = gradients_of(method, cut(whole_batch(), size), plan, "global")
    assert_equal(cached, whole, 1e-10)
    assert_equal(of_the_batch(values), of_the_batch(figures), 1e-10)
    assert 0 < float(values["contrast/matched"]) < 0.6
    method.zero_grad()
    plain, parts = gradients_of(method, cut(whole_batch(), size), plan, "micro")
    with pytest.raises(AssertionError):
        assert_equal(plain, whole, 1e-3)
    assert float(parts["loss/contrast"]) < float(figures["loss/contrast"])  # fewer negatives
    if "cluster" in plan.losses:
        assert_equal({"c": parts["loss/cluster"]}, {"c": figures["loss/cluster"]}, 1e-10)


def test_cached_embeddings_in_single_precision() -> None:
    method = method_with(double=False)
    whole, figures = gradients_of(method, [whole_batch()], BOTH, "micro")
    method.zero_grad()
    cached, values = gradients_of(method, cut(whole_batch(), 4), BOTH, "global")
    assert_equal(cached, whole, 1e-5)
    assert_equal(of_the_batch(values), of_the_batch(figures), 1e-5)


@pytest.mark.parametrize("plan", [BOTH, WARM], ids=["both", "warm-up"])
def test_plain_accumulation_is_the_mean_of_the_parts(plan: EpochPlan) -> None:
    method = method_with(group_norm=False)
    expected: dict[str, Tensor] = {}
    losses = []
    for part in cut(whole_batch(), 4):
        method.zero_grad()
        output = method.training_step(part, plan, StepSeed(0, plan.epoch, 1))
        total = sum(plan.losses[name] * loss for name, loss in output.losses.items())
        total.backward()  # type: ignore[union-attr]
        losses.append(total.detach())  # type: ignore[union-attr]
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, 0) + parameter.grad / 4
    for negatives in ("micro", "global") if plan is WARM else ("micro",):  # the warm-up has no negatives
        method.zero_grad()
        found, values = gradients_of(method, cut(whole_batch(), 4), plan, negatives)
        assert_equal(found, expected, 1e-12)
        torch.testing.assert_close(values["loss"], torch.stack(losses).mean())


@pytest.mark.parametrize("changes", [{}, {"clustered_layers": ("layer4",), "fused_layers": ("layer2",)}], ids=str)
def test_running_statistics_move_once_for_each_micro_batch(changes: dict[str, Any]) -> None:
    """As in plain accumulation, in both networks and in the heads, though the layers run twice."""
    buffers = {}
    for negatives in ("micro", "global"):
        method = method_with(group_norm=False, **changes)
        gradients_of(method, cut(whole_batch(), 4), BOTH, negatives)
        buffers[negatives] = {n: b.clone() for n, b in method.named_buffers()}
    assert sum("running_mean" in name for name in buffers["micro"]) > 20
    for name, value in buffers["micro"].items():
        assert torch.equal(buffers["global"][name], value), name
    assert buffers["global"]["projector.norm.num_batches_tracked"] == 2 * 4  # two views


def test_random_layers_draw_the_same_in_both_passes() -> None:
    def with_dropout() -> Cyborgs:
        method = method_with()
        method.projector.hidden = nn.Sequential(method.projector.hidden, nn.Dropout(0.5))  # type: ignore[assignment]
        return method

    method, parts = with_dropout(), cut(whole_batch(), 4)
    embedded = []
    for index, part in enumerate(parts):
        torch.manual_seed(derive(0, "step", 3, 1, index))
        embedded.append(method.embed(part, CONTRAST))
    online = [torch.cat(t) for t in zip(*(e[0] for e in embedded), strict=True)]
    fixed = [torch.cat(t) for t in zip(*(e[1] for e in embedded), strict=True)]
    method.joint_losses(online, fixed, CONTRAST).losses["contrast"].backward()
    expected = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    found, _ = gradients_of(with_dropout(), parts, CONTRAST, "global")
    assert_equal(found, expected, 1e-10)


def test_a_method_without_joint_losses_is_accumulated_plainly() -> None:
    recipe = tiny_byol()
    results = []
    for negatives in ("micro", "global"):
        method = build_method(recipe).train()
        results.append(gradients_of(method, cut(whole_batch(), 4), recipe.method.plan(0), negatives))
    assert_equal(results[0][0], results[1][0], 0)


def test_the_setting_is_refused_where_it_changes_nothing() -> None:
    with pytest.raises(ValueError, match=r"negatives: this method's loss has none, need 'micro', got 'global'"):
        tiny_byol(negatives="global", micro_batch=4)
    assert not ByolConfig().has_negatives
    assert tiny_recipe(negatives="global", micro_batch=4).negatives == "global"


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", RANK=str(rank),
        LOCAL_RANK=str(rank), GROUP_RANK="0", TORCHELASTIC_RUN_ID="test",
    )  # fmt: skip
    torch.set_num_threads(1)
    fabric = make_fabric(tiny_recipe())
    found: dict[str, Any] = {}
    for negatives in ("micro", "global"):
        # Each process has a half; micro-batches of 4 in each are one of 8 together.
        half = whole_batch()[8 * rank : 8 * rank + 8]
        method = method_with(world=2)
        gradients, values = gradients_of(method, cut(half, 4), BOTH, negatives, fabric)
        found[negatives] = (gradients, {n: distributed.all_reduce_sum(v) / 2 for n, v in values.items()})
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    batch, method = whole_batch(), method_with()
    expected, figures = gradients_of(method, [batch], BOTH, "micro")
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_equal(found["global"][0], expected, 1e-10)
        for name in ("loss", "loss/contrast", "loss/cluster", "contrast/matched"):
            torch.testing.assert_close(found["global"][1][name], figures[name])
        assert found["micro"][1]["loss/contrast"] < figures["loss/contrast"]
