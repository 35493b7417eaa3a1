"""Fixed masks: made once, found again, gone on with after a kill; the bytes are the same however they came about."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from cyborgs.errors import DiskError
from cyborgs.masks.generate import generate
from cyborgs.masks.store import MaskStore, set_current
from cyborgs.prepare import cache
from cyborgs.prepare.masks import default_cache, fixed_generation, is_found
from tests.faults import ERRORS, KILLED, Disk, Killed, in_child
from tests.prepare.fixed import COUNT, Photos, Source, files, make

HOME = Path(__file__).parents[2]
GROUPS = list(range(7))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The run's masks as nobody disturbed them."""
    folder = tmp_path_factory.mktemp("whole")
    assert make(folder / "run", folder / "cache") == "made"
    return files(folder / "run")


def test_maps_are_those_of_the_source(tmp_path: Path):
    make(tmp_path, tmp_path / "cache")
    store = MaskStore(tmp_path)
    assert len(store) == COUNT
    for i in range(COUNT):
        assert np.array_equal(store[i], Source().label([Photos().read(i)], 0, 0, 0)[0].labels)
    assert store.manifest == {"photos": "abc"}


def test_the_bytes_are_those_of_a_generation_without_cache(tmp_path: Path, whole: dict[str, bytes]):
    generate(Source(), Photos(), tmp_path, 0, seed=0, cycle=0, manifest={"photos": "abc"})
    assert files(tmp_path) == whole


def test_found_the_second_time(tmp_path: Path, whole: dict[str, bytes]):
    first, second = Source(), Source()
    assert not is_found(first, Photos(), tmp_path / "cache")
    assert make(tmp_path / "a", tmp_path / "cache", first) == "made"
    assert first.labelled == GROUPS
    assert is_found(first, Photos(), tmp_path / "cache")
    (tmp_path / "cache").chmod(0o500)  # nothing is written where nothing is missing
    before = files(tmp_path / "cache")
    assert make(tmp_path / "b", tmp_path / "cache", second, Photos(broken=tuple(range(COUNT)))) == "found"
    (tmp_path / "cache").chmod(0o700)
    assert second.labelled == []
    assert files(tmp_path / "cache") == before
    assert files(tmp_path / "a") == files(tmp_path / "b") == whole


def test_the_key_is_all_that_the_maps_depend_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = default_cache(Source(), Photos())
    assert base.parent == tmp_path / "cyborgs"
    assert base.name.startswith("masks-")
    assert default_cache(Source(pause=1.0), Photos(broken=(1,))) == base
    others = [
        default_cache(Source(setting=2), Photos()),
        default_cache(Source(name="other"), Photos()),
        default_cache(Source(), Photos(name="others")),
        default_cache(Source(), Photos(count=26)),
        default_cache(Source(needs_images=False), Photos()),
    ]
    monkeypatch.setattr(cache.PIL, "__version__", "0.1")
    others.append(default_cache(Source(), Photos()))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    others.append(default_cache(Source(), Photos()))
    assert others[-1].parent == tmp_path / "home" / ".cache" / "cyborgs"
    assert len({base, *others}) == 8


def test_other_settings_are_made_anew(tmp_path: Path):
    assert make(tmp_path / "a") == "made"
    assert make(tmp_path / "b", source=Source(setting=2)) == "made"
    assert make(tmp_path / "c") == "found"
    assert files(tmp_path / "a") == files(tmp_path / "c") != files(tmp_path / "b")


