"""Steps of LARS, SGD and AdamW: of a run that began, and of the same run after a resume.

    python benchmarks/optimizers.py [--device cuda] [--backbone resnet18] [--steps 20] [--rounds 5]

Fresh and resumed optimisers take turns, so that both see the same machine; weights are channels-last, as in a run. The
third figure is what a step after a resume would be where state lay as the file holds it: as plain rows.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cyborgs.engine.checkpoint import Checkpoints, load_networks, load_optimizer
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig

CONFIGS = (
    OptimizerConfig(kind="lars", lr=0.1),
    OptimizerConfig(kind="sgd", lr=0.01, weight_decay=1e-4),
    OptimizerConfig(kind="adamw", lr=1e-4, weight_decay=0.05),
)


def fill(module: nn.Module) -> None:
    """Gradients, laid out as the weights are."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.grad = torch.empty_like(parameter).normal_(std=1e-3)


def rows(optimizer: Optimizer) -> None:
    """Lay all state out as plain rows."""
    for state in optimizer.state.values():
        for name, value in state.items():
            if isinstance(value, Tensor):
                state[name] = value.contiguous()


def seconds(optimizer: Optimizer, steps: int, device: torch.device) -> float:
    """Of one step, on average."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.backbone}, {where}, {args.rounds} rounds of {args.steps} steps")
    first = Backbone(BackboneConfig(name=args.backbone)).to(device, memory_format=torch.channels_last)
    for config in CONFIGS:
        modules = {"fresh": copy.deepcopy(first), "resumed": copy.deepcopy(first), "plain rows": copy.deepcopy(first)}
        optimizers = {n: build_optimizer(config, parameter_groups(m, config), config.lr) for n, m in modules.items()}
        fill(modules["fresh"])
        optimizers["fresh"].step()
        with tempfile.TemporaryDirectory() as folder:
            checkpoints = Checkpoints(Path(folder))
            checkpoints.save(1, modules["fresh"].state_dict(), optimizers["fresh"].state_dict(), {})
            checkpoint = checkpoints.load()
        assert checkpoint is not None
        for name in ("resumed", "plain rows"):
            load_networks(modules[name], checkpoint)
            load_optimizer(optimizers[name], checkpoint)
            fill(modules[name])
        rows(optimizers["plain rows"])
        found: dict[str, list[float]] = {name: [] for name in optimizers}
        for number in range(args.rounds + 1):
            for name, optimizer in optimizers.items():
                taken = seconds(optimizer, args.steps, device)
                if number:  # the first sets things up
                    found[name].append(taken)
        for name, times in found.items():
            ratios = [a / b for a, b in zip(times, found["fresh"], strict=True)]
            print(
                f"  {config.kind:<5} {name:<10} {1e3 * statistics.median(times):7.2f} ms, "
                f"{statistics.median(ratios):5.2f} of fresh ({min(ratios):.2f} to {max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
