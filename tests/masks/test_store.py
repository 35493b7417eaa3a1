"""The store. Nothing here imports torch when it is loaded: spawned readers load this file."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from cyborgs.data.store import StoreError
from cyborgs.masks.store import GenerationWriter, MaskStore, prune, set_current
from cyborgs.structures import LabelMap

LIMIT = 4915


def picture(index: int, generation: int) -> np.ndarray:
    """A map that says whose it is."""
    labels = np.full((3 + index % 4, 5), generation, np.uint8)
    labels[0, 0] = index
    return labels


def write(path: Path, generation: int, count: int = 12, ranks: int = 1, void: int | None = None) -> None:
    writers = [GenerationWriter(path, generation, count, rank, {"photos": "abc"}) for rank in range(ranks)]
    # Out of order, as groups are.
    for place, index in enumerate(np.random.default_rng(generation).permutation(count).tolist()):
        writers[place % ranks].write(index, LabelMap(picture(index, generation), void))
    for writer in writers:
        writer.close()
    writers[0].publish()


def check(store: MaskStore, generation: int, count: int = 12) -> None:
    assert (store.generation, len(store)) == (generation, count)
    for index, labels in enumerate(store):  # type: ignore[arg-type, var-annotated]
        assert np.array_equal(labels, picture(index, generation))


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
            patch.setattr("cyborgs.masks.store.write_atomically", die)
        elif where == "rename":
            patch.setattr(Path, "rename", die)
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


def stored_size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def test_bytes_an_image_of_regions_like_those_of_photos(tmp_path: Path):
    """60 x 80 cells, 129 clusters shared by 16 images: smooth regions with ragged edges."""
    draw = np.random.default_rng(0)
    writer = GenerationWriter(tmp_path, 0, 16)
    for index in range(16):
        coarse = draw.standard_normal((15, 20, 129), np.float32)
        smooth = np.stack([cv2.resize(np.ascontiguousarray(coarse[..., c]), (80, 60)) for c in range(129)], -1)
        labels = (smooth + 0.2 * draw.standard_normal(smooth.shape, np.float32)).argmax(-1)
        writer.write(index, LabelMap(labels.astype(np.uint8)))
    writer.publish()
    assert len(np.unique(MaskStore(tmp_path)[0])) > 50
    assert 500 < stored_size(tmp_path) / 16 <= LIMIT


def test_bytes_an_image_of_real_photos(tmp_path: Path):
    """Random weights: the features are rougher than trained ones."""
    folder = os.environ.get("CYBORGS_TEST_DATA")
    if not folder or not (Path(folder) / "osie.tar").exists():
        pytest.skip("CYBORGS_TEST_DATA names no folder with osie.tar")
    import torch

    from cyborgs.masks.bootstrap import Bootstrap
    from cyborgs.models.backbone import Backbone
    from cyborgs.models.config import BackboneConfig

    images = []
    with tarfile.open(Path(folder) / "osie.tar") as archive:
        for member in archive:
            if member.name.endswith(".jpg") and (file := archive.extractfile(member)) is not None:
                image = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
                images.append(cv2.resize(image, (640, 480), interpolation=cv2.INTER_AREA))
            if len(images) == 4:
                break
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(name="resnet18"), ["layer2.1"])
    backbone.eval()
    source = Bootstrap(lambda x: backbone(backbone.normalise(x))["layer2.1"], clusters=(129, 129), iterations=10)
    writer = GenerationWriter(tmp_path, 0, len(images))
    for index, label_map in enumerate(source.label(images, 0, 0, 0)):
        assert label_map.labels.shape == (60, 80)
        writer.write(index, label_map)
    writer.publish()
    assert stored_size(tmp_path) / len(images) <= LIMIT
