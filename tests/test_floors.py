"""Imports go downwards only, and there are no circles: the plan of docs/architecture.md, enforced."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "cyborgs"
FLOORS = {
    "structures": 1,
    "errors": 0.5,
    "machine": 0.7,
    "files": 1,
    "sealed": 1,
    "seeds": 1,
    "distributed": 1,
    "ops": 1.5,
    "data": 2,
    "models": 2,
    "losses": 2,
    "metrics": 2.5,
    "views": 2.5,
    "engine": 2.5,
    "masks": 3,
    "methods": 3,
    "prepare": 3.2,
    "health": 4,
    "features": 4.5,
    "runs": 5,
    "recipes": 6,
    "evaluation": 6,
    "segmenting": 6,
    "quality": 6,
    "forecast": 6,
    "doctor": 6,
    "report": 6,
    "looking": 6.3,
    "gallery": 6.5,
    "demonstration": 6.8,
    "api": 7,
    "cli": 8,
    "__init__": 7.5,
    "__main__": 9,
}
LARGEST_SHARE = 5
"""No room holds more than this part of all lines."""
FILES = sorted(ROOT.rglob("*.py"))


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def name_of(file: Path) -> str:
    parts = ("cyborgs", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def imports_of(file: Path) -> Iterator[str]:
    """Every cyborgs module that a file imports, inside functions and for type checkers alone too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "cyborgs")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            if node.module and node.module.split(".")[0] == "cyborgs":
                for alias in node.names:
                    path = ROOT.joinpath(*node.module.split(".")[1:], alias.name)
                    is_module = path.is_dir() or path.with_suffix(".py").exists()
                    yield f"{node.module}.{alias.name}" if is_module else node.module


def lines_of(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_downwards(file: Path) -> None:
    here = room(name_of(file))
    assert here in FLOORS, f"{file} stands on no floor"
    for target in imports_of(file):
        there = room(target)
        assert here == there or FLOORS[there] < FLOORS[here], f"{file} imports {target}"


def test_no_circles() -> None:
    graph = {name_of(f): set(imports_of(f)) for f in FILES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in graph.get(module, ()):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_stay_short(file: Path) -> None:
    assert lines_of(file) <= 300


def test_no_room_is_the_house() -> None:
    rooms: dict[str, int] = {}
    for file in FILES:
        here = room(name_of(file))
        rooms[here] = rooms.get(here, 0) + lines_of(file)
    total = sum(rooms.values())
    assert {name for name, lines in rooms.items() if lines > total / LARGEST_SHARE} == set(), rooms
    assert rooms["engine"] <= 2000, "engine/ is the loop alone"
