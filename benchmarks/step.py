"""A full training step over the bare cost of its encoders, in time and memory, interleaved in one process.

    python benchmarks/step.py [--device cuda] [--batch 8] [--precision bf16] [--backbone resnet50] [--size 224]

Bare encoders: online forward and backward of two views, target forward of two views. The full step adds normalisation,
region sampling and pooling, heads, the contrastive loss, LARS and the target's update; loss 2 is off.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from cyborgs.engine.optim import LARS, parameter_groups
from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.methods.cyborgs.method import Cyborgs
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import Batch, EpochPlan, StepSeed, StepWork, View, ViewGeometry
from cyborgs.views.config import ViewSpec


def batch_of(images: int, size: int, grid: int, device: str) -> Batch:
    rng = np.random.default_rng(0)
    whole = ViewGeometry.stack([ViewGeometry(0, 0, size, size, False, size, size)] * images)
    views = tuple(
        View(
            torch.from_numpy(rng.integers(0, 256, (images, 3, size, size), dtype=np.uint8)),
            whole,
            # 16 regions in every view
            torch.from_numpy(np.stack([rng.permutation(np.arange(grid * grid) % 16) for _ in range(images)]))
            .view(images, grid, grid)
            .to(torch.uint8),
        )
        for _ in range(2)
    )
    order = torch.from_numpy(np.stack([rng.permutation(256).astype(np.uint8) for _ in range(images)]))
    return Batch(views, torch.arange(images), 0, order).to(device)


def time_of(work: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    grid = args.size // 32
    recipe = Recipe(
        method=CyborgsConfig(),
        backbone=BackboneConfig(name=args.backbone),
        views=ViewSpec(size=args.size, grid=grid),
        batch_size=args.batch,
    )
    method = build_method(recipe).to(args.device)
    assert isinstance(method, Cyborgs)
    method.train()
    if args.precision == "bf16":
        method.to(memory_format=torch.channels_last)
    optimizer = LARS(parameter_groups(method, OptimizerConfig()), lr=0.1, weight_decay=1.5e-6)
    batch = batch_of(args.batch, args.size, grid, args.device)
    plan, seed = EpochPlan(6, (), {"contrast": 1.0}), StepSeed(0, 6, 0)
    ready = [method.backbone.normalise(view.images) for view in batch.views]

    def precision() -> contextlib.AbstractContextManager[object]:
        if args.precision == "bf16":
            return torch.autocast(args.device, torch.bfloat16)
        return contextlib.nullcontext()

    def bare() -> None:
        with precision():
            online = [method.backbone(x, method.fused) for x in ready]
            with torch.no_grad():
                for x in ready:
                    method.target_backbone(x, method.fused)
            total = sum(m[method.fused[-1]].float().mean() for m in online)
        total.backward()
        method.zero_grad(set_to_none=True)

    def full() -> None:
        with precision():
            losses, _ = method(StepWork(batch, plan, seed))
        losses["contrast"].backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)

    memory = {}
    for name, work in (("bare", bare), ("full", full)):
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        work()
        work()
        peak = (
            torch.cuda.max_memory_allocated() / 2**20
            if args.device == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        )
        memory[name] = peak
    times: dict[str, list[float]] = {"bare": [], "full": []}
    for _ in range(args.rounds):
        times["bare"].append(time_of(bare, args.device))
        times["full"].append(time_of(full, args.device))
    ratios = [f / b for f, b in zip(times["full"], times["bare"], strict=True)]
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{args.backbone}, {args.size} px, batch {args.batch}, {args.precision}, {where}")
    for name, values in times.items():
        print(f"  {name}: {statistics.median(values) * 1e3:.1f} ms, peak {memory[name]:.0f} MiB")
    print(
        f"  full / bare: {statistics.median(ratios):.3f} (median of {len(ratios)} pairs, "
        f"{min(ratios):.3f} to {max(ratios):.3f}); memory {memory['full'] / memory['bare']:.3f}"
    )


if __name__ == "__main__":
    main()
