"""What the processes of ``test_worlds.py`` note: the images of every step. No test itself.

As a script, for torchrun: ``worlds.py FOLDER COMMAND ...`` notes into a folder what a command of cyborgs does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyborgs.views.loader import Batches


def note_images(rank: int, folder: str) -> None:
    """Each process appends to a file of its own, for every step, the images it was given."""
    original = Batches.__call__

    def noting(self: Batches, epoch: int, first_step: int = 0, **settings: Any) -> Iterator[Any]:
        for number, step in enumerate(original(self, epoch, first_step, **settings), first_step):
            with Path(folder, f"images{rank}").open("a") as file:
                images = [i for batch in step for i in batch.indices.tolist()]
                file.write(json.dumps([epoch, number, step[0].first, images]) + "\n")
            yield step

    Batches.__call__ = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    from cyborgs.cli import main

    note_images(int(os.environ.get("RANK", "0")), sys.argv[1])
    sys.exit(main(sys.argv[2:]))
