"""The result of a run: ``backbone.safetensors``, weights under the library's names that say what they are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import save

from cyborgs.errors import UserError
from cyborgs.files import write_bytes
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.initial import KEY, find_file, read_safetensors

FORMAT = 1
"""Version of the metadata; a reader refuses a newer one."""


def save_backbone(backbone: Backbone, path: str | Path, recipe: Mapping[str, Any]) -> None:
    """Write weights, architecture, normalisation, layers and recipe to one safetensors file, atomically.

    The same input gives the same bytes: no time, no path. All metadata is one entry of sorted JSON, since
    safetensors writes several entries in random order.

    Args:
        backbone: on any device; tensors keep their dtype.
        path: of the file; an older one is replaced.
        recipe: what JSON can hold (tuples become lists).
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "architecture": backbone.config.name,
        "mean": backbone.config.mean,
        "std": backbone.config.std,
        "layers": backbone.layers,
        "recipe": recipe,
    }
    tensors = {name: value.cpu().contiguous() for name, value in backbone.weights().items()}
    write_bytes(path, save(tensors, {KEY: json.dumps(metadata, sort_keys=True)}))


def load_backbone(path: str | Path, layers: Sequence[str] | None = None) -> Backbone:
    """The network of a file of ``save_backbone``, in eval mode, on the CPU. Torch's random state stays as it was.

    Args:
        path: the file, or the folder of a finished run.
        layers: maps that it returns; None: those of the run.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: another kind of file, a newer format, an architecture that is not installed or tensors that are
            not its own, an unknown layer.
    """
    file = find_file(path)
    state, metadata = _read_own(file)
    config = BackboneConfig(name=metadata["architecture"], mean=tuple(metadata["mean"]), std=tuple(metadata["std"]))
    with torch.random.fork_rng(devices=[]):
        backbone = Backbone(config, layers or metadata["layers"])
    backbone.load_weights(state, str(file))
    return backbone.eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file of ``save_backbone`` says of itself: format, architecture, mean, std, layers, recipe.

    Raises:
        FileNotFoundError, UserError: as ``load_backbone``.
    """
    return _read_own(find_file(path))[1]


def _read_own(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state, metadata = read_safetensors(file)
    if metadata is None:
        raise UserError(f"{file}: not written by cyborgs; to start from other weights, name the file as backbone.init")
    version = metadata.get("format", 0)
    if not isinstance(version, int):
        raise UserError(f"{file}: its metadata is damaged: format is {type(version).__name__}, not a number")
    if version > FORMAT:
        raise UserError(f"{file}: format {version} is newer than this cyborgs, which reads up to {FORMAT}")
    lacking = [name for name in ("architecture", "mean", "std", "layers") if name not in metadata]
    if lacking:
        raise UserError(f"{file}: its metadata lacks {', '.join(lacking)}")
    colours = [metadata["mean"], metadata["std"]]
    sound = {
        "architecture": isinstance(metadata["architecture"], str) and metadata["architecture"] != "",
        "layers": isinstance(metadata["layers"], list) and all(isinstance(n, str) for n in metadata["layers"]),
        "mean or std": all(
            isinstance(c, list) and len(c) == 3 and all(isinstance(v, int | float) and math.isfinite(v) for v in c)
            for c in colours
        )
        and min(metadata["std"]) > 0,
    }
    wrong = [name for name, good in sound.items() if not good]
    if wrong:
        raise UserError(f"{file}: its metadata is damaged: {wrong[0]} is not what cyborgs writes")
    return state, metadata


def weights_hash(backbone: Backbone) -> str:
    """xxh64 over what a backbone's maps depend on: its weights and buffers, architecture, mean and std; 16 digits."""
    config = backbone.config
    digest = xxhash.xxh64(json.dumps([config.name, list(config.mean), list(config.std)]).encode())
    for name, value in sorted(backbone.weights().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
