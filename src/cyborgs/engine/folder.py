"""The run's folder: who may write to it, and what it was begun with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cyborgs.data.images import Images
from cyborgs.engine import recipe_file
from cyborgs.engine.recipe import Recipe
from cyborgs.errors import UserError
from cyborgs.files import write_bytes

EARLY = frozenset(
    {".lock", "metrics.jsonl", "tensorboard", "wandb", "wandb-id", "mlflow", "mlflow.db", "mlflow-id"}
    | {"photos.json", "images.csv", "skipped.csv"}
)
"""What is there before a run has begun: a first try that failed on a mistake leaves no more, and hinders no second."""


def prepare_folder(out: Path, resume: bool) -> None:
    """Make the run's folder, or accept the one that is to be resumed.

    Raises:
        UserError: it exists and ``resume`` was not asked for, or there is nothing to resume.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file. Give a folder as --out.")
    begun = (out / "recipe.yaml").exists()
    if not resume and out.exists() and (begun or any(f.name not in EARLY for f in out.iterdir())):
        advice = "Give --resume to go on with it, or another --out." if begun else "Give another --out."
        raise UserError(f"{out}: exists and is not empty. {advice}")
    if resume and not begun:
        raise UserError(f"{out}: holds no run to resume (recipe.yaml is missing). Leave out --resume to start one.")
    out.mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(out: Path, active: bool) -> Iterator[None]:
    """Hold the folder's lock while a run writes to it."""
    if not active:
        yield
        return
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{out}: another process is writing to this folder. Wait for it, or give another --out."
        ) from None
    try:
        yield
    finally:
        lock.release()


def begin(recipe: Recipe, images: Images, out: Path) -> None:
    """Write what a run is begun with; the recipe last, since its presence says that there is a run."""
    photos = {"photos": len(images), "fingerprint": images.fingerprint()}
    write_bytes(out / "photos.json", json.dumps(photos).encode())
    write_bytes(out / "recipe.yaml", recipe_file.to_text(recipe).encode())


def agree(recipe: Recipe, images: Images, out: Path) -> None:
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
            f"{out}: the photos changed since the run was begun ({photos['photos']} then, {len(images)} now, or other "
            "contents; compare images.csv). Restore them, or start a new run with another --out."
        )
