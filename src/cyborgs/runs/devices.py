"""Device, precision and processes of a run."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from typing import Any, final

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cyborgs.runs.recipe import Recipe


@final
class SearchingDDP(DDPStrategy):
    """DDP that searches a step's graph for parameters without gradient only with losses that leave some without.

    Those of the warm-up do: what lies behind the clustered layer. The first step with a set of losses is searched;
    where all parameters got a gradient, the module is wrapped anew, and later steps with these losses are not.

    Args:
        always: search every step. Without a search DDP cuts its buckets anew after the first step, hence a resumed run
            would add up the gradients of three and more processes in another order than an uninterrupted one.
        settings: of ``DDPStrategy``.
    """

    def __init__(self, always: bool, **settings: Any) -> None:
        super().__init__(find_unused_parameters=True, **settings)
        self._always = always
        self._losses: frozenset[str] = frozenset()
        self._partial: dict[frozenset[str], bool] = {}
        """Whether a set of losses leaves parameters without gradient, as far as that is known."""

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        """Wrap it."""
        self._wrapped = super().setup_module(module)
        return self._wrapped

    def wrapped_for(self, losses: frozenset[str], fabric: Fabric, module: Any) -> Any:
        """``module``, as ``fabric`` wrapped it, or wrapped anew where a step with these losses needs it otherwise."""
        self._losses = losses
        search = self._always or self._partial.get(losses, True)
        if search != self._ddp_kwargs["find_unused_parameters"]:
            # All processes have the same weights already.
            self._ddp_kwargs |= {"find_unused_parameters": search, "init_sync": False}
            module = fabric.setup_module(module.module)
        return module

    def backward(self, tensor: Tensor, module: nn.Module | None, *args: Any, **kwargs: Any) -> None:
        """A backward pass; after a step's last one, when gradients have met, note whether all parameters got one."""
        super().backward(tensor, module, *args, **kwargs)
        if self._wrapped.require_backward_grad_sync:
            self._partial[self._losses] = any(p.grad is None for p in self._wrapped.parameters() if p.requires_grad)


def make_fabric(recipe: Recipe) -> Fabric:
    """Device, precision and processes: one process, or those that torchrun started."""
    cuda = torch.cuda.is_available()
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    world = int(os.environ.get("WORLD_SIZE", "1"))
    strategy: Any = "auto"
    if world > 1:
        # Statistics are synchronised, so that buffers need no broadcast at each step. The setting has a new name.
        buffers = "forward_sync_buffers"
        if buffers not in inspect.signature(DistributedDataParallel).parameters:
            buffers = "broadcast_buffers"
        settings: dict[str, Any] = {buffers: False}
        strategy = SearchingDDP(
            always=world > 2 and (recipe.deterministic or not cuda),
            process_group_backend="nccl" if cuda else "gloo",
            # Long, because the others wait while the first process scans the photos. A process that is killed is noticed
            # at once all the same, since its connections close (runs/processes.py); one that hangs is waited for.
            timeout=timedelta(hours=6),
            **settings,
        )
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        strategy=strategy,
        devices=local,
        num_nodes=max(1, world // local),
        precision=recipe.precision,
    )
    fabric.launch()
    torch.use_deterministic_algorithms(recipe.deterministic)
    return fabric
