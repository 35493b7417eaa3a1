"""A loader process that is killed, or runs out of files or memory, ends the run with words, at once."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.views import workers
from cyborgs.views.config import ViewSpec
from cyborgs.views.loader import Batches
from cyborgs.views.shared_memory import LoaderError
from cyborgs.views.workers import WorkerLost
from tests.conftest import make_photos

SPEC = ViewSpec(size=32, grid=4)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    folder = make_photos(tmp_path_factory.mktemp("photos"), 24)
    return ScannedImages.from_scan(scan(list_images(folder), use_cache=False))


def reading(monkeypatch: pytest.MonkeyPatch, bad: int, instead) -> None:
    """Reading picture ``bad`` does something else; workers are forked, so that they have it too."""
    read = ScannedImages.read

    def replaced(self: ScannedImages, index: int) -> np.ndarray:
        if index == bad:
            instead()
        return read(self, index)

    monkeypatch.setattr(ScannedImages, "read", replaced)


def until_lost(steps: Iterator[object]) -> WorkerLost:
    start = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        list(steps)
    assert time.monotonic() - start < 10
    return caught.value


def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(30)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, ("killed by SIGKILL", "out of memory", "--workers 0", "--resume")),
        (signal.SIGBUS, ("killed by SIGBUS", "shared memory", "/dev/shm are free", "--shm-size=", "--workers 0")),
        (signal.SIGSEGV, ("killed by SIGSEGV", "remove it")),
    ],
)
def test_a_killed_worker_is_named_with_its_picture(
    images: Images, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, said: tuple[str, ...]
) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=2)
    bad = int(loader.order(0)[11])  # in the second step
    reading(monkeypatch, bad, partial(kill_self, number))
    before = signal.getsignal(signal.SIGCHLD)
    error = until_lost(loader(0))
    for text in (*said, images.name(bad)):
        assert text in str(error)
    assert error.reports_itself
    assert signal.getsignal(signal.SIGCHLD) == before


@pytest.mark.parametrize("at", ["between", "in the next epoch"])
def test_a_kept_worker_that_is_killed(images: Images, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    loader = Batches(images, SPEC, batch_size=10, workers=2)  # 20 of the 24 photos in an epoch
    before, after = (set(loader.order(epoch)[:20].tolist()) for epoch in (0, 1))
    bad = min(after - before)
    if at != "between":
        reading(monkeypatch, bad, partial(kill_self, signal.SIGKILL))
    list(loader(0, keep=True))
    if at == "between":
        child = multiprocessing.active_children()[0]
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.1)
    error = until_lost(loader(1, keep=True))
    assert "killed by SIGKILL" in str(error)
    assert (images.name(bad) in str(error)) == (at != "between")
    assert error.reports_itself
    for child in multiprocessing.active_children():
        child.join(5)
    assert multiprocessing.active_children() == []


def test_a_worker_that_leaves_by_itself(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=1)
    reading(monkeypatch, int(loader.order(0)[0]), partial(os._exit, 3))
    assert "ended with exit code 3 while it read photo" in str(until_lost(loader(0)))


def test_a_loss_waits_until_it_is_asked_for(images: Images) -> None:
    """torch's handler raises wherever the program is; ours where a worker is waited for, and the workers end."""
    steps = Batches(images, SPEC, batch_size=8, workers=2)(0)
    next(steps)
    for child in multiprocessing.active_children():
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    for _ in range(20):
        time.sleep(0.01)  # the signal arrives here
    error = until_lost(steps)
    assert "killed by SIGKILL" in str(error)
    assert multiprocessing.active_children() == []


def open_files() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


