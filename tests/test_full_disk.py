"""Real limits: a disk that is full, a file that may not grow, no file that may be opened."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cyborgs.data.store import RecordWriter
from cyborgs.data.store_format import StoreError
from cyborgs.engine.checkpoint import Checkpoints
from cyborgs.engine.metrics_file import MetricsFile
from cyborgs.errors import DiskError
from cyborgs.files import write_bytes
from cyborgs.masks.store import GenerationWriter, MaskStore
from cyborgs.structures import LabelMap
from tests.faults import Disk, in_child
from tests.writers import WRITERS, Writer


def save(folder: Path, step: int) -> None:
    """A checkpoint of 120 kB."""
    Checkpoints(folder / "checkpoints").save(
        step, {"weight": torch.full((30_000,), float(step))}, {"state": {}, "param_groups": []}, {"step": step}
    )


def check_save(folder: Path, step: int) -> None:
    loaded = Checkpoints(folder / "checkpoints").load()
    assert loaded is not None
    assert loaded.state == {"step": step}


def label(folder: Path, generation: int) -> None:
    """Maps of 120 kB that cannot be compressed, which are written twice before the first is removed."""
    writer = GenerationWriter(folder, generation, 12)
    try:
        for index in range(12):
            noise = np.random.default_rng(index).integers(0, 256, (100, 100), dtype=np.uint8)
            writer.write(index, LabelMap(noise))
        writer.publish()
    except Exception:
        writer.abort()
        raise


def check_label(folder: Path, generation: int) -> None:
    store = MaskStore(folder)
    store.verify()
    assert store.generation == generation


def log(folder: Path, number: int) -> None:
    """100 kB of lines, after those of earlier numbers."""
    file = MetricsFile(folder / "metrics.jsonl", 100_000 * number)
    try:
        for _ in range(1000):
            file.write({"text": f"{number:1d}" * 87})
        assert file.flush() == 100_000 * (number + 1)
    finally:
        file.close()


def check_log(folder: Path, number: int) -> None:
    text = (folder / "metrics.jsonl").read_text()[: 100_000 * (number + 1)]
    assert len(re.findall(rf'^{{"text": "{number}+"}}$', text, re.M)) == 1000


Do = Callable[[Path, int], None]
each = pytest.mark.parametrize(
    ("write", "check"),
    [(save, check_save), (label, check_label), (log, check_log)],
    ids=["checkpoint", "masks", "metrics"],
)
MESSAGE = r"cannot be written: (.*)\. (\S+ \S+) were to be written, (\S+ \S+) are free on that disk\. .*--resume"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 300 kB; ``grow`` makes it larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here ({mounted.stderr.strip()}); the test below it limits a file's size")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)


@each
def test_a_full_disk(small_disk: Path, write: Do, check: Do) -> None:
    write(small_disk, 0)
    step = 0
    with pytest.raises(DiskError, match=MESSAGE) as raised:  # noqa: PT012 - the disk says when
        while step < 9:
            write(small_disk, step + 1)
            step += 1
    assert raised.value.errno == 28
    assert "the disk is full" in str(raised.value)
    assert raised.value.needed is not None
    assert raised.value.free is not None
    # Cleaned up before it was asked: what is free is what the user can count on (metrics stay where they are).
    assert raised.value.free == os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    if write is save:
        assert raised.value.needed == 120_000 > raised.value.free > 0
        assert str(raised.value).startswith(f"{small_disk}/checkpoints/step-00000{step + 1}: ")
        assert "120.0 kB were to be written" in str(raised.value)
    check(small_disk, step)
    grow(small_disk)
    write(small_disk, step + 1)
    check(small_disk, step + 1)


def test_a_part_that_fills_the_disk(small_disk: Path) -> None:
    """What it took itself is free again when the message counts what is free."""
    writer = RecordWriter(small_disk / "records.bin", kind="noise")
    noise = np.random.default_rng(0)
    with pytest.raises(DiskError, match=rf"^{small_disk}/records\.bin: {MESSAGE}") as raised:  # noqa: PT012
        for index in range(200):
            writer.write(index, noise.bytes(10_000))
    assert raised.value.free == 300 * 1024
    assert raised.value.needed > raised.value.free  # type: ignore[operator]
    assert list(small_disk.iterdir()) == []
    with pytest.raises(DiskError):
        writer.close()
    writer.abort()


@each
def test_a_file_that_may_not_grow(tmp_path: Path, write: Do, check: Do) -> None:
    def work() -> None:
        write(tmp_path, 0)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (99_000, hard))
        with pytest.raises(DiskError, match=MESSAGE) as raised:
            write(tmp_path, 1)
        assert "larger than is allowed" in str(raised.value)
        check(tmp_path, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        write(tmp_path, 1)
        check(tmp_path, 1)

    status, text = in_child(work)
    assert status == 0, text


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.name)
def test_no_more_open_files(tmp_path: Path, writer: Writer) -> None:
    writer.prepare(tmp_path)

    def work() -> None:
        state = writer.seen(tmp_path)
        open_now = max(int(name) for name in os.listdir("/proc/self/fd")) + 1  # noqa: PTH208
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        held = [os.dup(0) for _ in range(2)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(held[-1] + 1, soft, open_now + 2), hard))
        filled = []
        try:
            while True:
                filled.append(os.dup(0))
        except OSError:
            pass
        with pytest.raises((DiskError, StoreError), match="too many open files") as raised:
            list(writer.act(tmp_path, state))
        assert str(tmp_path) in str(raised.value)
        if "checkpoint" in writer.name:
            with pytest.raises(
                DiskError, match=r"checkpoints: cannot be read: this process has too many open files\. "
            ):
                Checkpoints(tmp_path / "checkpoints").load()
        with pytest.raises(DiskError, match=r"too many open files\. Raise the limit \(ulimit -n\) or lower --workers"):
            write_bytes(tmp_path / "x", b"")
        for descriptor in filled:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with Disk(tmp_path):
            list(writer.act(tmp_path, state))
        assert writer.seen(tmp_path) == writer.states[-1]

    status, text = in_child(work)
    assert status == 0, text
