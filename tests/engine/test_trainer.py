"""The loop on a toy: accumulation equals the whole batch, and the target moves once a step."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.trainer import Trainer
from cyborgs.structures import EpochPlan, StepWork

DATA = torch.arange(48, dtype=torch.float32).view(6, 4, 2) / 48


class Rows:
    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def to(self, device: torch.device, non_blocking: bool = False) -> Rows:
        return self


class Toy(nn.Module):
    """A linear map with two losses; no BatchNorm, so that parts of a batch add up exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.moved: list[float] = []

    def plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(epoch, (), {"square": 1.0, "line": 0.5})

    def after_step(self, progress: float) -> None:
        self.moved.append(progress)

    def forward(self, work: StepWork) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        y = work.batch.rows @ self.weight  # type: ignore[attr-defined]
        return {"square": y.square().mean(), "line": y.mean()}, {"size": torch.tensor(float(len(y)))}


def fit(micro_batches: int, folder: Path) -> Toy:
    toy = Toy()

    def batches(epoch: int, first_step: int = 0) -> Iterator[list[Any]]:
        for step in range(first_step, 3):
            yield [Rows(part) for part in DATA[3 * epoch + step].chunk(micro_batches)]

    folder.mkdir()
    with RunLog(folder, stream=io.StringIO()) as log:
        Trainer(
            Fabric(accelerator="cpu", devices=1), toy, torch.optim.SGD(toy.parameters(), lr=9.0), batches,
            epochs=2, steps_per_epoch=3, batch_size=4, seed=0, learning_rate=lambda step: 0.1 / (1 + step),
            refreshers={}, log=log, checkpoints=Checkpoints(folder / "c"), checkpoint_every=100, log_every=1,
        ).fit()  # fmt: skip
    return toy


def expected() -> torch.Tensor:
    """The same by hand, in float64."""
    weight = torch.ones(2, dtype=torch.float64)
    for step, rows in enumerate(DATA.double()):
        y = rows @ weight
        gradient = (2 * y[:, None] * rows).mean(0) + 0.5 * rows.mean(0)
        weight = weight - 0.1 / (1 + step) * gradient
    return weight


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_accumulation_equals_the_whole_batch(micro_batches: int, tmp_path: Path) -> None:
    toy = fit(micro_batches, tmp_path / "run")
    torch.testing.assert_close(toy.weight.detach().double(), expected(), rtol=1e-5, atol=1e-7)
    assert toy.moved == pytest.approx([(i + 1) / 6 for i in range(6)])
