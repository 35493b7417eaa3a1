"""Files of weights from strangers run nothing, take no memory by a number, and are refused in one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from cyborgs.cli import main
from cyborgs.errors import UserError
from cyborgs.models.initial import KEY, read_weights
from cyborgs.models.weights import load_backbone
from tests.conftest import make_photos


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


def zipped(pickled: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


def legacy(pickled: bytes) -> bytes:
    """Torch's format before 1.6: pickles one after the other."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [0x1950A86A20F9469CFC6C, 1001, system]
    return b"".join(pickle.dumps(part, 2) for part in head) + pickled + pickle.dumps([], 2)


def inflating() -> bytes:
    """A torch file of zeros, compressed: torch reads it, and takes a thousand times its length."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(4_000_000)}, buffer)
    packed = io.BytesIO()
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    return packed.getvalue()


ARRAY = b"cbuiltins\nbytearray\n(J\x00\x00\x00\x40tR."  # a gigabyte of zeros
EXIT = b"cos\x1b[2J\nsystem\n(X\x04\x00\x00\x00exittR."


@pytest.mark.parametrize(
    "make",
    [
        lambda mark: pickle.dumps(Bomb(mark)),
        lambda mark: zipped(pickle.dumps(Bomb(mark), 2)),
        lambda mark: zipped(pickle.dumps({"state_dict": Bomb(mark)}, 2)),
        lambda mark: legacy(pickle.dumps(Bomb(mark), 2)),
        lambda mark: zipped(ARRAY),
        lambda mark: legacy(ARRAY),
        lambda mark: legacy(EXIT),
        lambda mark: inflating(),
        lambda mark: zipped(b""),
        lambda mark: b"PK\3\4" + bytes(100),
        lambda mark: b"",
        lambda mark: legacy(pickle.dumps({"w": [[]] * 10}, 2)),
        lambda mark: struct.pack("<Q", 2**63) + b"{" + bytes(50),
        lambda mark: struct.pack("<Q", 90_000_000) + b'{"a": ' + bytes(50),
        lambda mark: save({"\x1b[2J../../a": torch.zeros(1)}),
    ],
)
def test_hostile_weights(make: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, mark = tmp_path / "weights.pth", tmp_path / "ran"
    path.write_bytes(make(mark))  # type: ignore[operator]
    start = time.process_time()
    out, photos = tmp_path / "out", make_photos(tmp_path / "photos", 8)
    settings = [
        "--backbone.name",
        "timm:test_resnet",
        "--batch-size",
        "8",
        "--method.slice-size",
        "4",
        "--workers",
        "0",
    ]
    code = main(["pretrain", "--data", str(photos), "--out", str(out), "--init", str(path), *settings])
    said = capsys.readouterr().err
    assert code == 1
    last = said.splitlines()[-1]
    assert "weights.pth" in last
    assert last.isprintable()
    assert "Traceback" not in said
    assert not mark.exists()
    assert time.process_time() - start < 9


def test_memory_is_not_taken_by_a_number(tmp_path: Path) -> None:
    for number, data in enumerate((legacy(ARRAY), zipped(ARRAY), inflating())):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"byte arrays|compressed"):
            read_weights(path)


GOOD = {
    "format": 1,
    "architecture": "timm:test_resnet",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "layers": ["layer3"],
}


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000,
        "[1]",
        "null and void",
        json.dumps(GOOD | {"format": "1"}),
        json.dumps(GOOD | {"format": 99}),
        json.dumps(GOOD | {"architecture": None}),
        json.dumps(GOOD | {"architecture": ["timm:test_resnet"]}),
        json.dumps(GOOD | {"architecture": "timm:hf-hub:somebody/model"}),
        json.dumps(GOOD | {"architecture": "\x1b[2J"}),
        json.dumps(GOOD | {"mean": 3}),
        json.dumps(GOOD | {"mean": [1, 2]}),
        json.dumps(GOOD | {"std": [0.2, 0.2, 0]}),
        json.dumps(GOOD | {"std": [0.2, float("nan"), 1]}),
        json.dumps(GOOD | {"layers": "layer3"}),
        json.dumps(GOOD | {"layers": [["layer3"]]}),
        json.dumps(GOOD | {"layers": ["\x1b[2J"]}),
        json.dumps(GOOD),  # and no tensor that fits
    ],
)
def test_hostile_metadata(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    path.write_bytes(save({"../../w": torch.zeros(1)}, {KEY: metadata}))
    with pytest.raises(UserError) as caught:
        load_backbone(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("header", [2**64 - 1, 2**40, 10**8 + 1, 0])
def test_hostile_lengths(header: int, tmp_path: Path) -> None:
    path = tmp_path / "backbone.safetensors"
    path.write_bytes(
        struct.pack("<Q", header) + b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}' + bytes(4)
    )
    with pytest.raises(UserError, match=r"backbone\.safetensors"):
        load_backbone(path)


def test_hostile_shapes(tmp_path: Path) -> None:
    for shape, offsets in (([2**40], [0, 2**42]), ([2**62, 4], [0, 4]), ([1], [0, 4]), ([-1], [0, 4])):
        entry = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        path = tmp_path / "backbone.safetensors"
        path.write_bytes(struct.pack("<Q", len(entry)) + entry + bytes(4))
        with pytest.raises(UserError):
            load_backbone(path)