def test_progress_counts_what_was_there(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    make(tmp_path / "a", tmp_path / "cache", progress=lambda *at: seen.append(at))
    assert seen == [(done, 7) for done in range(8)]
    for group in (2, 5):
        (tmp_path / "cache" / f"group-{group:06d}.bin").unlink()
    seen.clear()
    again = Source()
    assert make(tmp_path / "b", tmp_path / "cache", again, progress=lambda *at: seen.append(at)) == "resumed"
    assert again.labelled == [2, 5]
    assert seen == [(5, 7), (6, 7), (7, 7)]


def test_stopped_and_gone_on_with(tmp_path: Path, whole: dict[str, bytes]):
    answers = iter([False, False, True])
    assert make(tmp_path / "run", tmp_path / "cache", stopped=lambda: next(answers)) == "stopped"
    assert not (tmp_path / "run").exists()
    again = Source()
    assert make(tmp_path / "run", tmp_path / "cache", again) == "resumed"
    assert again.labelled == GROUPS[2:]
    assert files(tmp_path / "run") == whole


def spoil(what: str) -> Callable[[Path], None]:
    def middle(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)

    def other(file: Path) -> None:
        file.write_bytes(file.with_name("group-000001.bin").read_bytes())

    known: dict[str, Callable[[Path], None]] = {
        "a bit": middle,
        "cut": lambda file: os.truncate(file, file.stat().st_size - 3),
        "empty": lambda file: os.truncate(file, 0),
        "gone": Path.unlink,
        "another group": other,
    }
    return known[what]


@pytest.mark.parametrize("what", ["a bit", "cut", "empty", "gone", "another group"])
def test_a_damaged_group_is_made_again(tmp_path: Path, what: str, whole: dict[str, bytes]):
    make(tmp_path / "a", tmp_path / "cache")
    spoil(what)(tmp_path / "cache" / "group-000003.bin")
    again = Source()
    assert make(tmp_path / "b", tmp_path / "cache", again) == "resumed"
    assert again.labelled == [3]
    assert files(tmp_path / "b") == whole


def test_a_source_with_another_void_label_does_not_take_the_files(tmp_path: Path):
    make(tmp_path / "a", tmp_path / "cache")
    assert make(tmp_path / "b", tmp_path / "cache", Source(void=255)) == "made"
    assert MaskStore(tmp_path / "b").void == 255


def test_an_unreadable_photo_ends_it_by_name(tmp_path: Path, whole: dict[str, bytes]):
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="photo 13 is gone"):
        make(tmp_path / "run", tmp_path / "cache", photos=Photos(broken=(13,)))
    assert set(threading.enumerate()) <= before
    again = Source()
    assert make(tmp_path / "run", tmp_path / "cache", again) == "resumed"
    assert again.labelled == GROUPS[3:]
    assert files(tmp_path / "run") == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, whole: dict[str, bytes]):
    (tmp_path / "file").touch()
    said: list[str] = []
    assert make(tmp_path / "run", tmp_path / "file" / "cache", say=said.append) == "made"
    assert files(tmp_path / "run") == whole
    assert len(said) == 1
    assert said[0].startswith("masks: cannot be kept for later runs: ")
    assert str(tmp_path / "file") in said[0]


def test_two_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]):
    """The second waits for the first, and finds what it made."""
    monkeypatch.setattr(cache, "LOOK_AGAIN", 0.01)
    slow, second, said = Source(pause=0.02), Source(), list[str]()
    first = threading.Thread(target=make, args=(tmp_path / "a", tmp_path / "cache", slow))
    first.start()
    while not slow.labelled:
        time.sleep(0.001)
    assert make(tmp_path / "b", tmp_path / "cache", second, say=said.append) == "found"
    first.join()
    assert second.labelled == []
    assert len(said) == 1
    assert "another run is making the same" in said[0]
    assert files(tmp_path / "a") == files(tmp_path / "b") == whole


def test_stopped_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "LOOK_AGAIN", 0.01)
    (tmp_path / "cache").mkdir()
    with FileLock(tmp_path / "cache" / ".lock"):
        assert make(tmp_path / "b", tmp_path / "cache", stopped=lambda: True) == "stopped"


def test_dead_at_every_write(tmp_path: Path, whole: dict[str, bytes]):
    """Whatever is the last that happened, the next start ends with the same bytes."""
    with Disk(tmp_path) as disk:
        make(tmp_path / "all" / "run", tmp_path / "all" / "cache")
    count = len(disk.log)
    assert count > 60
    for at in range(0, count, 5):
        place = tmp_path / str(at)
        place.mkdir()
        with Disk(place, at), pytest.raises(Killed):
            make(place / "run", place / "cache")
        set_current(place / "run", None)  # as every start of a run does whose checkpoint knows no masks
        assert make(place / "run", place / "cache") in ("made", "resumed", "found")
        assert files(place / "run") == whole, at


@pytest.mark.parametrize("error", ERRORS)
def test_the_disk_fails(tmp_path: Path, error: str, whole: dict[str, bytes]):
    with Disk(tmp_path) as disk:
        make(tmp_path / "all" / "run", tmp_path / "all" / "cache")
    first = next(i for i, operation in enumerate(disk.log) if "group-000002" in str(operation.file))
    for at in (first, first + 2, len(disk.log) - 4):
        place = tmp_path / f"{error}{at}"
        place.mkdir()
        with Disk(place, at, ERRORS[error]), pytest.raises(DiskError, match=str(place)):
            make(place / "run", place / "cache")
        set_current(place / "run", None)
        assert make(place / "run", place / "cache") in ("resumed", "found")
        assert files(place / "run") == whole


