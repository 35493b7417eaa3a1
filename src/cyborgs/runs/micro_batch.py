"""``micro_batch: auto``: the most images at once that fit in memory, found by real steps that leave no trace."""

from __future__ import annotations

import gc
import heapq
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, final

import torch
from lightning_fabric import Fabric

from cyborgs import distributed
from cyborgs.data.images import Images
from cyborgs.engine.accumulate import Gradients
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.errors import UserError
from cyborgs.machine import memory
from cyborgs.methods.method import Method
from cyborgs.runs.build import build_source
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan, StepSeed
from cyborgs.views.micro_batches import made_up_batch

HEADROOM = 0.9
"""Share of a GPU's memory, or of what the machine has free now, that may be planned for: loaders need some too, and an
allocator that is full to the brim fails some day."""


def find_micro_batch(fabric: Fabric, method: Method, recipe: Recipe, images: Images) -> int:
    """The largest micro-batch that fits on all processes.

    It divides a process's share and is a multiple of the method's ``batch_unit``. Tried are optimiser steps of the most
    expensive kind (all losses, the largest K) on made-up batches, largest first, and one group of the largest photos for the
    masks. A GPU's allocator says when memory is out; on Linux without a GPU the kernel kills instead, so there the
    peak is predicted from two small steps and compared with what is free. Weights, buffers and random generators are
    afterwards what they were, bit for bit.

    Args:
        fabric: device, precision and processes.
        method: the method that will be trained; its device and memory format become those of training.
        recipe: resolved, with a batch that the processes can share.
        images: the photos.

    Raises:
        UserError: not even the smallest fits, or the masks do not; says what to lower.
    """
    share = recipe.batch_size // distributed.world_size()
    method.to(memory_format=torch.channels_last)
    with _restored(method, fabric.device):
        trial = _Trial(fabric, method, recipe, share)
        distributed.barrier()  # what is free is read before anybody takes of it
        trial.set_budget()
        with distributed.rehearsal(method):
            found = trial.largest(micro_batches(recipe, share))
            fits = found == 0 or trial.refresh(images)
        del trial
    found, refreshed = distributed.minimum(found), distributed.minimum(int(fits))
    if found == 0:
        unit = recipe.method.batch_unit_field
        raise UserError(
            f"micro_batch: the smallest possible, {min(micro_batches(recipe, share))} images at once, does not fit in "
            f"memory. Lower views.size, take a smaller backbone.name{f', or a smaller {unit}' if unit else ''}."
        )
    if not refreshed:
        raise UserError(
            f"masks.group_size: making masks of the {recipe.masks.group_size} largest photos does not fit in memory. "
            "Set masks.short_side (320, for example), or lower masks.group_size."
        )
    return found


def micro_batches(recipe: Recipe, share: int) -> list[int]:
    """Sizes that divide a process's share of the batch, and that the method's ``batch_unit`` divides; largest first.

    Not one image at a time: BatchNorm has no statistics of a single row.
    """
    unit = recipe.method.batch_unit
    least = min(2, share)
    return [size for size in range(share, least - 1, -unit) if share % size == 0 and size % unit == 0]


def most_expensive_plans(recipe: Recipe) -> list[EpochPlan]:
    """Of the run's kinds of epochs those whose losses are no part of another kind's."""
    plans = {frozenset(plan.losses): plan for plan in map(recipe.method.plan, range(recipe.epochs))}
    return [plan for losses, plan in plans.items() if not any(losses < others for others in plans)]


@contextmanager
def _restored(method: Method, device: torch.device) -> Iterator[None]:
    """Afterwards all numbers, modes and settings of the method, and the generators, are as before."""
    config, training = method.config, method.training
    before = [tensor.detach().cpu().clone() for tensor in chain(method.parameters(), method.buffers())]
    method.config = config.most_expensive(quick=True)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_per_process_memory_fraction(HEADROOM, device)
    try:
        with torch.random.fork_rng([device] if cuda else []):
            yield
    finally:
        if cuda:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
        method.config = config
        method.zero_grad(set_to_none=True)
        method.train(training)
        with torch.no_grad():
            for tensor, value in zip(chain(method.parameters(), method.buffers()), before, strict=True):
                tensor.copy_(value)
        _release(device)


