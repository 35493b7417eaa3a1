"""Rank, gather, reduce. In one process everything here does nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether a process group of more than one process is up."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 in one process."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Wait for all processes."""
    if is_distributed():
        dist.barrier()


def all_gather(x: Tensor) -> Tensor:
    """Concatenate ``x`` of all processes along the first axis, in rank order, without gradient.

    Every process passes the same shape.
    """
    if not is_distributed():
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes whose gradient is summed over processes too."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum of ``x`` over processes, differentiable: every process must take part in the backward pass."""
    if not is_distributed():
        return x
    result: Tensor = _AllReduceSum.apply(x)
    return result


def all_any(flag: bool) -> bool:
    """True on every process where the flag is set on any of them."""
    if not is_distributed():
        return flag
    value = _flag(flag)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def _flag(flag: bool) -> Tensor:
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    return torch.full((1,), int(flag), device=device)


class Vote:
    """``all_any`` for every step: it tells what the flags were at the call before, so that nobody waits.

    In one process there is nobody to wait for, and it tells the flag itself.
    """

    def __init__(self) -> None:
        self._before: tuple[Tensor, dist.Work] | None = None

    def __call__(self, flag: bool) -> bool:
        """Whether any process passed True: now (one process) or at its previous call; the same on all processes."""
        if not is_distributed():
            return flag
        value = _flag(flag)
        work = dist.all_reduce(value, op=dist.ReduceOp.MAX, async_op=True)
        before, self._before = self._before, (value, work)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0].item())


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy rank 0's buffers to all processes."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
