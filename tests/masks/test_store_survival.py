"""The store when writers die, files are damaged, and readers come at the wrong moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cyborgs.data.store_format import StoreError
from cyborgs.masks.store import MaskStore, prune
from tests.masks.generations import check, write


@pytest.mark.parametrize("where", ["merge", "manifest", "rename", "switch"])
def test_death_while_publishing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str):
    """Whatever step is the last one that happened, readers see a whole generation and the next writer goes on."""
    write(tmp_path, 0)

    class Death(BaseException):
        pass

    def die(*_: object) -> None:
        raise Death

    with monkeypatch.context() as patch:
        if where == "merge":
            patch.setattr("cyborgs.masks.store.RecordStore.read_stored", die)
        elif where == "manifest":
            patch.setattr("cyborgs.masks.store.write_bytes", die)
        elif where == "rename":
            patch.setattr("cyborgs.masks.store.rename", die)
        else:
            patch.setattr("cyborgs.masks.store.switch", die)
        with pytest.raises(Death):
            write(tmp_path, 1)
    check(MaskStore(tmp_path), 0)
    assert MaskStore(tmp_path).generations() == [0]
    with pytest.raises(StoreError, match="no complete generation 1 "):
        MaskStore(tmp_path, 1)
    write(tmp_path, 1, count=7)
    check(MaskStore(tmp_path), 1, count=7)
    assert len(list((tmp_path / "masks").iterdir())) == 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated(tmp_path: Path, share: float):
    write(tmp_path, 0)
    file = tmp_path / "masks" / "generation-0000" / "maps.bin"
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(StoreError, match=r"generation-0000/maps\.bin: is (cut short|empty)"):
        MaskStore(tmp_path)


def test_truncated_while_open(tmp_path: Path):
    write(tmp_path, 0)
    store = MaskStore(tmp_path)
    os.truncate(tmp_path / "masks" / "generation-0000" / "maps.bin", 60)
    with pytest.raises(StoreError, match=r"maps\.bin: is damaged: the checksum of record 11"):
        store[11]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"generation": "one"}', '{"generation": -1}', "{}"])
def test_damaged_small_files(tmp_path: Path, text: str):
    write(tmp_path, 0)
    for name in ("generation-0000/manifest.json", "current.json"):
        (tmp_path / "masks" / name).write_text(text)
        with pytest.raises(StoreError):
            MaskStore(tmp_path)


KILLED = """
import sys
import numpy as np
from cyborgs.masks.store import GenerationWriter
from cyborgs.structures import LabelMap
writer = GenerationWriter(sys.argv[1], 1, 10**6)
for index in range(10**6):
    writer.write(index, LabelMap(np.full((60, 80), 1, np.uint8)))
    if index == 3000:
        print("half", flush=True)
"""


def test_killed_while_writing(tmp_path: Path):
    write(tmp_path, 0)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / "masks" / "generation-0001.partial").is_dir()
    check(MaskStore(tmp_path), 0)
    write(tmp_path, 1)
    check(MaskStore(tmp_path), 1)
    assert len(list((tmp_path / "masks").iterdir())) == 3


def test_reader_beside_a_writer_sees_whole_generations(tmp_path: Path):
    """Switches, prunings and readings interleaved for many rounds."""
    write(tmp_path, 0)
    seen: list[int] = []
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                store = MaskStore(tmp_path)
                seen.append(store.generation)
                check(store, store.generation)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for generation in range(1, 40):
            write(tmp_path, generation)
            prune(tmp_path, 1)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert failures == []
    assert len(set(seen)) > 3
