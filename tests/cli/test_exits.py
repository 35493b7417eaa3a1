"""How commands end: codes, and what the terminal shows."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from cyborgs.cli import COMMANDS, exits, main
from cyborgs.errors import UserError
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe
from tests.conftest import make_photos, tiny_byol, tiny_recipe
from tests.engine.test_signals import fake_scontrol
from tests.runs.killing import start_server


def test_the_table_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for code in (0, 1, 2, 3, 4, 130, 138, 143):
        assert f"\n{code:>5}  " in said


def test_a_run_that_is_cut_off_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "pretrain", (interrupt, ""))
    monkeypatch.setattr(sys, "argv", ["cyborgs"])
    assert main(["pretrain", "--data", "a"]) == 130
    assert capsys.readouterr().err.endswith("Go on with: cyborgs pretrain --data a --resume\n")


class FromTheDisk(UserError):
    code = exits.DISK


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("x: wrong"), 1, "cyborgs report: x: wrong\n"),
        (FromTheDisk("x: full"), 4, "cyborgs report: x: full\n"),
        (FileNotFoundError("x: no such file. Give another."), 1, "cyborgs report: x: no such file. Give another.\n"),
        (FileNotFoundError(errno.ENOENT, "gone", "x"), 1, "cyborgs report: x: gone\n"),
        (OSError(errno.ENOSPC, "No space left", "x"), 4, "cyborgs report: x: No space left\n"),
        (KeyboardInterrupt(), 130, "cyborgs report: interrupted.\n"),
        (SystemExit(2), 2, ""),
    ],
    ids=repr,
)
def test_codes_of_errors(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "report", (fail, ""))
    assert main(["report"]) == code
    assert capsys.readouterr().err == said


def test_a_fault_without_a_run_shows_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: list[str]) -> int:
        raise RuntimeError("a broken part")

    monkeypatch.setitem(COMMANDS, "report", (fail, ""))
    assert main(["report"]) == 3
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("cyborgs report: this is a fault of cyborgs. Please report it with the lines above.\n")


@pytest.mark.parametrize(
    ("argv", "environment", "program", "expected"),
    [
        (["pretrain", "--data", "a b"], {}, "cyborgs", "cyborgs pretrain --data 'a b' --resume"),
        (["pretrain", "--resume", "--data", "a"], {}, "cyborgs", "cyborgs pretrain --resume --data a"),
        (["pretrain", "--data", "a"], {}, "x/__main__.py", "python -m cyborgs pretrain --data a --resume"),
        (["demo"], {}, "cyborgs", "cyborgs demo"),
        (
            ["pretrain"],
            {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            "x/__main__.py",
            "torchrun --nproc-per-node 2 -m cyborgs pretrain --resume",
        ),
        (
            ["pretrain"],
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"},
            "x/__main__.py",
            "cyborgs pretrain --resume (in 4 processes, as before)",
        ),
    ],
)
def test_the_command_that_goes_on(
    argv: list[str], environment: dict[str, str], program: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program, *argv])
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert exits.going_on(argv) == expected


# Real processes from here on.


@pytest.fixture(scope="module")
def context() -> ForkServerContext:
    return start_server()


def _command(argv: list[str], said: Path, environment: dict[str, str]) -> None:
    """A command in a process of its own, forked where all is imported."""
    os.environ |= environment
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    sys.argv = ["cyborgs", *argv]
    sys.exit(main(argv))


def wait_for(ready: Callable[[], bool], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def write(recipe: Recipe, path: Path) -> str:
    path.write_text(recipe_file.to_text(recipe))
    return str(path)


SLURM = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


@pytest.mark.parametrize(
    ("number", "environment", "resume", "said", "calls"),
    [
        (signal.SIGINT, {}, False, "", ""),
        (signal.SIGTERM, {}, False, "", ""),
        (signal.SIGUSR1, {}, False, "", ""),
        (signal.SIGTERM, SLURM, True, "", ""),  # that is scancel, or a node that goes down: SLURM knows what to do
        (signal.SIGUSR1, SLURM, True, "Job 42 is queued again.\n", "requeue 42\n"),
        (signal.SIGUSR1, SLURM, False, "The job is not queued again", ""),
    ],
    ids=["int", "term", "usr1", "slurm-term", "slurm-usr1", "slurm-usr1-without-resume"],
)
def test_signals_to_pretrain(
    number: int,
    environment: dict[str, str],
    resume: bool,
    said: str,
    calls: str,
    photos: Path,
    tmp_path: Path,
    context: ForkServerContext,
) -> None:
    noted = fake_scontrol(tmp_path / "bin", 0)
    log, out = tmp_path / "log", tmp_path / "run"
    argv = ["pretrain", write(tiny_byol(epochs=1000), tmp_path / "tiny.yaml"), "--data", str(photos), "--out", str(out)]
    argv += ["--resume"] * resume
    environment = {
        **environment,
        "XDG_CACHE_HOME": str(tmp_path),
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    process = context.Process(target=_command, args=(argv, log, environment))
    process.start()
    assert process.pid is not None
    wait_for(lambda: "epoch 2/" in (log.read_text() if log.exists() else ""))
    start = time.monotonic()
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 128 + number, log.read_text()
    assert time.monotonic() - start < 10
    text = log.read_text()
    assert "Traceback" not in text
    step = int((out / "checkpoints" / "last").read_text().strip().removeprefix("step-"))
    assert f"Stopped: the checkpoint of step {step} is written.\n" in text
    again = argv if resume else [*argv, "--resume"]
    assert text.endswith(f"Go on with: cyborgs {' '.join(again)}\n")
    assert said in text
    assert (noted.read_text() if noted.exists() else "") == calls
    # The very command goes on: told to stop again, by its own recipe's step.
    process = context.Process(target=_command, args=(again, log, environment))
    process.start()
    assert process.pid is not None
    wait_for(lambda: "going on from step" in (log.read_text() if log.exists() else ""))
    process.terminate()
    process.join(60)
    assert process.exitcode == 143, log.read_text()


def test_the_same_command_begins_and_goes_on(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a queue that starts jobs anew needs; numbers of steps, which recipe.yaml holds as epochs, included."""
    recipe = write(tiny_recipe(epochs=2), tmp_path / "tiny.yaml")
    argv = ["pretrain", recipe, "--data", str(photos), "--out", str(tmp_path / "run"), "--resume"]
    argv += ["--method.warmup-steps", "2", "--method.refresh-steps", "4", "--workers", "1"]
    assert main(argv) == 0
    assert "no run there yet: this begins one" in capsys.readouterr().err
    assert main(argv) == 0
    assert "this run is finished" in capsys.readouterr().err


