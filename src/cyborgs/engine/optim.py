"""LARS, and which parameters it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyborgs.engine.optimizer_config import OptimizerConfig

EPSILON = 1e-8
"""Added to the gradient's norm (docs/method.md)."""


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


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of the parameters that are trained, in the module's order.

    Weights (two and more dimensions) with ``weight_decay``; biases and the parameters of norms without decay and
    without LARS's adaptation.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {
            "params": [p for p in trained if p.dim() >= 2],
            "weight_decay": weight_decay,
            "exclude_from_adaptation": False,
        },
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0, "exclude_from_adaptation": True},
    ]


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]], lr: float) -> Optimizer:
    """The optimiser of the settings, over the groups of ``parameter_groups``; ``lr`` is set anew at each step."""
    if config.kind == "lars":
        return LARS(groups, lr, config.momentum, config.weight_decay, config.trust)
    if config.kind == "sgd":
        return torch.optim.SGD(groups, lr, config.momentum, weight_decay=config.weight_decay)
    raise ValueError(f"optimizer.kind: need lars or sgd, got {config.kind!r}")
