"""Distributions that are installed for a test: a folder on the path with the metadata that pip would write. No test itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest


def install(
    home: Path, name: str, methods: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, packages: Path | None = None
) -> None:
    """What a distribution's wheel leaves: entry points of ``cyborgs.methods`` in ``home``, and its packages on the path.

    Processes that a test starts see it too: by PYTHONPATH, or as multiprocessing hands ``sys.path`` on.
    """
    info = home / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{method} = {module}\n" for method, module in methods.items())
    (info / "entry_points.txt").write_text(f"[cyborgs.methods]\n{lines}")
    for folder in dict.fromkeys([str(home), str(packages or home)]):
        monkeypatch.syspath_prepend(folder)
        others = os.environ.get("PYTHONPATH", "")
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{others}" if others else folder)
