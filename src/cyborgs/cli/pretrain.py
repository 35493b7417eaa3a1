"""``cyborgs pretrain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, get_args

import tyro

from cyborgs.cli import exits
from cyborgs.errors import UserError
from cyborgs.masks.config import SourceName
from cyborgs.methods.registry import names
from cyborgs.recipes import RECIPES
from cyborgs.recipes.of_method import of_method
from cyborgs.runs.recipe import Recipe


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
    masks: str = ""
    """Where the masks come from: bootstrap, grid, whole, felzenszwalb, selective-search or none, the same as --masks.source; or annotations as KIND:PATH (coco:instances.json, folder:labels), the same as --masks.source ground-truth --masks.truth KIND:PATH. A relative path is one of the working directory; recipe.yaml keeps it as an absolute one, so that --resume works from anywhere."""
    crf: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Refine bootstrapped masks by a dense CRF; the same as --masks.crf.enabled."""
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
        from cyborgs.runs.recipe_file import load

        if not Path(name).is_file():
            raise UserError(f"{name}: no such recipe file.")
        return load(Path(name))
    if name in names():
        return of_method(name)
    raise UserError(
        f"no recipe is named {name!r}. There are: {', '.join(RECIPES)}; methods: {', '.join(names())}; or give a "
        "recipe.yaml."
    )


def _option(argv: Sequence[str], name: str) -> str | None:
    for index, word in enumerate(argv):
        if word == name and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
    return None


def _given(argv: Sequence[str], *names: str) -> str | None:
    """The first of these options that is on the command line, as tyro takes them: with - or _, with = or without."""
    said = [word.split("=", 1)[0].replace("_", "-") for word in argv if word.startswith("--")]
    return next((name for name in names if name in said), None)


def _with_masks(recipe: Recipe, masks: str, crf: bool, argv: Sequence[str]) -> Recipe:
    """The recipe with what ``--masks`` and ``--crf`` stand for.

    Raises:
        UserError: the long form is given too, or there is no such source; names them.
    """
    for short, long in (
        ("--masks", ("--masks.source", "--masks.truth")),
        ("--crf", ("--masks.crf.enabled", "--masks.crf.no-enabled")),
    ):
        other = _given(argv, *long)
        if other and _given(argv, short):
            raise UserError(f"{short} and {other} say the same thing twice. Give one of them.")
    if crf:
        recipe = replace(recipe, masks=replace(recipe.masks, crf=replace(recipe.masks.crf, enabled=True)))
    if not masks and not _given(argv, "--masks"):
        return recipe
    kind, colon, path = masks.partition(":")
    if colon and kind and path:
        return replace(recipe, masks=replace(recipe.masks, source="ground-truth", truth=masks).located())
    source = next((name for name in get_args(SourceName) if name == masks), None)
    if source is None or (source == "ground-truth" and not recipe.masks.truth):
        names = ", ".join(name for name in get_args(SourceName) if name != "ground-truth")
        raise UserError(
            f"--masks {masks}: no such source. There are: {names}; or annotations as KIND:PATH, for example "
            "coco:instances_train2017.json or folder:labels."
        )
    return replace(recipe, masks=replace(recipe.masks, source=source))


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
            prog=f"cyborgs pretrain [{'|'.join(dict.fromkeys((*RECIPES, *names())))}]",
            description=_pretrain_description(default),
            default=Pretrain(data=tyro.MISSING, out=tyro.MISSING, recipe=default),
        )
        recipe = _with_masks(args.recipe, args.masks, args.crf, rest)
    except UserError:
        raise
    except ValueError as error:
        # What the recipe itself checks; tyro reports those of its parts, but not its own.
        raise UserError(f"{error}.") from None
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
