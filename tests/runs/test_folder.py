"""A run's folder: one writer at a time, and a changed set of photos is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.runs.folder import locked, prepare_folder
from tests.conftest import make_photos, tiny_byol
from tests.runs.test_pretrain import StopAt, run


def test_the_holder_is_named(tmp_path: Path) -> None:
    with locked(tmp_path, True):
        with (
            pytest.raises(UserError, match="another process is writing to this folder") as error,
            locked(tmp_path, True),
        ):
            pass
        for word in (f"process {os.getpid()} on {socket.gethostname()}, since 2", shlex.join(sys.argv)):
            assert word in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]
    with locked(tmp_path, True):  # given back
        pass


def test_what_a_dead_holder_left_confuses_nobody(tmp_path: Path) -> None:
    """Its lock is gone with it; its name is not taken for that of the next one, which has not written its own yet."""
    process = multiprocessing.get_context("forkserver").Process(target=os.getpid)
    process.start()
    process.join()
    left = {"pid": process.pid, "host": socket.gethostname(), "since": "yesterday", "command": "cyborgs of old"}
    (tmp_path / ".lock.json").write_text(json.dumps(left))
    with FileLock(tmp_path / ".lock"):
        with pytest.raises(UserError, match="which one is not known") as error, locked(tmp_path, True):
            pass
        assert "of old" not in str(error.value)
        (tmp_path / ".lock.json").write_text(json.dumps(left | {"host": "elsewhere"}))  # nobody here can tell
        with pytest.raises(UserError, match=r"on elsewhere, since yesterday: cyborgs of old"), locked(tmp_path, True):
            pass
    with locked(tmp_path, True):
        assert json.loads((tmp_path / ".lock.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("left", ["", "[]", "{", '{"pid": "x"}', '{"pid": 1}', "\x1b[2J"])
def test_a_damaged_name_is_no_name(left: str, tmp_path: Path) -> None:
    (tmp_path / ".lock.json").write_text(left)
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="which one is not known"), locked(tmp_path, True):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_what_a_killed_start_leaves_hinders_nobody(resume: bool, tmp_path: Path) -> None:
    assert prepare_folder(tmp_path / "new", resume) is False
    names = (".lock", ".lock.json", "..lock.json.tmp", ".photos.json.tmp", ".recipe.yaml.tmp", "images.csv.tmp")
    for name in (*names, ".skipped.csv.tmp", "crash.txt", "crash-rank1-2.txt"):
        (tmp_path / "new" / name).write_text("")
    assert prepare_folder(tmp_path / "new", resume) is False
    (tmp_path / "new" / "thesis.tmp").write_text("")
    with pytest.raises(UserError, match="Give another --out"):
        prepare_folder(tmp_path / "new", resume)


@pytest.fixture
def begun(photos: Path, tmp_path: Path) -> Iterator[Path]:
    with pytest.raises(Stopped):
        run(tiny_byol(max_skipped=0.5), photos, tmp_path / "run", callbacks=(StopAt(step=1),))
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    yield tmp_path / "run"
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and "tfevents" not in p.name}
    assert all(before[p] == data for p, data in after.items())  # nothing was trained, nothing noted


def test_changed_photos_are_named(begun: Path, photos: Path, tmp_path: Path) -> None:
    other = make_photos(tmp_path / "other", seed=1)
    for i in range(4):
        (photos / f"photo{i:02d}.png").unlink()
    (photos / "photo05.png").write_bytes(b"no picture any more")
    (photos / "photo06.png").write_bytes((other / "photo06.png").read_bytes())
    (photos / "new.png").write_bytes((other / "photo07.png").read_bytes())
    with pytest.raises(UserError) as error:
        run(tiny_byol(max_skipped=0.5), photos, begun, resume=True)
    said = str(error.value)
    assert "the photos changed since the run was begun (22 then, 18 now)" in said
    assert "1 added (new.png)" in said
    assert "4 removed (photo00.png, photo01.png, photo02.png, ...)" in said
    assert "1 unreadable now (photo05.png)" in said
    assert "1 changed (photo06.png)" in said
    assert "Restore them" in said


def test_another_order_is_named(begun: Path, photos: Path, tmp_path: Path) -> None:
    names = sorted((p.name for p in photos.iterdir()), reverse=True)
    (photos / "list.txt").write_text("\n".join(names))
    with pytest.raises(UserError, match="The same photos in another order"):
        run(tiny_byol(max_skipped=0.5), photos / "list.txt", begun, resume=True)


def test_without_images_csv_the_numbers_are_named(begun: Path, photos: Path) -> None:
    (begun / "images.csv").unlink()
    (photos / "photo00.png").unlink()
    with pytest.raises(UserError, match=r"\(22 then, 21 now\)\. images\.csv, which would say which, cannot be read"):
        run(tiny_byol(max_skipped=0.5), photos, begun, resume=True)


def test_files_that_never_were_photos_change_nothing(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tiny_byol(max_skipped=0.5), photos, tmp_path / "run", callbacks=(StopAt(step=1),))
    (photos / "broken.jpg").write_bytes(b"no picture")
    assert "is written" in run(tiny_byol(max_skipped=0.5), photos, tmp_path / "run", resume=True)
