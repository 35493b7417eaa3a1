"""How commands end: exit codes, and the one place that speaks to stderr."""

from __future__ import annotations

import errno
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cyborgs.engine.signals import process_number, requeue
from cyborgs.errors import UserError, printable

if TYPE_CHECKING:
    from cyborgs.engine.contract import Stopped

DONE: Final = 0
INPUT: Final = 1
USAGE: Final = 2
FAULT: Final = 3
DISK: Final = 4
INTERRUPTED: Final = 130
REQUEUE: Final = 138
TERMINATED: Final = 143
MEANINGS: Final = {
    DONE: "done",
    INPUT: "the input is at fault (photos, recipe, folder): the message says what to do",
    USAGE: "the command line is at fault",
    FAULT: "cyborgs is at fault: a run's folder then holds a crash.txt to report",
    DISK: "the disk is at fault: full, read-only, failing; a run goes on once that is mended",
    INTERRUPTED: "stopped by Ctrl-C (SIGINT); a run has written a checkpoint",
    REQUEUE: "the same by SIGUSR1, which SLURM sends before the time is up",
    TERMINATED: "the same by SIGTERM",
}
"""What scripts may rely on. Above 128: the signal's number and 128, as shells have it."""

_PATH_IS_WRONG: Final = frozenset(
    {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
)


def table() -> str:
    """The codes and their meanings, a line each."""
    return "\n".join(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())


def of_signal(number: int) -> int:
    """128 and the signal's number; Ctrl-C's where no signal asked."""
    return 128 + number if number else INTERRUPTED


def of_error(argv: Sequence[str], error: Exception) -> int:
    """Say what ended the command ``argv``, and its code. A UserError may carry a code of its own as ``code``."""
    from cyborgs.runs.crash import report_of

    command = f"cyborgs {argv[0]}"
    report = report_of(error)
    if report is not None:
        place = "No checkpoint yet; begin again" if report.step is None else f"Go on from step {report.step}"
        # By every process: the one that failed may not be the first.
        print(f"{command}: {report.what}\n{report.where}\n{place}: {going_on(argv)}", file=sys.stderr)
        return FAULT
    if isinstance(error, UserError):
        tell(f"{command}: {error}", error.reports_itself)
        return error.code
    if isinstance(error, OSError):
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        print(f"{command}: {where}{error.strerror or error}", file=sys.stderr)
        return INPUT if error.errno in _PATH_IS_WRONG else DISK
    traceback.print_exception(error)
    print(f"{command}: this is a fault of cyborgs. Please report it with the lines above.", file=sys.stderr)
    return FAULT


def of_stop(argv: Sequence[str], stopped: Stopped) -> int:
    """Say how to go on with a run that was stopped, and its code; under SLURM's signal, queue its job again."""
    done = "nothing is trained yet" if stopped.step is None else f"the checkpoint of step {stopped.step} is written"
    tell(f"Stopped: {done}.")
    code = of_signal(stopped.signal)
    if code == REQUEUE and "SLURM_JOB_ID" in os.environ and process_number() == 0:
        if _goes_on(argv):
            tell(requeue())
        else:
            tell(
                "The job is not queued again, since its command would be refused: add --resume, which also begins a run."
            )
    tell(f"Go on with: {going_on(argv)}")
    return code


def of_interrupt(argv: Sequence[str]) -> int:
    """Say that the command was stopped at once, and its code."""
    tell(f"cyborgs {argv[0]}: interrupted.")
    if argv[0] in ("pretrain", "demo"):
        tell(f"What came after the last checkpoint is lost. Go on with: {going_on(argv)}")
    return INTERRUPTED


def going_on(argv: Sequence[str]) -> str:
    """The command line that goes on with the run that ``argv`` began."""
    words = shlex.join([*argv] if _goes_on(argv) else [*argv, "--resume"])
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes == "1":
        return f"{'python -m cyborgs' if Path(sys.argv[0]).name == '__main__.py' else 'cyborgs'} {words}"
    if processes == os.environ.get("LOCAL_WORLD_SIZE"):
        return f"torchrun --nproc-per-node {processes} -m cyborgs {words}"
    return f"cyborgs {words} (in {processes} processes, as before)"


def _goes_on(argv: Sequence[str]) -> bool:
    return argv[0] in ("demo", "evaluate") or "--resume" in argv


def tell(text: str, itself: bool = False) -> None:
    """To stderr; with several processes the first one speaks for all, unless each must say it ``itself``."""
    if itself or process_number() == 0:
        print(text, file=sys.stderr)
