"""The learning rate, and what else changes with the step, as pure functions of it. No torch here."""

from __future__ import annotations

import math

from cyborgs.engine.optimizer_config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, steps_per_epoch: int, epochs: int, batch_size: int) -> float:
    """The rate of one step (docs/method.md, "Schedule").

    The peak grows linearly with the global batch. Linear warm-up from ``warmup_start`` times the peak at step 0 to
    the peak; then a tenth from the first step of each milestone's epoch on, or a half cosine to 0 at the run's end.
    A milestone inside the warm-up shows after it.

    Args:
        config: the optimiser's settings.
        step: optimiser steps done before this one, from 0.
        steps_per_epoch: global batches in an epoch.
        epochs: length of the run.
        batch_size: global batch.
    """
    if step < 0 or steps_per_epoch < 1 or epochs < 1 or batch_size < 1:
        raise ValueError(
            f"need a step of at least 0 and epochs with steps, got step {step}, {steps_per_epoch} steps per epoch, "
            f"{epochs} epochs, batch {batch_size}"
        )
    peak = config.lr * batch_size / config.lr_batch
    total = epochs * steps_per_epoch
    warmup = warmup_steps(config, steps_per_epoch, epochs)
    if step < warmup:
        return peak * (config.warmup_start + (1 - config.warmup_start) * step / warmup)
    if config.schedule == "cosine":
        progress = min((step - warmup) / max(total - warmup, 1), 1.0)
        return peak * (1 + math.cos(math.pi * progress)) / 2
    passed = sum(step >= round(m * epochs) * steps_per_epoch for m in config.milestones)
    return float(peak / 10**passed)


def warmup_steps(config: OptimizerConfig, steps_per_epoch: int, epochs: int) -> float:
    """Steps until the peak, not always whole: a share of all steps where one is set, else of the warm-up's epochs."""
    if config.warmup_fraction > 0:
        return config.warmup_fraction * epochs * steps_per_epoch
    return config.warmup_epochs * steps_per_epoch


def scheduled(config: OptimizerConfig, step: int, total: int) -> dict[str, float]:
    """``momentum`` and ``weight_decay`` of a step, where they change: half a cosine from the first to the last step.

    Args:
        config: the optimiser's settings.
        step: optimiser steps done before this one, from 0.
        total: optimiser steps of the run.
    """
    progress = min(step / max(total - 1, 1), 1.0)
    begin = {"momentum": config.betas[0] if config.kind == "adamw" else config.momentum}
    ends = {"momentum": config.momentum_end, "weight_decay": config.weight_decay_end}
    begin["weight_decay"] = config.weight_decay
    return {
        name: end + (begin[name] - end) * (1 + math.cos(math.pi * progress)) / 2
        for name, end in ends.items()
        if end is not None
    }
