"""A step that is not logged never waits for the device, and its shapes do not depend on data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cyborgs.engine.accumulate import Gradients
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.ops import batched_kmeans
from cyborgs.ops.resample import _matrix
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import StepSeed, StepWork
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.contract import make_batch
from tests.waits import waits

KINDS = {
    "warm-up": (tiny_recipe(views=ViewSpec(64, 2)), 0),
    "contrast": (tiny_recipe(views=ViewSpec(64, 2)), 3),
    "contrast and cluster": (tiny_recipe(views=ViewSpec(64, 2)), 2),
    "byol": (tiny_byol(views=ViewSpec(64, 2)), 0),
}


real_may_read = batched_kmeans.may_read


@pytest.fixture(autouse=True)
def k_means_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU it looks at values, to stop early."""
    monkeypatch.setattr(batched_kmeans, "may_read", lambda x: False)


def whole_step(recipe: Recipe, epoch: int, micro_batches: int = 1, negatives: Any = "micro") -> Callable[[bool], None]:
    """A whole step of the optimiser, as the trainer takes it: gradients, update, momentum; by whether it is logged."""
    method = build_method(recipe).train()
    optimizer = build_optimizer(recipe.optimizer, parameter_groups(method, recipe.optimizer), 0.1)
    fabric = Fabric(accelerator="cpu", devices=1)
    module, wrapped = fabric.setup(method, optimizer)
    gradients = Gradients(fabric, module, method, negatives)
    share = 8 // micro_batches
    batches = [make_batch(8, 64)[i : i + share] for i in range(0, 8, share)]
    plan = recipe.method.plan(epoch)

    def step(measure: bool) -> None:
        gradients(batches, plan, StepSeed(0, epoch, 0), measure)
        wrapped.step()
        wrapped.zero_grad(set_to_none=True)
        method.after_step(0.5)

    return step


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_nothing_back(kind: str) -> None:
    recipe, epoch = KINDS[kind]
    step = whole_step(recipe, epoch)
    step(False)  # the first one makes what later ones find: traced graphs, matrices, momentum
    with waits() as found:
        step(False)
    assert found == []


def test_nor_do_two_passes_over_micro_batches() -> None:
    recipe, epoch = KINDS["contrast and cluster"]
    step = whole_step(recipe, epoch, micro_batches=2, negatives="global")
    step(False)
    with waits() as found:
        step(False)
    assert found == []


@pytest.mark.parametrize(
    "changes", [{"distance": "euclidean"}, {"linked_start": True}, {"prototypes": "paper"}], ids=str
)
def test_nor_does_any_variant_of_loss_2(changes: dict[str, Any]) -> None:
    recipe, epoch = KINDS["warm-up"]
    step = whole_step(replace(recipe, method=replace(recipe.method, **changes)), epoch)
    step(False)
    with waits() as found:
        step(False)
    assert found == []


def test_a_logged_step_may() -> None:
    step = whole_step(*KINDS["contrast and cluster"])
    with waits() as found:
        step(True)
    assert found


@pytest.mark.parametrize(
    ("reading", "name"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: bool(x.sum() > 0), "_local_scalar_dense"),
        (lambda x: x[x > 0], "aten.index.Tensor"),
        (lambda x: x.masked_fill_(x > 0, 0.0).index_put_((x > 0,), x.new_zeros(())), "index_put"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x.unique(), "unique"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.tolist(), "Tensor.tolist"),
        (lambda x: x.detach().cpu(), "Tensor.cpu"),
        (lambda x: torch.repeat_interleave(x, (x > 0).long()), "repeat_interleave"),
        (lambda x: torch.bincount((x > 0).long().flatten()), "bincount"),
    ],
)
def test_a_value_that_is_read_in_the_step_is_found(
    reading: Callable[[torch.Tensor], Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = whole_step(*KINDS["contrast"])
    real = Cyborgs._contrast

    def contrast(self: Cyborgs, views: Any, measure: bool) -> Any:
        reading(views[0].predictions.detach().clone().flatten())
        return real(self, views, measure)

    monkeypatch.setattr(Cyborgs, "_contrast", contrast)
    with waits() as found:
        step(False)
    assert any(name in one for one in found), found


class _Blocking(TorchDispatchMode):
    """Notes copies from the CPU to a GPU for which the CPU waits."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if name in ("_to_copy", "copy_") and not kwargs.get("non_blocking"):
            source = args[-1] if name == "copy_" else args[0]
            target = args[0].device if name == "copy_" else torch.device(kwargs.get("device") or source.device)
            if source.device.type != target.type:
                self.found.append(f"{func} {source.device} {target}")
        return func(*args, **kwargs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_forward_pass_on_a_gpu_needs_no_data(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pretended tensors of a GPU, which have shapes alone: what reads data, or mixes devices, raises.

    It is the way of the code that a CPU does not take (k-means of all slices at once).
    """
    monkeypatch.setattr(batched_kmeans, "may_read", real_may_read)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)  # it is not pretended
    recipe, epoch = KINDS[kind]
    method, batch, plan = build_method(recipe).train(), make_batch(8, 64), recipe.method.plan(epoch)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            method.to("cuda")
            work = StepWork(batch.to("cuda"), plan, StepSeed(0, epoch, 0))
            method(work)  # the first one makes what later ones find
            with _Blocking() as copies:
                losses, _ = method(work)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
        _matrix.cache_clear()  # of pretended tensors
    assert {loss.device.type for loss in losses.values()} == {"cuda"}
    assert set(losses) == set(plan.losses)
    assert copies.found == []
