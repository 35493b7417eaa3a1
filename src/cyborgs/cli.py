"""The command line: parsing, then one function call per command. No torch until a command needs it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from cyborgs.engine.recipe import Recipe
from cyborgs.errors import UserError
from cyborgs.recipes import RECIPES

INTERRUPTED = 130
"""Exit code of a run that Ctrl-C stopped, as shells have it."""


@dataclass(frozen=True)
class Pretrain:
    """Pretrain a backbone on unlabelled photos, and make their masks."""

    data: Path
    """Folder of photos, searched recursively, or a text file with a path a line."""
    out: Path
    """Folder of the run: recipe, metrics, checkpoints, masks, backbone.safetensors."""
    resume: bool = False
    """Go on from the last checkpoint of --out."""
    dry_run: bool = False
    """Show the resolved recipe, the photos and the steps; start nothing."""
    init: str = ""
    """Weights to start from: a safetensors or torch file; the same as --backbone.init."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


@dataclass(frozen=True)
class Segment:
    """Cluster the features of all photos together: label PNGs at the photos' size, and overlays."""

    photos: tyro.conf.Positional[Path]
    """Folder of photos, or a text file with a path a line."""
    checkpoint: Path
    """A run's folder or a backbone.safetensors."""
    out: Path
    """Folder for the label PNGs and overlays."""
    clusters: int = 27
    """Number of clusters: one id space for all photos."""
    layers: tuple[str, ...] = ()
    """Layers that are clustered; empty: those of the checkpoint's recipe."""
    short_side: int = 0
    """Longest allowed short side for the network, in pixels; 0: native size."""
    seed: int = 0
    """Seed of the clustering."""
    overlays: bool = True
    """Write overlays beside the label PNGs."""


@dataclass(frozen=True)
class Evaluate:
    """Linear segmentation: a 1x1 convolution on frozen maps, random weights beside it."""

    backbone: Path
    """A run's folder or a backbone.safetensors."""
    train: Path
    """List of 'image label' lines to train on."""
    val: Path
    """List of 'image label' lines to measure on."""
    classes: int
    """Number of classes in the label images."""
    ignore: int = 255
    """Label that is not counted."""
    layers: tuple[str, ...] = ()
    """Layers to probe, each alone and then all together; empty: the first, the last and all of the fused ones."""
    seeds: int = 1
    """Probes with other seeds."""
    random_baseline: bool = True
    """Probe the same architecture with random weights too."""
    out: Path | None = None
    """JSON file for the figures."""


@dataclass(frozen=True)
class Demo:
    """Make scenes with known truth, pretrain on them, and report what was learned."""

    out: Path = Path("demo")
    """Folder for scenes, run and report."""
    scenes: int = 320
    """Number of scenes."""
    seed: int = 0
    """Seed of scenes and run."""
    epochs: int = 0
    """Epochs; 0: the recipe's."""
    workers: int = 0
    """Loader processes."""


@dataclass(frozen=True)
class Report:
    """Write a run's report.html."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    data: Path | None = None
    """The photos it was pretrained on; none: a page without pictures."""
    truth: Path | None = None
    """Folder with the truth of photo a/b.jpg as a/b.png."""
    out: Path | None = None
    """Where to write; default: report.html in the run's folder."""


def _tell(text: str) -> None:
    """To stderr; with several processes the first one speaks for all."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


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


def _pretrain(argv: list[str]) -> int:
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
    if args.dry_run:
        from cyborgs.api import dry_run

        print(dry_run(recipe, data=args.data))
        return 0
    from cyborgs.engine.contract import Stopped
    from cyborgs.engine.run import pretrain

    try:
        pretrain(recipe, data=args.data, out=args.out, resume=args.resume)
    except Stopped:
        paths = f"--data {shlex.quote(str(args.data))} --out {shlex.quote(str(args.out))}"
        _tell(f"Stopped; a checkpoint is written. Go on with: cyborgs pretrain {paths} --resume")
        return INTERRUPTED
    return 0


def _pretrain_description(recipe: Recipe) -> str:
    lines = [f"{name}: {(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items()]
    return (
        "Pretrain a backbone on unlabelled photos, and make their masks.\n\nRecipes:\n\n"
        + "\n\n".join(lines)
        + f"\n\nDefaults below are those of: {recipe.name}"
    )


def _segment(argv: list[str]) -> int:
    args = tyro.cli(Segment, args=argv, prog="cyborgs segment")
    from cyborgs.api import segment

    segment(
        args.photos,
        checkpoint=args.checkpoint,
        out=args.out,
        clusters=args.clusters,
        layers=args.layers,
        short_side=args.short_side,
        seed=args.seed,
        overlays=args.overlays,
    )
    return 0


def _evaluate(argv: list[str]) -> int:
    args = tyro.cli(Evaluate, args=argv, prog="cyborgs evaluate")
    from cyborgs.api import evaluate

    evaluate(
        args.backbone,
        train=args.train,
        val=args.val,
        classes=args.classes,
        ignore=args.ignore,
        layers=args.layers,
        seeds=args.seeds,
        random_baseline=args.random_baseline,
        out=args.out,
    )
    return 0


def _demo(argv: list[str]) -> int:
    args = tyro.cli(Demo, args=argv, prog="cyborgs demo")
    recipe = replace(RECIPES["demo"](), seed=args.seed, workers=args.workers)
    if args.epochs:
        recipe = replace(recipe, epochs=args.epochs)
    from cyborgs.demonstration import demo
    from cyborgs.engine.contract import Stopped

    try:
        print(demo(recipe, out=args.out, scenes=args.scenes))
    except Stopped:
        print("Stopped; a checkpoint is written. The same command goes on.", file=sys.stderr)
        return INTERRUPTED
    return 0


def _report(argv: list[str]) -> int:
    args = tyro.cli(Report, args=argv, prog="cyborgs report")
    from cyborgs.report.page import report

    print(report(args.run, data=args.data, truth=args.truth, out=args.out))
    return 0


COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "pretrain": (_pretrain, "photos -> backbone and masks"),
    "segment": (_segment, "photos and backbone -> label PNGs and overlays"),
    "evaluate": (_evaluate, "backbone and labelled photos -> linear segmentation"),
    "report": (_report, "run -> one HTML page"),
    "demo": (_demo, "all of it on built-in scenes, in minutes"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: cyborgs COMMAND [OPTIONS]\n\n{lines}\n\ncyborgs COMMAND --help tells the options of a command.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0 done, 1 the input is at fault, 2 the command line is, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin while they wait starve the loader's processes on small machines.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"cyborgs {version('cyborgs')}")
        return 0
    if argv[0] not in COMMANDS:
        print(f"cyborgs: no command is named {argv[0]!r}.\n\n{_usage()}", end="", file=sys.stderr)
        return 2
    try:
        return COMMANDS[argv[0]][0](argv[1:])
    except UserError as error:
        _tell(f"cyborgs {argv[0]}: {error}")
        return 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 2
    except KeyboardInterrupt:
        print(f"cyborgs {argv[0]}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"cyborgs {argv[0]}: {where}{error.strerror or error}", file=sys.stderr)
        return 1
