"""The folder of photos is read, never written to: by no command, and it may be another user's and read-only."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import cv2
import numpy as np
import pytest

from cyborgs.cli import main
from cyborgs.runs import recipe_file
from tests.conftest import make_photos, tiny_recipe
from tests.runs.killing import start_server

NOBODY = 65534


def state(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Of every entry: mode, size, time of the last change, hash of the bytes."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        seen = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (seen.st_mode, seen.st_size, seen.st_mtime_ns, digest)
    return found


def make_data(folder: Path) -> Path:
    """Photos in two folders, one of them broken, with labels and lists beside them."""
    make_photos(folder / "a", 16)
    make_photos(folder / "b", 6, seed=1)
    (folder / "b" / "broken.jpg").write_bytes(b"no picture")
    lines = []
    for i in range(4):
        grey = cv2.imread(str(folder / "a" / f"photo{i:02d}.png"), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(folder / f"label{i}.bmp"), (grey > 127).astype(np.uint8))
        lines.append(f"a/photo{i:02d}.png label{i}.bmp")
    (folder / "train.txt").write_text("\n".join(lines[:2]))
    (folder / "val.txt").write_text("\n".join(lines[2:]))
    return folder


def commands(data: Path, out: Path) -> list[list[str]]:
    recipe = str(out / "tiny.yaml")
    begin = ["pretrain", recipe, "--data", str(data), "--out", str(out / "run")]
    return [
        [*begin, "--dry-run"],
        begin,
        [*begin, "--resume"],
        ["segment", str(data), "--backbone", str(out / "run"), "--out", str(out / "masks"), "--clusters", "3"],
        ["report", str(out / "run"), "--data", str(data)],
        [
            *("evaluate", "dense-probe", "--backbone", str(out / "run"), "--data", str(data), "--preset", "small"),
            *("--classes", "2", "--layers", "layer4", "--epochs", "1", "--out", str(out / "figures")),
        ],
    ]


def write_recipe(out: Path) -> None:
    (out / "tiny.yaml").write_text(recipe_file.to_text(tiny_recipe(epochs=2, max_skipped=0.5)))


def test_no_command_writes_to_the_data(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data")
    write_recipe(tmp_path)
    before = state(data)
    for argv in commands(data, tmp_path):
        assert main(argv) == 0, argv
        assert state(data) == before, argv


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _as_nobody(data: Path, out: Path, before: Path) -> None:
    # Python and this checkout may lie where nobody else can read: what is loaded late must be there already.
    for argv in commands(data, before)[:3]:
        assert main(argv) == 0, argv
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ |= {"XDG_CACHE_HOME": str(out), "HOME": str(out), "MPLCONFIGDIR": str(out)}
    assert not os.access(data / "a", os.W_OK)
    for argv in commands(data, out)[:3]:
        assert main(argv) == 0, argv


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_read_only_data_of_another_user_will_do(open_folder: Path, tmp_path: Path) -> None:
    data, out = make_data(open_folder / "data"), open_folder / "out"
    out.mkdir()
    write_recipe(out)
    os.chown(out, NOBODY, NOBODY)
    write_recipe(tmp_path)
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = state(data)
    context: ForkServerContext = start_server()
    process = context.Process(target=_as_nobody, args=(data, out, tmp_path))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    assert state(data) == before
