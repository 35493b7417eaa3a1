"""Checkpoints: everything a run needs to go on, complete or absent, without code in them.

checkpoints/step-000123/  networks.safetensors  optimizer.safetensors  state.json
checkpoints/last          the name of the newest one
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from cyborgs.errors import UserError
from cyborgs.files import sync_folder, write_bytes

FORMAT = 1


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
                tensors[f"{index}.{key}"] = value.contiguous()
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
        """Write ``step-NNNNNN`` aside, rename it, point ``last`` at it, remove what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        final = self.folder / f"step-{step:06d}"
        aside = self.folder / f".{final.name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        tensors, rest = _split_optimizer(optimizer)
        safetensors.torch.save_file({k: v.contiguous() for k, v in networks.items()}, aside / "networks.safetensors")
        safetensors.torch.save_file(tensors, aside / "optimizer.safetensors")
        document = {"format": FORMAT, "step": step, "state": dict(state), "optimizer": rest}
        (aside / "state.json").write_text(json.dumps(document, indent=1))
        for file in aside.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        sync_folder(aside)
        replaced = self.folder / f".{final.name}.old"
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            # The same step saved again, since a refresh was done after it: the old one goes when the new one is there.
            final.rename(replaced)
        aside.rename(final)
        sync_folder(self.folder)
        write_bytes(self.folder / "last", final.name.encode())
        for old in (replaced, *self._complete()[: -self.keep]):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
        return final

    def _complete(self) -> list[Path]:
        """Checkpoints in the order of their steps, which grow beyond six digits."""
        return sorted(self.folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))

    def last(self) -> Path | None:
        """The newest complete checkpoint, or None where there is none yet."""
        pointer = self.folder / "last"
        if pointer.is_file():
            path = self.folder / pointer.read_text().strip()
            if path.is_dir():
                return path
            replaced = self.folder / f".{path.name}.old"
            if replaced.is_dir():  # killed between two renames
                return replaced
        complete = self._complete()
        return complete[-1] if complete else None

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, on the CPU, or None.

        Raises:
            CheckpointError: a file is missing, damaged or of a newer version.
        """
        path = self.last()
        if path is None:
            return None
        try:
            document = json.loads((path / "state.json").read_text())
            if document["format"] > FORMAT:
                raise CheckpointError(f"{path}: written by a newer version of cyborgs. Update cyborgs to go on.")
            networks = safetensors.torch.load_file(path / "networks.safetensors")
            tensors = safetensors.torch.load_file(path / "optimizer.safetensors")
        except (OSError, KeyError, json.JSONDecodeError, UnicodeDecodeError, safetensors.SafetensorError) as error:
            raise CheckpointError(
                f"{path}: damaged checkpoint ({error}). Remove this folder to go on from the one before it."
            ) from error
        return Checkpoint(networks, _join_optimizer(tensors, document["optimizer"]), document["state"], path)


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
