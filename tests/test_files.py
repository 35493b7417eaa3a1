from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cyborgs.errors import DiskError, UserError
from cyborgs.files import (
    AppendFile,
    discard,
    make_folder,
    remove_tree,
    replacing,
    sync_folder,
    write_bytes,
)
from cyborgs.machine.disk import free_bytes, readable
from cyborgs.machine.disk_errors import disk_error
from tests.faults import Disk

CAUSES = {
    "ENOSPC": "the disk is full. 12.0 MB were to be written, 345.0 kB are free on that disk. Free space there",
    "EDQUOT": "your quota on this disk is used up. 12.0 MB were to be written",
    "EFBIG": "the file would be larger than is allowed. 12.0 MB were to be written",
    "EROFS": "the disk is read-only. Mount it writable",
    "EIO": "the disk reports an error. Check it",
    "EMFILE": "this process has too many open files. Raise the limit",
    "ENFILE": "this machine has too many open files. End other programs",
    "ENOENT": "its folder is gone. If its disk was unmounted, mount it again",
    "EACCES": "you have no right to write there. Change its owner",
    "EPERM": "you have no right to write there. Change its owner",
    "EBUSY": "Device or resource busy. Remove the cause",
}


@pytest.mark.parametrize("name", CAUSES)
def test_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr("cyborgs.machine.disk_errors.free_bytes", lambda path: 345_000)
    number = getattr(errno, name)
    error = disk_error(OSError(number, os.strerror(number)), tmp_path / "a", 12_000_000)
    assert str(error).startswith(f"{tmp_path}/a: cannot be written: {CAUSES[name]}")
    assert str(error).endswith("; a run then goes on with --resume.")
    assert isinstance(error, UserError)
    assert (error.errno, error.path, error.needed, error.free) == (number, tmp_path / "a", 12_000_000, 345_000)
    copied = pickle.loads(pickle.dumps(error))  # as it comes from another process
    assert (str(copied), copied.errno) == (str(error), number)


def test_free_bytes(tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    for path in (tmp_path, tmp_path / "not" / "there"):
        assert abs((free_bytes(path) or 0) - usage.free) < 1e9
    assert free_bytes(Path("not/there")) is not None


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"),
     (12_345_678_900, "12.3 GB"), (5_000_000_000_000, "5.0 TB")],
)  # fmt: skip
def test_readable(size: int, text: str) -> None:
    assert readable(size) == text


def test_a_file_is_replaced_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")
    for size in (0, 3, 5 << 20):
        write_bytes(path, bytes(size))
        assert path.read_bytes() == bytes(size)

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.stat().st_size == 5 << 20
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


def test_what_a_killed_writer_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / ".a.tmp").write_bytes(b"left over, and longer than the new one")
    write_bytes(tmp_path / "a", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


def test_links_are_not_written_through(tmp_path: Path) -> None:
    """A folder from elsewhere may hold links that point out of it."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("precious")
    (tmp_path / "log").symlink_to(mine / "letter")
    with pytest.raises(DiskError, match="symbolic link"):
        AppendFile(tmp_path / "log")
    (tmp_path / "folder").symlink_to(mine)
    remove_tree(tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    assert (mine / "letter").read_text() == "precious"


def test_append_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0123456789")
    file = AppendFile(path, 4)
    assert path.read_bytes() == b"0123"
    file.write(b"abc")
    assert (path.read_bytes(), file.size) == (b"0123", 7)
    file.drain()
    assert path.read_bytes() == b"0123abc"
    file.write(bytes(3 << 20))
    file.write(b"end")
    assert file.sync() == path.stat().st_size == 7 + (3 << 20) + 3
    assert path.read_bytes()[-4:] == b"\0end"
    file.close()
    file.close()
    with pytest.raises(ValueError, match="log: is closed"):
        file.write(b"x")


@pytest.mark.parametrize("at", [1, 2])
def test_after_a_failure_nothing_is_believed(tmp_path: Path, at: int) -> None:
    """A second fsync would succeed although the first one lost the data."""
    with Disk(tmp_path, at, errno.EIO) as disk:
        file = AppendFile(tmp_path / "log")
        file.write(b"abc")
        with pytest.raises(DiskError) as first:
            file.sync()
        for again in (file.sync, file.drain, lambda: file.write(b"x")):
            with pytest.raises(DiskError) as second:
                again()
            assert second.value is first.value
        file.close()
    assert disk.open == {}
    assert len(disk.log) == at + 1


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_folder_that_vanishes(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = AppendFile(folder / "log")
    file.write(b"abc")
    shutil.rmtree(folder) if how == "removed" else folder.rename(tmp_path / "elsewhere")
    with pytest.raises(DiskError, match=r"run/log: cannot be written: its folder is gone"):
        file.sync()
    file.close()
    for write in (lambda: write_bytes(folder / "a", b""), lambda: make_folder(folder / "checkpoints")):
        with pytest.raises(DiskError, match=r"run/\S+: cannot be written: its folder is gone"):
            write()
    assert not folder.exists()
    make_folder(folder / "masks", parents=True)
    assert (folder / "masks").is_dir()


def test_make_folder_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(DiskError, match="a: cannot be written: File exists"):
        make_folder(tmp_path / "a")


def test_folders_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no such thing; a disk that fails is another matter."""

    def refuse(number: int) -> None:
        def fail(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("cyborgs.files.os.fsync", fail)

    for number in (errno.EINVAL, errno.ENOTSUP):
        refuse(number)
        sync_folder(tmp_path)
    refuse(errno.EIO)
    with pytest.raises(DiskError, match="reports an error"):
        sync_folder(tmp_path)


def test_discard(tmp_path: Path) -> None:
    for name in ("old", "doomed"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    with Disk(tmp_path) as disk:
        discard(tmp_path / "old", tmp_path / "doomed")
    assert list(tmp_path.iterdir()) == []
    first = next(place for place, operation in enumerate(disk.log) if operation.what == "rename")
    # The new name is on the disk before anything in it goes.
    assert [operation.what for operation in disk.log[first:]] == ["rename", "open", "fsync", "unlink", "rmdir", "rmdir"]


READ_ONLY = """
import os
import sys
from pathlib import Path
from cyborgs.files import write_bytes
if os.geteuid() == 0:  # here, not before Python starts: another user may be unable to read it
    os.setgroups([])
    os.setuid(65534)
write_bytes(Path(sys.argv[1]), b"x")
"""


def test_a_signal_in_between_is_no_failure(tmp_path: Path) -> None:
    """What a signal interrupts is gone on with."""
    path = tmp_path / "log"
    received = []
    previous = signal.signal(signal.SIGALRM, lambda *_: received.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        with AppendFile(path) as file:
            while len(received) < 20:
                file.write(bytes(1 << 20))
                if file.size > 1 << 26:
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert received
    assert path.stat().st_size == file.size


def test_no_right_to_write() -> None:
    with tempfile.TemporaryDirectory() as home:  # pytest's own folders are closed to others altogether
        Path(home).chmod(0o755)
        (Path(home) / "dir").mkdir(mode=0o555)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(Path(home) / "dir" / "a")], capture_output=True, text=True
        )
    assert "dir/a: cannot be written: you have no right to write there" in done.stderr