def _release(device: torch.device) -> None:
    gc.collect()  # wrappers and tracebacks hold tensors in circles
    if device.type == "cuda":
        torch.cuda.empty_cache()


@final
class _Trial:
    """Steps and groups of photos that are only meant to take memory."""

    def __init__(self, fabric: Fabric, method: Method, recipe: Recipe, share: int) -> None:
        self.fabric = fabric
        self.method = method
        self.recipe = recipe
        self.share = share
        self.plans = most_expensive_plans(recipe)
        groups = parameter_groups(method, recipe.optimizer)
        module, self.optimizer = fabric.setup(method, build_optimizer(recipe.optimizer, groups, 0.0))
        self.gradients = Gradients(fabric, module, method, recipe.negatives)
        self.budget: int | None = None
        self.base = self.peak = 0

    def set_budget(self) -> None:
        """How much this process may hold; None where running out raises an error, or nothing is known."""
        now, free = memory.resident(), memory.available()
        if self.fabric.device.type == "cpu" and now is not None and free is not None and memory.forget_peak():
            beside = int(os.environ.get("LOCAL_WORLD_SIZE", distributed.world_size()))
            self.base, self.budget = now, now + int(HEADROOM * free / beside)

    def largest(self, sizes: list[int]) -> int:
        """The first of the sizes, which fall, that fits; 0: none does."""
        self.method.train()
        smallest = sizes[-1]
        # The first step sets up what stays: momentum, traced networks, kernels.
        if not self._try(self._step, smallest):
            return 0
        known: dict[int, int] = {}
        if self.budget is not None:  # two small ones, from which the others are predicted
            for size in sizes[:0:-1][:2]:
                if self._within(known, size) and self._try(self._step, size):
                    known[size] = self.peak
        for size in sizes[:-1]:
            if size in known or (self._within(known, size) and self._try(self._step, size)):
                return size
        return smallest

    def refresh(self, images: Images) -> bool:
        """Whether one group of the largest photos fits, with nothing of a step beside it but weights and momentum."""
        if self.recipe.masks.source != "bootstrap":
            return True
        source = build_source(self.recipe, self.method, self.fabric.device)
        if source is None:
            return True
        self.method.eval()
        group = heapq.nlargest(self.recipe.masks.group_size, range(len(images)), key=lambda i: self._cells(images, i))
        pictures = [source.prepare(images.read(i)) for i in group]
        counts = [len(pictures)]
        while self.budget is not None and counts[0] > 1:
            counts.insert(0, counts[0] // 2)  # half a group says what a whole one takes
        known: dict[int, int] = {}
        for count in counts:
            if not self._within(known, count) or not self._try(lambda n: source.label(pictures[:n], 0, 0, 0), count):
                return False
            known[count] = self.peak
        return True

    def _cells(self, images: Images, index: int) -> float:
        height, width = images.size(index)
        cap = self.recipe.masks.short_side
        return height * width * min(1.0, cap / min(height, width)) ** 2 if cap else height * width

    def _step(self, size: int) -> None:
        """Two micro-batches where the batch is cut: the second meets the gradients of the first."""
        count = self.share // size
        batch: Any = made_up_batch(self.recipe.views, size)
        for plan in self.plans:
            parts = [batch] * (count if self.recipe.negatives == "global" else min(2, count))
            self.gradients(parts, plan, StepSeed(self.recipe.seed, plan.epoch, 0), True, alone=True)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def _within(self, known: Mapping[int, int], amount: int) -> bool:
        """Whether the peak of this amount is within the budget, on the line through the last two that are known."""
        if self.budget is None or not known:
            return True
        (first, low), (last, high) = [(0, self.base), *known.items()][-2:]
        slope = max(0.0, (high - low) / (last - first))
        return high + slope * (amount - last) <= self.budget

    def _try(self, work: Callable[[int], object], amount: int) -> bool:
        """Do this much work; False where memory runs out. All that it took is free again afterwards."""
        memory.forget_peak()
        fits = True
        try:
            work(amount)
        except (RuntimeError, MemoryError) as error:
            if not memory.out_of_memory(error):
                raise
            fits = False
        self.peak = memory.peak()
        self.method.zero_grad(set_to_none=True)
        _release(self.fabric.device)
        return fits
