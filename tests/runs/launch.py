"""Real gloo processes, as torchrun starts them, forked from a server that has imported everything. No test itself."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm  # noqa: F401 - what a run imports late is forked too
import torch
import torch.utils.tensorboard

import cyborgs.runs.pretrain  # noqa: F401
from cyborgs.cli import main
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Ended:
    """How the processes of a launch ended."""

    codes: list[int]
    said: list[str]
    """What each wrote to stdout and stderr."""
    seconds: float


def nothing(rank: int) -> None:
    """The change of a process that is to be as it is."""


def _child(
    rank: int, world: int, port: int, argv: list[str], said: str, change: Callable[..., None], args: tuple[Any, ...]
) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    os.environ.update(XDG_CACHE_HOME=str(Path(said).parent / "cache"))
    if world > 1:
        for name, number in (("RANK", rank), ("WORLD_SIZE", world), ("LOCAL_RANK", rank), ("LOCAL_WORLD_SIZE", world)):
            os.environ[name] = str(number)
    torch.set_num_threads(1)
    code = 70
    try:
        change(rank, *args)
        code = main(argv)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def launch(
    world: int,
    recipe: Recipe,
    photos: Path,
    out: Path,
    *more: str,
    change: Callable[..., None] = nothing,
    args: Any = (),
) -> Ended:
    """Pretrain in ``world`` processes; ``change(rank, *args)`` is called in each first."""
    path = out.with_suffix(".yaml")
    path.write_text(recipe_file.to_text(recipe))
    argv = ["pretrain", str(path), "--data", str(photos), "--out", str(out), *more]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = [out.with_name(f"{out.name}-said{rank}") for rank in range(world)]
    processes = [
        CONTEXT.Process(target=_child, args=(rank, world, port, argv, str(file), change, args))
        for rank, file in enumerate(files)
    ]
    start = time.monotonic()
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, start + 60 - time.monotonic()))
    seconds = time.monotonic() - start
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()
    return Ended([process.exitcode or 0 for process in processes], [file.read_text() for file in files], seconds)
