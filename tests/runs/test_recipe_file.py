"""Recipes survive YAML, and wrong ones are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.recipes import RECIPES
from cyborgs.runs import recipe_file


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_yaml(name: str, tmp_path: Path) -> None:
    recipe = RECIPES[name]()
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_file.to_text(recipe))
    assert recipe_file.load(path) == recipe
    assert recipe.name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: [", "not a YAML file"),
        ("- 1", "not a recipe"),
        ("epochz: 3", "epochz"),
        ("epochs: many", "epochs"),
        ("epochs: 0", "epochs: need at least 1, got 0"),
        ("method: {kind: simsiam}", "simsiam"),
        ("method: {kind: byol, clusters: [2, 3]}", "clusters"),
        ("method: {kind: cyborgs, clusters: [1, 3]}", r"2 <= low <= high <= 256, got \(1, 3\)"),
        ("!!python/object/apply:os.system ['false']", "not a YAML file"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        recipe_file.load(path)
    assert "recipe.yaml" in str(caught.value)


def test_differences_name_the_field() -> None:
    old = RECIPES["small"]()
    new = replace(old, epochs=7, workers=5, masks=replace(old.masks, grid=4))
    assert recipe_file.differences(new, old) == ["epochs: 100 -> 7", "masks.grid: 5 -> 4"]
    assert "masks.source: 'bootstrap' -> 'none'" in recipe_file.differences(RECIPES["small-byol"](), old)


def test_recipes_load_no_torch() -> None:
    code = "import sys, cyborgs.cli, cyborgs.recipes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
