"""Training with labels, by the engine's one loop: whatever a protocol trains by steps comes through here."""

from __future__ import annotations

import json
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor, nn

from cyborgs import distributed
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.log import RunLog
from cyborgs.engine.signals import Stop
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.evaluation.contract import Context
from cyborgs.evaluation.training.batches import LabelledBatches, Samples
from cyborgs.evaluation.training.config import FineTuneConfig
from cyborgs.files import make_folder, write_bytes
from cyborgs.runs.folder import locked
from cyborgs.sealed import sealed, unsealed
from cyborgs.structures import EpochPlan, StepWork

POWER: Final = 0.9
"""Of the poly schedule."""
SETTINGS: Final = "training.json"


class Objective(nn.Module, ABC):
    """What is trained: a network that can tell its losses."""

    @abstractmethod
    def losses(self, images: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
        """Scalars with gradient, which are added up. images uint8 (B, 3, S, S), targets (B, ...)."""

    @abstractmethod
    def groups(self, head_lr_factor: float) -> list[dict[str, Any]]:
        """Groups of parameters for the optimiser; ``lr_scale`` is a factor of the rate."""


@final
class _Trainable(nn.Module):
    """An objective as the trainer knows it."""

    def __init__(self, objective: Objective, names: Sequence[str]) -> None:
        super().__init__()
        self.objective = objective
        self._names = tuple(names)

    def plan(self, epoch: int) -> EpochPlan:
        return EpochPlan(epoch, (), dict.fromkeys(self._names, 1.0), "fine-tuning")

    def after_step(self, progress: float) -> None:
        """Nothing follows a step here."""

    def forward(self, work: StepWork) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        batch: Any = work.batch
        return dict(self.objective.losses(batch.images, batch.targets)), {}


def steps_of(config: FineTuneConfig, images: int) -> tuple[int, int]:
    """(epochs, steps an epoch) of the trainer: an epoch of ``iterations`` steps, or as many as come nearest to a pass."""
    if config.iterations:
        return 1, config.iterations
    return config.epochs, max(1, round(images / config.batch_size))


def batch_of(config: FineTuneConfig, images: int) -> int:
    """Images in a step: no more than there are, where epochs are counted, or an epoch would be several passes.

    A single image comes twice, since BatchNorm may have no statistics of one.
    """
    return config.batch_size if config.iterations else min(config.batch_size, max(2, images))


def rate(config: FineTuneConfig, step: int, total: int) -> float:
    """Learning rate of a step, from 0, of ``total``: a pure function.

    step: x gamma from the first step of each milestone on. poly, as mmsegmentation (mmcv's ``PolyLrUpdaterHook``):
    (lr - min_lr) (1 - t)^0.9 + min_lr. cosine: half a cosine to 0.
    """
    if config.schedule == "step":
        passed = sum(step >= round(m * total) for m in config.milestones)
        return config.lr * math.pow(config.gamma, passed)
    t = min(step / total, 1.0)
    if config.schedule == "poly":
        return (config.lr - config.min_lr) * math.pow(1 - t, POWER) + config.min_lr
    return config.lr * (1 + math.cos(math.pi * t)) / 2


@dataclass(frozen=True)
class Trained:
    """How a training ended."""

    steps: int
    losses: Mapping[str, float]
    """Of the last step."""


def fine_tune(
    objective: Objective,
    samples: Samples,
    config: FineTuneConfig,
    context: Context,
    *,
    names: Sequence[str],
    identity: Mapping[str, Any],
    folder: str = "training",
    stop: Stop | None = None,
) -> Trained:
    """Train ``objective`` in place to the last step; no early stopping.

    In ``context.out`` / ``folder`` it keeps checkpoints and ``metrics.jsonl``; a training of the same ``identity`` that
    was cut off goes on there, bit for bit as if it had not been. Torch's global generators stay as they were.

    Args:
        objective: network and losses; moved to the device, and left there, in eval mode.
        samples: the training images.
        config: rates, length, precision.
        context: seed, device, workers, folder.
        names: of the losses that ``objective.losses`` gives.
        identity: what the result depends on beside ``config`` and seed: weights, data, settings; JSON.
        folder: below ``context.out``.
        stop: what asks it to stop; None: one of its own.

    Raises:
        UserError: too few images, several processes, or the folder holds a training of another identity.
        LossError: a loss is not finite.
        Stopped: by a signal, once a checkpoint is written.
    """
    if len(samples) == 0:
        raise UserError("there is no training image.")
    if distributed.is_distributed():
        raise UserError("fine-tuning runs in one process. Start it without torchrun.")
    epochs, per_epoch = steps_of(config, len(samples))
    batch = batch_of(config, len(samples))
    device = torch.device(context.device)
    with ExitStack() as stack:
        out = context.out
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cyborgs-")))
        place = out / folder
        make_folder(place, parents=True)
        stack.enter_context(locked(place, True))
        said = {"identity": dict(identity), "training": asdict(config), "seed": context.seed, "images": len(samples)}
        _agree(place, said)
        stack.enter_context(torch.random.fork_rng(devices=[device] if device.type == "cuda" else []))
        fabric = Fabric(strategy=SingleDeviceStrategy(device), precision=config.precision)
        fabric.launch()
        checkpoints = Checkpoints(place / "checkpoints", 1)
        checkpoint = checkpoints.load()
        length = checkpoint.state["metrics_bytes"] if checkpoint else 0
        log = stack.enter_context(RunLog(place, length=length))
        objective.to(memory_format=torch.channels_last)
        trainer = Trainer(
            fabric,
            _Trainable(objective, names),
            torch.optim.SGD(
                objective.groups(config.head_lr_factor),
                config.lr,
                config.momentum,
                weight_decay=config.weight_decay,
            ),
            LabelledBatches(samples, batch, per_epoch, context.seed, context.workers, device.type == "cuda"),
            epochs=epochs,
            steps_per_epoch=per_epoch,
            batch_size=batch,
            seed=context.seed,
            learning_rate=partial(_rate_of, config, epochs * per_epoch),
            refreshers={},
            log=log,
            checkpoints=checkpoints,
            checkpoint_every=config.checkpoint_every,
            log_every=max(1, min(50, per_epoch // 4)),
            stop=stop,
        )
        if checkpoint is not None:
            trainer.resume(checkpoint)
            log.say(f"{place}: going on from step {trainer.progress.step} of {trainer.total_steps}.")
        trainer.fit()
        losses = _last_losses(place)
    objective.eval()
    return Trained(epochs * per_epoch, losses)


def _rate_of(config: FineTuneConfig, total: int, step: int) -> float:
    return rate(config, step, total)


def _agree(place: Path, said: Mapping[str, Any]) -> None:
    """A folder belongs to one training: its settings are written first, and compared later."""
    file = place / SETTINGS
    if not file.exists():
        write_bytes(file, sealed(said))
        return
    try:
        before = unsealed(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: damaged ({error}). Give another --out, or remove {place}.") from error
    changed = [key for key in said if before.get(key) != _as_json(said)[key]]
    if changed:
        raise UserError(
            f"{place}: holds a training with another {', another '.join(changed)}. Give another --out, or remove it."
        )


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    return unsealed(sealed(value))


def _last_losses(place: Path) -> dict[str, float]:
    last: dict[str, float] = {}
    with open(place / "metrics.jsonl") as file:
        for line in file:
            last = {k: v for k, v in json.loads(line).items() if k == "loss" or k.startswith("loss/")}
    return last
