"""The two processes of ``test_generate.py``: the argument is a folder, where each leaves what it saw. No test itself."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from cyborgs import distributed
from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.masks.generate import generate
from cyborgs.masks.store import MaskStore
from tests.masks.contract import random_images


class Images:
    """22 pictures of two sizes; ``broken`` cannot be read."""

    def __init__(self, broken: int = -1) -> None:
        self.images = random_images(*[((48, 64), (56, 40))[i % 2] for i in range(22)])
        self.broken = broken

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int):
        if index == self.broken:
            raise OSError(f"photo {index} is gone")
        return self.images[index]


def source() -> Bootstrap:
    """Five groups: an odd number, so that one process has a round without a group."""
    weight = torch.randn(16, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    return Bootstrap(
        lambda images: torch.conv2d(images.float() / 255 - 0.5, weight, stride=8, padding=4),
        clusters=(2, 40),
        group_size=5,
    )


class Waiting:
    """Like ``source``; the first process's first group is not finished before the second process has begun its second."""

    def __init__(self, file: Path, rank: int) -> None:
        self.inner = source()
        self.file = file
        self.rank = rank

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def label(self, images, seed: int, cycle: int, group: int):
        if (self.rank, group) == (1, 3):
            self.file.touch()
        end = time.monotonic() + 20
        while (self.rank, group) == (0, 0) and not self.file.exists():
            if time.monotonic() > end:
                raise TimeoutError("the other process waits too")
            time.sleep(0.01)
        return self.inner.label(images, seed, cycle, group)


def outcome(call) -> str:
    try:
        return str(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    # Importing torch is most of the time, so it is done once; no thread has started yet.
    child = os.fork()
    rank = 0 if child else 1
    with (folder / f"saw{rank}").open("w") as file, contextlib.redirect_stdout(file):
        take_part(rank, folder)
    if child and os.waitpid(child, 0)[1]:
        sys.exit("rank 1 failed")


def take_part(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    make = partial(generate, source(), seed=3, cycle=1, manifest={"photos": "abc"})
    steps: list[tuple[int, int]] = []
    print("plain", outcome(lambda: make(Images(), folder / "two", 0, progress=lambda *at: steps.append(at))))
    print("progress", steps)
    asked = iter(range(10))
    # Rank 1 alone is told to stop, before its second group.
    print("stop", outcome(lambda: make(Images(), folder / "two", 1, stopped=lambda: rank == 1 and next(asked) == 1)))
    # The photo that is missing belongs to a group of one process.
    broken = int(source().groups(22, 3, 1)[3][0])
    print("broken", outcome(lambda: make(Images(broken), folder / "two", 1)))
    (folder / "file").touch()
    print("folder", outcome(lambda: make(Images(), folder / "file", 1)).partition(":")[0])
    waiting = Waiting(folder / "second", rank)
    made = outcome(lambda: generate(waiting, Images(), folder / "three", 0, seed=3, cycle=1, manifest={}))
    print("pace", made)
    print("left", MaskStore(folder / "two").generation, sorted(p.name for p in (folder / "two" / "masks").iterdir()))
    distributed.barrier()
    dist.destroy_process_group()
    if rank == 0:
        print("alone", outcome(lambda: make(Images(), folder / "one", 0)))


if __name__ == "__main__":
    main()
