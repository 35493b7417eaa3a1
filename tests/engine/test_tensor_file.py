"""Our safetensors files as the library reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
import xxhash

from cyborgs.engine.tensor_file import write_tensors
from cyborgs.files import AppendFile

TENSORS = {
    f"{dtype}".removeprefix("torch."): torch.arange(6).reshape(2, 3).to(dtype)
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16,
        torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    )
} | {
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 5),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).to(memory_format=torch.channels_last),
    "part": torch.arange(10)[3:7],
    "needs gradients": torch.ones(2, requires_grad=True),
}  # fmt: skip


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "tensors"
    with AppendFile(path) as file:
        digest = write_tensors(file, TENSORS)
    assert digest == xxhash.xxh64_hexdigest(path.read_bytes())
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor), name


def test_the_same_bytes_as_the_library(tmp_path: Path) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in TENSORS.items()}
    with AppendFile(tmp_path / "tensors") as file:
        write_tensors(file, tensors)
    ours = (tmp_path / "tensors").read_bytes()
    length = int.from_bytes(ours[:8], "little")
    assert length % 8 == 0
    theirs = safetensors.torch.save(tensors)
    assert len(ours) == len(theirs)
    assert sorted(ours[8 + length :]) == sorted(theirs[8 + int.from_bytes(theirs[:8], "little") :])


def test_no_tensors_at_all(tmp_path: Path) -> None:
    with AppendFile(tmp_path / "tensors") as file:
        write_tensors(file, {})
    assert safetensors.torch.load_file(tmp_path / "tensors") == {}


def test_other_dtypes_are_named(tmp_path: Path) -> None:
    with (
        AppendFile(tmp_path / "tensors") as file,
        pytest.raises(TypeError, match=r"phase: tensors of torch\.complex64"),
    ):
        write_tensors(file, {"phase": torch.zeros(1, dtype=torch.complex64)})
