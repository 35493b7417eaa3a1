"""Two and three gloo processes give the losses and gradients of one process on the joined batch, in float64."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from cyborgs import distributed
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.runs.build import build_method
from cyborgs.structures import Batch, EpochPlan, StepSeed, StepWork, View
from cyborgs.views.config import ViewSpec
from tests.conftest import tiny_recipe
from tests.methods.contract import make_batch

PLANS = (
    EpochPlan(0, (), {"cluster": 1.0}, "warm-up"),
    EpochPlan(2, (), {"contrast": 1.0, "cluster": 0.1}),
)


def joined_batch() -> Batch:
    """24 images of which the second half has no label in common between its views: other row counts per process."""
    batch = make_batch(24, 64, grid=2, labels=4)
    views = []
    for view in batch.views:
        labels = view.labels.clone()  # type: ignore[union-attr]
        labels[12:] = 7  # one region a view: fewer valid rows in the second process
        views.append(View(view.images, view.geometry, labels))
    return replace(batch, views=tuple(views))


def measure(world: int, rank: int) -> dict[str, torch.Tensor]:
    recipe = replace(tiny_recipe(), views=ViewSpec(64, 2))
    found: dict[str, torch.Tensor] = {}
    for number, plan in enumerate(PLANS):
        method = build_method(recipe, world).double().train()
        assert isinstance(method, Cyborgs)
        share = 24 // world
        batch = joined_batch()[rank * share : (rank + 1) * share]
        # pixels are normalised to float32: the networks here are float64
        method.backbone.normalise = lambda x: x.double() / 128 - 1  # type: ignore[method-assign]
        wrapped = DistributedDataParallel(method, find_unused_parameters=True) if world > 1 else method
        losses, _ = wrapped(StepWork(batch, plan, StepSeed(0, plan.epoch, 0)))
        sum(weight * losses[name] for name, weight in plan.losses.items()).backward()
        for name, loss in losses.items():
            value = loss.detach().double().reshape(1)
            found[f"{number}/{name}"] = distributed.all_reduce_sum(value) / world
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                found[f"{number}/{name}"] = parameter.grad
        for name, buffer in method.named_buffers():
            if "running" in name:
                found[f"{number}/{name}"] = buffer
    return found


def work(rank: int, world: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    torch.save(measure(world, rank), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_losses_and_gradients_of_several_processes_equal_one(world: int, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (world, port, str(tmp_path)), nprocs=world)  # type: ignore[no-untyped-call]
    one = measure(1, 0)
    several = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world)]
    assert all(found.keys() == one.keys() for found in several)
    assert sum("projector" in name for name in one)
    for name, expected in one.items():
        for found in several:
            torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-8, msg=lambda m, n=name: f"{n}: {m}")
