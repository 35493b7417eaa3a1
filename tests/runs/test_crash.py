"""crash.txt: when a run fails for a reason of ours, and only then; and it never hides what failed."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from cyborgs.cli import main
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import Stopped
from cyborgs.engine.trainer import Trainer
from cyborgs.errors import UserError
from cyborgs.runs import recipe_file
from cyborgs.runs.crash import CrashReporter, is_ours, report_of
from cyborgs.runs.pretrain import pretrain
from tests.conftest import tiny_byol, tiny_recipe
from tests.runs.test_pretrain import run


class FailAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, trainer: Trainer) -> None:
        if trainer.progress.step == self.step:
            raise RuntimeError("the callback broke\nin two lines")


def boom(*_: Any, **__: Any) -> Any:
    raise AssertionError("a poisoned part")


def section(text: str, name: str) -> str:
    return text.split(f"== {name} ==\n", 1)[1].split("\n\n==", 1)[0]


def test_a_callback_that_fails(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cyborgs", "pretrain", "--data", str(photos)])
    recipe, out = tiny_byol(checkpoint_every=2), tmp_path / "run"
    seen: list[list[int]] = []

    class Look(Callback):
        def on_step(self, trainer: Trainer) -> None:
            assert trainer.batch is not None
            seen.append(list(trainer.batches.indices(*trainer.batch)))

    with pytest.raises(RuntimeError, match="the callback broke") as caught:
        run(recipe, photos, out, callbacks=(Look(), FailAt(3)))
    report = report_of(caught.value)
    assert report is not None
    assert report.what == "RuntimeError: the callback broke"
    assert report.step == 2
    assert str(out / "crash.txt") in report.where
    assert report.where in caught.value.__notes__
    text = (out / "crash.txt").read_text()
    assert "in on_step\n" in section(text, "error")
    assert "RuntimeError: the callback broke\nin two lines" in section(text, "error")
    place = section(text, "place")
    for line in ("doing: training", "epoch: 1 (of 6), step 0 of 2 in it", "steps done: 3 of 12", "last checkpoint: 2"):
        assert line in place
    names = [f"{i} photo{i:02d}.png" for i in seen[2]]
    assert len(names) == 8
    assert section(text, "images").splitlines() == names
    assert "name: tiny-byol" in section(text, "recipe")
    for word in ("torch:", "python:", "platform:", "torch threads: 1"):
        assert word in section(text, "environment")
    assert section(text, "command").startswith("cyborgs pretrain")


def test_a_second_one_does_not_write_over_the_first(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for step in (1, 2):
        with pytest.raises(RuntimeError, match="the callback broke"):
            run(tiny_byol(), photos, out, resume=True, callbacks=(FailAt(step),))
    assert "steps done: 1 of" in (out / "crash.txt").read_text()
    assert "steps done: 2 of" in (out / "crash-2.txt").read_text()
    assert "is written" in run(tiny_byol(epochs=6), photos, out, resume=True)


def test_before_the_run_has_begun_it_hinders_no_second_try(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("cyborgs.runs.pretrain.build_method", boom)
        with pytest.raises(AssertionError, match="a poisoned part"):
            run(tiny_byol(epochs=1), photos, out)
    text = (out / "crash.txt").read_text()
    assert "not training yet" in section(text, "place")
    assert "name: tiny-byol" in section(text, "recipe")
    assert "is written" in run(tiny_byol(epochs=1), photos, out)


def test_masks_that_fail_name_their_group(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cyborgs.masks.bootstrap.Bootstrap.label", boom)
    with pytest.raises(AssertionError, match="a poisoned part"):
        run(tiny_recipe(), photos, tmp_path / "run")
    text = (tmp_path / "run" / "crash.txt").read_text()
    assert "doing: making masks" in section(text, "place")
    assert "while labelling group 0 of cycle 0: images [" in section(text, "error")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_fails_names_the_batch(
    workers: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cyborgs.views.micro_batches.make_views", boom)
    with pytest.raises(AssertionError, match="a poisoned part"):
        run(tiny_byol(workers=workers), photos, tmp_path / "run")
    text = (tmp_path / "run" / "crash.txt").read_text()
    assert "in boom\n" in section(text, "error")  # the worker's own trace
    assert "epoch: 0 (of 6), step 0 of 2 in it" in section(text, "place")
    assert len(section(text, "images").splitlines()) == 8


def test_the_terminal_shows_three_lines(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cyborgs.methods.byol.method.Byol.training_step", boom)
    (tmp_path / "tiny.yaml").write_text(recipe_file.to_text(tiny_byol()))
    argv = ["pretrain", str(tmp_path / "tiny.yaml"), "--data", str(photos), "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["cyborgs", *argv])
    assert main(argv) == 3
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = said.splitlines()[-3:]
    assert lines[0] == "cyborgs pretrain: AssertionError: a poisoned part"
    assert str(tmp_path / "run" / "crash.txt") in lines[1]
    assert "report it with this file" in lines[1]
    assert lines[2] == f"No checkpoint yet; begin again: cyborgs {' '.join(argv)} --resume"


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (RuntimeError("CUDA error"), True),
        (AssertionError(), True),
        (MemoryError(), True),
        (FileNotFoundError(errno.ENOENT, "gone", "x"), True),
        (OSError(errno.ENOSPC, "full", "x"), False),
        (PermissionError(errno.EACCES, "no", "x"), False),
        (FileNotFoundError("x: no such file. Give another."), False),
        (UserError("x: wrong"), False),
        (Stopped(2, 3), False),
        (KeyboardInterrupt(), False),
        (SystemExit(1), False),
    ],
    ids=repr,
)
def test_whose_fault_it_is(error: BaseException, ours: bool, tmp_path: Path) -> None:
    assert is_ours(error) is ours
    with pytest.raises(type(error)), CrashReporter(tmp_path / "run").over():
        raise error
    assert (tmp_path / "run" / "crash.txt").exists() is ours
    assert (report_of(error) is not None) is ours


def test_each_process_writes_its_own(tmp_path: Path) -> None:
    for rank in (0, 1, 1):
        with pytest.raises(RuntimeError), CrashReporter(tmp_path, rank).over():
            raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crash-rank1-2.txt", "crash-rank1.txt", "crash.txt"]


def test_what_cannot_be_written_does_not_hide_the_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RuntimeError, match="the first") as caught, CrashReporter(tmp_path / "file" / "run").over():
        raise RuntimeError("the first")
    report = report_of(caught.value)
    assert report is not None
    assert "with the lines above" in report.where
    assert "RuntimeError: the first" in capsys.readouterr().err  # the trace, since no file holds it


def test_one_thing_that_cannot_be_told_does_not_cost_the_others(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cyborgs.views.loader.Batches.indices", boom)
    with pytest.raises(RuntimeError, match="the callback broke"):
        pretrain(tiny_byol(), data=photos, out=tmp_path / "run", callbacks=(FailAt(1),), stream=io.StringIO())
    text = (tmp_path / "run" / "crash.txt").read_text()
    assert section(text, "images") == "could not be told: AssertionError('a poisoned part')"
    assert "name: tiny-byol" in section(text, "recipe")
