"""The store. Nothing here imports torch when it is loaded: spawned readers load this file."""

from __future__ import annotations

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cyborgs.data.store_format import StoreError
from cyborgs.masks.store import GenerationWriter, MaskStore, prune, set_current
from cyborgs.structures import LabelMap
from tests.masks.generations import check, picture, write


def test_round_trip(tmp_path: Path):
    write(tmp_path, 0, void=7)
    store = MaskStore(tmp_path)
    check(store, 0)
    assert (store.void, store.manifest, store.generations()) == (7, {"photos": "abc"}, [0])
    store.verify()
    assert store[np.int64(3)].dtype == np.uint8
    store[3][:] = 9  # a copy of the caller's own
    check(store, 0)


def test_layout(tmp_path: Path):
    write(tmp_path / "run", 0, ranks=3)
    write(tmp_path / "run", 1)
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    generations = {f"run/masks/generation-000{g}/{name}" for g in (0, 1) for name in ("maps.bin", "manifest.json")}
    assert files == {"run/masks/current.json", *generations}


@pytest.mark.parametrize("name", ["run", "masks", "run/masks"])
def test_run_folder_and_masks_folder_are_one(tmp_path: Path, name: str):
    """Also where the run's own folder is called masks."""
    write(tmp_path / name, 0)
    write(tmp_path / name, 1)
    check(MaskStore(tmp_path / name), 1)
    if name == "run":
        check(MaskStore(tmp_path / "run" / "masks"), 1)
        check(MaskStore(str(tmp_path / "run")), 1)
    set_current(tmp_path / name, 0)
    check(MaskStore(tmp_path / name), 0)
    set_current(tmp_path / name, None)
    write(tmp_path / name, 5)
    assert MaskStore(tmp_path / name).generations() == [5]


def test_number_of_processes_leaves_no_trace(tmp_path: Path):
    for ranks in (1, 2, 5):
        write(tmp_path / str(ranks), 0, ranks=ranks, void=3)
    one, two, five = (
        {p.name: p.read_bytes() for p in (tmp_path / str(r)).rglob("*") if p.is_file()} for r in (1, 2, 5)
    )
    assert one == two == five


def test_beyond_the_last(tmp_path: Path):
    write(tmp_path, 0)
    for index in (-1, 12, 10**9):
        with pytest.raises(IndexError, match=f"no record {index} among 12"):
            MaskStore(tmp_path)[index]


def test_generations(tmp_path: Path):
    for generation in (0, 1, 4):
        write(tmp_path, generation)
    check(MaskStore(tmp_path), 4)
    check(MaskStore(tmp_path, generation=1), 1)
    assert MaskStore(tmp_path, 0).generations() == [0, 1, 4]
    for missing in (-1, 2, 5):
        with pytest.raises(StoreError, match=rf"no complete generation {missing} of masks \(complete: 0, 1, 4\)"):
            MaskStore(tmp_path, missing)


def test_no_generation_at_all(tmp_path: Path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match=r"masks: there is no complete generation of masks"):
            MaskStore(path)
    GenerationWriter(tmp_path, 0, 3).close()
    with pytest.raises(StoreError, match="there is no complete generation"):
        MaskStore(tmp_path)


def test_open_reader_keeps_its_generation(tmp_path: Path):
    write(tmp_path, 0)
    store = MaskStore(tmp_path)
    write(tmp_path, 1)
    check(store, 0)
    assert prune(tmp_path, 1) == [0]
    check(store, 0)
    assert store.generations() == [1]
    check(MaskStore(tmp_path), 1)


def test_prune(tmp_path: Path):
    assert prune(tmp_path, 2) == []
    for generation in range(5):
        write(tmp_path, generation)
    assert prune(tmp_path, 0) == []
    assert prune(tmp_path, 2) == [0, 1, 2]
    assert prune(tmp_path, 2) == []
    assert MaskStore(tmp_path).generations() == [3, 4]
    assert len(list((tmp_path / "masks").iterdir())) == 3
    with pytest.raises(StoreError, match="no complete generation 1 "):
        MaskStore(tmp_path, 1)


def test_set_current(tmp_path: Path):
    for generation in range(4):
        write(tmp_path, generation)
    set_current(tmp_path, 1)
    check(MaskStore(tmp_path), 1)
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == [
        "current.json",
        "generation-0000",
        "generation-0001",
    ]
    write(tmp_path, 2)
    check(MaskStore(tmp_path), 2)
    with pytest.raises(StoreError, match=r"generation-0007/maps\.bin: cannot be opened"):
        set_current(tmp_path, 7)
    check(MaskStore(tmp_path), 2)
    set_current(tmp_path, None)
    assert list((tmp_path / "masks").iterdir()) == []
    set_current(tmp_path / "missing", None)
    assert not (tmp_path / "missing").exists()


def test_a_generation_is_written_once(tmp_path: Path):
    write(tmp_path, 1)
    for generation in (0, 1):
        with pytest.raises(ValueError, match=f"generation {generation} is not after the current one, 1"):
            GenerationWriter(tmp_path, generation, 5)
    check(MaskStore(tmp_path), 1)


def test_what_is_not_published(tmp_path: Path):
    write(tmp_path, 0)
    first, second = (GenerationWriter(tmp_path, 1, 6, rank) for rank in (0, 1))
    for index in (0, 2, 5):
        first.write(index, LabelMap(picture(index, 1)))
    with pytest.raises(IndexError, match="no image 6 among 6"):
        first.write(6, LabelMap(picture(6, 1)))
    with pytest.raises(ValueError, match="void label 3, others None"):
        first.write(1, LabelMap(picture(1, 1), void=3))
    second.close()
    with pytest.raises(ValueError, match=r"3 of 6 images have no map \(1, 3, 4\)"):
        first.publish()
    check(MaskStore(tmp_path), 0)
    first, second = (GenerationWriter(tmp_path, 1, 2, rank) for rank in (0, 1))
    for writer in (first, second):
        writer.write(0, LabelMap(picture(0, 1)))
        writer.close()
    with pytest.raises(ValueError, match="two processes labelled the same image"):
        first.publish()
    first, second = (GenerationWriter(tmp_path, 1, 2, rank) for rank in (0, 1))
    first.write(0, LabelMap(picture(0, 1)))
    second.write(1, LabelMap(picture(0, 1), void=0))
    second.close()
    with pytest.raises(ValueError, match="different void labels"):
        first.publish()
    check(MaskStore(tmp_path), 0)
    first.abort()
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["current.json", "generation-0000"]
    with pytest.raises(ValueError, match="at least one image"):
        GenerationWriter(tmp_path, 1, 0)


def read_some(store: MaskStore, seed: int) -> bool:
    order = np.random.default_rng(seed).integers(0, 12, 300).tolist()
    return all(np.array_equal(store[i], picture(i, store.generation)) for i in order)


def test_many_processes_read(tmp_path: Path):
    write(tmp_path, 0)
    store = MaskStore(tmp_path)
    write(tmp_path, 1)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert all(pool.map(read_some, [store, MaskStore(tmp_path)] * 2, range(4)))


def test_pickled_store_is_small_and_keeps_its_generation(tmp_path: Path):
    write(tmp_path, 0, count=200)
    copied = pickle.dumps(MaskStore(tmp_path))
    write(tmp_path, 1, count=200)
    assert len(copied) < 1000
    check(pickle.loads(copied), 0, count=200)
