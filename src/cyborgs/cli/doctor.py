"""``cyborgs doctor``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, threads, codecs, disk, speed; what is slow or wrong, why, and what to do. For bug reports.

    No value of an environment variable is shown but of those that change a run, and the home folder is ~.
    """

    data: Path | None = None
    """Folder or list of photos: a few are decoded."""
    out: Path | None = None
    """Where a run would write: free bytes and speed. Nothing stays there."""
    json: Path | None = None
    """File for the same as JSON."""


def run(argv: list[str]) -> int:
    """Parse and do it; 1 where no run is possible, else 0."""
    args = tyro.cli(Doctor, args=argv, prog="cyborgs doctor")
    from cyborgs.doctor.finding import as_json, impossible
    from cyborgs.doctor.findings import findings
    from cyborgs.doctor.page import text
    from cyborgs.doctor.probes import Request, examine, home_shortened

    facts = home_shortened(examine(Request(args.data, args.out)))
    found = findings(facts)
    print(text(facts, found))
    if args.json is not None:
        document = {"facts": facts, "findings": as_json(found)}
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    return 1 if impossible(found) else 0
