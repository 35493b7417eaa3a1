"""One thing that was found wrong with a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """One sentence each."""

    level: Literal["impossible", "slow", "note"]
    what: str
    do: str


def impossible(found: list[Finding]) -> bool:
    """Whether no run can work here."""
    return any(finding.level == "impossible" for finding in found)


def as_json(found: list[Finding]) -> list[dict[str, Any]]:
    """For machines."""
    return [vars(finding) for finding in found]
