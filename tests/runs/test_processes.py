"""A process of a run is killed or fails: the others say so, soon, and the run can go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cyborgs.data.decode import UnreadableImage
from cyborgs.data.images import ScannedImages
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.errors import UserError
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs import pretrain as run
from cyborgs.runs import processes as peers
from cyborgs.runs.processes import Peer, ProcessLayout
from cyborgs.runs.recipe import Recipe
from tests.conftest import make_photos, tiny_recipe
from tests.runs.launch import CONTEXT, Ended, launch

QUICK = 40.0
"""Seconds for a launch and its end on a busy machine; a process that waits for another would take the launcher's 60."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("data") / "photos", 16)


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    """The server's imports, once."""
    process = CONTEXT.Process(target=os.getpid)
    process.start()
    process.join()


def short() -> Recipe:
    """2 epochs of 2 steps, the first a warm-up; a checkpoint after every step."""
    return tiny_recipe(epochs=2, checkpoint_every=1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at(rank: int, where: str, victim: int, what: Callable[[], Any]) -> None:
    """Change one process, so that ``what`` happens in it at a place."""
    if rank != victim:
        return

    def at_step(self: ProcessLayout, trainer: Any) -> None:
        if trainer.progress.step == 2:
            what()

    def at_refresh(self: ProcessLayout, trainer: Any, name: str, done: int, total: int) -> None:
        if done:
            what()

    def at_save(self: Checkpoints, step: int, *rest: Any) -> None:
        if step == 2:
            what()
        return save(self, step, *rest)

    def at_read(self: ScannedImages, index: int) -> Any:
        what()

    save = Checkpoints.save
    if where == "scan":
        run.scan_photos = lambda *_: what()  # type: ignore[assignment]
    elif where == "step":
        ProcessLayout.on_step = at_step  # type: ignore[method-assign]
    elif where == "refresh":
        ProcessLayout.on_refresh = at_refresh  # type: ignore[method-assign]
    elif where == "save":
        Checkpoints.save = at_save  # type: ignore[assignment]
    else:
        ScannedImages.read = at_read  # type: ignore[assignment]


def no_space() -> None:
    raise UserError("out/checkpoints: no space left on the device.")


def unreadable() -> None:
    raise UnreadableImage("photo07.png", "cannot be opened: gone")


def check(ended: Ended, codes: list[int]) -> None:
    assert ended.codes == codes, ended.said
    assert ended.seconds < QUICK
    assert not any("Traceback" in said for said in ended.said), ended.said


@pytest.mark.parametrize(
    ("where", "victim", "step"),
    [("step", 1, "of step 2"), ("step", 0, "of step 1"), ("refresh", 1, "of step 2"), ("save", 0, "of step 1")],
)
def test_one_of_two_processes_is_killed(photos: Path, tmp_path: Path, where: str, victim: int, step: str) -> None:
    out = tmp_path / "out"
    ended = launch(2, short(), photos, out, change=at, args=(where, victim, die))
    check(ended, [-9, 1] if victim == 0 else [1, -9])
    other = 1 - victim
    said = ended.said[other]
    assert re.search(rf"process {other} of 2: process {victim} \(pid \d+ on .*\) is gone: killed", said), said
    assert f"The last checkpoint is that {step}: start all processes again with --resume." in said


def test_a_run_goes_on_after_a_loss(photos: Path, tmp_path: Path) -> None:
    """In the same number of processes, to the same bytes."""
    results = []
    for name, victim in (("whole", -1), ("cut", 1)):
        out = tmp_path / name
        ended = launch(2, short(), photos, out, change=at, args=("refresh", victim, die))
        if victim >= 0:
            check(ended, [1, -9])
            ended = launch(2, short(), photos, out, "--resume")
        check(ended, [0, 0])
        assert "processes now" not in ended.said[0]
        results.append((out / run.RESULT).read_bytes())
    assert results[0] == results[1]


def test_the_first_process_is_killed_while_it_scans(photos: Path, tmp_path: Path) -> None:
    ended = launch(2, short(), photos, tmp_path / "out", change=at, args=("scan", 0, die))
    check(ended, [-9, 1])
    assert "process 0 (pid" in ended.said[1]
    assert "Nothing was trained yet: start all processes again." in ended.said[1]


@pytest.mark.parametrize(
    ("where", "said"), [("folder", "no such folder"), ("save", "no space left"), ("out", "is a file")]
)
def test_what_fails_in_the_first_process_ends_the_others_quietly(
    photos: Path, tmp_path: Path, where: str, said: str
) -> None:
    if where == "out":
        (tmp_path / "out").touch()
    data = tmp_path / "nowhere" if where == "folder" else photos
    ended = launch(2, short(), data, tmp_path / "out", change=at, args=(where, 0 if where == "save" else -1, no_space))
    check(ended, [1, 1])
    assert said in ended.said[0]
    assert ended.said[0].count("cyborgs pretrain: ") == 1
    assert "cyborgs pretrain: " not in ended.said[1]


def test_what_fails_in_another_process_is_said_there(photos: Path, tmp_path: Path) -> None:
    ended = launch(2, short(), photos, tmp_path / "out", change=at, args=("read", 1, unreadable))
    check(ended, [1, 1])
    assert "cyborgs pretrain: photo07.png: cannot be opened: gone." in ended.said[1]
    assert "process 1 (pid" in ended.said[0]
    assert "its own message says why" in ended.said[0]


def test_a_photo_lost_in_bootstrapping_is_said_once(photos: Path, tmp_path: Path) -> None:
    base = short()
    assert isinstance(base.method, CyborgsConfig)
    recipe = replace(base, method=replace(base.method, warmup_epochs=0))
    ended = launch(2, recipe, photos, tmp_path / "out", change=at, args=("read", 1, unreadable))
    check(ended, [1, 1])
    assert "cyborgs pretrain: photo07.png: cannot be opened: gone." in ended.said[1]
    assert "cyborgs pretrain: process 1 of 2 failed; its own message says why." in ended.said[0]


def test_other_errors_are_left_alone() -> None:
    both = peers.Peers()
    both._all.append(Peer(1, "far", "far", 1))
    with pytest.raises(RuntimeError, match="a shape is wrong"), both.watched(str):
        raise RuntimeError("a shape is wrong")
    with (
        pytest.raises(
            peers.PeerLost, match=r"on one of .*far.* cannot be reached \(\[gloo/pair.cc\] Timed out\)\. Go on\."
        ),
        both.watched(lambda: "Go on."),
    ):
        raise RuntimeError("[gloo/pair.cc] Timed out\nmore")
    alone = peers.Peers()
    with pytest.raises(RuntimeError, match="gloo"), alone.watched(str):
        raise RuntimeError("gloo: Connection closed by peer")


def test_who_has_ended() -> None:
    here = Peer.this()
    assert not here.ended()
    process = subprocess.Popen([sys.executable, "-c", ""])
    peer = Peer(1, here.host, here.place, process.pid)
    end = time.monotonic() + 10
    while not peer.ended() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.returncode is None  # nobody has waited for it: it still has an entry
    assert peer.ended()
    process.wait()
    assert peer.ended()
