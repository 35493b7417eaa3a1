from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyborgs.data.store import RecordStore, RecordWriter
from cyborgs.data.store_format import StoreError
from cyborgs.errors import UserError


def record(index: int) -> bytes:
    return bytes([index % 256]) * (index % 97) + str(index).encode()


def write(
    path: Path, indices: range | list[int], *, kind: str = "things", meta: dict[str, object] | None = None
) -> Path:
    with RecordWriter(path, kind=kind) as writer:
        for index in indices:
            writer.write(index, record(index))
        writer.close(meta)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "things.bin", range(50), meta={"colour": "blue"})


def test_reads_what_was_written(path: Path):
    store = RecordStore(path, kind="things")
    assert len(store) == 50
    assert store.meta == {"colour": "blue"}
    order = np.random.default_rng(0).permutation(50)
    assert [store.read(i) for i in order] == [record(int(i)) for i in order]
    store.verify()


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(0, 2**40), st.binary(max_size=300), max_size=20))
def test_any_records(tmp_path_factory: pytest.TempPathFactory, records: dict[int, bytes]):
    path = tmp_path_factory.mktemp("any") / "s.bin"
    with RecordWriter(path, kind="any") as writer:
        for index, data in records.items():
            writer.write(index, data)
    store = RecordStore(path)
    assert store.indices.tolist() == sorted(records)
    assert {i: store.read(i) for i in records} == records
    for index in records:
        assert (index in store, index + 1 in store) == (True, index + 1 in records)


def test_missing_record_names_its_index(tmp_path: Path):
    store = RecordStore(write(tmp_path / "s.bin", [0, 3, 7]))
    for index in (-1, 1, 6, 8, 2**50):
        assert index not in store
        with pytest.raises(IndexError, match=rf"s\.bin: there is no record {index} "):
            store.read(index)


def test_empty_store(tmp_path: Path):
    store = RecordStore(write(tmp_path / "s.bin", []))
    assert (len(store), store.indices.tolist(), 0 in store) == (0, [], False)


def test_equal_content_gives_equal_bytes(tmp_path: Path, path: Path):
    other = write(tmp_path / "another name.bin", range(50), meta={"colour": "blue"})
    assert other.read_bytes() == path.read_bytes()


def test_stored_bytes_move_between_stores_unchanged(tmp_path: Path, path: Path):
    store = RecordStore(path)
    with RecordWriter(tmp_path / "copy.bin", kind="things") as writer:
        for i in range(50):
            writer.write_stored(i, store.read_stored(i))
        writer.close(store.meta)
    assert (tmp_path / "copy.bin").read_bytes() == path.read_bytes()


def test_each_index_once_and_none_negative(tmp_path: Path):
    with RecordWriter(tmp_path / "s.bin", kind="things") as writer:
        writer.write(4, b"")
        with pytest.raises(ValueError, match="record 4 was written before"):
            writer.write(4, b"")
        with pytest.raises(ValueError, match="record -2 is negative"):
            writer.write(-2, b"")
    with pytest.raises(ValueError, match="closed"):
        writer.write(5, b"")
    assert RecordStore(tmp_path / "s.bin").indices.tolist() == [4]


def test_no_final_name_before_the_end(tmp_path: Path):
    target = tmp_path / "s.bin"
    with RecordWriter(target, kind="things") as writer:
        writer.write(0, b"x")
        assert not target.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s.bin"]

    def fail() -> None:
        with RecordWriter(tmp_path / "t.bin", kind="things") as writer:
            writer.write(0, b"x")
            raise KeyError("the body")

    with pytest.raises(KeyError, match="the body"):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["s.bin"]


def test_rewriting_leaves_an_open_reader_its_file(path: Path):
    store = RecordStore(path)
    write(path, range(3), meta={"colour": "red"})
    assert store.read(40) == record(40)
    assert len(RecordStore(path)) == 3


SIZE = len(struct.pack("<8sIIQ", b"", 0, 0, 0))


