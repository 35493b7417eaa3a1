"""The command line: one file a command; parsing, then one function call. No torch until a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from cyborgs.cli import compare, demo, doctor, evaluate, exits, masks, pretrain, report, segment

COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "pretrain": (pretrain.run, "photos -> backbone and masks"),
    "segment": (segment.run, "photos and backbone -> label PNGs and overlays"),
    "masks": (masks.run, "masks -> how good they are, and Figure 4's gallery"),
    "evaluate": (
        evaluate.run,
        "backbone and labelled photos -> published protocols: VOC07, ImageNet 1%, COCO-Stuff, ...",
    ),
    "compare": (compare.run, "backbones and labelled photos -> which is better, and is it certain?"),
    "curve": (compare.run_curve, "run and labelled photos -> Figure 5b: its checkpoints measured"),
    "report": (report.run, "run -> one HTML page"),
    "doctor": (doctor.run, "versions, devices, disk, speed: what is slow or wrong, and what to do"),
    "demo": (demo.run, "all of it on built-in scenes, in minutes"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        f"usage: cyborgs COMMAND [OPTIONS]\n\n{lines}\n\ncyborgs COMMAND --help tells the options of a command.\n\n"
        f"exit codes:\n{exits.table()}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code, of those in ``exits.MEANINGS``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Threads that spin while they wait starve the loader's processes on small machines.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), end="")
        return exits.DONE if argv else exits.USAGE
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"cyborgs {version('cyborgs')}")
        return exits.DONE
    if argv[0] not in COMMANDS:
        print(f"cyborgs: no command is named {argv[0]!r}.\n\n{_usage()}", end="", file=sys.stderr)
        return exits.USAGE
    try:
        return COMMANDS[argv[0]][0](argv[1:])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else exits.USAGE
    except KeyboardInterrupt:
        return exits.of_interrupt(argv)
    except Exception as error:
        return exits.of_error(argv, error)
