"""crash.txt: what a run knows when it fails for a reason of ours, for the one who has to find out why."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, final

from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError, printable
from cyborgs.runs import recipe_file

if TYPE_CHECKING:
    from cyborgs.data.images import Images
    from cyborgs.engine.trainer import Trainer
    from cyborgs.runs.recipe import Recipe

_OF_THE_MACHINE: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ESTALE}
    | {errno.EACCES, errno.EPERM}
    | {None}  # made by hand, with a message for the user
)
_VARIABLES: Final = ("OMP_", "MKL_", "OPENBLAS_", "CUDA_", "NCCL_", "GLOO_", "SLURM_", "TORCH", "PYTORCH_")
_NUMBERS: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Report:
    """What is told of a failure."""

    what: str
    """The error, on one line."""
    where: str
    """Where crash.txt lies and what to do with it, on one line."""
    step: int | None
    """Step of the last checkpoint; None: there is none."""


def report_of(error: BaseException) -> Report | None:
    """What ``CrashReporter`` told of this error; None where it wrote nothing about it."""
    report = getattr(error, "cyborgs_report", None)
    return report if isinstance(report, Report) else None


def is_ours(error: BaseException) -> bool:
    """Whether neither the user, a signal nor the machine's disk is the reason."""
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return False
    return isinstance(error, Exception) and not isinstance(error, UserError | Stopped)


@final
class CrashReporter:
    """Stands beside a run; what is known of it is told as it becomes known.

    Args:
        out: the run's folder.
        rank: number of this process: each writes a file of its own.
    """

    def __init__(self, out: Path, rank: int = 0) -> None:
        self.out = out
        self.rank = rank
        self.recipe: Recipe | None = None
        self.images: Images | None = None
        self.trainer: Trainer | None = None

    @contextmanager
    def over(self) -> Iterator[None]:
        """Write crash.txt where the body fails for a reason of ours. The error goes on as it is, with a note."""
        try:
            yield
        except Exception as error:
            if is_ours(error):
                self._report(error)
            raise

    def _report(self, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]
        try:
            path = self._write(error)
            where = f"The fault is ours, not yours. {path} says what was known: please report it with this file."
        except Exception as second:  # whatever it is, it must not hide the first
            traceback.print_exception(error)
            where = f"The fault is ours, not yours; please report it with the lines above. (crash.txt: {second})"
        error.cyborgs_report = Report(what, where, self._step())  # type: ignore[attr-defined]
        error.add_note(where)

    def _step(self) -> int | None:
        try:
            last = self.trainer.checkpoints.last() if self.trainer is not None else None
            return None if last is None else int(last.name.split(".")[0 if last.name[0] != "." else 1].split("-")[1])
        except Exception:
            return None

    def _write(self, error: Exception) -> Path:
        """crash.txt, crash-2.txt, ... (crash-rank1.txt, ...): an earlier one is never written over."""
        self.out.mkdir(parents=True, exist_ok=True)
        stem = "crash" if self.rank == 0 else f"crash-rank{self.rank}"
        number = 1
        while True:
            path = self.out / f"{stem}.txt" if number == 1 else self.out / f"{stem}-{number}.txt"
            try:
                with path.open("x", encoding="utf-8", errors="backslashreplace") as file:
                    self._tell(file, error)
                return path
            except FileExistsError:
                number += 1

    def _tell(self, file: TextIO, error: Exception) -> None:
        sections: dict[str, Callable[[], str]] = {
            "error": lambda: "".join(traceback.format_exception(error)),
            "command": lambda: f"{shlex.join(sys.argv)}\nin {Path.cwd()}",
            "place": self._place,
            "images": self._images,
            "environment": _environment,
            "recipe": lambda: "not read yet" if self.recipe is None else recipe_file.to_text(self.recipe),
        }
        file.write(f"cyborgs failed at {time.strftime('%Y-%m-%d %H:%M:%S %z')}.\n")
        for name, tell in sections.items():
            try:
                text = tell()
            except Exception as second:  # one thing that cannot be told must not cost the others
                text = f"could not be told: {second!r}"
            file.write(f"\n== {name} ==\n{text.rstrip()}\n")
            file.flush()

    def _place(self) -> str:
        lines = [f"process: {self.rank}, pid {os.getpid()}"]
        if self.trainer is None:
            return "\n".join([*lines, "doing: not training yet"])
        progress = self.trainer.progress
        epoch, step = self.trainer.batch or divmod(progress.step, self.trainer.steps_per_epoch)
        lines += [
            f"doing: {self.trainer.doing}",
            f"epoch: {epoch} (of {self.trainer.epochs}), step {step} of {self.trainer.steps_per_epoch} in it",
            f"steps done: {progress.step} of {self.trainer.total_steps}; refreshes done: {progress.cycle}",
            f"last checkpoint: {self._step()}",
        ]
        return "\n".join(lines)

    def _images(self) -> str:
        """Numbers and names of the batch that this process trained on, or was waiting for."""
        if self.trainer is None or self.images is None:
            return "none"
        if self.trainer.batch is None:
            return "no batch; masks are made in groups, whose numbers (those of images.csv) stand under the error"
        indices = self.trainer.batches.indices(*self.trainer.batch)
        return "\n".join(f"{i} {printable(self.images.name(i))}" for i in indices)


def _environment() -> str:
    import torch

    found = recipe_file.environment()
    found |= {"platform": platform.platform(), "host": platform.node(), "cores": str(os.cpu_count())}
    found |= {"torch threads": str(torch.get_num_threads()), "cuda": str(torch.version.cuda)}
    found |= {f"device {i}": torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
    found |= {n: v for n, v in sorted(os.environ.items()) if n in _NUMBERS or n.startswith(_VARIABLES)}
    return "\n".join(f"{name}: {value}" for name, value in found.items())
