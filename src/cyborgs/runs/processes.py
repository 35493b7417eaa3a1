"""The processes of a run: who they are, which of them is gone, and what another number of them changes."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch.distributed as dist

from cyborgs import distributed
from cyborgs.engine.callback import Callback
from cyborgs.engine.log import RunLog
from cyborgs.errors import UserError

PATIENCE = 3.0
"""Seconds for which it is asked who is gone: a killed process closes its connections before it counts as ended."""

_CONNECTION = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


class PeerLost(UserError):
    """Another process of the run is gone: which, where that can be known, and how to go on."""

    reports_itself = True


def launched() -> int:
    """How many processes torchrun started, before torch knows it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_connection_error(error: BaseException) -> bool:
    """Whether a collective call failed since another process cannot be reached (gloo has no class of its own)."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and _CONNECTION.search(str(error)) is not None
    )


@dataclass(frozen=True)
class Peer:
    """A process of the run."""

    rank: int
    host: str
    place: str
    """What process ids are unique in: the host, and its name space of processes."""
    pid: int

    @classmethod
    def this(cls) -> Peer:
        """The process that asks."""
        space = Path("/proc/self/ns/pid")
        host = socket.gethostname()
        place = f"{host} {space.readlink()}" if space.exists() else host
        return cls(distributed.rank(), host, place, os.getpid())

    def ended(self) -> bool:
        """Whether it is no longer there; only for a process of the same place."""
        try:
            if Path("/proc/self/stat").exists():
                # Dead but not yet waited for by its parent: it still has an entry.
                state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
                return state in "ZX"
            os.kill(self.pid, 0)
        except PermissionError:
            return False
        except OSError:
            return True
        return False


@final
class Peers:
    """All processes of a run, known to each other from its start. A collective call."""

    def __init__(self) -> None:
        self._own = Peer.this()
        self._all = [self._own]
        if distributed.is_distributed():
            found: list[Peer | None] = [None] * distributed.world_size()
            dist.all_gather_object(found, self._own)
            self._all = [peer for peer in found if peer is not None]

    def lost(self) -> list[Peer]:
        """Those of this machine that have ended."""
        return [peer for peer in self._all if peer.place == self._own.place and peer != self._own and peer.ended()]

    @contextmanager
    def watched(self, advice: Callable[[], str]) -> Iterator[None]:
        """Turn a collective call that fails, since a process is gone, into words.

        Where SIGTERM does not end the process meanwhile: launchers send it to those that are left.

        Args:
            advice: how to go on, asked when it is needed.

        Raises:
            PeerLost: another process ended.
        """
        try:
            yield
        except RuntimeError as error:
            if len(self._all) == 1 or not is_connection_error(error):
                raise
            raise PeerLost(f"{self._gone(error)} {advice()}") from error

    def _gone(self, error: BaseException) -> str:
        alone = all(peer.place == self._own.place for peer in self._all)
        end = time.monotonic() + (PATIENCE if alone else PATIENCE / 3)
        while not (lost := self.lost()) and time.monotonic() < end:
            time.sleep(0.02)
        world = len(self._all)
        speaker = f"process {self._own.rank} of {world}: "
        if not lost:
            hosts = ", ".join(sorted({peer.host for peer in self._all}))
            reason = str(error).strip().splitlines()[0]
            return f"{speaker}another process, on one of {hosts}, ended or cannot be reached ({reason})."
        names = " and ".join(f"process {peer.rank} (pid {peer.pid} on {peer.host})" for peer in lost)
        one = len(lost) == 1
        return (
            f"{speaker}{names} {'is' if one else 'are'} gone: killed (out of memory?), "
            f"or {'its' if one else 'their'} own message says why."
        )


@final
class ProcessLayout(Callback):
    """Keeps in the checkpoint among how many processes the batch was divided, and says what a change means.

    Args:
        log: where it is said.
        batch_size: the global batch.
        micro_batch: images that a process computes at once; 0: its share.
    """

    name = "processes"

    def __init__(self, log: RunLog, batch_size: int, micro_batch: int) -> None:
        self._log = log
        self._world = distributed.world_size()
        self._at_once = self._world * micro_batch or batch_size

    def state_dict(self) -> dict[str, Any]:
        """The number of processes, and of images that all of them compute at once."""
        return {"world": self._world, "at_once": self._at_once}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Compare, and tell."""
        before = state["world"]
        if before == self._world:
            return
        if state["at_once"] == self._at_once:
            rest = "BatchNorm's statistics and the negatives are those of all processes together, as before."
        else:
            rest = (
                f"BatchNorm's statistics, and negatives where they are a micro-batch's, are those of {self._at_once} "
                f"images at once, {state['at_once']} before."
            )
        self._log.say(
            f"{self._world} process{'es' if self._world > 1 else ''} now, {before} before. Samples, schedule, and masks "
            f"of equal weights stay; sums are rounded in another order, so the result is no longer bit for bit that of "
            f"{before}. {rest}"
        )
