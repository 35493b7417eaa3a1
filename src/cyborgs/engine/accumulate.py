"""Gradients of one optimiser step, out of micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cyborgs.engine.contract import MicroBatch
from cyborgs.seeds import derive
from cyborgs.structures import EpochPlan, StepPart, StepSeed, StepWork


@final
class Gradients:
    """Computes this process's share of a global batch in parts and adds up their gradients.

    Args:
        fabric: device, precision and processes.
        module: the trainable as ``fabric.setup`` gave it.
        trainable: the same, bare.
        negatives: ``micro``: each micro-batch has its losses, and the step's are their mean. ``global``: the losses
            that the trainable names as ``joint`` are computed once, from cached embeddings of all micro-batches, and
            their gradient is brought to the weights by a second pass (Gao et al., 2021: GradCache). With a single
            micro-batch, or in epochs without such a loss, both are the same.
    """

    def __init__(
        self, fabric: Fabric, module: Any, trainable: nn.Module, negatives: Literal["micro", "global"] = "micro"
    ) -> None:
        self.fabric = fabric
        self.module = module
        self.trainable = trainable
        self.negatives = negatives

    def __call__(
        self,
        micro_batches: Sequence[MicroBatch],
        plan: EpochPlan,
        seed: StepSeed,
        measure: bool,
        *,
        alone: bool = False,
    ) -> dict[str, Tensor]:
        """Add the step's gradients to the parameters' ``grad``, averaged over processes.

        Args:
            micro_batches: of equal length, on any device.
            plan: which losses, and their weights.
            seed: what the step draws from.
            measure: the step is logged.
            alone: leave the other processes out of it.

        Returns:
            ``loss``, ``loss/NAME`` and metrics of this process's share: scalars, still on the device.
        """
        if not alone and hasattr(self.fabric.strategy, "wrapped_for"):  # several processes: runs/devices.py
            self.module = self.fabric.strategy.wrapped_for(frozenset(plan.losses), self.fabric, self.module)
        step = _Step(self, micro_batches, plan, seed, measure, alone)
        if self.negatives == "micro" or len(micro_batches) == 1:
            return step.plain()
        joint: frozenset[str] = getattr(self.trainable, "joint", frozenset())
        return step.cached() if joint & plan.losses.keys() else step.plain()


@final
class _Step:
    """One call's arguments, and the two ways through them."""

    def __init__(
        self,
        owner: Gradients,
        micro_batches: Sequence[MicroBatch],
        plan: EpochPlan,
        seed: StepSeed,
        measure: bool,
        alone: bool,
    ) -> None:
        self.owner = owner
        self.micro_batches = micro_batches
        self.plan = plan
        self.seed = seed
        self.measure = measure
        self.alone = alone
        self.count = len(micro_batches)
        self.values: dict[str, Tensor] = {}

    def plain(self) -> dict[str, Tensor]:
        """The mean of the micro-batches' losses."""
        for index in range(self.count):
            with self._backward_sync(index):
                losses, metrics = self._run(index, "whole")
                total = self._weigh(losses)
                self.owner.fabric.backward(total / self.count)
            self._note(total, losses, metrics, self.count)
        return self.values

    def cached(self) -> dict[str, Tensor]:
        """Joint losses of all micro-batches together, the mean of the others."""
        trainable: Any = self.owner.trainable
        with torch.no_grad():
            parts = [self._run(index, "embed") for index in range(self.count)]
        online = [torch.cat(tensors).requires_grad_() for tensors in zip(*(p[0] for p in parts), strict=True)]
        fixed = [torch.cat(tensors) for tensors in zip(*(p[1] for p in parts), strict=True)]
        del parts
        found = trainable.joint_losses(online, fixed, self.plan, measure=self.measure)
        joint = self._weigh(found.losses)
        self._note(joint, found.losses, found.metrics, 1)
        gradients = [g.chunk(self.count) for g in torch.autograd.grad(joint, online)]
        # The second pass sees what the first has seen: running statistics take it in once.
        buffers = list(trainable.buffers())
        kept = [buffer.clone() for buffer in buffers]
        for index in range(self.count):
            with self._backward_sync(index):
                again, losses, metrics = self._run(index, "rest")
                rest = self._weigh(losses)
                # Its gradient by the embeddings is what the joint losses' is.
                carrier = sum((x * g[index]).sum() for x, g in zip(again, gradients, strict=True))
                self.owner.fabric.backward(carrier + rest / self.count)
            self._note(rest, losses, metrics, self.count)
        with torch.no_grad():
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)
        return self.values

    def _run(self, index: int, part: StepPart) -> Any:
        # For networks with random layers (stochastic depth): the draw belongs to step and micro-batch, not to the
        # process, and both passes of a micro-batch make the same.
        torch.manual_seed(derive(self.seed.seed, "step", self.seed.epoch, self.seed.step, index))
        batch = self.micro_batches[index].to(self.owner.fabric.device, non_blocking=True)
        return self.owner.module(StepWork(batch, self.plan, self.seed, self.measure, part))

    def _backward_sync(self, index: int) -> Any:
        """Gradients meet those of the other processes in the last micro-batch alone."""
        apart = self.alone or index + 1 < self.count
        return self.owner.fabric.no_backward_sync(self.owner.module, enabled=apart)

    def _weigh(self, losses: Mapping[str, Tensor]) -> Tensor:
        return sum((self.plan.losses[name] * loss for name, loss in losses.items()), torch.zeros(()))

    def _note(self, total: Tensor, losses: Mapping[str, Tensor], metrics: Mapping[str, Tensor], count: int) -> None:
        """Take in the figures of one of ``count`` parts."""
        figures = {"loss": total} | {f"loss/{name}": loss for name, loss in losses.items()} | dict(metrics)
        for name, value in figures.items():
            self.values[name] = self.values.get(name, 0) + value.detach() / count
