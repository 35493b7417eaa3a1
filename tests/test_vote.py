"""Votes of two processes travel between CPUs, whatever serves their GPUs."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from cyborgs.distributed import Vote

FLAGS = ((False, False), (True, False), (False, False), (False, True), (True, True), (False, False))


def _process(rank: int, folder: str, backend: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    dist.get_backend = lambda *_: backend  # type: ignore[assignment]  # there is no GPU here
    made: list[Any] = []
    new_group = dist.new_group

    def spy(*args: Any, **kwargs: Any) -> Any:
        made.append(kwargs)
        return new_group(*args, **kwargs)

    dist.new_group = spy
    vote = Vote()
    found = [vote(flags[rank]) for flags in FLAGS]
    torch.save({"found": found, "made": made}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def _votes(folder: Path, backend: str) -> list[dict[str, Any]]:
    folder.mkdir()
    mp.spawn(_process, (str(folder), backend), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_all_learn_a_step_later_what_any_said(tmp_path: Path) -> None:
    for backend, groups in (("gloo", []), ("nccl", [{"backend": "gloo"}])):
        for process in _votes(tmp_path / backend, backend):
            assert process["found"] == [False, False, True, False, True, True]
            assert process["made"] == groups


def test_one_process_tells_its_flag() -> None:
    vote = Vote()
    assert [vote(flag) for flag in (False, True, False)] == [False, True, False]
