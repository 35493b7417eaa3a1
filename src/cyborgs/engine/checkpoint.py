"""Checkpoints: everything a run needs to go on, complete or absent, without code in them.

checkpoints/step-000123/  networks.safetensors  optimizer.safetensors  state.json
checkpoints/last          the name of the newest one, for people and scripts

``state.json`` holds length and checksum of the two others and is sealed itself, so that no changed bit goes unseen.
What is being written or removed has a name with a dot before it, and no reader looks at it, with one exception:
``.step-000123.old`` is that step's first checkpoint while a second takes its place.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
import xxhash
from torch import Tensor

from cyborgs.engine.tensor_file import write_tensors
from cyborgs.errors import UserError
from cyborgs.files import (
    AppendFile,
    cleared,
    discard,
    listed,
    make_folder,
    remove_tree,
    rename,
    sync_folder,
    write_bytes,
)
from cyborgs.machine.disk_errors import why
from cyborgs.sealed import sealed, unsealed

FORMAT: Final = 2
NETWORKS: Final = "networks.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"
STATE: Final = "state.json"
_NAME: Final = re.compile(r"step-(\d{6,})|\.step-(\d{6,})\.old")
_LEFTOVER: Final = re.compile(r"\.step-\d{6,}\.(tmp|removed)|\.last\.tmp")
_NOT_DAMAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ENOMEM})
"""The file may be fine where the system refuses to read it for these reasons."""


class CheckpointError(UserError):
    """A checkpoint that cannot be used: the message names the file and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """What was saved."""

    networks: dict[str, Tensor]
    optimizer: dict[str, Any]
    """An optimiser's ``state_dict``."""
    state: dict[str, Any]
    """Progress: step, generation of masks, length of the log."""
    path: Path


def _split_optimizer(state_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    values: dict[str, dict[str, Any]] = {}
    for index, entry in state_dict["state"].items():
        for key, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{key}"] = value
            else:
                values.setdefault(str(index), {})[key] = value
    return tensors, {"values": values, "groups": state_dict["param_groups"]}


def _join_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(index): dict(entry) for index, entry in rest["values"].items()}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": rest["groups"]}


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(
        self, step: int, networks: Mapping[str, Tensor], optimizer: Mapping[str, Any], state: Mapping[str, Any]
    ) -> Path:
        """Write ``step-NNNNNN`` aside, rename it, point ``last`` at it, remove what is too old.

        Raises:
            DiskError: the disk does not take it. The checkpoint before stays the newest, unless this one was complete.
        """
        make_folder(self.folder)
        self._tidy()
        final = self.folder / f"step-{step:06d}"
        aside, replaced, doomed = (self.folder / f".{final.name}.{suffix}" for suffix in ("tmp", "old", "removed"))
        tensors, rest = _split_optimizer(optimizer)
        parts: dict[str, Mapping[str, Tensor]] = {NETWORKS: networks, OPTIMIZER: tensors}
        needed = sum(t.numel() * t.element_size() for part in parts.values() for t in part.values())
        with cleared(aside, final, needed):
            make_folder(aside)
            files = {}
            for name, part in parts.items():
                with AppendFile(aside / name) as file:
                    digest = write_tensors(file, part)
                files[name] = {"bytes": file.size, "xxh64": digest}
            document = {"format": FORMAT, "step": step, "state": dict(state), "optimizer": rest, "files": files}
            with AppendFile(aside / STATE) as file:
                file.write(sealed(document))
            sync_folder(aside)
            if final.exists():
                # The same step saved again, since a refresh was done after it: the old one goes when the new is there.
                rename(final, replaced)
            rename(aside, final)
        sync_folder(self.folder)
        write_bytes(self.folder / "last", final.name.encode())
        for old in (*([replaced] if replaced.exists() else []), *self._complete()[: -self.keep]):
            discard(old, doomed)
        return final

    def _tidy(self) -> None:
        """Remove what writers that were killed left, and give back its name to what the last one had put away."""
        for path in listed(self.folder):
            match = _NAME.fullmatch(path.name)
            if match and match[2]:
                final = self.folder / f"step-{match[2]}"
                if final.exists():
                    discard(path, self.folder / f".{final.name}.removed")
                else:
                    rename(path, final)
                    sync_folder(self.folder)
            elif _LEFTOVER.fullmatch(path.name):
                remove_tree(path)

    def _complete(self) -> list[Path]:
        """Checkpoints in the order of their steps, which grow beyond six digits."""
        found: dict[int, Path] = {}
        for path in listed(self.folder):
            match = _NAME.fullmatch(path.name)
            if match:
                # In this order "." comes before "s": put away is what counts only where the name itself is missing.
                found[int(match[1] or match[2])] = path
        return [found[step] for step in sorted(found)]

    def last(self) -> Path | None:
        """The newest complete checkpoint, or None where there is none yet."""
        complete = self._complete()
        return complete[-1] if complete else None

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, on the CPU, or None.

        Raises:
            CheckpointError: a file is missing, damaged or of another version. Names the file, and the newest
                checkpoint that is intact.
        """
        path = self.last()
        if path is None:
            return None
        try:
            return _load(path)
        except CheckpointError as error:
            raise CheckpointError(f"{error} {self._advice()}") from error
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: cannot be read: {why(error)}.") from error

    def _advice(self) -> str:
        """What to do where the newest one cannot be used."""
        complete = self._complete()
        for older in reversed(complete[:-1]):
            try:
                verify(older)
            except (CheckpointError, OSError):
                continue
            newer = " and ".join(str(path) for path in complete[complete.index(older) + 1 :])
            return f"{older.name} is intact: remove {newer} to go on from it with --resume."
        return (
            f"No other checkpoint is intact: restore this one from a copy, or remove {self.folder} to start at step 0."
        )


def verify(path: Path) -> dict[str, Any]:
    """Read a checkpoint's files as they are; what ``state.json`` holds.

    Raises:
        CheckpointError: a file is missing, cut short, damaged or of another version; names it.
        OSError: the system refuses to read it for a reason that is not the file's.
    """
    file = path / STATE
    with _reading(file):
        data = file.read_bytes()
    try:
        document = unsealed(data)
    except ValueError as error:
        raise CheckpointError(f"{file}: is damaged: {error}.") from error
    if document.get("format") != FORMAT:
        found = document.get("format")
        newer = " Written by a newer version: update cyborgs." if isinstance(found, int) and found > FORMAT else ""
        raise CheckpointError(f"{file}: has format {found}, this version of cyborgs reads format {FORMAT}.{newer}")
    for name in (NETWORKS, OPTIMIZER):
        file = path / name
        size, found = _measure(file)
        try:
            length, digest = document["files"][name]["bytes"], document["files"][name]["xxh64"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path / STATE}: names no checksum of {name}.") from error
        if size < length:
            raise CheckpointError(f"{file}: is cut short: {size} of {length} bytes are there.")
        if size > length or found != digest:
            raise CheckpointError(f"{file}: is damaged: its checksum does not match.")
    return document


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """CheckpointError where a file is missing or the disk fails."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_DAMAGE:
            raise
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {why(error)}"
        raise CheckpointError(f"{file}: {what}.") from error


