"""BYOL's projector and predictor, and the passage of valid regions alone through them."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from cyborgs.models.batchnorm import BatchNorm


@final
class MLPHead(nn.Module):
    """Linear, BatchNorm, ReLU, Linear without bias (BYOL). Its BatchNorm sees the rows of all processes."""

    def __init__(self, inputs: int, hidden: int = 4096, outputs: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.norm = BatchNorm(hidden)
        self.outputs = nn.Linear(hidden, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> (N, outputs), for any N from 0."""
        result: Tensor = self.outputs(torch.relu(self.norm(self.hidden(x))))
        return result


def valid_rows(valid: Tensor) -> Tensor:
    """bool (B, R) -> int64 (N,): places of the valid slots in the flattened (B * R). Waits for a GPU, once."""
    return valid.flatten().nonzero().squeeze(1)


def embed_valid(head: nn.Module, pooled: Tensor, valid: Tensor, rows: Tensor | None = None) -> Tensor:
    """The valid regions of one view through a head as ONE matrix, so that absent ones do not enter its statistics.

    Every process must call it, with or without a valid region, and its result must take part in the loss: the head's
    BatchNorm meets the other processes forward and backward.

    Args:
        head: (N, C) -> (N, D), for any N from 0.
        pooled: float (B, R, C).
        valid: bool (B, R).
        rows: ``valid_rows(valid)``, if it is at hand: online and target heads share it.

    Returns:
        (B, R, D) of the head's dtype; exact zeros, without gradient, where not valid.
    """
    if valid.shape != pooled.shape[:2] or valid.dtype != torch.bool:
        raise ValueError(f"valid is bool {tuple(pooled.shape[:2])}, got {valid.dtype} {tuple(valid.shape)}")
    if rows is None:
        rows = valid_rows(valid)
    embedded = head(pooled.flatten(0, 1).index_select(0, rows))
    # Each place is written at most once, so that the order of writing does not matter on a GPU.
    scattered: Tensor = embedded.new_zeros(valid.numel(), embedded.shape[1]).index_copy(0, rows, embedded)
    return scattered.view(*valid.shape, -1)
