"""A method is one folder and one line: nothing outside of it and of its recipes knows its name, folder or classes."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cyborgs.methods.registry import METHODS

ROOT = Path(__file__).parents[1] / "src" / "cyborgs"
REGISTRY = ROOT / "methods" / "registry.py"
PACKAGE = "cyborgs"
"""The name of a method and of the package: as a word alone it gives nothing away outside of methods' rooms."""


def folder_of(name: str) -> Path:
    return ROOT.joinpath(*METHODS[name].split(".")[1:])


def classes_of(name: str) -> set[str]:
    """Those of its settings and of its network."""
    trees = [ast.parse((folder_of(name) / file).read_text()) for file in ("settings.py", "method.py")]
    found = {
        node.value.id
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Name)
        and ast.unparse(node.targets[0]) in ("SETTINGS", "METHOD")
    }
    assert len(found) == 2
    return found


def fields_of(name: str) -> set[str]:
    """Fields of its settings: nobody else may ask for them."""
    tree = ast.parse((folder_of(name) / "settings.py").read_text())
    return {
        node.target.id
        for cls in tree.body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def traces(source: str, name: str) -> list[str]:
    """Places in a file that give a method away, as ``line: what``."""
    classes, fields = classes_of(name), fields_of(name)
    tree, found = ast.parse(source), []
    named = name == PACKAGE and any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree))
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(METHODS[name]):
            found.append(f"{line}: from {node.module}")
        if isinstance(node, ast.Import) and any(alias.name.startswith(METHODS[name]) for alias in node.names):
            found.append(f"{line}: import of {METHODS[name]}")
        if isinstance(node, ast.Name) and node.id in classes:
            found.append(f"{line}: {node.id}")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            folder = re.search(rf"\b{re.escape(METHODS[name])}\b", node.value) and "\n" not in node.value
            if folder or (node.value == name and name != PACKAGE):
                found.append(f"{line}: {node.value!r}")
        if isinstance(node, ast.Compare | ast.Call) and named:
            text = ast.unparse(node)
            if re.search(rf"(kind|method|METHODS|settings_of|method_class)\b.*'{name}'", text):
                found.append(f"{line}: {text}")
        # A field of its settings, asked for by name: ``recipe.method.slice_size``, ``getattr(config, "slice_size")``.
        if isinstance(node, ast.Attribute) and node.attr in fields and ast.unparse(node.value).endswith("method"):
            found.append(f"{line}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr") and len(node.args) > 1:
            asked = node.args[1]
            if isinstance(asked, ast.Constant) and asked.value in fields:
                found.append(f"{line}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("name", METHODS)
def test_nobody_else_knows_a_method(name: str) -> None:
    own = [folder_of(name), ROOT / "recipes"]
    files = [f for f in ROOT.rglob("*.py") if f != REGISTRY and not any(f.is_relative_to(room) for room in own)]
    assert len(files) > 200
    found = {str(f.relative_to(ROOT)): traces(f.read_text(encoding="utf-8"), name) for f in files}
    assert {file: places for file, places in found.items() if places} == {}


def test_the_registry_knows_each_by_one_line() -> None:
    source = REGISTRY.read_text()
    for name, module in METHODS.items():
        (line,) = (line.strip() for line in source.splitlines() if f'"{module}"' in line)
        assert line == f'"{name}": "{module}",'
        assert traces(source.replace(line, ""), name) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from cyborgs.methods.byol.settings import ByolConfig", "byol"),
        ("import cyborgs.methods.cyborgs.method", "cyborgs"),
        ("isinstance(x, CyborgsConfig)", "cyborgs"),
        ("module = 'cyborgs.methods.cyborgs'", "cyborgs"),
        ("if kind == 'byol': pass", "byol"),
        ("if kind == 'cyborgs': pass", "cyborgs"),
        ("settings_of('cyborgs')", "cyborgs"),
        ("getattr(method, 'slice_size', 1)", "cyborgs"),
        ("n = recipe.method.clustered_layers", "cyborgs"),
    ],
)
def test_what_gives_a_method_away(source: str, name: str) -> None:
    assert traces(source, name)


@pytest.mark.parametrize("source", ["from cyborgs import distributed", "version('cyborgs')", "KEY = 'cyborgs'"])
def test_the_package_has_the_name_of_a_method(source: str) -> None:
    assert traces(source, "cyborgs") == []