def _measure(file: Path) -> tuple[int, str]:
    """Length and xxh64 of a file, which may be larger than is good for the memory."""
    digest, size = xxhash.xxh64(), 0
    with _reading(file), file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
            size += len(part)
    return size, digest.hexdigest()


def _load(path: Path) -> Checkpoint:
    document = verify(path)
    try:
        networks = safetensors.torch.load_file(path / NETWORKS)
        tensors = safetensors.torch.load_file(path / OPTIMIZER)
        optimizer = _join_optimizer(tensors, document["optimizer"])
        return Checkpoint(networks, optimizer, document["state"], path)
    except (LookupError, TypeError, ValueError, AttributeError, safetensors.SafetensorError) as error:
        # Its checksums are right, so it was written so: by something else than this program.
        raise CheckpointError(f"{path}: is no checkpoint of cyborgs ({type(error).__name__}: {error}).") from error


def load_networks(module: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's networks into ``module``.

    Raises:
        CheckpointError: the checkpoint belongs to another recipe's networks; names the first that differs.
    """
    own = module.state_dict()
    wrong = [n for n, v in own.items() if n not in checkpoint.networks or checkpoint.networks[n].shape != v.shape]
    extra = [n for n in checkpoint.networks if n not in own]
    if wrong or extra:
        raise CheckpointError(
            f"{checkpoint.path}: the checkpoint belongs to another network: {len(wrong) + len(extra)} tensors differ, "
            f"the first is {(wrong or extra)[0]}. Use the recipe it was made with."
        )
    module.load_state_dict(checkpoint.networks)


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's state into ``optimizer``, laid out in memory as the parameters are.

    A file holds plain rows; state of another layout than its parameter's is slower in every step, and sums of it
    differ in their last digit from those of a run that was not interrupted.
    """
    optimizer.load_state_dict(checkpoint.optimizer)
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
