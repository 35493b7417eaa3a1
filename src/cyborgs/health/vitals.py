"""Figures of networks and optimiser that show whether a run goes well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

DEAD_WEIGHT = 1e-6
DEAD_VARIANCE = 0.01
"""Of the variance, in units of the layer's eps: the output is squashed to a tenth and less."""


@torch.no_grad()
def dead_share(module: nn.Module) -> Tensor | None:
    """Share of BatchNorm channels that say nothing: running variance or weight next to zero. A float64 scalar.

    Of the layers that are trained (no target network) and have seen data; None where there is no such layer.
    """
    dead, alive = [], []
    for layer in module.modules():
        if not isinstance(layer, _BatchNorm) or layer.weight is None or not layer.weight.requires_grad:
            continue
        if layer.running_var is None or layer.num_batches_tracked is None:
            continue
        closed = layer.weight.abs() <= DEAD_WEIGHT
        # All closed at once: a residual branch that starts at zero and has not opened yet.
        silent = (layer.running_var <= DEAD_VARIANCE * layer.eps) | (closed & ~closed.all())
        seen = layer.num_batches_tracked > 0
        dead.append((silent & seen).sum())
        alive.append(seen * layer.num_features)
    if not dead:
        return None
    return torch.stack(dead).sum().double() / torch.stack(alive).sum()


@torch.no_grad()
def update_ratio(optimizer: Optimizer) -> Tensor | None:
    """Norm of the last update over norm of the weights that it moved: a float32 scalar; None before the first step.

    From the optimiser's state alone, nothing has to be kept for it. LARS and SGD: rate times momentum buffer. AdamW:
    its two averages, without their bias, and the decay of the weights as they were.
    """
    updates: list[Tensor] = []
    weights: list[Tensor] = []
    for group in optimizer.param_groups:
        moved = [p for p in group["params"] if optimizer.state.get(p)]
        states = [optimizer.state[p] for p in moved]
        if not moved:
            continue
        if "betas" in group:
            made = [_adamw_update(p, state, group) for p, state in zip(moved, states, strict=True)]
            updates += [norm.float() for norm in torch._foreach_norm(made)]
        else:
            buffers = [state["momentum_buffer"] for state in states]
            updates += [norm.float() * group["lr"] for norm in torch._foreach_norm(buffers)]
        weights += [norm.float() for norm in torch._foreach_norm(moved)]
    if not updates:
        return None
    ratio: Tensor = torch.stack(updates).norm() / torch.stack(weights).norm()
    return ratio


def _adamw_update(parameter: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> Tensor:
    """What the last step took from the parameter."""
    rate, (first, second) = group["lr"], group["betas"]
    mean = state["exp_avg"] / (1 - first ** state["step"].to(parameter.device))
    square = state["exp_avg_sq"] / (1 - second ** state["step"].to(parameter.device))
    change = rate * mean / (square.sqrt() + group["eps"])
    before: Tensor = (parameter + change) / (1 - rate * group["weight_decay"])
    return before - parameter
