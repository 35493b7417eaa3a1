"""recipe.yaml: a recipe as text and back, and what differs between two."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import cattrs
import yaml
from cattrs.v import format_exception

from cyborgs.errors import UserError
from cyborgs.methods.registry import name_of, names, settings_of
from cyborgs.methods.settings import MethodConfig
from cyborgs.runs import strict
from cyborgs.runs.recipe import Recipe
from cyborgs.views.samplers import SAMPLERS, Sampler

NEUTRAL = frozenset(
    {"workers", "keep_checkpoints", "checkpoint_every", "logger", "max_skipped", "name", "health", "monitor"}
)
"""Fields that may differ on resume: the result does not depend on them."""


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain values only; the method's settings carry its name as ``kind``."""
    document = _plain(asdict(recipe))
    document["method"] = {"kind": name_of(recipe.method), **document["method"]}
    return document  # type: ignore[no-any-return]


def for_result(recipe: Recipe) -> dict[str, Any]:
    """The recipe as a result file carries it: without the fields that no result depends on."""
    return {key: value for key, value in to_dict(recipe).items() if key == "name" or key not in NEUTRAL}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_dict(document: dict[str, Any]) -> Recipe:
    """The recipe of ``to_dict``.

    Raises:
        UserError: an unknown field or a value that is not allowed; names them.
    """
    converter = strict.converter()

    def method(value: Any, _: type) -> MethodConfig:
        if not isinstance(value, dict):
            raise ValueError(f"method: need its kind and settings, got a {type(value).__name__}")
        value = dict(value)
        kind = value.pop("kind", None)
        if not isinstance(kind, str) or kind not in names():
            raise ValueError(f"method.kind: need one of {', '.join(names())}, got {kind!r}")
        return strict.converter().structure(value, settings_of(kind))

    def micro_batch(value: Any, _: Any) -> int | Literal["auto"]:
        if value != "auto" and not isinstance(value, int):
            raise ValueError(f"micro_batch: need auto or a whole number, got {value!r}")
        return cast(int | Literal["auto"], value)

    converter.register_structure_hook(MethodConfig, method)
    strict.add_union(converter, Sampler, SAMPLERS)
    converter.register_structure_hook(int | Literal["auto"], micro_batch)
    try:
        return converter.structure(document, Recipe)
    except Exception as error:
        # cattrs raises groups of whatever the fields' types raise.
        raise UserError("; ".join(cattrs.transform_error(error, path="recipe", format_exception=_explain))) from error


def _explain(error: BaseException, kind: type | None) -> str:
    if isinstance(error, ValueError) and str(error) and not str(error).startswith("invalid literal"):
        return str(error)
    if isinstance(error, AttributeError):  # cattrs asks whatever stands there for its fields
        return "need named fields"
    return format_exception(error, kind)


def to_text(recipe: Recipe) -> str:
    """The text of recipe.yaml: versions in its head, then every field."""
    head = "".join(f"# {name}: {value}\n" for name, value in environment().items())
    return head + yaml.safe_dump(to_dict(recipe), sort_keys=False)


def load(path: Path) -> Recipe:
    """Read a recipe.yaml.

    Raises:
        UserError: not a recipe; names the file, the field and what is allowed.
    """
    document = strict.read_yaml(path)
    try:
        return from_dict(document)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def environment() -> dict[str, str]:
    """Versions of what computes, and on what kind of machine."""
    found = {"python": platform.python_version()}
    for package in ("cyborgs", "torch", "torchvision", "timm", "numpy", "opencv-contrib-python-headless"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["revision"] = _revision()
    found["system"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return found


def _revision() -> str:
    """The git revision of the source, where it is a checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return result.stdout.strip()


def differences(new: Recipe, old: Recipe) -> list[str]:
    """``field: old -> new`` for every field that changes a result."""
    return sorted(
        f"{name}: {before!r} -> {after!r}"
        for name, (before, after) in _pairs(to_dict(old), to_dict(new))
        if before != after and name.split(".")[0] not in NEUTRAL
    )


def _pairs(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, tuple[Any, Any]]]:
    pairs: list[tuple[str, tuple[Any, Any]]] = []
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            pairs += _pairs(before, after, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, (before, after)))
    return pairs
