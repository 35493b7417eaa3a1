"""``cyborgs demo``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from cyborgs.cli import exits
from cyborgs.recipes import RECIPES


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


def run(argv: list[str]) -> int:
    """Parse and do it; the exit code."""
    args = tyro.cli(Demo, args=argv, prog="cyborgs demo")
    recipe = replace(RECIPES["demo"](), seed=args.seed, workers=args.workers)
    if args.epochs:
        recipe = replace(recipe, epochs=args.epochs)
    from cyborgs.demonstration import demo
    from cyborgs.engine.contract import Stopped

    try:
        print(demo(recipe, out=args.out, scenes=args.scenes))
    except Stopped as stopped:
        return exits.of_stop(["demo", *argv], stopped)
    return exits.DONE
