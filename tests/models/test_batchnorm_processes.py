"""Several processes in a file of its own: those that are started import it, and torchvision takes seconds."""

import datetime
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from cyborgs.models.batchnorm import convert_batchnorm
from cyborgs.models.heads import MLPHead

STEPS = 2
SPLITS = {"3 and 0": (3, 0), "5 and 2": (5, 2), "1 and 0": (1, 0), "1 and 1": (1, 1), "0 and 0": (0, 0)}


def _network() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(1)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return convert_batchnorm(convolution).double(), MLPHead(6, 5, 4).double()


def _rows(total: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * total + step)
    return (
        torch.randn(total, 6, generator=generator, dtype=torch.float64),
        torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64),
    )


def _train(counts: tuple[int, ...], rank: int | None) -> dict[str, torch.Tensor]:
    """Two steps over one process's share of the rows, or, with rank None, over all of them."""
    convolution, head = _network()
    outputs, inputs = [], []
    for step in range(STEPS):
        rows, images = _rows(sum(counts), step)
        share = rows if rank is None else rows[sum(counts[:rank]) : sum(counts[: rank + 1])]
        part = images if rank is None else images[2 * rank : 2 * rank + 2]
        pooled = torch.full((8, 6), torch.nan, dtype=torch.float64)
        pooled[: len(share)] = share
        pooled.requires_grad_()
        valid = torch.arange(8) < len(share)
        # The oracle in one process is given the valid rows alone.
        result = head(pooled[valid]) if rank is None else head(pooled, valid)
        (result.square().sum() + result.pow(3).sum() + convolution(part).pow(3).sum()).backward()
        outputs.append(result.detach() if rank is None else result[valid].detach())
        inputs.append(pooled.grad[valid])
    gradients = {f"grad {i}": p.grad for i, p in enumerate([*convolution.parameters(), *head.parameters()])}
    buffers = {f"buffer {i}": b for i, b in enumerate([*convolution.buffers(), *head.buffers()])}
    head.eval()
    evaluated = head(_rows(3, 9)[0]).detach()
    return {"out": torch.cat(outputs), "in": torch.cat(inputs), "eval": evaluated, **gradients, **buffers}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    torch.save({name: _train(counts, rank) for name, counts in SPLITS.items()}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder: Path = tmp_path_factory.mktemp("gloo")
    mp.spawn(_process, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("split", list(SPLITS))
def test_two_processes_equal_one(two_processes: list[dict[str, dict[str, torch.Tensor]]], split: str) -> None:
    counts = SPLITS[split]
    expected = _train(counts, None)
    parts = [results[split] for results in two_processes]

    def by_step(name: str) -> torch.Tensor:
        """Rows of both processes, step after step."""
        chunks = [part[name].view(STEPS, count, part[name].shape[1]) for part, count in zip(parts, counts, strict=True)]
        return torch.cat(chunks, dim=1).flatten(0, 1)

    for name in ("out", "in"):
        torch.testing.assert_close(by_step(name), expected[name], rtol=1e-10, atol=1e-10)
    for name, value in expected.items():
        if name.startswith("grad"):
            torch.testing.assert_close(parts[0][name] + parts[1][name], value, rtol=1e-10, atol=1e-10)
        elif name.startswith("buffer"):
            assert torch.equal(parts[0][name], parts[1][name])  # the same on each process
            torch.testing.assert_close(parts[0][name], value, rtol=1e-10, atol=1e-10)
            assert value.isfinite().all()
        elif name == "eval":
            assert torch.equal(parts[0][name], parts[1][name])
            torch.testing.assert_close(parts[0][name], value, rtol=1e-10, atol=1e-10)