class Unspeakable(Exception):
    """Pickles, but cannot be rebuilt."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("count", [0, 1])
def test_any_error_arrives_as_itself(images: Images, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=count)
    for error in (MemoryError("no 9 GB"), KeyError("colour"), ZeroDivisionError("by zero")):
        with monkeypatch.context() as patch:
            reading(patch, int(loader.order(0)[3]), partial(fail, error))
            with pytest.raises(type(error)) as caught:
                list(loader(0))
        assert caught.value.args == error.args
        assert count == 0 or "in replaced" in caught.value.__notes__[0]  # where it happened


def test_an_error_that_cannot_travel_is_told_in_its_words(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=1)
    reading(monkeypatch, int(loader.order(0)[3]), lambda: fail(Unspeakable(1, 2)))
    with pytest.raises(RuntimeError, match="Unspeakable: 1 and 2") as caught:
        list(loader(0))
    assert "in replaced" in caught.value.__notes__[0]


@pytest.mark.parametrize("count", [0, 1])
def test_no_file_left_to_open_a_photo(images: Images, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The photo is not at fault."""
    loader = Batches(images, SPEC, batch_size=8, workers=count)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def exhaust() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

    reading(monkeypatch, int(loader.order(0)[3]), exhaust)
    try:
        with pytest.raises(LoaderError, match=r"too many open files: a process may have 3 at once.*ulimit -n.*workers"):
            list(loader(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("spare", range(0, 12, 3))
def test_no_file_left_for_pixels(images: Images, spare: int) -> None:
    """In the main process, wherever it happens: in starting workers, receiving pixels."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    steps = Batches(images, SPEC, batch_size=1, workers=1)(0)
    held = [next(steps)]
    gc.collect()  # else an earlier test's files might be closed below, and leave room
    used = next(number for number in itertools.count() if number not in open_files())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
        with pytest.raises(LoaderError, match="too many open files"):
            held.extend(steps)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_batch_costs_an_open_file_a_view(images: Images) -> None:
    steps = Batches(images, SPEC, batch_size=4, workers=1)(0)
    held = [next(steps)]
    before = len(open_files())
    held += [next(steps) for _ in range(4)]
    assert len(open_files()) - before <= 8


def test_too_little_shared_memory_is_refused_at_the_start(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Batches(images, SPEC, batch_size=8, workers=3)
    # 3 workers make 2 batches of 8 ahead, and two steps of 8 are in use; two views of 32 x 32 x 3 bytes an image.
    assert loader.shared_bytes == (3 * 2 * 8 + 2 * 8) * 2 * 32 * 32 * 3
    free = loader.shared_bytes
    monkeypatch.setattr(workers.os, "statvfs", lambda path: SimpleNamespace(f_bavail=free // 512, f_frsize=512))
    loader.check()
    with pytest.raises(
        LoaderError, match=r"hold up to 0\.8 MB .* 0\.4 MB of /dev/shm are free.*--workers 0.*--shm-size"
    ):
        loader.check(2)
    Batches(images, SPEC, batch_size=8, workers=0).check(1000)


SMALL = """
import subprocess, sys
from cyborgs.data.images import Images, ScannedImages
from cyborgs.data.listing import list_images
from cyborgs.data.scan import scan
from cyborgs.views.config import ViewSpec
from cyborgs.views.loader import Batches
loader = Batches(ScannedImages.from_scan(scan(list_images(sys.argv[1]))), ViewSpec(256, 4), batch_size=8, workers=2)
# What the check asks for is enough, but for the board and the rounding of each view to pages.
for size in (loader.shared_bytes + 2**17, loader.shared_bytes // 6):
    subprocess.run(["mount", "-o", f"remount,size={size}", "/dev/shm"], check=True)
    for check in (True, False):
        try:
            if check:
                loader.check()
            print(sum(len(step) for step in loader(0)), flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
"""


@pytest.mark.slow
def test_a_real_small_shared_memory(images: Images) -> None:
    """In a mount namespace of its own."""
    script = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
    try:
        result = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", sys.executable, "-c", SMALL, images.root],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no unshare")
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("mounting is refused")
    assert result.returncode == 0, result.stderr
    fits, goes, refused, died = result.stdout.splitlines()
    assert fits == goes == "3"
    assert refused.startswith("LoaderError shared memory is too small. The loader processes hold up to 18.9 MB")
    assert died.startswith(("LoaderError shared memory is full", "WorkerLost a loader process"))
    assert "--shm-size=" in died
