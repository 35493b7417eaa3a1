"""Rank, gather, reduce; failing together. In one process everything here does nothing."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from cyborgs.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")
_rehearsing = False


class RemoteFailure(UserError):
    """What all processes do together failed in another one, which says why."""

    def __init__(self, rank: int) -> None:
        super().__init__(f"process {rank} of {world_size()} failed; its own message says why.")


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
    if _rehearsing:
        return torch.cat([x.clone() for _ in range(world_size())])
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x)
    return torch.cat(parts)


class _AllReduceSum(torch.autograd.Function):
    """Sum over processes whose gradient is summed over processes too."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        x = x.clone()
        if not _rehearsing:
            dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        if not _rehearsing:
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


def gather_objects(x: T) -> list[T]:
    """``x`` of all processes in rank order; small things that can be pickled."""
    if not is_distributed():
        return [x]
    found: list[T | None] = [None] * world_size()
    dist.all_gather_object(found, x)
    return cast(list[T], found)


def minimum(value: int) -> int:
    """The smallest of all processes' numbers, on all of them."""
    if not is_distributed():
        return value
    lowest = _flag(False).long() + value
    dist.all_reduce(lowest, op=dist.ReduceOp.MIN)
    return int(lowest.item())


@contextmanager
def rehearsal(module: torch.nn.Module) -> Iterator[None]:
    """Inside, what a step sums and gathers is this process's own: as large as otherwise, but nobody waits for anybody.

    For trying whether a step fits in memory: where it does not, the others would wait for ever. A collective call.
    """
    global _rehearsing
    synchronised = [m for m in module.modules() if isinstance(m, torch.nn.SyncBatchNorm)]  # torch's own calls
    groups = [m.process_group for m in synchronised]
    if synchronised and is_distributed():
        alone = [dist.new_group([r]) for r in range(world_size())]
        for m in synchronised:
            m.process_group = alone[rank()]
    _rehearsing = True
    try:
        yield
    finally:
        _rehearsing = False
        for m, group in zip(synchronised, groups, strict=True):
            m.process_group = group


def _flag(flag: bool) -> Tensor:
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    return torch.full((1,), int(flag), device=device)


def all_or_none(action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do something on all processes, each its part; where it fails on one it raises on all, so that none waits for ever.

    The action itself must not wait for other processes.

    Raises:
        RemoteFailure: it failed, and not in this process. What fails in this one is raised as it is.
    """
    failure: Exception | None = None
    try:
        result = action(*args, **kwargs)
    except Exception as error:
        failure = error
    if is_distributed():
        failed = all_gather(_flag(failure is not None)).tolist()
        if any(failed):
            first = failed.index(1)
            if failure is None:
                raise RemoteFailure(first)
            if isinstance(failure, UserError):
                failure.reports_itself = first == rank()
    if failure is not None:
        raise failure
    return result


def run_on_rank_zero(action: Callable[[], T], passing: tuple[type[Exception], ...] = (UserError,)) -> T:
    """Do something on the first process alone, while the others wait; its result, on all of them.

    Args:
        action: what is done; its result is pickled.
        passing: errors that the others raise too, as they are, which the first process tells of.

    Raises:
        RemoteFailure: it failed in another way, on all processes but the first, which raises what it was.
    """
    if not is_distributed():
        return action()
    failure: Exception | None = None
    found: list[tuple[bool, T | Exception | None]] = [(False, None)]
    if rank() == 0:
        try:
            found = [(True, action())]
        except Exception as error:
            failure = error
            found = [(False, error if isinstance(error, passing) and _travels(error) else None)]
    dist.broadcast_object_list(found, 0)
    done, result = found[0]
    if not done:
        raise failure or (result if isinstance(result, Exception) else RemoteFailure(0))
    return result  # type: ignore[return-value]


def _travels(error: Exception) -> bool:
    """Whether it survives pickling, which not every class of errors does."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


class Vote:
    """``all_any`` for every step: it tells what the flags were at the call before, so that nobody waits.

    Flags travel between the CPUs (gloo, beside nccl where that serves the GPUs): one on a device could be read only
    after all that the device still has to do. In one process there is nobody to wait for, and it tells the flag itself.
    """

    def __init__(self) -> None:
        self._group: Any = None
        self._before: tuple[Tensor, dist.Work] | None = None

    def __call__(self, flag: bool) -> bool:
        """Whether any process passed True: now (one process) or at its previous call; the same on all processes."""
        if not is_distributed():
            return flag
        if self._group is None and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        value = torch.full((1,), int(flag))
        work = dist.all_reduce(value, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        before, self._before = self._before, (value, work)
        if before is None:
            return False
        before[1].wait()
        return bool(before[0].item())


class Pieces:
    """A long work in pieces, each process at its own pace: up to ``ahead`` pieces before the slowest.

    All call ``do`` equally often, until it returns True or raises, and then, where it did neither, ``finish``. What one
    piece asked or raised is so found by all at the same call. In one process it is found at once.
    """

    def __init__(self, ahead: int = 4) -> None:
        self.ahead = ahead
        self._sent: deque[tuple[Tensor, dist.Work]] = deque()
        self._stop = False
        self._failure: Exception | None = None

    def do(self, piece: Callable[[], bool]) -> bool:
        """Do the next piece, which returns True where the work is to stop; nothing more of this process's after that.

        The piece itself must not wait for other processes.

        Returns:
            Whether any process asked to stop.

        Raises:
            RemoteFailure: a piece failed, and none of this process's. What fails in this one is raised as it is.
        """
        if not self._stop and self._failure is None:
            try:
                self._stop = piece()
            except Exception as error:
                self._failure = error
        if not is_distributed():
            if self._failure is not None:
                raise self._failure
            return self._stop
        state = _flag(False).repeat(1 + world_size())
        state[0] = self._stop
        state[1 + rank()] = self._failure is not None
        self._sent.append((state, dist.all_reduce(state, op=dist.ReduceOp.MAX, async_op=True)))
        return len(self._sent) > self.ahead and self._found()

    def finish(self) -> bool:
        """Wait for the others' last pieces; returns and raises as ``do``."""
        return any(self._found() for _ in range(len(self._sent)))

    def _found(self) -> bool:
        """What the processes said in the oldest call that is not known yet; where it is the end, nothing stays under way."""
        state, work = self._sent.popleft()
        work.wait()
        stop, *failed = state.tolist()
        if stop or any(failed):
            while self._sent:
                self._sent.popleft()[1].wait()
        if not any(failed):
            return bool(stop)
        first = failed.index(1)
        if self._failure is None:
            raise RemoteFailure(first)
        if isinstance(self._failure, UserError):
            self._failure.reports_itself = first == rank()
        raise self._failure


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Copy rank 0's buffers to all processes."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
