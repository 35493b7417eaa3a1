"""Where a number that is not finite came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cyborgs import distributed
from cyborgs.errors import NotFiniteError
from cyborgs.seeds import derive
from cyborgs.structures import StepWork


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether every number of them is finite. Waits for a GPU."""
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def where_not_finite(
    module: nn.Module, works: Sequence[StepWork], autocast: AbstractContextManager[Any], *, forward: bool = True
) -> str:
    """The earliest place within a step, before its update, as the end of a sentence.

    With ``forward`` the step's forward pass is run again, without gradient, to see each module's output; buffers are
    as before. Else the gradients are looked at. A collective call where there are several processes: the answer is
    that of the first process that knows one.
    """
    spoilt = [name for name, p in module.named_parameters() if not all_finite([p])]
    if spoilt:
        more = f" and {len(spoilt) - 1} other parameters" if len(spoilt) > 1 else ""
        return (
            f"{spoilt[0]}{more} were not finite before the step began, so an earlier update spoilt them "
            "(with --log-every 1 every step is looked at before its update)"
        )
    own = _first_output(module, works, autocast) if forward else _last_gradient(module)
    answers = [found for found in distributed.gather_objects(own) if found]
    return answers[0] if answers else "all outputs of the network's modules are finite: it is the loss itself"


def _first_output(module: nn.Module, works: Sequence[StepWork], autocast: AbstractContextManager[Any]) -> str:
    found: list[str] = []

    def look(name: str, kind: str) -> Any:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if not found and not all_finite(list(_tensors(output))):
                found.append(f"the first output that is not finite is that of {name} ({kind})")

        return hook

    leaves = [(name, m) for name, m in module.named_modules() if name and not any(True for _ in m.children())]
    handles = [m.register_forward_hook(look(name, type(m).__name__)) for name, m in leaves]
    try:
        with torch.no_grad(), autocast, _same_buffers(module):
            for work in works:
                torch.manual_seed(derive(work.seed.seed, "step", work.seed.epoch, work.seed.step))
                module(work)
    except NotFiniteError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _last_gradient(module: nn.Module) -> str:
    """The backward pass goes from the last parameter to the first."""
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not all_finite([parameter.grad]):
            return f"the loss is finite, and the first gradient that is not is that of {name}"
    return ""


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)


@contextmanager
def _same_buffers(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)
