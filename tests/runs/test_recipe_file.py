"""Recipes survive YAML, and wrong ones are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.errors import UserError
from cyborgs.methods.registry import METHODS
from cyborgs.recipes import RECIPES
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.samplers import AroundBox, Overlapping, Salient
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.toy_six.settings import ToySixConfig


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


SIX = ViewSpec(
    size=64,
    grid=4,
    crops=(
        Crop(),
        Crop(sampler=Overlapping(0, share=0.01, of="own", tries=10)),
        Crop(sampler=Salient(share=0.3), grid=8),
        Crop(size=32, sampler=AroundBox(tries=0)),
        Crop(size=32, sampler=AroundBox(like=3, area=(0.4, 2.5))),
        Crop(size=32, photo="neighbours"),
    ),
)


@pytest.fixture
def six(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """Of a method that takes any views."""
    monkeypatch.setitem(METHODS, "toy-six", "tests.methods.toy_six")
    return replace(tiny_byol(), method=ToySixConfig(), views=SIX)


def test_six_crops_with_every_sampler_survive(six: Recipe, tmp_path: Path) -> None:
    recipe = six
    (tmp_path / "recipe.yaml").write_text(recipe_file.to_text(recipe))
    assert recipe_file.load(tmp_path / "recipe.yaml") == recipe
    document = recipe_file.to_dict(recipe)
    assert document["views"]["crops"][4]["sampler"]["kind"] == "around-box"


def test_a_recipe_of_before_there_were_samplers_is_the_same() -> None:
    document = recipe_file.to_dict(tiny_recipe())
    for crop in document["views"]["crops"]:
        for name in ("grid", "photo", "sampler"):
            del crop[name]
    assert recipe_file.from_dict(document) == tiny_recipe()


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("free", "need its kind and settings, got 'free'"),
        ({"share": 0.5}, "kind: need one of free, overlapping, around-box, salient, got None"),
        ({"kind": ["free"]}, "kind: need one of"),
        ({"kind": "salient", "crop": 0}, "crop"),
        ({"kind": "overlapping", "share": 2.0}, "views.crops.sampler.share: need above 0 and at most 1, got 2.0"),
        ({"kind": "overlapping", "crop": 5}, "views.crops.5.sampler.crop: need an earlier crop of the same photo"),
        ({"kind": "around-box", "like": 2}, "views.crops.5.sampler.like: need an earlier crop round a box"),
        ({"kind": "overlapping", "crop": 0}, None),
    ],
)
def test_samplers_of_strangers(six: Recipe, sampler: object, said: str | None) -> None:
    document = recipe_file.to_dict(six)
    document["views"]["crops"][5] |= {"sampler": sampler, "photo": "own"}
    if said is None:
        recipe_file.from_dict(document)
        return
    with pytest.raises(UserError) as caught:
        recipe_file.from_dict(document)
    assert said in str(caught.value)
