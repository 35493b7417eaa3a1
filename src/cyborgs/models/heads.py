"""BYOL's projector and predictor, in which rows can be left out by a weight."""

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

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Rows (N, inputs) -> (N, outputs), for any N from 0.

        ``weight`` (N,), each 0 or 1 (bool too): rows of weight 0 may hold anything; they are left out of the statistics,
        their results are exact zeros, and no gradient passes through them. What a row of weight 1 gives is what it would
        give without them, whatever their number: shapes do not depend on it, so that nothing waits for a device.

        Every process must call it, with or without a row of weight 1, and its result must take part in the loss: the
        BatchNorm meets the other processes forward and backward.

        Raises:
            ValueError: not one weight a row.
        """
        if weight is None:
            result: Tensor = self.outputs(torch.relu(self.norm(self.hidden(x))))
            return result
        if weight.shape != x.shape[:1]:
            raise ValueError(f"one weight a row: ({len(x)},), got {tuple(weight.shape)}")
        kept = weight.unsqueeze(1) != 0
        hidden = self.norm(self.hidden(torch.where(kept, x, 0)), weight)
        return torch.where(kept, self.outputs(torch.relu(hidden)), 0)