@pytest.mark.parametrize("where", ["nothing", "in the header", "after it", "records", "index", "footer", "last byte"])
def test_cut_short(path: Path, where: str):
    data = path.read_bytes()
    at = {"nothing": 0, "in the header": 11, "after it": SIZE, "records": 300, "index": len(data) - 900}
    cut = {**at, "footer": len(data) - 20, "last byte": len(data) - 1}[where]
    path.write_bytes(data[:cut])
    with pytest.raises(StoreError, match=r"things\.bin: is (cut short|empty)") as error:
        RecordStore(path)
    assert isinstance(error.value, UserError)


def test_every_flipped_byte_is_noticed(path: Path):
    data = path.read_bytes()
    for at in range(0, len(data), 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        with pytest.raises(StoreError, match=r"things\.bin: "):
            RecordStore(path).verify()


def test_bytes_cut_out_of_the_middle(path: Path):
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[130:])
    with pytest.raises(StoreError, match="damaged: its length is -30 bytes off"):
        RecordStore(path)


def test_newer_format_is_named(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cyborgs.data.store.VERSION", 7)
    write(path, range(3))
    monkeypatch.undo()
    with pytest.raises(StoreError, match="has format 7, this version of cyborgs reads format 1"):
        RecordStore(path)


def test_other_files_are_refused(tmp_path: Path, path: Path):
    (tmp_path / "photo.jpg").write_bytes(os.urandom(500))
    with pytest.raises(StoreError, match=r"photo\.jpg: is no record store"):
        RecordStore(tmp_path / "photo.jpg")
    with pytest.raises(StoreError, match=r"none\.bin: cannot be opened \(No such file"):
        RecordStore(tmp_path / "none.bin")
    with pytest.raises(StoreError, match="holds 'things', not 'boxes'"):
        RecordStore(path, kind="boxes")


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(StoreError("a/b", "is empty")))
    assert (str(error), error.path) == ("a/b: is empty", Path("a/b"))


def test_pickle_opens_at_the_first_read(path: Path):
    copied = pickle.dumps(RecordStore(path))
    assert len(copied) < 500
    assert pickle.loads(copied).read(7) == record(7)
    moved = path.rename(path.with_name("moved.bin"))
    copy = pickle.loads(copied)
    with pytest.raises(StoreError, match=r"things\.bin: cannot be opened"):
        copy.read(7)
    write(path, range(20))
    with pytest.raises(StoreError, match="another file than the one that was opened before"):
        copy.read(7)
    moved.rename(path)
    assert copy.read(7) == record(7)


def test_close_then_read(path: Path):
    store = RecordStore(path)
    store.close()
    store.close()
    assert store.read(3) == record(3)


def read_all(store: RecordStore, seed: int) -> bool:
    order = np.random.default_rng(seed).integers(0, len(store), 500)
    return all(store.read(int(i)) == record(int(i)) for i in order)


# Python 3.12 warns of a fork beside threads; torch's loaders fork all the same.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@forks
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_many_processes_read(path: Path, method: str):
    store = RecordStore(path)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context(method)) as pool:
        assert all(pool.map(read_all, [store] * 6, range(6)))


@forks
def test_forked_workers_share_the_open_file(path: Path):
    store = RecordStore(path)
    children = []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            os._exit(0 if read_all(store, seed) else 1)
        children.append(child)
    assert read_all(store, 99)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_many_threads_read_a_copy_that_is_not_open_yet(path: Path):
    for _ in range(5):
        store = pickle.loads(pickle.dumps(RecordStore(path)))
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read_all, [store] * 8, range(8)))


def test_no_descriptor_is_left_open(path: Path):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        RecordStore(path).read(1)
    path.write_bytes(path.read_bytes()[:-3])
    for _ in range(20):
        with pytest.raises(StoreError):
            RecordStore(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


KILLED = """
import sys
from cyborgs.data.store import RecordWriter
writer = RecordWriter(sys.argv[1], kind="things")
for index in range(10**9):
    writer.write(index, b"abc" * 1000)
    if index == 5000:
        print("half", flush=True)
"""


def test_killed_writer_leaves_the_old_file(path: Path):
    before = path.read_bytes()
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == before
    assert RecordStore(path).read(7) == record(7)
    write(path, range(4))
    assert sorted(p.name for p in path.parent.iterdir()) == ["things.bin"]
