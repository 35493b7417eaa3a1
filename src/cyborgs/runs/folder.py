"""The run's folder: who may write to it, and what it was begun with."""

from __future__ import annotations

import csv
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cyborgs.data.images import ScannedImages
from cyborgs.errors import UserError, printable
from cyborgs.files import make_folder, write_bytes
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe

EARLY = frozenset(
    {".lock", ".lock.json", "metrics.jsonl", "tensorboard", "wandb", "wandb-id", "mlflow", "mlflow.db", "mlflow-id"}
    | {"photos.json", "recipe.yaml", "images.csv", "skipped.csv"}
)
"""What is there before a run has begun: a first try that failed or was killed leaves no more, and hinders no second."""


def _is_early(name: str) -> bool:
    if name.startswith("crash") and name.endswith(".txt"):
        return True
    # What a killed writer left: it would have got one of these names.
    return name in EARLY or name.removesuffix(".tmp") in EARLY or name.removeprefix(".").removesuffix(".tmp") in EARLY


def prepare_folder(out: Path, resume: bool) -> bool:
    """Make the run's folder, or accept the one that is to be resumed; whether there is a run to go on with.

    With ``resume`` a folder that is missing or empty is made too, so that one command begins a run and goes on with it:
    what a queue that starts jobs again needs.

    Raises:
        UserError: it holds a run and ``resume`` was not asked for, or it holds other things.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file. Give a folder as --out.")
    begun = (out / "recipe.yaml").exists()
    if begun and not resume:
        raise UserError(f"{out}: exists and is not empty. Give --resume to go on with it, or another --out.")
    if not begun and out.exists() and not all(_is_early(entry.name) for entry in out.iterdir()):
        why = (
            "holds no run to resume (recipe.yaml is missing), and other files" if resume else "exists and is not empty"
        )
        raise UserError(f"{out}: {why}. Give another --out.")
    make_folder(out, parents=True)
    return begun


@contextmanager
def locked(out: Path, active: bool) -> Iterator[None]:
    """Hold the folder's lock while a run writes to it.

    The lock is the system's, on ``.lock``: it ends with the process that holds it, however that ends. ``.lock.json``
    beside it says who holds it, for the message alone.

    Raises:
        UserError: another process holds it; names process, host, start and command.
    """
    if not active:
        yield
        return
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{out}: another process is writing to this folder: {_holder(out)}. "
            "Wait for it or end it, or give another --out."
        ) from None
    holder = out / ".lock.json"
    own = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(sys.argv),
    }
    try:
        write_bytes(holder, json.dumps(own).encode())
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


def _holder(out: Path) -> str:
    """Who holds the lock, as far as can be known: one that was killed left its name, until the next writes its own."""
    for _ in range(10):
        try:
            found = json.loads((out / ".lock.json").read_bytes())
            text = f"process {int(found['pid'])} on {found['host']}, since {found['since']}: {found['command']}"
            if found["host"] != socket.gethostname() or _lives(int(found["pid"])):
                return printable(text)
        except (OSError, ValueError, TypeError, KeyError):
            pass
        time.sleep(0.1)
    return "which one is not known"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def begin(recipe: Recipe, images: ScannedImages, out: Path) -> None:
    """Write what a run is begun with; the recipe last, since its presence says that there is a run."""
    photos = {"photos": len(images), "fingerprint": images.fingerprint()}
    write_bytes(out / "photos.json", json.dumps(photos).encode())
    write_bytes(out / "recipe.yaml", recipe_file.to_text(recipe).encode())


def agree(recipe: Recipe, images: ScannedImages, out: Path) -> None:
    """Compare with what the run was begun with.

    Raises:
        UserError: another recipe or other photos; names what differs.
    """
    changed = recipe_file.differences(recipe, recipe_file.load(out / "recipe.yaml"))
    if changed:
        raise UserError(
            f"{out}: the run was begun with another recipe: {'; '.join(changed)}. "
            "Leave these settings out to resume, or start a new run with another --out."
        )
    photos = json.loads((out / "photos.json").read_text())
    if photos["fingerprint"] != images.fingerprint():
        raise UserError(
            f"{out}: the photos changed since the run was begun ({photos['photos']} then, {len(images)} now). "
            f"{_changes(images, out)}. Restore them, or start a new run with another --out."
        )


def _changes(images: ScannedImages, out: Path) -> str:
    """What became of which photos since ``images.csv`` was written."""
    try:
        with open(out / "images.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
            then = {row["name"]: row["hash"] for row in csv.DictReader(file)}
    except (OSError, KeyError, csv.Error):
        return "images.csv, which would say which, cannot be read"
    now = images.hashes()
    unreadable = dict(images.skipped)
    gone = [name for name in then if name not in now]
    groups = {
        "added": [name for name in now if name not in then],
        "removed": [name for name in gone if name not in unreadable],
        "unreadable now": [name for name in gone if name in unreadable],
        "changed": [name for name, digest in now.items() if then.get(name, digest) != digest],
    }
    told = [
        f"{len(names)} {what} ({', '.join(map(printable, names[:3]))}{', ...' if len(names) > 3 else ''})"
        for what, names in groups.items()
        if names
    ]
    return "; ".join(told) or "The same photos in another order"
