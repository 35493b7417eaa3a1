"""A step's memory and time: the whole batch, plain micro-batches, and micro-batches with negatives over all of it.

    python benchmarks/accumulate.py [--device cuda] [--batch 64] [--micro 8] [--backbone resnet18] [--size 128]

Each kind has a process of its own, so that the peak is its own; on a CPU the peak is of the whole process, less what it
holds before the first step. Processes take turns, a step each, so that all see the same machine. Loss 2 is off; its
memory is that of its slices in all three.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
from lightning_fabric import Fabric

from cyborgs.engine.accumulate import Gradients
from cyborgs.engine.optim import build_optimizer, parameter_groups
from cyborgs.machine import memory
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.runs.build import build_method
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan, StepSeed
from cyborgs.views.config import ViewSpec
from cyborgs.views.micro_batches import made_up_batch

KINDS = {"whole batch": ("whole", "micro"), "plain": ("parts", "micro"), "cached": ("parts", "global")}


def work(kind: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Answers each request with (seconds, peak bytes) of a step."""
    if args.threads:
        torch.set_num_threads(args.threads)
    size, negatives = KINDS[kind]
    images = args.batch if size == "whole" else args.micro
    recipe = Recipe(
        method=CyborgsConfig(hidden=args.hidden),
        backbone=BackboneConfig(name=args.backbone),
        views=ViewSpec(size=args.size, grid=args.size // 16),
        batch_size=args.batch,
    )
    fabric = Fabric(accelerator=args.device, devices=1)
    method = build_method(recipe).train().to(memory_format=torch.channels_last)
    groups = parameter_groups(method, recipe.optimizer)
    module, optimizer = fabric.setup(method, build_optimizer(recipe.optimizer, groups, 0.01))
    gradients = Gradients(fabric, module, method, negatives)  # type: ignore[arg-type]
    parts: list[Any] = [made_up_batch(recipe.views, images)] * (args.batch // images)
    before = memory.resident() or 0
    while pipe.recv():
        if args.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        memory.forget_peak()
        start = time.perf_counter()
        gradients(parts, EpochPlan(6, (), {"contrast": 1.0}), StepSeed(0, 6, 0), False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(0.5)
        if args.device == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        pipe.send((seconds, torch.cuda.max_memory_allocated() if args.device == "cuda" else memory.peak() - before))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    start = multiprocessing.get_context("spawn")
    pipes = {}
    for kind in KINDS:
        pipes[kind], other = start.Pipe()
        start.Process(target=work, args=(kind, args, other), daemon=True).start()
    found: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for number in range(args.rounds + 1):
        for kind, pipe in pipes.items():
            pipe.send(True)
            answer = pipe.recv()
            if number:  # the first sets things up
                found[kind].append(answer)
    for pipe in pipes.values():
        pipe.send(False)
    where = torch.cuda.get_device_name() if args.device == "cuda" else f"CPU, {args.threads or 'all'} threads"
    print(f"{args.backbone}, {args.size} px, batch {args.batch} in {args.micro}s, {where}, {args.rounds} rounds")
    whole = found["whole batch"]
    for kind, answers in found.items():
        ratios = [a[0] / b[0] for a, b in zip(answers, whole, strict=True)]
        most = max(peak for _, peak in answers)
        print(
            f"  {kind:<12} {statistics.median(a[0] for a in answers):7.2f} s, {statistics.median(ratios):5.2f} of the "
            f"whole ({min(ratios):.2f} to {max(ratios):.2f}); {most / 2**20:7.0f} MiB, "
            f"{most / max(peak for _, peak in whole):5.2f} of the whole"
        )


if __name__ == "__main__":
    main()
