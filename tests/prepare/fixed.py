"""A fixed source and photos for ``test_masks.py``; run as a module, two processes that fill a cache. No test itself."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cyborgs.masks.source import chunks
from cyborgs.prepare.masks import fixed_generation
from cyborgs.structures import LabelMap

COUNT = 27
"""Photos: seven groups of four, the last of three."""


@dataclass
class Photos:
    """Small pictures that say whose they are; those in ``broken`` cannot be read."""

    broken: tuple[int, ...] = ()
    name: str = "photos"
    count: int = COUNT

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> np.ndarray:
        if index in self.broken:
            raise OSError(f"photo {index} is gone")
        return np.full((5, 7, 3), index, np.uint8)

    def fingerprint(self) -> str:
        return f"{self.name} {self.count}"


@dataclass
class Source:
    """Labels that depend on the picture and a setting; counts what it labels."""

    setting: int = 1
    pause: float = 0.0
    void: int | None = None
    labelled: list[int] = field(default_factory=list)
    name: str = "felzenszwalb"
    needs_images: bool = True

    @property
    def identity(self) -> dict[str, Any]:
        return {"setting": self.setting}

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count, 4)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        self.labelled.append(group)
        time.sleep(self.pause)
        return [
            LabelMap((image[..., 0] * 3 + np.arange(7) * self.setting).astype(np.uint8), self.void) for image in images
        ]


def make(
    out: Path, cache: Path | None = None, source: Source | None = None, photos: Photos | None = None, **more: Any
) -> str:
    """A generation in ``out``; how it came about."""
    outcome = fixed_generation(
        source or Source(), photos or Photos(), out, manifest={"photos": "abc"}, cache=cache, **more
    )
    return outcome.how


def files(out: Path) -> dict[str, bytes]:
    """The bytes of a run's masks."""
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def main() -> None:
    import torch

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    child = os.fork()  # once torch is imported; no thread has started yet
    rank = 0 if child else 1
    with (folder / f"saw{rank}").open("w") as file, contextlib.redirect_stdout(file):
        take_part(rank, folder)
    if child and os.waitpid(child, 0)[1]:
        sys.exit("rank 1 failed")


def take_part(rank: int, folder: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    source, steps = Source(), []
    print("made", make(folder / "two", folder / "cache", source, progress=lambda *at: steps.append(at)))
    print("progress", steps)
    print("groups", source.labelled)
    again = Source()
    print("found", make(folder / "again", folder / "cache", again), again.labelled)
    asked = iter(range(10))
    half = Source()
    stop = lambda: rank == 1 and next(asked) == 2  # noqa: E731
    print("stopped", make(folder / "half", folder / "halfcache", half, stopped=stop), half.labelled)
    rest = Source()
    print("resumed", make(folder / "half", folder / "halfcache", rest), rest.labelled)
    try:
        make(folder / "broken", folder / "brokencache", photos=Photos((9,)))
    except Exception as error:
        print("broken", f"{type(error).__name__}: {error}")
    # Machines that share no cache: each sees its own files alone.
    own = Source()
    print("apart", make(folder / "apart", folder / f"cache{rank}", own), own.labelled)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
