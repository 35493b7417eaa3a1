"""Facts and findings as text for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cyborgs.doctor.finding import Finding
from cyborgs.doctor.probes import Facts
from cyborgs.machine.disk import readable

HEADINGS = {"impossible": "NO RUN IS POSSIBLE", "slow": "slow or wrong", "note": "good to know"}


def text(facts: Facts, found: list[Finding]) -> str:
    """Sections of facts, then what was found."""
    lines: list[str] = []
    for section, values in facts.items():
        lines += [section, *_lines(values, 1), ""]
    lines.append("What is slow or wrong, and what to do")
    if not found:
        lines.append("  Nothing was found.")
    for finding in found:
        lines += [f"  {HEADINGS[finding.level]}: {plain(finding.what)}", f"    {plain(finding.do)}"]
    return "\n".join(lines)


def _lines(values: dict[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    if not values:
        yield f"{indent}none"
    for name, value in values.items():
        if isinstance(value, dict):
            yield f"{indent}{plain(name)}"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield f"{indent}{plain(name)}"
                yield from _lines(item, depth + 1)
        else:
            yield f"{indent}{_show(name, value)}"


def _show(name: str, value: Any) -> str:
    """A line; the unit is the end of the name."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name.endswith("_bytes_per_second") and number:
        return f"{name.removesuffix('_bytes_per_second')}: {readable(value)} a second"
    if name.endswith("_bytes") and (number or value is None):
        return f"{name.removesuffix('_bytes')}: {'no limit' if value is None else readable(value)}"
    if name.endswith("_per_second") and number:
        return f"{name.removesuffix('_per_second')}: {value} a second"
    if isinstance(value, bool):
        return f"{plain(name)}: {'yes' if value else 'no'}"
    if value is None:
        return f"{plain(name)}: none"
    if isinstance(value, list):
        return f"{plain(name)}: {plain(', '.join(map(str, value))) or 'none'}"
    return f"{plain(name)}: {plain(str(value))}"


def plain(value: str) -> str:
    """Text without control characters: a path or a variable may hold some, and a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
