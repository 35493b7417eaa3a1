"""Figures of networks and optimisers against what they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.health.vitals import dead_share, update_ratio


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 6), nn.BatchNorm1d(6))
    layers(torch.randn(8, 3))
    return layers


def test_dead_channels_by_weight_or_variance() -> None:
    layers = network()
    assert float(dead_share(layers)) == 0  # type: ignore[arg-type]
    with torch.no_grad():
        layers[1].weight[0] = 0
        layers[1].running_var[0] = 0  # the same channel twice
        layers[3].running_var[:2] = 1e-9
    assert float(dead_share(layers)) == pytest.approx(3 / 10)  # type: ignore[arg-type]


def test_layers_that_do_not_count() -> None:
    layers = network()
    with torch.no_grad():
        layers[1].weight.zero_()  # a residual branch that starts closed
    assert float(dead_share(layers)) == 0  # type: ignore[arg-type]
    with torch.no_grad():
        layers[1].running_var.zero_()
    assert float(dead_share(layers)) == pytest.approx(4 / 10)  # type: ignore[arg-type]
    layers[3].num_batches_tracked.zero_()  # not reached yet, as in the warm-up
    assert float(dead_share(layers)) == 1  # type: ignore[arg-type]
    assert dead_share(layers.requires_grad_(False)) is None  # a target network
    assert dead_share(nn.Linear(2, 2)) is None


@pytest.mark.parametrize("kind", ["lars", "sgd", "adamw"])
def test_the_ratio_is_that_of_the_step_just_made(kind: str) -> None:
    layers = network()
    layers[2].requires_grad_(False)
    config = OptimizerConfig(kind=kind, weight_decay=0.01)  # type: ignore[arg-type]
    optimizer = build_optimizer(config, parameter_groups(layers, config), 0.3)
    assert update_ratio(optimizer) is None
    for _ in range(3):
        moved = [p for p in layers.parameters() if p.requires_grad]
        before = torch.cat([p.detach().clone().flatten() for p in moved])
        layers(torch.randn(8, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        after = torch.cat([p.detach().flatten() for p in moved])
        expected = float((after - before).norm() / after.norm())
        assert float(update_ratio(optimizer)) == pytest.approx(expected, rel=1e-4)  # type: ignore[arg-type]


def test_without_momentum_there_is_nothing_to_measure() -> None:
    layers = network()
    optimizer = torch.optim.SGD(layers.parameters(), 0.1)
    layers(torch.randn(8, 3)).sum().backward()
    optimizer.step()
    assert update_ratio(optimizer) is None
