"""Optimisers: LARS, SGD, AdamW, and which parameters have which rate and decay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.errors import UserError

EPSILON = 1e-8
"""Added to the gradient's norm (docs/method.md)."""

_PART: Final = re.compile(r"backbone\.(?:trunk\.)?(\w+(?:\.\d+(?=\.\w+\.))?)")
"""Of a parameter's name: the part of the backbone that it belongs to."""


@final
class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., 2017), as docs/method.md writes it down.

        g <- g + weight_decay w
        g <- g trust |w| / (|g| + 1e-8)      where not excluded and |w|, |g| > 0
        buf <- momentum buf + g              (buf = g at first)
        w <- w - lr buf

    A group with ``exclude_from_adaptation=True`` is plain SGD with its own weight decay. A parameter without gradient
    is skipped whole: no decay, no momentum. State: ``momentum_buffer``. Nothing waits for a GPU.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
    ) -> None:
        """Build it.

        Args:
            params: parameters, or groups of them, as for every torch optimiser.
            lr: learning rate.
            momentum: 0..1, below 1.
            weight_decay: added to the gradient, before its norm is taken.
            trust_coefficient: of the adaptation.

        Raises:
            ValueError: a number is out of range.
        """
        if lr < 0 or weight_decay < 0 or trust_coefficient <= 0 or not 0 <= momentum < 1:
            raise ValueError(
                "LARS: need lr >= 0, 0 <= momentum < 1, weight_decay >= 0, trust_coefficient > 0, got "
                f"{lr}, {momentum}, {weight_decay}, {trust_coefficient}"
            )
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "exclude_from_adaptation": False,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; the closure, if there is one, computes gradients anew and its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            # Vectorised operations take tensors of one device and dtype.
            kinds: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    kinds.setdefault((parameter.device, parameter.dtype), []).append(parameter)
            for parameters in kinds.values():
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                # momentum * 0 + g is g.
                state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            buffers.append(state["momentum_buffer"])
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        if not group["exclude_from_adaptation"]:
            weight_norms = torch.stack(torch._foreach_norm(parameters))
            gradient_norms = torch.stack(torch._foreach_norm(gradients))
            ratios = group["trust_coefficient"] * weight_norms / (gradient_norms + EPSILON)
            adapted = torch.where((weight_norms > 0) & (gradient_norms > 0), ratios, 1.0)
            gradients = list(torch._foreach_mul(gradients, list(adapted.unbind())))
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


def parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups of the parameters that are trained, each in the module's order.

    The first: weights (two and more dimensions) with the weight decay; the second: biases and the parameters of norms,
    without decay and without LARS's adaptation, and what ``config.exclude`` names. With ``layer_decay`` two such groups
    for each rate, which is their ``lr_scale``. UserError where a pattern names no parameter.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    scales = _scales(trained, config.layer_decay)
    for pattern in config.exclude:
        if not any(fnmatchcase(name, pattern) for name, _ in trained):
            names = ", ".join(name for name, _ in trained[:3])
            raise UserError(f"optimizer.exclude: no parameter is named {pattern!r}; there are {names}, ...")
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, False): [], (1.0, True): []}
    for name, parameter in trained:
        vector = parameter.dim() < 2 and not config.decay_vectors
        excluded = vector or any(fnmatchcase(name, pattern) for pattern in config.exclude)
        scale = scales.get(name, 1.0)
        for kind in (False, True):
            groups.setdefault((scale, kind), [])
        groups[scale, excluded].append(parameter)
    made = []
    for (scale, excluded), parameters in groups.items():
        group = {
            "params": parameters,
            "weight_decay": 0.0 if excluded else config.weight_decay,
            "exclude_from_adaptation": excluded,
        }
        made.append(group if scale == 1 else group | {"lr_scale": scale})
    return made


def _scales(trained: Sequence[tuple[str, nn.Parameter]], decay: float) -> dict[str, float]:
    """Rate of each of the backbone's parameters over the full one.

    Its parts are its blocks (``layer3.1``, ``blocks.7``), or what is named right below it, in order; one that holds no weight of two
    dimensions (a stem's norm) belongs to the part before it. The last part has ``decay`` times the full rate.
    """
    if decay == 1:
        return {}
    parts: dict[str, int] = {}
    depth = -1
    places: dict[str, int] = {}
    for name, _ in trained:
        found = _PART.match(name)
        if found is None:
            continue
        part = found[1]
        if part not in parts:
            holds = any(p.dim() >= 2 for n, p in trained if (m := _PART.match(n)) is not None and m[1] == part)
            depth += 1 if holds or depth < 0 else 0
            parts[part] = depth
        places[name] = parts[part]
    return {name: decay ** (depth + 1 - place) for name, place in places.items()}


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser of the settings, over the groups of ``parameter_groups``; ``lr`` is set anew at each step."""
    # Fused kernels are a GPU's: torch's choice there differs by version, and on CPUs they are no quicker.
    fused = all(p.is_cuda for group in groups for p in group["params"])
    ways = {"fused": True} if fused else {"foreach": True}
    if config.kind == "lars":
        return LARS(groups, lr, config.momentum, config.weight_decay, config.trust)
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr, config.momentum, weight_decay=config.weight_decay, **ways)
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr, config.betas, config.eps, config.weight_decay, **ways)
    raise ValueError(f"optimizer.kind: need lars, sgd or adamw, got {config.kind!r}")


def set_rates(optimizer: Optimizer, rate: float, schedule: Mapping[str, float]) -> None:
    """Give the groups what they have in this step.

    Args:
        optimizer: over ``parameter_groups``.
        rate: the learning rate; a group with ``lr_scale`` has that times the rate.
        schedule: of ``engine.schedule.scheduled``: ``momentum`` and ``weight_decay``, where they change.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if "weight_decay" in schedule and not group.get("exclude_from_adaptation", False):
            group["weight_decay"] = schedule["weight_decay"]
        if "momentum" in schedule:
            if "betas" in group:
                group["betas"] = (schedule["momentum"], group["betas"][1])
            else:
                group["momentum"] = schedule["momentum"]


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """The norm of all gradients together, a scalar on their device; where above ``largest`` they are scaled to that.

    ``largest`` 0: nothing is scaled. Nothing waits for a GPU.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
    if largest:
        torch._foreach_mul_(gradients, (largest / norm).clamp(max=1.0))
    return norm
