"""Device, precision and processes of a run."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from cyborgs.runs.recipe import Recipe


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
        strategy = DDPStrategy(
            find_unused_parameters=True,  # parts of the network get no gradient during the warm-up
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
