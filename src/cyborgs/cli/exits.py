"""How commands end: exit codes, and the one place that speaks to stderr."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C stopped, as shells have it."""


def of_signal(number: int) -> int:
    """128 and the signal's number, as shells have it; Ctrl-C's where no signal asked."""
    return 128 + number if number else INTERRUPTED


def tell(text: str) -> None:
    """To stderr; with several processes the first one speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)
