"""A whole tiny run on a disk that fails at one of its operations, and goes on once the cause is gone."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest

from cyborgs.errors import DiskError
from cyborgs.runs.pretrain import pretrain
from tests.conftest import make_photos, tiny_recipe
from tests.faults import Disk
from tests.runs.test_pretrain import results

RECIPE = tiny_recipe(epochs=3, checkpoint_every=2, snapshot_refreshes=True, logger="none")
ERRORS = {"full": errno.ENOSPC, "failing": errno.EIO, "read-only": errno.EROFS}
WORDS = {"full": "the disk is full", "failing": "the disk reports an error", "read-only": "the disk is read-only"}


class RunDisk(Disk):
    """The lock is not the run's data: filelock opens it in its own way."""

    def _below(self, path: Any) -> str | None:
        below = super()._below(path)
        return None if below == ".lock" else below

    def _fsync(self, descriptor: int) -> None:
        if descriptor in self.open:  # the folder that the run's lies in is not ours to spoil
            super()._fsync(descriptor)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object], int]:
    """Photos, what an undisturbed run leaves, and how many operations it takes."""
    folder = tmp_path_factory.mktemp("whole")
    photos, out = make_photos(folder / "photos"), folder / "run"
    with RunDisk(out) as disk:
        pretrain(RECIPE, data=photos, out=out, stream=io.StringIO())
    return photos, results(out), len(disk.log)


def fails_and_goes_on(whole: tuple[Path, dict[str, object], int], out: Path, k: int, how: str) -> None:
    photos, expected, _ = whole
    with RunDisk(out, k, ERRORS[how], lasting=True) as disk, pytest.raises(DiskError) as caught:
        pretrain(RECIPE, data=photos, out=out, resume=True, stream=io.StringIO())
    where = f"{how} at operation {k}, {disk.log[k][:2]}"
    assert WORDS[how] in str(caught.value), where
    assert str(out) in str(caught.value), where
    assert "--resume" in str(caught.value), where
    assert not list(out.glob("crash*")), where
    pretrain(RECIPE, data=photos, out=out, resume=True, stream=io.StringIO())
    assert results(out) == expected, where


@pytest.mark.parametrize("how", ERRORS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
def test_a_disk_that_fails_at_some_operation(
    whole: tuple[Path, dict[str, object], int], tmp_path: Path, share: float, how: str
) -> None:
    fails_and_goes_on(whole, tmp_path / "run", int(share * whole[2]), how)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(3))
def test_a_disk_that_fails_at_many_operations(
    whole: tuple[Path, dict[str, object], int], tmp_path: Path, start: int
) -> None:
    for number, k in enumerate(range(start, whole[2], 24)):
        fails_and_goes_on(whole, tmp_path / f"run{k}", k, list(ERRORS)[number % 3])
