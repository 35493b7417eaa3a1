"""Runs in processes of their own that are killed, and started again until they are finished.

The processes are forked from a server that has imported all there is already: a start costs a fraction of a second.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from cyborgs.runs.recipe import Recipe

CHANGING = frozenset({"os.rename", "os.mkdir", "os.remove", "os.rmdir"})
PATIENCE = 120
"""Seconds until a run that neither ends nor dies fails the test."""


@dataclass(frozen=True)
class Kill:
    """When a process dies by SIGKILL, whichever comes first."""

    share: float = 1.0
    """After this share of the time that the run needs to its end; 1: never."""
    at: int = 0
    """Right before its n-th operation that changes names in the run's folder, from 1; 0: never."""
    of: str = ""
    """Only operations on paths that hold this are counted."""
    first: int = 0
    """Of several processes: which one it is..."""
    apart: float = 0.0
    """...and the seconds until the others follow."""


@contextmanager
def _counting(out: Path, kill: Kill) -> Iterator[list[str]]:
    """The operations of this process that change names in ``out``; dies before the one that is asked for."""
    inside = os.fspath(out) + os.sep
    seen: list[str] = []
    active = True

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if not active or not arguments or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_TRUNC)
        if not opened and event not in CHANGING:
            return
        path = os.fsdecode(arguments[0])
        if path.startswith(inside) and kill.of in path and "tensorboard" not in path:
            seen.append(f"{event} {path.removeprefix(inside)}")
            if len(seen) == kill.at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)  # stays for as long as the process lives
    try:
        yield seen
    finally:
        active = False


def _run(recipe: Recipe, photos: Path, out: Path, rank: int, world: int, port: int, kill: Kill, page: bool) -> None:
    import torch

    multiprocessing.set_start_method("fork", force=True)  # of the loader's processes, as in a run by itself
    torch.set_num_threads(1)
    os.environ["XDG_CACHE_HOME"] = str(photos.parent / "cache")
    if world > 1:
        number = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": 0}
        os.environ |= {name: str(value) for name, value in number.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "killing"}
    from cyborgs.report.page import report
    from cyborgs.runs.pretrain import pretrain

    with _counting(out, kill if rank == kill.first else Kill()) as seen:
        pretrain(recipe, data=photos, out=out, resume=True, stream=io.StringIO())
        if page and rank == 0:
            report(out, data=photos)
    if rank == 0:  # for a test to choose from
        (out.parent / f"{out.name}.operations").write_text("\n".join(seen))


class Runs:
    """Starts runs of any recipe on the same photos.

    Args:
        context: of ``start_server``.
        photos: their folder; the cache of their scan lies beside it.
        world: processes a run has.
        page: write the report too when the run is finished.
        seconds: what a whole run takes, as a first guess; each that comes to its end is a better one.
    """

    def __init__(
        self, context: ForkServerContext, photos: Path, *, world: int = 1, page: bool = False, seconds: float = 3.0
    ) -> None:
        self.context = context
        self.photos = photos
        self.world = world
        self.page = page
        self.seconds = seconds

    def once(self, recipe: Recipe, out: Path, kill: Kill = Kill()) -> bool:
        """Start or go on with the run in ``out``; False where it was killed, True where it came to its end."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [
            self.context.Process(target=_run, args=(recipe, self.photos, out, r, self.world, port, kill, self.page))
            for r in range(self.world)
        ]
        left = self.seconds * (1 - 0.7 * self._done(recipe, out))  # the rest is what it takes to start
        begun = time.monotonic()
        for process in processes:
            process.start()
        try:
            ended = self._watch(processes, kill, begun + (kill.share * left if kill.share < 1 else PATIENCE))
            if ended:
                self.seconds *= (time.monotonic() - begun) / left
            return ended
        finally:
            for process in processes:
                process.kill()
                process.join()
                process.close()

    def _done(self, recipe: Recipe, out: Path) -> float:
        """Roughly the share that is done, by the newest checkpoint: good enough to guess how long the rest takes."""
        last = out / "checkpoints" / "last"
        steps = recipe.epochs * recipe.steps_per_epoch(len(list(self.photos.iterdir())))
        return int(last.read_text().strip().removeprefix("step-")) / steps if last.exists() else 0.0

    def _watch(self, processes: list[ForkServerProcess], kill: Kill, until: float) -> bool:
        victim = processes[kill.first]
        victim.join(max(0.0, until - time.monotonic()))
        assert victim.exitcode is not None or kill.share < 1, "the run hangs"
        victim.kill()
        victim.join()
        if victim.exitcode != -signal.SIGKILL:
            for process in processes:
                process.join(PATIENCE)
            assert [process.exitcode for process in processes] == [0] * len(processes), "see its traceback in stderr"
            return True
        time.sleep(kill.apart)
        return False

    def survive(self, recipe: Recipe, folder: Path, kills: list[Kill]) -> list[Path]:
        """The folders of runs that were killed that often in all, and then brought to their end.

        Where a kill comes too late, since the run was ended, it hits the next run instead.
        """
        outs = [folder / "run0"]
        for kill in kills:
            for _ in range(6):
                if not self.once(recipe, outs[-1], kill):
                    break
                outs.append(folder / f"run{len(outs)}")
            else:
                raise AssertionError(f"six runs ended before {kill}")
        assert self.once(recipe, outs[-1])
        return outs


def start_server() -> ForkServerContext:
    """A server of processes, once its imports are done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.runs.preload"])
    process = context.Process(target=os.getpid)
    process.start()
    process.join()
    return context
