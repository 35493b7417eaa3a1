"""The one loop. It knows a trainable, batches, refreshers and callbacks: no masks, no views, no methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Optimizer

from cyborgs import distributed
from cyborgs.engine.accumulate import Gradients
from cyborgs.engine.callback import Callback, Progress
from cyborgs.engine.checkpoint import Checkpoint, Checkpoints, load_networks, load_optimizer
from cyborgs.engine.clock import Clock
from cyborgs.engine.contract import ADVICE, BatchSource, LossError, MicroBatch, Refresher, Stopped, memory_ran_out
from cyborgs.engine.diagnosis import where_not_finite
from cyborgs.engine.log import RunLog, Speed, duration, loss_text
from cyborgs.engine.optim import clip_gradients, set_rates
from cyborgs.engine.signals import Stop
from cyborgs.errors import NotFiniteError
from cyborgs.machine.memory import out_of_memory
from cyborgs.structures import EpochPlan, StepSeed, StepWork


class Trainer:
    """Plan, refresh, step, log, checkpoint.

    Args:
        fabric: device, precision and processes.
        trainable: an ``nn.Module`` that is ``Trainable``.
        optimizer: over the trainable's parameters.
        batches: where batches come from.
        refreshers: by the names of ``EpochPlan.refresh``.
        learning_rate: step -> rate, a pure function; a group of parameters with ``lr_scale`` has that times the rate.
        schedule: step -> what else of the optimiser changes (``engine.optim.set_rates``).
        clip: largest norm of the gradient; 0: any.
        batch_size: images in a step over all processes.
        negatives: how losses see the global batch (``engine/accumulate.py``).
        stop: what asks it to stop; None: one of its own.
    """

    def __init__(
        self,
        fabric: Fabric,
        trainable: nn.Module,
        optimizer: Optimizer,
        batches: BatchSource,
        *,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        seed: int,
        learning_rate: Callable[[int], float],
        refreshers: Mapping[str, Refresher],
        log: RunLog,
        checkpoints: Checkpoints,
        checkpoint_every: int,
        log_every: int,
        callbacks: Sequence[Callback] = (),
        negatives: Literal["micro", "global"] = "micro",
        stop: Stop | None = None,
        schedule: Callable[[int], Mapping[str, float]] = lambda step: {},
        clip: float = 0.0,
    ) -> None:
        self.fabric = fabric
        self.trainable = trainable
        self.batches = batches
        self.epochs = epochs
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.seed = seed
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.clip = clip
        self.refreshers = refreshers
        self.log = log
        self.checkpoints = checkpoints
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.callbacks = list(callbacks)
        self.progress = Progress()
        self.optimizer = optimizer
        self.times: dict[str, float] = {}
        """The clock readings of the last logged step."""
        self.speed = Speed()
        self.clock = Clock()
        self.doing = "starting"
        """What it is at, in words: for a report of a failure."""
        self.batch: tuple[int, int] | None = None
        """Epoch and step in it of the batch that is trained on; None outside of steps."""
        self._stop = Stop() if stop is None else stop
        self._vote = distributed.Vote()
        module, self._optimizer = fabric.setup(trainable, optimizer)
        self._gradients = Gradients(fabric, module, trainable, negatives)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    def stop(self) -> None:
        """Finish the step, write a checkpoint, leave."""
        self._stop.ask()

    def leave(self, signal: int = 0) -> None:
        """Write a checkpoint and raise Stopped at once: for a callback whose own work was stopped by ``signal``."""
        self._stop.ask(signal)
        self._leave()

    def resume(self, checkpoint: Checkpoint) -> None:
        """Put networks, optimiser and progress where the checkpoint left them."""
        load_networks(self.trainable, checkpoint)
        load_optimizer(self._optimizer, checkpoint)
        self.progress = Progress(**checkpoint.state["progress"])
        states = checkpoint.state.get("callbacks", {})
        for callback in self.callbacks:
            if callback.name in states:
                callback.load_state_dict(states[callback.name])

    def fit(self) -> None:
        """Train to the last epoch.

        Raises:
            Stopped: after ``stop()`` or a signal (``engine/signals.py``), once a checkpoint is written.
            LossError: a logged loss is not finite; names loss and step.
        """
        self.trainable.train()
        with self._stop.listening():
            while self.progress.step < self.total_steps:
                epoch, first = divmod(self.progress.step, self.steps_per_epoch)
                plan = self._plan(epoch)
                if self.progress.refreshed < epoch:
                    self._refresh(plan)
                self._epoch(plan, first)
        self.doing, self.batch = "ending", None
        for callback in self.callbacks:
            callback.on_end(self)
        self.save()

    def _check_weights(self) -> None:
        """A checkpoint or masks of weights that are not finite would poison all that follows."""
        norms = torch._foreach_norm([p.detach() for p in self.trainable.parameters()])
        if not bool(torch.isfinite(torch.stack([n.float() for n in norms])).all()):
            raise LossError(f"weights are not finite after step {self.progress.step}. {ADVICE}")

    def save(self) -> None:
        """Write a checkpoint, from the first process.

        Raises:
            LossError: a weight is NaN or infinite; the checkpoint before stays the last.
        """
        self._check_weights()
        with self.clock.during("saving"):
            distributed.run_on_rank_zero(self._write)

    def _write(self) -> None:
        state = {
            "progress": asdict(self.progress),
            "metrics_bytes": self.log.flush(),
            "callbacks": {c.name: c.state_dict() for c in self.callbacks if c.name},
        }
        self.checkpoints.save(self.progress.step, self.trainable.state_dict(), self._optimizer.state_dict(), state)

    def _plan(self, epoch: int) -> EpochPlan:
        plan: EpochPlan = self.trainable.plan(epoch)  # type: ignore[operator]
        return plan

    def _refresh(self, plan: EpochPlan) -> None:
        for callback in self.callbacks:
            callback.on_epoch(self, plan)
        for name in plan.refresh:
            distributed.broadcast_buffers(self.trainable)

            def report(done: int, total: int, name: str = name) -> None:
                self.log.progress(
                    f"epoch {plan.epoch + 1}/{self.epochs} | making {name} {done} of {total}", done, total
                )
                for callback in self.callbacks:
                    callback.on_refresh(self, name, done, total)

            self.doing, self.batch = f"making {name}", None
            self._check_weights()
            self.clock.read()
            made = self.refreshers[name](self.progress.cycle, report, lambda: bool(self._stop))
            if made is False:
                self._leave()
            self.trainable.train()
            if made is None:
                continue
            figures: dict[str, float] = {}
            for callback in self.callbacks:
                figures |= callback.on_refreshed(self, name)
            place = {"step": self.progress.step, "epoch": plan.epoch, "refresh": name, "cycle": self.progress.cycle}
            self.log.write(place | figures | self.clock.read())
            self.log.say(f"epoch {plan.epoch + 1}/{self.epochs} | {name} ready (cycle {self.progress.cycle})")
        self.progress.refreshed = plan.epoch
        if plan.refresh:
            self.progress.cycle += 1
            self.save()
        self.speed.skip()

    def _leave(self) -> None:
        self.log.say("Stopping: a checkpoint is being written. Ctrl-C stops at once.")
        self.save()
        raise Stopped(self._stop.signal, self.progress.step)

    def _epoch(self, plan: EpochPlan, first: int) -> None:
        last: dict[str, float] = {}
        batches = iter(self.batches(plan.epoch, first))
        for step in range(first, self.steps_per_epoch):
            self.doing, self.batch = plan.phase, (plan.epoch, step)
            with self.clock.during("waiting"):
                micro_batches = next(batches)
            rate = self.learning_rate(self.progress.step)
            logged = (self.progress.step + 1) % self.log_every == 0 or step + 1 == self.steps_per_epoch
            values = self._step(plan, step, micro_batches, rate, logged)
            self.progress.step += 1
            self.trainable.after_step(self.progress.step / self.total_steps)  # type: ignore[operator]
            speed = self.speed.update(self.batch_size)
            if logged:
                last = self._log(plan, values, rate, speed)
            self.log.progress(self._line(plan, last, rate, speed), self.progress.step, self.total_steps)
            for callback in self.callbacks:
                callback.on_step(self)
            if self._vote(bool(self._stop)):
                self._leave()
            if self.progress.step % self.checkpoint_every == 0:
                self.save()
        self.log.say(self._line(plan, last, rate, speed))

    def _step(
        self, plan: EpochPlan, step: int, micro_batches: Sequence[MicroBatch], rate: float, logged: bool
    ) -> dict[str, Tensor]:
        """Gradients of the global batch, one optimiser step; the losses and metrics, still on the device."""
        set_rates(self._optimizer, rate, self.schedule(self.progress.step))
        seed = StepSeed(self.seed, plan.epoch, step)

        def works() -> list[StepWork]:
            return [StepWork(batch.to(self.fabric.device), plan, seed) for batch in micro_batches]

        try:
            values = self._gradients(micro_batches, plan, seed, logged)
        except NotFiniteError as error:
            raise self._features_not_finite(works, error) from error
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise memory_ran_out(self.progress.step, error) from error
        if logged or self.clip:
            values["gradient/norm"] = clip_gradients(self.trainable.parameters(), self.clip)
        for callback in self.callbacks:
            callback.on_gradients(self, plan, works, values, logged)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return values

    def _features_not_finite(self, works: Callable[[], list[StepWork]], error: NotFiniteError) -> LossError:
        # With several processes the others have not failed, and would not take part in the search.
        alone = not distributed.is_distributed()
        where = f": {where_not_finite(self.trainable, works(), self.fabric.autocast())}" if alone else ""
        failure = LossError(f"features are not finite at step {self.progress.step + 1} ({error}){where}. {ADVICE}")
        failure.reports_itself = True  # maybe of this process's photos alone
        return failure

    def _log(self, plan: EpochPlan, values: Mapping[str, Tensor], rate: float, speed: float) -> dict[str, float]:
        names = list(values)
        stacked = torch.stack([values[name].double().detach() for name in names])
        if distributed.is_distributed():
            stacked = distributed.all_reduce_sum(stacked) / distributed.world_size()
        numbers = dict(zip(names, stacked.tolist(), strict=True))
        for name, value in numbers.items():
            if (
                name.startswith("loss")
                and not math.isfinite(value)
                and not any(c.allows_not_finite for c in self.callbacks)
            ):
                raise LossError(f"{name} is {value} at step {self.progress.step} (epoch {plan.epoch}). {ADVICE}")
        # A figure that is not defined here (the spread of a single row) is left out: JSON has no NaN.
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        numbers["lr"] = rate
        for callback in self.callbacks:
            numbers |= callback.measure(self, plan, numbers)
        place = {"step": self.progress.step, "epoch": plan.epoch, "phase": plan.phase}
        self.times = {"images_per_second": round(speed, 2)} | self.clock.read("waiting", "saving")
        self.log.write(place | numbers | self.times)
        for callback in self.callbacks:
            callback.on_log(self, plan, numbers)
        return numbers

    def _line(self, plan: EpochPlan, numbers: Mapping[str, float], rate: float, speed: float) -> str:
        left = (self.total_steps - self.progress.step) * self.batch_size / max(speed, 1e-9)
        return (
            f"epoch {plan.epoch + 1}/{self.epochs} | {plan.phase} | {loss_text(numbers)} | lr {rate:.3g} | "
            f"{speed:.0f} img/s | left {duration(left)}"
        )
