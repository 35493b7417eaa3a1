"""The three writers of a run at work, in stages, and what a reader must find after each. For faults and power cuts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from cyborgs.engine.checkpoint import Checkpoints, verify
from cyborgs.engine.metrics_file import MetricsFile
from cyborgs.masks.store import GenerationWriter, MaskStore, prune, set_current
from cyborgs.structures import LabelMap
from tests.masks import generations


class Writer(Protocol):
    """``states[i]`` is what ``seen`` gives once i stages are done."""

    name: str
    states: tuple[Any, ...]

    def prepare(self, folder: Path) -> None:
        """What is there before."""

    def act(self, folder: Path, state: Any) -> Iterator[None]:
        """The work, begun from what a reader sees; yields after each stage. Cleans up behind itself as its callers do."""

    def seen(self, folder: Path) -> Any:
        """What a reader finds, all of it read and compared."""

    def leaves(self, folder: Path) -> set[str]:
        """Names that are there when all is done and that should not be."""


def tensors(mark: float) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Networks and an optimiser's state, of several dtypes, that say whose they are."""
    networks = {
        "weight": torch.full((3, 4), mark),
        "count": torch.tensor(int(mark)),
        "half": torch.full((5,), mark, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "strided": torch.arange(6.0).reshape(2, 3).T + mark,
    }
    state = {0: {"momentum_buffer": torch.full((3, 4), -mark), "step": 5}}
    return networks, {"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]}


def save(folder: Path, step: int, mark: float, keep: int = 2) -> None:
    networks, optimizer = tensors(mark)
    Checkpoints(folder, keep).save(step, networks, optimizer, {"mark": mark})


@dataclass
class CheckpointWriter:
    """Some checkpoints are there, others are saved; their marks are the states."""

    name: str
    before: tuple[int, ...]
    states: tuple[float | None, ...]
    put_away: bool = False
    """The last one that is there was put away by a writer of the same step that was killed."""

    def prepare(self, folder: Path) -> None:
        checkpoints = folder / "checkpoints"
        for step in self.before:
            save(checkpoints, step, step)
        if self.put_away:
            last = checkpoints / f"step-{self.before[-1]:06d}"
            shutil.copytree(last, checkpoints / f".{last.name}.tmp")
            last.rename(checkpoints / f".{last.name}.old")

    def act(self, folder: Path, state: Any) -> Iterator[None]:
        for mark in self.states[1:]:
            assert mark is not None
            save(folder / "checkpoints", int(mark) // 100 * 100, mark)
            yield

    def seen(self, folder: Path) -> Any:
        checkpoints = Checkpoints(folder / "checkpoints")
        for path in (folder / "checkpoints").glob("step-*"):
            verify(path)
        loaded = checkpoints.load()
        if loaded is None:
            return None
        networks, optimizer = tensors(loaded.state["mark"])
        assert loaded.networks.keys() == networks.keys()
        assert all(torch.equal(loaded.networks[name], networks[name]) for name in networks)
        assert all(loaded.networks[name].dtype == networks[name].dtype for name in networks)
        buffer = loaded.optimizer["state"][0]["momentum_buffer"]
        assert torch.equal(buffer, optimizer["state"][0]["momentum_buffer"])
        return loaded.state["mark"]

    def leaves(self, folder: Path) -> set[str]:
        steps = sorted({*self.before, *(int(mark or 0) // 100 * 100 for mark in self.states[1:])})[-2:]
        return {path.name for path in (folder / "checkpoints").iterdir()} - {"last", *(f"step-{s:06d}" for s in steps)}


class MaskWriter:
    """Generations 0 and 1 are there; 2 is written by two processes, 0 is pruned, then 2 is gone back from."""

    name = "masks"
    states = ((1, (0, 1)), (2, (0, 1, 2)), (2, (1, 2)), (1, (1,)))

    def prepare(self, folder: Path) -> None:
        generations.write(folder, 0, count=6)
        generations.write(folder, 1, count=6)

    def act(self, folder: Path, state: Any) -> Iterator[None]:
        set_current(folder, 1)  # as a resumed run does
        writers: list[GenerationWriter] = []
        try:
            for rank in (0, 1):
                writers.append(GenerationWriter(folder, 2, 6, rank, {"photos": "abc"}))
            for index in range(6):
                writers[index % 2].write(index, LabelMap(generations.picture(index, 2)))
            for writer in writers:
                writer.close()
            writers[0].publish()
        except Exception:
            for writer in reversed(writers):
                writer.abort()
            raise
        yield
        prune(folder, 2)
        yield
        set_current(folder, 1)
        yield

    def seen(self, folder: Path) -> Any:
        store = MaskStore(folder)
        for number in store.generations():
            one = MaskStore(folder, number)
            one.verify()
            generations.check(one, number, count=6)
            place = folder / "masks" / f"generation-{number:04d}"
            assert {path.name for path in place.iterdir()} == {"maps.bin", "manifest.json"}
        return store.generation, tuple(store.generations())

    def leaves(self, folder: Path) -> set[str]:
        return {path.name for path in (folder / "masks").iterdir()} - {"current.json", "generation-0001"}


LINES = [{"step": step, "loss": 1 / (step + 1)} for step in range(7)]
TEXT = [json.dumps(line) + "\n" for line in LINES]


@dataclass
class MetricsWriter:
    """Some lines are there, and one that came after the checkpoint; more are written, with a flush in between."""

    name: str
    first: int
    """How many lines the checkpoint knows; the file is missing where there are none."""

    @property
    def states(self) -> tuple[int, ...]:
        return (self.first, 5, 7)

    def prepare(self, folder: Path) -> None:
        if self.first:
            (folder / "metrics.jsonl").write_text("".join(TEXT[: self.first]) + '{"step": 99}\n')

    def act(self, folder: Path, state: Any) -> Iterator[None]:
        file = MetricsFile(folder / "metrics.jsonl", len("".join(TEXT[:state])))
        try:
            for start, stop in ((state, 5), (max(5, state), 7)):
                for line in LINES[start:stop]:
                    file.write(line)
                assert file.flush() == len("".join(TEXT[: max(state, stop)]))
                yield
        finally:
            file.close()

    def seen(self, folder: Path) -> Any:
        path = folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        return max(state for state in (0, *self.states) if text.startswith("".join(TEXT[:state])))

    def leaves(self, folder: Path) -> set[str]:
        assert (folder / "metrics.jsonl").read_text() == "".join(TEXT)
        return {path.name for path in folder.iterdir()} - {"metrics.jsonl"}


WRITERS: tuple[Writer, ...] = (
    CheckpointWriter("checkpoint", (100, 200), (200.0, 300.0, 301.0)),
    CheckpointWriter("first checkpoint", (), (None, 100.0)),
    CheckpointWriter("checkpoint after a kill", (200, 300), (300.0, 301.0), put_away=True),
    MaskWriter(),
    MetricsWriter("metrics", 3),
    MetricsWriter("metrics of a new run", 0),
)
