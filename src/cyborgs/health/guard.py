"""Whether a run goes well: figures in the log, a sentence where something is wrong, and a stop where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from cyborgs import distributed
from cyborgs.data.store_format import StoreError
from cyborgs.engine.callback import Callback, Training
from cyborgs.engine.contract import ADVICE, LossError
from cyborgs.engine.diagnosis import where_not_finite
from cyborgs.errors import UserError
from cyborgs.health.advice import over, sentence
from cyborgs.health.config import HealthConfig
from cyborgs.health.symptoms import Circumstances, Memory, Reading, above, read_masks, read_step
from cyborgs.health.vitals import dead_share, update_ratio
from cyborgs.masks.bootstrap import draw_group_clusters, draw_groups
from cyborgs.masks.config import MaskConfig
from cyborgs.masks.statistics import mask_figures
from cyborgs.masks.store import MaskStore
from cyborgs.methods.settings import MethodConfig
from cyborgs.structures import EpochPlan, StepWork


class SickRunError(UserError):
    """The run was to stop where it goes wrong in this way, and has written a checkpoint."""


@dataclass
class Episode:
    """How one sickness goes."""

    sick: int = 0
    """Readings in a row that were sick."""
    well: int = 0
    """Readings in a row that were not."""
    since: int = 0
    """The step of the first of the sick ones."""
    active: bool = False
    """Whether it was said."""


@final
class Health(Callback):
    """Adds figures to logged steps and refreshes, judges them, says what begins and what is over.

    An event is a line of metrics.jsonl, the same in every equal run: ``health`` names the sickness, ``state`` is
    ``begins`` or ``ends``, with ``sentence``, ``figure`` and ``value``. ``starved_loader`` depends on the clock, so it is
    said in the terminal alone and forgotten on resume; its figures are ``seconds_waiting`` and ``seconds`` of each line.
    """

    name = "health"

    def __init__(
        self,
        config: HealthConfig,
        method: MethodConfig,
        masks: MaskConfig,
        *,
        peak_rate: float,
        seed: int,
        out: Path,
        count: int,
    ) -> None:
        """Judge a run.

        Args:
            config: what is done about each sickness.
            method: the settings of what is trained.
            masks: the settings of its masks.
            peak_rate: the highest learning rate of the run.
            seed: the run's, from which the groups of the masks were drawn.
            out: the run's folder, where the masks are.
            count: how many photos there are.
        """
        self.config = config
        self.method = method
        self.masks = masks
        self.seed = seed
        self.allows_not_finite = self.config.not_finite != "stop"
        self._out = out
        self._count = count
        self._known = Circumstances(
            peak_rate=peak_rate,
            bootstrapped=masks.source == "bootstrap",
            one_region=masks.source == "whole",
        )
        self._memory = Memory()
        self._episodes: dict[str, Episode] = {}
        self._loader = Episode()
        self._first_bad: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Courses and memory: what was said is not said again."""
        return {"episodes": {name: asdict(episode) for name, episode in self._episodes.items()}, **asdict(self._memory)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on judging as if nothing had happened."""
        rest = dict(state)
        self._episodes = {name: Episode(**episode) for name, episode in rest.pop("episodes").items()}
        self._memory = Memory(**rest)

    def on_gradients(
        self,
        trainer: Training,
        plan: EpochPlan,
        works: Callable[[], list[StepWork]],
        values: Mapping[str, Tensor],
        logged: bool,
    ) -> None:
        """Note on the device in which step each loss was first not finite; look where looking costs nothing."""
        names = sorted((name for name in values if name.startswith("loss")), reverse=True)  # the parts before the sum
        losses = torch.stack([values[name].detach().double() for name in names])
        step = trainer.progress.step + 1
        bad = ~torch.isfinite(losses)
        if self._first_bad is None or len(self._first_bad) != len(names):
            self._first_bad = torch.zeros(len(names), dtype=torch.int64, device=bad.device)
        self._first_bad = torch.where(bad & (self._first_bad == 0), step, self._first_bad)
        if not (logged or looking_is_free(bad.device)) or self.config.not_finite == "ignore":
            return
        gradient = float(values["gradient/norm"]) if "gradient/norm" in values else 0.0
        wrong = bool(bad.any())
        if not distributed.all_any(wrong or not math.isfinite(gradient)):
            return
        wrong = distributed.all_any(wrong)
        self._not_finite(trainer, plan, works, names, losses, gradient, wrong)

    def _not_finite(
        self,
        trainer: Training,
        plan: EpochPlan,
        works: Callable[[], list[StepWork]],
        names: Sequence[str],
        losses: Tensor,
        gradient: float,
        in_loss: bool,
    ) -> None:
        if self._episode("not_finite").active:
            return
        assert self._first_bad is not None
        step = trainer.progress.step + 1
        found = [(int(s), n, float(v)) for s, n, v in zip(self._first_bad, names, losses, strict=True) if int(s)]
        first, figure, value = min(found, key=lambda f: f[0]) if found else (step, "gradient/norm", gradient)
        where = where_not_finite(trainer.trainable, works(), trainer.fabric.autocast(), forward=in_loss)
        text = f"{figure} is {value} at step {first} (epoch {plan.epoch}): {where}. {ADVICE}"
        if self.config.not_finite == "stop":
            raise LossError(text)
        self._episode("not_finite").active = True
        self._event(trainer, plan.epoch, "not_finite", "begins", text, figure, str(value), step)

    def measure(self, trainer: Training, plan: EpochPlan, numbers: Mapping[str, float]) -> Mapping[str, float]:
        """Figures of networks and optimiser, and those that the method adds."""
        found = {"batchnorm/dead": dead_share(trainer.trainable), "update/ratio": update_ratio(trainer.optimizer)}
        known = {name: value.double() for name, value in found.items() if value is not None}
        figures: dict[str, float] = {}
        if known:
            # Equal already where normalisation is synchronised; to the last bit, so that all judge alike.
            mean = distributed.all_reduce_sum(torch.stack(list(known.values()))) / distributed.world_size()
            figures = dict(zip(known, mean.tolist(), strict=True))
        figures |= self.method.figures(numbers)
        return {name: value for name, value in figures.items() if math.isfinite(value)}

    def on_log(self, trainer: Training, plan: EpochPlan, numbers: Mapping[str, float]) -> None:
        """Judge the step."""
        readings = read_step(numbers, plan, self.config, self._known, self._memory)
        self._judge(trainer, plan.epoch, readings, self.config.patience)
        self._judge_loader(trainer)

    def on_refreshed(self, trainer: Training, name: str) -> Mapping[str, float]:
        """Measure and judge a generation of masks."""
        if name != "masks":
            return {}
        figures = self._masks(trainer.progress.cycle)
        epoch = trainer.progress.step // trainer.steps_per_epoch
        self._judge(trainer, epoch, read_masks(figures, self.config, self._known), 1)
        return figures

    def on_step(self, trainer: Training) -> None:
        """Stop where a sickness goes on that is to stop the run."""
        episodes = {**self._episodes, "starved_loader": self._loader}
        for name, episode in episodes.items():
            if episode.active and getattr(self.config, name) == "stop":
                trainer.save()
                raise SickRunError(
                    f"Stopped at step {trainer.progress.step}, a checkpoint is written: {name} since step {episode.since} "
                    f"(health.{name} is 'stop'; the sentence above says what to do). To go on nevertheless: --resume "
                    f"--health.{name.replace('_', '-')} warn."
                )

    def _masks(self, cycle: int) -> dict[str, float]:
        seed = self.seed
        bootstrapping = self.method.bootstrapping if self._known.bootstrapped else None
        generation = cycle if self._known.bootstrapped else 0
        store = MaskStore(self._out, generation)
        try:
            before = MaskStore(self._out, generation - 1) if generation > 0 else None
        except StoreError:  # removed by hand: there is nothing to compare with
            before = None

        def clusters(group: int) -> int:
            assert bootstrapping is not None
            return draw_group_clusters(seed, cycle, group, *bootstrapping.clusters)

        figures = mask_figures(
            draw_groups(seed, cycle, self._count, self.masks.group_size),
            store.__getitem__,
            void=store.void,
            before=None if before is None else before.__getitem__,
            clusters=clusters if bootstrapping else None,
        )
        store.close()
        if before is not None:
            before.close()
        return figures

    def _episode(self, name: str) -> Episode:
        return self._episodes.setdefault(name, Episode())

    def _judge(self, trainer: Training, epoch: int, readings: Iterable[Reading], patience: int) -> None:
        by_name: dict[str, list[Reading]] = {}
        for reading in readings:
            by_name.setdefault(reading.name, []).append(reading)
        for name, own in by_name.items():
            if getattr(self.config, name) == "ignore":
                continue
            episode = self._episode(name)
            reading = next((r for r in own if r.sick), own[0])
            state = _advance(episode, [r.sick for r in own], trainer.progress.step, patience)
            if state:
                words = sentence(name, reading.figure, reading.value, episode.since)
                if state == "ends":
                    words = over(name, reading.figure, reading.value, trainer.progress.step)
                self._event(trainer, epoch, name, state, words, reading.figure, reading.value)

    def _judge_loader(self, trainer: Training) -> None:
        if self.config.starved_loader == "ignore":
            return
        times = trainer.times
        share = torch.tensor(times["seconds_waiting"] / max(times["seconds"], 1e-9), device=trainer.fabric.device)
        # Each process has a clock of its own, and all must decide alike.
        waiting = float(distributed.all_reduce_sum(share)) / distributed.world_size()
        state = _advance(
            self._loader, [above(waiting, self.config.max_waiting)], trainer.progress.step, self.config.patience
        )
        if state == "begins":
            trainer.log.say(sentence("starved_loader", "seconds_waiting / seconds", waiting, self._loader.since))
        elif state == "ends":
            trainer.log.say(over("starved_loader", "seconds_waiting / seconds", waiting, trainer.progress.step))

    def _event(
        self,
        trainer: Training,
        epoch: int,
        name: str,
        state: str,
        words: str,
        figure: str,
        value: float | str,
        step: int | None = None,
    ) -> None:
        line = {"step": trainer.progress.step if step is None else step, "epoch": epoch, "health": name, "state": state}
        trainer.log.write(line | {"sentence": words, "figure": figure, "value": value})
        trainer.log.say(words)


def looking_is_free(device: torch.device) -> bool:
    """Whether a number can be read at every step: on a CPU that has nobody to agree with."""
    return device.type == "cpu" and not distributed.is_distributed()


def _advance(episode: Episode, sick: Sequence[bool | None], step: int, patience: int) -> str:
    """Take in one reading, of one or several figures; ``begins``, ``ends`` or nothing."""
    if any(sick):
        episode.since = episode.since if episode.sick or episode.active else step
        episode.sick, episode.well = episode.sick + 1, 0
        if episode.sick >= patience and not episode.active:
            episode.active = True
            return "begins"
    elif not any(reading is None for reading in sick):
        episode.sick, episode.well = 0, episode.well + 1
        if episode.well >= patience and episode.active:
            episode.active = False
            return "ends"
    return ""
