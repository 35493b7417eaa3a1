"""Weights to start from: files of ours, of torchvision's and of timm's names, checked tensor by tensor."""

from __future__ import annotations

import json
import mmap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cyborgs.errors import UserError

RESULT_NAME = "backbone.safetensors"
"""A run's result, inside its folder."""
KEY = "cyborgs"
"""The one entry of our files' metadata: several would be written in random order."""
WRAPPERS = ("state_dict", "model", "model_state_dict")


def find_file(path: str | Path) -> Path:
    """The file itself, or the result inside a run's folder.

    Raises:
        FileNotFoundError: there is neither.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / RESULT_NAME).is_file():
            raise FileNotFoundError(f"{path}: no {RESULT_NAME} in this folder (is the run finished?)")
        return path / RESULT_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights, nor a run's folder")
    return path


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as one: eight bytes of length, then JSON."""
    with open(path, "rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors on the CPU, and what our own files say of themselves (None in a file that is not ours).

    Raises:
        UserError: the file is no safetensors file, or a damaged one.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        described = None if metadata is None else json.loads(metadata)
    except (SafetensorError, ValueError, RecursionError) as error:  # recursion: JSON that is nested without end
        raise UserError(f"{path}: not a safetensors file, or a damaged one ({_first_line(error)})") from error
    if described is not None and not isinstance(described, dict):
        raise UserError(f"{path}: its metadata is {type(described).__name__}, not named values")
    return state, described


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], str | None]:
    """Named tensors of a run's folder, a safetensors file or a torch file, and the architecture if the file says it.

    A torch file is read without running code in it, and without taking more memory than it is long; a checkpoint around the weights (``state_dict``, ``model``) and
    the ``module.`` of DistributedDataParallel are taken off.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is of no such kind, or holds something other than tensors.
    """
    path = find_file(path)
    if is_safetensors(path):
        state, metadata = read_safetensors(path)
        return state, None if metadata is None else str(metadata.get("architecture"))
    loaded = read_torch(path)
    for name in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{path}: does not hold named tensors")
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}, None


def read_torch(path: Path, allowed: Sequence[type] = ()) -> Any:
    """What a torch file holds, on the CPU, without running code in it or taking more memory than it is long.

    Args:
        path: the file.
        allowed: classes that it may hold beside tensors and plain values.

    Raises:
        UserError: the file is of no such kind, or holds something else.
    """
    try:
        _refuse_bombs(path)
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling raises nearly anything
        raise UserError(
            f"{path}: neither a safetensors file nor a torch file of weights alone ({_first_line(error)})"
        ) from error


def _refuse_bombs(path: Path) -> None:
    """ValueError for a torch file that would take far more memory than it is long; torch's own reader does not care."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise ValueError("it is compressed, or its parts overlap; torch writes neither")
    if path.stat().st_size:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            # The one allowed constructor that takes memory by a number. Weights have no use for it.
            if data.find(b"bytearray\n") >= 0:
                raise ValueError("it makes byte arrays")


def _first_line(error: Exception) -> str:
    """What went wrong, in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def fit_weights(module: nn.Module, state: dict[str, Tensor], head: Sequence[str], what: str) -> list[str]:
    """Load ``state`` into ``module``: every tensor of it, none left out but those of the head.

    Args:
        module: the network, changed only if all fits.
        state: tensors by name.
        head: names of modules that the network once had; what the state holds for them is passed over.
        what: how an error's message begins.

    Returns:
        Names that were passed over, sorted.

    Raises:
        UserError: names the first tensor that is missing, of another shape or too many, and how many there are.
    """
    own = module.state_dict()
    # Files older than torch 0.4.1 lack this counter; it matters to nobody.
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    extra = sorted(n for n in state if n not in own)
    ignored = [n for n in extra if any(n.startswith(f"{part}.") for part in head)]
    unknown = [n for n in extra if n not in ignored]
    shapes = [n for n in own if n in state and state[n].shape != own[n].shape]
    if missing:
        raise UserError(f"{what}: {len(missing)} of {len(own)} tensors are missing, the first is {missing[0]}")
    if shapes:
        found, needed = tuple(state[shapes[0]].shape), tuple(own[shapes[0]].shape)
        raise UserError(
            f"{what}: {len(shapes)} tensors have another shape, the first is {shapes[0]}: {found}, need {needed}"
        )
    if unknown:
        raise UserError(f"{what}: {len(unknown)} tensors too many, the first is {unknown[0]}")
    module.load_state_dict({n: state.get(n, own[n]) for n in own})
    return ignored
