"""The network that a user names: a run, a file of ours or of others, a library's network, or random."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xxhash

from cyborgs.errors import UserError, printable
from cyborgs.models.backbone import Backbone
from cyborgs.models.config import BackboneConfig
from cyborgs.models.foreign import architecture_of, find_backbone, read_tensors
from cyborgs.models.initial import find_file
from cyborgs.models.networks import LIBRARIES
from cyborgs.models.weights import load_backbone, read_metadata
from cyborgs.seeds import derive

logger = logging.getLogger(__name__)
ALLOWED = (
    "a run's folder, its backbone.safetensors, a checkpoint of other code around a ResNet (.pth, .safetensors), "
    "NAME:FILE (resnet50:weights.pth, timm:convnext_tiny:weights.safetensors), imagenet:FILE, torchvision:NAME or "
    "timm:NAME (the library's own weights), random:NAME (random:resnet50, random:timm:convnext_tiny), or random"
)


@dataclass(frozen=True)
class Named:
    """A network in eval mode on the CPU, and where its weights come from."""

    backbone: Backbone
    weights: str
    """What was asked for, less the folders of a file."""
    hash: str | None
    """xxh64 of the file of weights, 16 hexadecimal digits; None for random weights and a library's own."""
    recipe: dict[str, Any] | None
    """Recipe of the run that made the weights, where the file says it."""
    passed_over: str = ""
    """Tensors of the file that are not the backbone's, in one line."""


def open_named(text: str | Path, *, seed: int = 0, like: BackboneConfig | None = None) -> Named:
    """Build the network that ``text`` names; torch's random state stays as it was.

    Args:
        text: one of ``ALLOWED``. A path that exists is taken for a path, whatever colons it holds.
        seed: of random weights.
        like: the network that ``random`` alone is; None: a resnet50.

    Raises:
        UserError: it names nothing of these, or the file does not fit; says what is allowed.
    """
    text = str(text)
    if Path(text).exists():
        return _of_file(text)
    head, _, rest = text.partition(":")
    if text == "random":
        return _random(text, replace(like or BackboneConfig(), init=""), seed)
    if head == "random" and rest:
        return _random(text, BackboneConfig(name=rest), seed)
    if head == "imagenet" and rest:
        path = _weights_file(rest, "an ImageNet network")
        return replace(_of_others(str(path), path, ""), weights=f"imagenet:{path.name}")
    if head in LIBRARIES and rest and ":" not in rest:
        return _of_library(text, head, rest)
    name, _, file = text.removeprefix("timm:").removeprefix("torchvision:").partition(":")
    if not name or not file:
        raise UserError(f"checkpoint: {text}: no such file or folder. Give {ALLOWED}.")
    if text.startswith("timm:"):
        name = f"timm:{name}"
    path = _weights_file(file, name)
    return replace(_of_others(text, path, name), weights=f"{name}:{path.name}")


def _weights_file(file: str, name: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise UserError(f"checkpoint: {file}: no such file of weights for {name}. Give {ALLOWED}.")
    return path


def _random(text: str, config: BackboneConfig, seed: int) -> Named:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return Named(_build(text, config), text, None, None)


def _of_file(text: str) -> Named:
    path = find_file(text)
    try:
        recipe = read_metadata(path).get("recipe")
    except UserError as error:
        if "not written by cyborgs" not in str(error) and "not a safetensors file" not in str(error):
            raise
        return _of_others(text, path, "")
    return Named(load_backbone(path), path.name, file_hash(path), recipe if isinstance(recipe, dict) else None)


def _of_others(text: str, path: Path, name: str) -> Named:
    """A file of other code; ``name``: its network, or nothing where the file shall tell."""
    state = read_tensors(path)
    known = name or architecture_of(state)
    if known is None:
        raise UserError(
            f"checkpoint: {text}: not of cyborgs, and no ResNet of torchvision is recognised in it, so it needs its "
            f"network's name: NAME:{path}. Allowed: {ALLOWED}."
        )
    with torch.random.fork_rng(devices=[]):
        backbone = _build(text, BackboneConfig(name=known))
    what = f"checkpoint: {path}: not the weights of {known}"
    found = find_backbone(state, backbone.weights(), what, backbone.head)
    backbone.load_weights(found.state, str(path))
    if found.prefix or found.passed:
        logger.warning(
            "%s: %s from %s* (%d tensors); passed over: %s",
            *(printable(str(path)), known, found.prefix, len(found.state), printable(found.told) or "nothing"),
        )
    return Named(backbone, path.name, file_hash(path), None, found.told)


def _of_library(text: str, library: str, name: str) -> Named:
    """A library's own weights, by its own download or from its cache."""
    plain = f"timm:{name}" if library == "timm" else name
    init = "timm:pretrained" if library == "timm" else "torchvision:DEFAULT"
    try:
        with torch.random.fork_rng(devices=[]):
            backbone = Backbone(BackboneConfig(name=plain, init=init)).eval()
    except UserError as error:
        raise UserError(f"checkpoint: {text}: {error} (Allowed: {ALLOWED}.)") from error
    except Exception as error:  # whatever a library's download raises
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"checkpoint: {text}: {library}'s own weights are not in its cache and could not be fetched ({why}). "
            f"Give a file of them: {plain}:FILE."
        ) from error
    return Named(backbone, text, None, None)


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
