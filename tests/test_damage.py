"""Every file of a checkpoint and of a mask store, cut anywhere and with any bit flipped: detected, named, a way shown."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import xxhash

from cyborgs.data.store_format import StoreError
from cyborgs.engine.checkpoint import FORMAT, CheckpointError, Checkpoints
from cyborgs.errors import UserError
from cyborgs.masks.store import MaskStore, set_current
from cyborgs.sealed import sealed, unsealed
from tests.masks import generations
from tests.writers import save


def edges_of_tensors(data: bytes) -> set[int]:
    """Ends of the length, the header and each tensor."""
    start = 8 + struct.unpack("<Q", data[:8])[0]
    return {8, start} | {start + entry["data_offsets"][1] for entry in json.loads(data[8:start]).values()}


def edges_of_text(data: bytes) -> set[int]:
    """Ends of the lines."""
    return {match.end() for match in re.finditer(rb"\n", data)}


def edges_of_records(data: bytes) -> set[int]:
    """Ends of the header's two parts, each record, the index's rows, the meta and the footer's three parts."""
    start, count, meta, _ = struct.unpack("<QQQQ", data[-48:-16])
    index = struct.unpack(f"<{4 * count}Q", data[start : start + 32 * count])
    ends = {
        offset + length for offset, length in zip(index[count : 2 * count], index[2 * count : 3 * count], strict=True)
    }
    rows = {start + 8 * count * row for row in range(5)}
    return {16, 24, start + 32 * count + meta, len(data) - 16, len(data) - 8} | ends | rows


@dataclass(frozen=True)
class Kind:
    file: str
    """What is spoiled."""
    edges: Callable[[bytes], set[int]]
    read: Callable[[Path], object]
    """Reads everything; raises where something is wrong."""
    error: type[UserError]
    way: str
    """What the message offers."""


def load(folder: Path) -> object:
    return Checkpoints(folder / "checkpoints").load()


def read_masks(folder: Path) -> None:
    MaskStore(folder).verify()


