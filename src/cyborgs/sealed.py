"""JSON documents that notice a changed bit in themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import xxhash


def sealed(value: Mapping[str, Any]) -> bytes:
    """JSON that carries a checksum of itself; equal content gives equal bytes."""
    if "checksum" in value:
        raise ValueError("the field 'checksum' is the seal's own")
    content = json.loads(json.dumps(dict(value)))  # as a reader will see it: keys are text, tuples are lists
    return _text({**content, "checksum": xxhash.xxh64_hexdigest(_text(content))})


def unsealed(data: bytes) -> dict[str, Any]:
    """What :func:`sealed` was given; ValueError, which says what is wrong, where a single bit of it changed."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    if "checksum" not in value:
        raise ValueError("it has no checksum (or was written by an unreleased version)")
    del value["checksum"]
    # Compared as a whole, since other bytes may mean the same: 1E-5 and 1e-5, and the last digits of a float.
    if sealed(value) != data:
        raise ValueError("its checksum does not match")
    return value


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()
