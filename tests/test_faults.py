"""Whatever operation of the three writers fails, or is the last one: old or new is there, whole, and it goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cyborgs.errors import DiskError
from tests.faults import ERRORS, KILLED, Disk, Killed, Operation, in_child, lay, power_cuts
from tests.writers import WRITERS, Writer

WORDS = {"ENOSPC": "the disk is full", "EIO": "the disk reports an error", "EROFS": "the disk is read-only"}
each_writer = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)


@pytest.fixture
def fresh(tmp_path: Path, writer: Writer) -> Callable[[], Path]:
    """Folders with what is there before the writer begins, each the only one."""
    before = tmp_path / "before"
    before.mkdir()
    with Disk(before):
        writer.prepare(before)

    def make() -> Path:
        shutil.rmtree(tmp_path / "now", ignore_errors=True)
        return Path(shutil.copytree(before, tmp_path / "now"))

    return make


def work(writer: Writer, folder: Path, disk: Disk | None = None) -> list[int]:
    """Do all of it; after how many operations each stage was done."""
    return [len(disk.log) if disk else 0 for _ in writer.act(folder, writer.seen(folder))]


def goes_on(writer: Writer, folder: Path, where: str) -> None:
    """The same work succeeds now, and leaves nothing lying about."""
    with Disk(folder) as disk:
        work(writer, folder)
    assert disk.open == {}, where
    assert writer.seen(folder) == writer.states[-1], where
    assert writer.leaves(folder) == set(), where


@each_writer
@pytest.mark.parametrize(
    ("error", "lasting"), [("ENOSPC", False), ("EIO", False), ("EROFS", True)], ids=["ENOSPC", "EIO", "EROFS for good"]
)
def test_the_kth_operation_fails(fresh: Callable[[], Path], writer: Writer, error: str, lasting: bool) -> None:
    k = 0
    while True:
        folder, done, failure = fresh(), 0, None
        state = writer.seen(folder)
        with Disk(folder, k, ERRORS[error], lasting) as disk:
            try:
                for _ in writer.act(folder, state):
                    done += 1
            except DiskError as raised:
                failure = raised
        if failure is None:
            break
        where = f"{error} at operation {k}, {disk.log[k][:2]}"
        assert failure.errno == ERRORS[error], where
        assert folder in failure.path.parents or failure.path == folder, where
        assert str(failure.path) in str(failure), where
        assert WORDS[error] in str(failure), where
        assert "--resume" in str(failure), where
        assert disk.open == {}, where
        assert writer.seen(folder) in writer.states[done : done + 2], where
        goes_on(writer, folder, where)
        k += 1
    assert k == len(disk.log) > 8  # every operation had its turn


@each_writer
def test_death_at_the_kth_operation(fresh: Callable[[], Path], writer: Writer) -> None:
    def die(folder: Path, k: int) -> None:
        with pytest.raises(Killed), Disk(folder, k) as disk:
            work(writer, folder, disk)
        for descriptor in disk.open:
            os.close(descriptor)

    for k, folder, check in deaths(writer, fresh):
        die(folder, k)
        check()


def deaths(writer: Writer, fresh: Callable[[], Path]) -> Iterator[tuple[int, Path, Callable[[], None]]]:
    """(k, a folder, what to call when the writer died there at operation k)."""
    with Disk(folder := fresh()) as disk:
        stages = work(writer, folder, disk)
    for k, operation in enumerate(disk.log):
        folder = fresh()

        def check(k: int = k, operation: Operation = operation, folder: Path = folder) -> None:
            where = f"killed at operation {k}, {operation[:2]}"
            done = sum(stage <= k for stage in stages)
            assert writer.seen(folder) in writer.states[done : done + 2], where
            goes_on(writer, folder, where)

        yield k, folder, check


def dies(writer: Writer, folder: Path, k: int) -> None:
    """A process of its own dies at operation k."""

    def work_and_die() -> None:
        with Disk(folder, k, exits=True) as disk:
            work(writer, folder, disk)

    status, text = in_child(work_and_die)
    assert status == KILLED, text


@each_writer
def test_real_death_at_some_operations(fresh: Callable[[], Path], writer: Writer) -> None:
    for k, folder, check in deaths(writer, fresh):
        if k % 9 == 4:
            dies(writer, folder, k)
            check()


@pytest.mark.slow
@each_writer
def test_real_death_at_every_operation(fresh: Callable[[], Path], writer: Writer) -> None:
    for k, folder, check in deaths(writer, fresh):
        dies(writer, folder, k)
        check()


@each_writer
def test_power_cut_after_any_operation(fresh: Callable[[], Path], writer: Writer, tmp_path: Path) -> None:
    """What was reported as done is on the disk, whatever the system had not flushed yet."""
    with Disk(folder := fresh()) as disk:
        stages = work(writer, folder, disk)
    tried: set[tuple[int, frozenset[tuple[str, bytes | None]]]] = set()
    seen = set()
    for done, names, held in power_cuts(tmp_path / "before", disk.log, writer.name):
        stage = sum(stage <= done for stage in stages)
        key = (stage, frozenset(held.items()))
        if key in tried:  # most operations change nothing that is on the disk yet
            continue
        tried.add(key)
        lay(held, place := tmp_path / "cut")
        where = f"power cut after operation {done}, {disk.log[done - 1][:2] if done else ''}, unsynced names {names}"
        try:
            state = writer.seen(place)
        except Exception as error:
            raise AssertionError(where) from error
        assert state in writer.states[stage : stage + 2], where
        seen.add(state)
        goes_on(writer, place, where)
        shutil.rmtree(place)
    assert seen == set(writer.states)
    assert len(tried) >= len(writer.states)