CHECKPOINT_WAY = r"step-000200 is intact: remove \S+/checkpoints/step-000300 to go on from it with --resume\.$"
MASKS_WAY = r"Generation {} is intact: cyborgs\.masks\.store\.set_current\('\S+/masks', {}\) goes back to it$"
LAST = "checkpoints/step-000300/"
KINDS = (
    Kind(LAST + "networks.safetensors", edges_of_tensors, load, CheckpointError, CHECKPOINT_WAY),
    Kind(LAST + "optimizer.safetensors", edges_of_tensors, load, CheckpointError, CHECKPOINT_WAY),
    Kind(LAST + "state.json", edges_of_text, load, CheckpointError, CHECKPOINT_WAY),
    Kind("masks/generation-0001/maps.bin", edges_of_records, read_masks, StoreError, MASKS_WAY.format(0, 0)),
    Kind("masks/generation-0001/manifest.json", edges_of_text, read_masks, StoreError, MASKS_WAY.format(0, 0)),
    Kind("masks/current.json", edges_of_text, read_masks, StoreError, MASKS_WAY.format(1, 1)),
)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: Path(kind.file).name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints 200 and 300 (under 1 MB) and generations 0 and 1."""
    folder = tmp_path_factory.mktemp("run")
    for step in (200, 300):
        save(folder / "checkpoints", step, step)
    for generation in (0, 1):
        generations.write(folder, generation)
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 1e6
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def cuts(kind: Kind, data: bytes) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(f"cuts of {kind.file}")
    places = {0, *kind.edges(data), *draw.sample(range(len(data)), 50)} - {len(data)}
    for place in sorted(places):
        yield f"cut after {place} of {len(data)} bytes", data[:place]


def flips(kind: Kind, data: bytes) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(f"flips in {kind.file}")
    for bit in sorted(draw.sample(range(8 * len(data)), 200)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit % 8} of byte {bit // 8} of {len(data)} flipped", bytes(changed)


@each_kind
@pytest.mark.parametrize("harm", [cuts, flips])
def test_harm_is_detected_and_named(
    run: Path, kind: Kind, harm: Callable[[Kind, bytes], Iterator[tuple[str, bytes]]]
) -> None:
    file = run / kind.file
    data = file.read_bytes()
    kind.read(run)
    tried = 0
    for what, harmed in harm(kind, data):
        file.write_bytes(harmed)
        message = "nothing"
        try:
            kind.read(run)
        except kind.error as error:
            message = str(error)
        assert message.startswith(f"{file}: "), f"{what}: {message}"
        assert re.search(kind.way, message), f"{what}: {message}"
        tried += 1
    assert tried >= 50
    file.write_bytes(data)
    kind.read(run)


@pytest.mark.parametrize("name", ["networks.safetensors", "optimizer.safetensors", "state.json"])
def test_the_way_that_is_offered_works(run: Path, name: str) -> None:
    save(run / "checkpoints", 400, 400, keep=5)
    for step in (400, 300):
        (run / "checkpoints" / f"step-000{step}" / name).unlink()
    both = r"remove \S+step-000300 and \S+step-000400 to go on"
    with pytest.raises(CheckpointError, match=rf"step-000400/{name}: is missing\. step-000200 is intact: {both}"):
        load(run)
    for step in (400, 300):
        shutil.rmtree(run / "checkpoints" / f"step-000{step}")
    loaded = Checkpoints(run / "checkpoints").load()
    assert loaded is not None
    assert loaded.state == {"mark": 200}
    (loaded.path / name).unlink()
    with pytest.raises(CheckpointError, match=r"No other checkpoint is intact: .* remove \S+/checkpoints to start at"):
        load(run)
    shutil.rmtree(run / "checkpoints")
    assert load(run) is None


def test_masks_go_back_to_an_intact_generation(run: Path) -> None:
    (run / "masks" / "current.json").write_bytes(b"")
    with pytest.raises(StoreError, match="Generation 1 is intact"):
        MaskStore(run)
    set_current(run, 1)
    store = MaskStore(run)
    maps = run / "masks" / "generation-0001" / "maps.bin"
    data = bytearray(maps.read_bytes())
    data[30] ^= 1  # in the record of an image that is not read at once
    maps.write_bytes(data)
    with pytest.raises(
        StoreError, match=r"maps\.bin: is damaged: the checksum of record \d+ .* Generation 0 is intact"
    ):
        [store[index] for index in range(len(store))]
    set_current(run, 0)
    MaskStore(run).verify()
    (run / "masks" / "generation-0000" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"manifest\.json: cannot be read .* No other generation is intact: restore"):
        MaskStore(run)


def test_an_open_store_notices_what_changed_since(run: Path) -> None:
    maps = run / "masks" / "generation-0001" / "maps.bin"
    data = maps.read_bytes()
    for place in (3, 20, len(data) - 200, len(data) - 20, len(data) - 3):
        maps.write_bytes(data)
        store = MaskStore(run)
        maps.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(StoreError, match=r"maps\.bin: is "):
            store.verify()


def reseal(path: Path, **changes: object) -> None:
    path.write_bytes(sealed({**unsealed(path.read_bytes()), **changes}))


def test_newer_and_older_formats(run: Path) -> None:
    state = run / LAST / "state.json"
    for other, hint in ((FORMAT + 1, " Written by a newer version: update cyborgs."), (1, ""), ("x", "")):
        reseal(state, format=other)
        text = f"state.json: has format {other}, this version of cyborgs reads format {FORMAT}.{hint} step-000200 is intact"
        with pytest.raises(CheckpointError, match=re.escape(text)):
            load(run)
    state.write_text(json.dumps({"format": 1, "step": 300, "state": {}, "optimizer": {}}))
    with pytest.raises(
        CheckpointError, match=r"state\.json: is damaged: it has no checksum \(or was written by an unrel"
    ):
        load(run)
    manifest = run / "masks" / "generation-0001" / "manifest.json"
    reseal(manifest, format=2)
    with pytest.raises(StoreError, match=r"manifest\.json: has format 2, this version of cyborgs reads format 1\. Gen"):
        MaskStore(run)
    reseal(manifest, format=1)
    maps = run / "masks" / "generation-0001" / "maps.bin"
    header = struct.pack("<8sII", b"CYBRECRD", 2, 0)
    maps.write_bytes(header + struct.pack("<Q", xxhash.xxh64_intdigest(header)) + maps.read_bytes()[24:])
    with pytest.raises(StoreError, match=r"maps\.bin: has format 2, this version of cyborgs reads format 1\. Gen"):
        MaskStore(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": None},
        {"optimizer": {}},
        {"optimizer": {"values": {"x": {}}, "groups": []}},
        {"optimizer": [1]},
    ],
)
def test_documents_with_a_right_checksum_and_wrong_content(run: Path, changes: dict[str, object]) -> None:
    reseal(run / LAST / "state.json", **changes)
    with pytest.raises(CheckpointError, match=r"step-000300.*step-000200 is intact"):
        load(run)
