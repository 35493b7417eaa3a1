"""The network that a user names: a run, a file of ours, a library's network with a file of weights, or random."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash

from cyborgs.errors import UserError
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.initial import find_file
from cyborgs.models.weights import load_backbone, read_metadata
from cyborgs.seeds import derive

ALLOWED = (
    "a run's folder, its backbone.safetensors, NAME:FILE (resnet50:weights.pth, timm:convnext_tiny:weights.safetensors) "
    "or random:NAME (random:resnet50, random:timm:convnext_tiny)"
)


@dataclass(frozen=True)
class Named:
    """A network in eval mode on the CPU, and where its weights come from."""

    backbone: Backbone
    weights: str
    """What was asked for, less the folders of a file."""
    hash: str | None
    """xxh64 of the file of weights, 16 hexadecimal digits; None for random weights."""
    recipe: dict[str, Any] | None
    """Recipe of the run that made the weights, where the file says it."""


def open_named(text: str | Path, *, seed: int = 0) -> Named:
    """Build the network that ``text`` names; torch's random state stays as it was.

    Args:
        text: one of ``ALLOWED``. A path that exists is taken for a path, whatever colons it holds.
        seed: of random weights.

    Raises:
        UserError: it names nothing of these, or the file does not fit; says what is allowed.
    """
    text = str(text)
    if Path(text).exists():
        return _of_file(text)
    head, _, rest = text.partition(":")
    if head == "random" and rest:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            return Named(_build(text, BackboneConfig(name=rest)), text, None, None)
    name, _, file = text.removeprefix("timm:").partition(":")
    if not name or not file:
        raise UserError(f"checkpoint: {text}: no such file or folder. Give {ALLOWED}.")
    if text.startswith("timm:"):
        name = f"timm:{name}"
    path = Path(file)
    if not path.is_file():
        raise UserError(f"checkpoint: {file}: no such file of weights for {name}. Give {ALLOWED}.")
    with torch.random.fork_rng(devices=[]):
        backbone = _build(text, BackboneConfig(name=name, init=file))
    return Named(backbone, f"{name}:{path.name}", file_hash(path), None)


def _of_file(text: str) -> Named:
    path = find_file(text)
    try:
        recipe = read_metadata(path).get("recipe")
    except UserError as error:
        if "not written by cyborgs" not in str(error) and "not a safetensors file" not in str(error):
            raise
        raise UserError(
            f"checkpoint: {text}: not of cyborgs, so it needs its network's name: NAME:{text}. Allowed: {ALLOWED}."
        ) from error
    return Named(load_backbone(path), path.name, file_hash(path), recipe if isinstance(recipe, dict) else None)


def _build(text: str, config: BackboneConfig) -> Backbone:
    try:
        return Backbone(config).eval()
    except UserError as error:
        raise UserError(f"checkpoint: {text}: {error} (Allowed: {ALLOWED}.)") from error


def file_hash(path: Path) -> str:
    """xxh64 of a file's bytes, 16 hexadecimal digits, read in pieces."""
    digest = xxhash.xxh64()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
