"""``cyborgs pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from cyborgs.cli import exits
from cyborgs.engine.recipe import Recipe
from cyborgs.errors import UserError
from cyborgs.recipes import RECIPES


@dataclass(frozen=True)
class Pretrain:
    """Pretrain a backbone on unlabelled photos, and make their masks."""

    data: Path
    """Folder of photos, searched recursively, or a text file with a path a line."""
    out: Path
    """Folder of the run: recipe, metrics, checkpoints, masks, backbone.safetensors."""
    resume: bool = False
    """Go on from the last checkpoint of --out; where there is no run yet, begin one: the same command every time."""
    dry_run: bool = False
    """Show the resolved recipe and steps, measure a few of them, predict time, memory and disk; start nothing."""
    init: str = ""
    """Weights to start from: a safetensors or torch file; the same as --backbone.init."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def _recipe_and_rest(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The leading recipe name, taken by hand: tyro's subcommands would refuse options before or after it."""
    if argv and not argv[0].startswith("-"):
        return argv[0], list(argv[1:])
    return None, list(argv)


def _named_recipe(name: str) -> Recipe:
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".yaml", ".yml")):
        from cyborgs.engine.recipe_file import load

        if not Path(name).is_file():
            raise UserError(f"{name}: no such recipe file.")
        return load(Path(name))
    raise UserError(f"no recipe is named {name!r}. There are: {', '.join(RECIPES)}; or give a recipe.yaml.")


def _option(argv: Sequence[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        if word == name and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return None


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    name, rest = _recipe_and_rest(argv)
    out = _option(rest, "--out")
    begun = Path(out) / "recipe.yaml" if out else None
    if "--resume" in rest and begun is not None and begun.is_file():
        default = _named_recipe(str(begun))
        if name is not None and name.endswith((".yaml", ".yml")):
            default = _named_recipe(name)  # compared with the run's, field by field, when the run is opened
        elif name is not None and _named_recipe(name).name != default.name:
            raise UserError(f"{out}: was begun with the recipe {default.name!r}, not {name!r}. Leave the name out.")
    else:
        default = _named_recipe(name or "small")
    try:
        args = tyro.cli(
            Pretrain,
            args=rest,
            prog=f"cyborgs pretrain [{'|'.join(RECIPES)}]",
            description=_pretrain_description(default),
            default=Pretrain(data=tyro.MISSING, out=tyro.MISSING, recipe=default),
        )
    except ValueError as error:
        # What the recipe itself checks; tyro reports those of its parts, but not its own.
        raise UserError(f"{error}.") from None
    recipe = args.recipe
    if args.init:
        recipe = replace(recipe, backbone=replace(recipe.backbone, init=args.init))
    from cyborgs.engine.contract import Stopped

    if args.dry_run:
        from cyborgs.forecast.dry_run import dry_run

        try:
            for paragraph in dry_run(recipe, data=args.data, out=args.out):
                print(f"{paragraph}\n", flush=True)
        except Stopped as stopped:
            return exits.of_signal(stopped.signal)
        return exits.DONE
    from cyborgs.api import pretrain

    try:
        pretrain(recipe, data=args.data, out=args.out, resume=args.resume)
    except Stopped as stopped:
        return exits.of_stop(["pretrain", *argv], stopped)
    return exits.DONE


def _pretrain_description(recipe: Recipe) -> str:
    lines = [f"{name}: {(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
    return (
        "Pretrain a backbone on unlabelled photos, and make their masks.\n\nRecipes:\n\n"
        + "\n\n".join(lines)
        + f"\n\nDefaults below are those of: {recipe.name}"
    )