def killed_until_it_ends(folder: Path, work: Callable[[], object], draw: random.Random, longest: float) -> int:
    """Start ``work`` in a child again and again, and kill it by SIGKILL after a while; how many were killed."""
    killed = 0
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads, from Python 3.12 on
            pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                os._exit(1)
        time.sleep(draw.random() * longest)
        longest *= 1.1  # on a machine that is busy a group takes longer than it was given at first
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return killed
        assert status == -signal.SIGKILL
        killed += 1


def test_killed_again_and_again(tmp_path: Path, whole: dict[str, bytes]):
    def work() -> None:
        set_current(tmp_path / "run", None)
        make(tmp_path / "run", tmp_path / "cache", Source(pause=0.004))

    assert killed_until_it_ends(tmp_path, work, random.Random(0), 0.05) > 0
    make(tmp_path / "again", tmp_path / "cache")
    assert files(tmp_path / "run") == files(tmp_path / "again") == whole


@pytest.mark.slow
def test_killed_many_times_with_a_real_source(tmp_path: Path):
    from cyborgs.masks.config import SelectiveSearchConfig
    from cyborgs.masks.selective_search import SelectiveSearch
    from cyborgs.masks.source import chunks
    from tests.masks.contract import random_images

    pictures = random_images(*[(48, 64)] * 150)

    class Small(SelectiveSearch):
        def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
            return chunks(count, 5)

    class Pictures(Photos):
        def read(self, index: int) -> np.ndarray:
            return pictures[index]

    def work(out: str = "run", cache: str = "cache") -> None:
        set_current(tmp_path / out, None)
        source, photos = Small(SelectiveSearchConfig(min_side=12)), Pictures(count=150)
        fixed_generation(source, photos, tmp_path / out, manifest={}, cache=tmp_path / cache)

    work("whole", "other")
    kills, draw = 0, random.Random(1)
    for turn in range(3):
        kills += killed_until_it_ends(tmp_path, lambda turn=turn: work(f"run{turn}", f"cache{turn}"), draw, 0.5)
        assert files(tmp_path / f"run{turn}") == files(tmp_path / "whole")
    assert kills >= 10


def test_a_real_death_while_it_writes(tmp_path: Path, whole: dict[str, bytes]):
    def work() -> None:
        with Disk(tmp_path, 30, exits=True):
            make(tmp_path / "run", tmp_path / "cache")

    status, said = in_child(work)
    assert status == KILLED, said
    again = Source()
    assert make(tmp_path / "run", tmp_path / "cache", again) == "resumed"
    assert 0 < len(again.labelled) < 7
    assert files(tmp_path / "run") == whole


def test_two_processes_equal_one(tmp_path: Path, whole: dict[str, bytes]):
    command = [sys.executable, "-m", "tests.prepare.fixed", str(tmp_path)]
    # A session of its own, so that a time-out ends both processes.
    with subprocess.Popen(
        command, cwd=HOME, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True
    ) as process:
        try:
            assert process.wait(timeout=60) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    first, second = (
        dict(line.split(" ", 1) for line in (tmp_path / f"saw{rank}").read_text().splitlines()) for rank in (0, 1)
    )
    assert first["made"] == second["made"] == "made"
    assert first["progress"] == second["progress"] == "[(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]"
    assert (first["groups"], second["groups"]) == ("[0, 2, 4, 6]", "[1, 3, 5]")
    assert first["found"] == second["found"] == "found []"
    # Only the second process was asked to stop; the first is told when it is through, and its work is kept.
    assert (first["stopped"], second["stopped"]) == ("stopped [0, 2, 4, 6]", "stopped [1, 3]")
    assert (first["resumed"], second["resumed"]) == ("resumed [5]", "resumed []")
    assert first["broken"] == "OSError: photo 9 is gone"
    assert second["broken"] == "RemoteFailure: process 0 of 2 failed; its own message says why."
    # The first process made by itself what it could not see.
    assert (first["apart"], second["apart"]) == ("made [0, 2, 4, 6, 1, 3, 5]", "made [1, 3, 5]")
    for name in ("two", "again", "half", "apart"):
        assert files(tmp_path / name) == whole