def test_sigterm_to_a_process(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["pretrain", write(tiny_byol(epochs=1000), tmp_path / "tiny.yaml"), "--data", photos, "--out", out]
    command = [sys.executable, "-m", "cyborgs", *map(str, words)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for((out / "recipe.yaml").exists)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert said.endswith(f"Go on with: python -m cyborgs {' '.join(map(str, words))} --resume\n")
    assert (out / "checkpoints" / "last").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "until", ["scenes", "run/metrics.jsonl", "run/masks/generation-0000.partial", "run/masks/current.json"]
)
def test_the_demo_stops_within_10_seconds(until: str, number: int, tmp_path: Path, context: ForkServerContext) -> None:
    log, out = tmp_path / "log", tmp_path / "demo"
    argv = ["demo", "--out", str(out), "--scenes", "160"]
    process = context.Process(target=_command, args=(argv, log, {"XDG_CACHE_HOME": str(tmp_path)}))
    process.start()
    assert process.pid is not None
    wait_for((out / until).exists)
    if until == "run/metrics.jsonl":
        wait_for(lambda: (out / until).stat().st_size > 0)
    start = time.monotonic()
    os.kill(process.pid, number)
    process.join(60)
    assert time.monotonic() - start < 10
    if until == "scenes":  # no run yet
        assert process.exitcode in (-number, 128 + number)
        return
    assert process.exitcode == 128 + number, log.read_text()
    assert log.read_text().endswith(f"Go on with: cyborgs demo --out {out} --scenes 160\n")
    assert (out / "run" / "checkpoints" / "last").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("to", ["group", "agent"])
def test_signals_under_torchrun(number: int, to: str, tmp_path: Path) -> None:
    """A terminal and srun send to all; kill and many queues to torchrun alone, which hands it on and waits 30 s."""
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "run"
    words = ["pretrain", write(tiny_recipe(epochs=1000), tmp_path / "tiny.yaml"), "--data", photos, "--out", out]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cyborgs"]
    command = [sys.executable, *launch, *map(str, words), "--workers", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    said = tmp_path / "said"
    with (
        said.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True) as process,
    ):
        wait_for((out / "masks" / "current.json").exists, 200)
        start = time.monotonic()
        (os.killpg if to == "group" else os.kill)(process.pid, number)
        process.wait(60)
        took = time.monotonic() - start
    text = said.read_text()
    step = (out / "checkpoints" / "last").read_text().strip().removeprefix("step-")
    assert f"Stopped: the checkpoint of step {int(step)} is written.\n" in text, text
    assert text.count("Go on with: torchrun --nproc-per-node 2 -m cyborgs pretrain") == 1
    assert process.returncode == 1  # torchrun's own, whatever its processes' are
    assert took < 30, "torchrun would have killed them"
    assert not list(out.glob("crash*"))
