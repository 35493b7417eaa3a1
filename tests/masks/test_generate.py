from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cyborgs.masks.generate import generate
from cyborgs.masks.grid import Grid
from cyborgs.masks.source import MaskSource
from cyborgs.masks.store import GenerationWriter, MaskStore
from cyborgs.masks.whole import Whole
from cyborgs.structures import LabelMap
from tests.masks.two_processes import Images, source

HOME = Path(__file__).parents[2]


def make(path: Path, generation: int = 0, images: Images | None = None, **more: object) -> bool:
    what = more.pop("source", None) or source()
    return generate(what, images or Images(), path, generation, seed=3, cycle=1, manifest={}, **more)  # type: ignore[arg-type]


def test_maps_are_those_of_the_groups(tmp_path: Path):
    assert make(tmp_path)
    store, images = MaskStore(tmp_path), Images()
    assert len(store) == 22
    for number, group in enumerate(source().groups(22, 3, 1)):
        maps = source().label([images.read(i) for i in group], 3, 1, number)
        for index, label_map in zip(group, maps, strict=True):
            assert np.array_equal(store[index], label_map.labels)


@pytest.mark.parametrize("what", [Grid(3), Whole()])
def test_pictures_are_not_read_in_vain(tmp_path: Path, what: MaskSource):
    class Blind:
        def __len__(self) -> int:
            return 600

        def read(self, index: int) -> np.ndarray:
            raise AssertionError("this source looks at no picture")

    assert generate(what, Blind(), tmp_path, 0, seed=0, cycle=0, manifest={})
    store = MaskStore(tmp_path)
    assert len(store) == 600
    assert np.array_equal(store[599], what.label([np.empty((0, 0, 3), np.uint8)], 0, 0, 0)[0].labels)


def test_progress(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    make(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 5) for done in range(6)]


def test_stopped(tmp_path: Path):
    make(tmp_path)
    answers = iter([False, False, True])
    assert make(tmp_path, 1, stopped=lambda: next(answers)) is False
    assert [p.name for p in (tmp_path / "masks").glob("generation-*")] == ["generation-0000"]
    assert MaskStore(tmp_path).generation == 0
    assert make(tmp_path, 1, stopped=lambda: False)
    assert MaskStore(tmp_path).generation == 1


def test_unreadable_picture_ends_it_by_name(tmp_path: Path):
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="photo 13 is gone"):
        make(tmp_path, images=Images(broken=13))
    assert list((tmp_path / "masks").iterdir()) == []
    assert set(threading.enumerate()) <= before


def test_wrong_number_of_maps(tmp_path: Path):
    class Short(Whole):
        def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
            return super().label(images, seed, cycle, group)[1:]

    with pytest.raises(ValueError, match="shorter"):
        make(tmp_path, source=Short())
    assert list((tmp_path / "masks").iterdir()) == []


def test_leftovers_of_a_killed_writer(tmp_path: Path):
    killed = GenerationWriter(tmp_path, 0, 22)
    killed.write(0, LabelMap(np.zeros((1, 1), np.uint8)))
    assert make(tmp_path)
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["current.json", "generation-0000"]
    assert MaskStore(tmp_path)[0].shape != (1, 1)
    killed.abort()


def test_next_group_is_decoded_while_this_one_is_labelled(tmp_path: Path):
    """The source waits for a picture of the next group: it would wait for ever if nobody read ahead."""
    read: set[int] = set()
    groups = source().groups(22, 3, 1)

    class Watched(Images):
        def read(self, index: int) -> np.ndarray:
            read.add(index)
            return super().read(index)

    class Waiting:
        name, void, needs_images = "waiting", None, True
        inner = source()
        groups = staticmethod(inner.groups)
        prepare = staticmethod(inner.prepare)

        def label(self, images: list[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
            if group + 1 < len(groups):
                deadline = time.monotonic() + 5
                while not read.issuperset(groups[group + 1].tolist()):
                    assert time.monotonic() < deadline
                    time.sleep(0.001)
                # And no further: two groups in memory, not the data set.
                assert len(read) == sum(len(g) for g in groups[: group + 2])
            return self.inner.label(images, seed, cycle, group)

    assert make(tmp_path, source=Waiting(), images=Watched())


def test_threads_change_nothing(tmp_path: Path):
    for threads in (1, 3):
        make(tmp_path / str(threads), threads=threads)
    one, three = ((tmp_path / t / "masks/generation-0000/maps.bin").read_bytes() for t in "13")
    assert one == three


def test_two_processes_equal_one(tmp_path: Path):
    command = [sys.executable, "-m", "tests.masks.two_processes", str(tmp_path)]
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
    assert (first["plain"], second["plain"], first["alone"]) == ("True", "True", "True")
    assert first["progress"] == second["progress"] == "[(0, 5), (2, 5), (4, 5), (5, 5)]"
    assert (first["stop"], second["stop"]) == ("False", "False")
    assert (first["pace"], second["pace"]) == ("True", "True"), "no process waits for the others after each group"
    assert first["broken"] == "RemoteFailure: process 1 of 2 failed; its own message says why."
    assert second["broken"].startswith("OSError: photo ")
    assert (first["folder"], second["folder"]) == ("DiskError", "RemoteFailure")
    assert first["left"] == second["left"] == "0 ['current.json', 'generation-0000']"
    for name in ("maps.bin", "manifest.json"):
        one, two = (tmp_path / n / "masks" / "generation-0000" / name for n in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
