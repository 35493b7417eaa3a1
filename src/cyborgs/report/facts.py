"""What a page says of a run beside its figures: how far it is, its recipe, time, machine, skipped files, warnings."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from cyborgs.engine.log import duration
from cyborgs.errors import UserError, printable
from cyborgs.report.history import History, number
from cyborgs.runs.recipe import Recipe
from cyborgs.runs.recipe_file import differences, load

SHOWN: Final = 100
"""Rows of a table, at most."""
LONGEST: Final = 300
"""Letters of a name or reason, at most."""
RESULT: Final = "backbone.safetensors"


def short(text: object) -> str:
    """Text that can be shown anywhere and is no longer than it may be."""
    shown = printable(str(text))
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


@dataclass(frozen=True)
class State:
    """How far a run is."""

    finished: bool
    step: int
    total: int | None
    """Steps of the whole run; None: not known."""
    sentences: tuple[str, ...]


def read_recipe(run: Path) -> Recipe | str | None:
    """The run's recipe, or why this version cannot read it; None where there is none."""
    path = run / "recipe.yaml"
    if not path.is_file():
        return None
    try:
        return load(path)
    except UserError as error:
        return str(error)


def photos_of(run: Path) -> int | None:
    """How many photos the run was begun with."""
    try:
        count = json.loads((run / "photos.json").read_text())["photos"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return count if isinstance(count, int) else None


def state_of(run: Path, recipe: Recipe | str | None, photos: int | None, history: History) -> State:
    """How far the run is, in sentences."""
    finished = (run / RESULT).is_file()
    steps = recipe.steps_per_epoch(photos) if isinstance(recipe, Recipe) and photos else 0
    total = steps * recipe.epochs if isinstance(recipe, Recipe) and steps else None
    on = f" on {photos} photos" if photos else ""
    spent = sum(history.seconds.values())
    time = f", in {duration(spent)} of recorded time" if spent >= 1 else ""
    if finished:
        epochs = f" in {recipe.epochs} epochs" if isinstance(recipe, Recipe) else ""
        said = [f"This run is finished: {history.step} steps{epochs}{on}{time}."]
    elif history.step == 0:
        said = [f"This run has logged no step yet{on}."]
    else:
        of = f" of {total} ({history.step / total:.0%})" if total else ""
        epoch = ""
        if history.epoch is not None and isinstance(recipe, Recipe):
            epoch = f", epoch {history.epoch + 1} of {recipe.epochs}"
        said = [f"This run is not finished: step {history.step}{of}{epoch}{on}{time}. It is going on, or was stopped."]
    if (run / "crash.txt").is_file():
        said.append("crash.txt in the run's folder tells of a failure, in this try or an earlier one.")
    return State(finished, history.step, total, tuple(said))


def recipe_differences(
    recipe: Recipe, recipes: Mapping[str, Callable[[], Recipe]], photos: int | None
) -> list[dict[str, str]] | None:
    """``field``, ``default`` and ``here`` of what differs from the recipe's named default; None: no such name.

    Both have numbers of steps turned into epochs at this run's steps per epoch, so that what follows from the number of
    photos is no difference.
    """
    if recipe.name not in recipes:
        return None
    default = recipes[recipe.name]()
    if steps := recipe.steps_per_epoch(photos or 0):
        default = replace(default, method=default.method.resolved(steps))
    rows = []
    for line in differences(recipe, default):
        name, _, change = line.partition(": ")
        before, _, after = change.partition(" -> ")
        rows.append({"field": name, "default": short(before), "here": short(after)})
    return rows


def environment_of(run: Path) -> list[tuple[str, str]]:
    """Name and version of what computed, from the head of recipe.yaml."""
    found = []
    path = run / "recipe.yaml"
    if path.is_file():
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in islice(file, SHOWN):
                if not line.startswith("# "):
                    break
                name, _, value = line[2:].strip().partition(": ")
                found.append((short(name), short(value)))
    return found


def time_rows(history: History) -> list[dict[str, Any]]:
    """What the recorded time went into: name, time and share, in the order that a run has them."""
    order = ("warm-up", "training", "waiting for photos", "making masks", "monitors", "saving")
    names = [n for n in order if n in history.seconds] + sorted(n for n in history.seconds if n not in order)
    spent = {n: max(0.0, history.seconds[n]) for n in names}
    total = sum(spent.values())
    if total <= 0:
        return []
    return [
        {"name": short(n), "time": duration(s) if s >= 1 else f"{s:.1f}s", "share": s / total}
        for n, s in spent.items()
        if s > 0
    ]


def skipped_files(run: Path) -> tuple[list[dict[str, str]], int] | None:
    """Name and reason of the first skipped files, and how many there are; None where the run does not say."""
    path = run / "skipped.csv"
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [row for row in csv.reader(file) if len(row) >= 2][1:]
    return [{"name": short(row[0]), "reason": short(row[1])} for row in rows[:SHOWN]], len(rows)


def warnings_of(history: History) -> tuple[list[dict[str, Any]], list[str]]:
    """The health events as rows, and the sentences of warnings that no later event ended."""
    rows = []
    active: dict[str, str] = {}
    for event in history.events:
        name, sentence = short(event["health"]), short(event.get("sentence", event["health"]))
        ends = event.get("state") == "ends"
        if ends:
            active.pop(name, None)
        else:
            active[name] = sentence
        value = number(event.get("value"))
        figure = short(event["figure"]) if event.get("figure") else ""
        rows.append(
            {
                "step": short(event.get("step")),
                "epoch": short(event.get("epoch")),
                "state": "ended" if ends else "began",
                "name": name,
                "sentence": sentence,
                "figure": f"{figure} = {value:.4g}" if figure and value is not None else figure,
            }
        )
    return rows, list(active.values())


def watched(history: History) -> bool:
    """Whether the run wrote the figures that tell of its health."""
    return bool(history.events) or any(name.startswith("embed/") for name in history.series)
