"""DDP searches for parameters without gradient only where there are some, and the gradients are those of one process."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cyborgs.engine.accumulate import Gradients
from cyborgs.runs.devices import SearchingDDP, make_fabric
from cyborgs.structures import EpochPlan, StepSeed, StepWork
from tests.conftest import tiny_recipe
from tests.engine.test_trainer import Rows
from tests.runs.launch import CONTEXT

WARM_UP = EpochPlan(0, (), {"near": 1.0})
BOTH = EpochPlan(1, (), {"near": 1.0, "far": 0.5})
PLANS = (WARM_UP, WARM_UP, BOTH, BOTH, BOTH, WARM_UP, BOTH)
SEARCHED = [True, True, True, False, False, True, False]
"""The first step with both losses is searched, since nothing is known of them yet."""


class Toy(nn.Module):
    """Two layers in float64; the loss ``near`` reaches the first alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4).double()
        self.second = nn.Linear(4, 2).double()

    def forward(self, work: StepWork) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        inner = self.first(work.batch.rows).tanh()  # type: ignore[attr-defined]
        losses = {"near": inner.square().mean()}
        if "far" in work.plan.losses:
            losses["far"] = self.second(inner).square().mean()
        return losses, {}


def measure(fabric: Fabric, rank: int, world: int) -> tuple[list[dict[str, Tensor]], list[bool]]:
    """Of each step: the gradients, by name, and whether DDP searched."""
    toy = Toy()
    optimizer = torch.optim.SGD(toy.parameters(), 0.1)
    module, _ = fabric.setup(toy, optimizer)
    gradients = Gradients(fabric, module, toy)
    found, searched = [], []
    for step, plan in enumerate(PLANS):
        rows = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        share = rows.chunk(world)[rank]
        parts: list[Any] = [Rows(part) for part in share.chunk(2)]
        gradients(parts, plan, StepSeed(0, plan.epoch, step), False)
        found.append({name: p.grad.clone() for name, p in toy.named_parameters() if p.grad is not None})
        searched.append(getattr(gradients.module._forward_module, "find_unused_parameters", False))
        optimizer.step()
        optimizer.zero_grad()
    return found, searched


def work(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    torch.save(measure(make_fabric(tiny_recipe()), rank, 2), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_gradients_are_those_of_one_process_and_the_search_ends_with_the_warm_up(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [CONTEXT.Process(target=work, args=(rank, port, str(tmp_path))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    expected, _ = measure(Fabric(accelerator="cpu", devices=1), 0, 1)
    for rank in range(2):
        found, searched = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert searched == SEARCHED
        for plan, ours, theirs in zip(PLANS, found, expected, strict=True):
            # None, not zeros: such a parameter has neither decay nor momentum.
            assert {name.split(".")[0] for name in ours} == ({"first"} if plan is WARM_UP else {"first", "second"})
            assert ours.keys() == theirs.keys()
            for name, gradient in ours.items():
                torch.testing.assert_close(gradient, theirs[name], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("world", "deterministic", "always"), [(2, False, False), (2, True, False), (3, False, True)])
def test_three_processes_of_a_cpu_search_every_step(
    world: int, deterministic: bool, always: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed run adds up as an uninterrupted one only where the buckets are never cut anew."""
    monkeypatch.setenv("WORLD_SIZE", str(world))
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # a deterministic run sets it
    seen: list[bool] = []

    class Noted(SearchingDDP):  # type: ignore[misc]
        def __init__(self, always: bool, **settings: Any) -> None:
            seen.append(always)
            raise InterruptedError

    monkeypatch.setattr("cyborgs.runs.devices.SearchingDDP", Noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InterruptedError):
        make_fabric(tiny_recipe(deterministic=deterministic))
    assert seen == [always]
