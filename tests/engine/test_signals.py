"""Signals ask a run to stop, whatever it is at; and SLURM to start it again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cyborgs.engine import signals
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import Stopped
from cyborgs.engine.signals import STOPPING, Stop, requeue
from cyborgs.engine.trainer import Trainer
from tests.conftest import tiny_byol, tiny_recipe
from tests.runs.test_pretrain import run


class SendAt(Callback):
    """Sends this process signals at a step, or in the middle of a refresh."""

    def __init__(self, *numbers: int, step: int | None = None, cycle: int | None = None) -> None:
        self.numbers, self.step, self.cycle = numbers, step, cycle

    def _send(self) -> None:
        for number in self.numbers:
            os.kill(os.getpid(), number)

    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            self._send()

    def on_refresh(self, trainer: Trainer, name: str, done: int, total: int) -> None:
        if trainer.progress.cycle == self.cycle and done == total // 2:
            self._send()


@pytest.mark.parametrize("number", STOPPING, ids=lambda n: signal.Signals(n).name)
@pytest.mark.parametrize("place", [{"step": 1}, {"cycle": 0}], ids=["step", "bootstrapping"])
def test_a_signal_stops_after_the_step(number: int, place: dict[str, int], photos: Path, tmp_path: Path) -> None:
    before = {n: signal.getsignal(n) for n in STOPPING}
    with pytest.raises(Stopped) as stopped:
        run(tiny_recipe(epochs=2), photos, tmp_path / "run", callbacks=(SendAt(number, **place),))
    assert stopped.value.signal == number
    step = 1 if "step" in place else 2  # masks are made after the second
    assert stopped.value.step == step
    assert (tmp_path / "run" / "checkpoints" / "last").read_text().strip() == f"step-00000{step}"
    assert {n: signal.getsignal(n) for n in STOPPING} == before


@pytest.mark.parametrize("number", STOPPING, ids=lambda n: signal.Signals(n).name)
def test_a_signal_stops_the_scan_of_the_photos(
    number: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyborgs.data.scan import scan

    def interrupted(*args: Any, progress: Callable[[int, int], None], **more: Any) -> object:
        def look(done: int, total: int) -> None:
            if done == 3:
                os.kill(os.getpid(), number)
            progress(done, total)

        return scan(*args, progress=look, **more)

    with monkeypatch.context() as patch:
        patch.setattr("cyborgs.runs.photos.scan", interrupted)
        with pytest.raises(Stopped) as stopped:
            run(tiny_byol(epochs=1), photos, tmp_path / "run")
    assert (stopped.value.signal, stopped.value.step) == (number, None)
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert "is written" in run(tiny_byol(epochs=1), photos, tmp_path / "run")  # as if nothing had been


def test_a_signal_after_the_last_step_lets_the_run_end(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cyborgs.models.weights import save_backbone

    def late(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save_backbone(*args)

    monkeypatch.setattr("cyborgs.runs.pretrain.save_backbone", late)
    assert "is written" in run(tiny_byol(epochs=1), photos, tmp_path / "run")


def test_a_second_ctrl_c_stops_at_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "AGAIN_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_byol(), photos, tmp_path / "run", callbacks=(SendAt(signal.SIGINT, signal.SIGINT, step=1),))
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_same_signal_sent_on_counts_once(second: int, photos: Path, tmp_path: Path) -> None:
    """torchrun hands its workers what the terminal sent them already."""
    with pytest.raises(Stopped) as stopped:
        run(tiny_byol(), photos, tmp_path / "run", callbacks=(SendAt(signal.SIGINT, second, step=1),))
    assert stopped.value.signal == signal.SIGINT


def test_a_forked_process_leaves_the_decision_to_its_parent() -> None:
    stop = Stop()
    with stop.listening():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(7 if stop else 0)
        assert os.waitpid(child, 0)[1] == 0
    assert not stop


def test_what_a_process_was_started_to_ignore_stays_ignored(photos: Path, tmp_path: Path) -> None:
    """As nohup and a shell's background jobs have it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        said = run(tiny_byol(epochs=1), photos, tmp_path / "run", callbacks=(SendAt(signal.SIGINT, step=1),))
    finally:
        signal.signal(signal.SIGINT, before)
    assert "is written" in said


def test_beside_the_main_thread_it_does_not_listen() -> None:
    seen: list[object] = []

    def listen() -> None:
        with Stop().listening():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


def fake_scontrol(folder: Path, code: int) -> Path:
    """A program that notes what it was called with."""
    folder.mkdir()
    program = folder / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\necho "no such job" >&2\nexit {code}\n')
    program.chmod(0o755)
    return folder / "calls"


@pytest.mark.parametrize(
    ("environment", "code", "calls", "said"),
    [
        ({"SLURM_JOB_ID": "42"}, 0, "requeue 42\n", "Job 42 is queued again."),
        (
            {"SLURM_JOB_ID": "44", "SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "2"},
            0,
            "requeue 42_2\n",
            "Job 42_2 is queued again.",
        ),
        ({"SLURM_JOB_ID": "42"}, 1, "requeue 42\n", "Not queued again: scontrol requeue 42 failed (no such job)."),
        ({"SLURM_JOB_ID": "$(reboot)"}, 0, "", "Not queued again: '$(reboot)' is no number of a job."),
    ],
)
def test_requeue(
    environment: dict[str, str], code: int, calls: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = fake_scontrol(tmp_path / "bin", code)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    assert requeue(environment) == said
    assert (noted.read_text() if noted.exists() else "") == calls


def test_requeue_without_slurms_programs_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue({"SLURM_JOB_ID": "42"}).startswith("Not queued again: scontrol requeue 42 failed (")
