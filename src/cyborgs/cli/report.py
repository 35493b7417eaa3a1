"""``cyborgs report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Report:
    """Write a run's report.html: one page that needs nothing else. The run may still be going on."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data: Path | None = None
    """The photos it was pretrained on; none: a page without pictures."""
    truth: Path | None = None
    """Folder with the truth of photo a/b.jpg as a/b.png."""
    out: Path | None = None
    """Where to write; default: report.html in the run's folder."""


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    args = tyro.cli(Report, args=argv, prog="cyborgs report")
    from cyborgs.api import report

    print(report(args.run, data=args.data, truth=args.truth, out=args.out))
    return 0
