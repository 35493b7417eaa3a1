"""Recipes of strangers: a small YAML file without code, aliases or double keys, and values of exactly their type."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cattrs
import yaml

from cyborgs.errors import UserError

MAX_BYTES = 1 << 16
"""Largest recipe file; ours have 3 kB."""

MAX_DEPTH = 20
"""Values inside values; ours go four deep."""

_LARGEST = (1 << 63) - 1
"""What a seed may be; everything else has smaller limits of its own."""


class _Loader(yaml.SafeLoader):
    """Plain values alone. An alias may stand for a document that is exponentially larger, a second key for a mistake."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="a recipe has no aliases (*name)",
                problem_mark=self.peek_event().start_mark,  # type: ignore[no-untyped-call]
            )
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="values are nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a field's name is a word", problem_mark=key.start_mark)
            if key.value in keys:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands here twice", problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The fields of a YAML file: plain values, lists and mappings whose keys are words.

    Raises:
        UserError: it is no such file; names it, and the line where there is one.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path}: not a recipe: larger than {MAX_BYTES >> 10} kB")
    try:
        document = yaml.load(data.decode("utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}: not a YAML file of plain values{where} ({error.problem or error.context})") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, numbers of 4,300 digits
        raise UserError(f"{path}: not a YAML file of plain values ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: not a recipe: expected fields such as 'epochs', found {type(document).__name__}")
    return document


def converter() -> cattrs.Converter:
    """Makes dataclasses from plain values: no unknown field, no value of another type, no number without an end."""
    made = cattrs.Converter(forbid_extra_keys=True)
    made.register_structure_hook(int, _whole)
    made.register_structure_hook(float, _number)
    made.register_structure_hook(str, _word)
    made.register_structure_hook(bool, _flag)
    return made


def add_union(made: cattrs.Converter, union: Any, classes: Sequence[type]) -> None:
    """Let a field be one of several dataclasses, which the value names by their ``kind``.

    Args:
        made: the converter.
        union: the field's type.
        classes: its members; each has a default in ``kind`` that is no argument.
    """
    kinds = {one.__dataclass_fields__["kind"].default: one for one in classes}  # type: ignore[attr-defined]

    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"need its kind and settings, got {_shown(value)}")
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in kinds:
            raise ValueError(f"kind: need one of {', '.join(kinds)}, got {_shown(kind)}")
        return made.structure({key: item for key, item in value.items() if key != "kind"}, kinds[kind])

    made.register_structure_hook(union, structure)


def _whole(value: Any, _: type) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise ValueError(f"need a whole number, got {_shown(value)}")
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"need a number of at most 63 bits, got {_shown(value)}")
    return value


def _number(value: Any, _: type) -> float:
    if isinstance(value, str):  # 1e-3: YAML 1.1 asks for a point
        try:
            value = float(value)
        except ValueError:
            raise ValueError(f"need a number, got {_shown(value)}") from None
    if type(value) not in (int, float) or abs(value) > 1e300 or not math.isfinite(value):
        raise ValueError(f"need a finite number, got {_shown(value)}")
    return float(value)


def _word(value: Any, _: type) -> str:
    if type(value) is not str:
        raise ValueError(f"need text, got {_shown(value)}")
    return value


def _flag(value: Any, _: type) -> bool:
    if type(value) is not bool:
        raise ValueError(f"need true or false, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value in an error: its text may be long, or more digits than Python prints."""
    if type(value) is int and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, int | float | str | None):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:37]}..."
    return f"a {type(value).__name__}"
