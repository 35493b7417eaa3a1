"""``--masks`` and ``--crf``: short for settings of the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyborgs.cli import main, pretrain
from cyborgs.runs.recipe import Recipe


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes with which training would have begun."""
    seen: list[Recipe] = []
    monkeypatch.setattr("cyborgs.api.pretrain", lambda recipe, **_: seen.append(recipe))
    return seen


def ask(*argv: str) -> int:
    return pretrain.run([*argv, "--data", "photos", "--out", "out"])


@pytest.mark.parametrize("name", ["bootstrap", "grid", "whole", "felzenszwalb", "selective-search"])
def test_a_source_by_its_name(name: str, asked: list[Recipe]):
    ask("--masks", name)
    ask(f"--masks={name}")
    ask("--masks.source", name)
    assert asked[0] == asked[1] == asked[2]
    assert asked[0].masks.source == name


def test_none_is_for_methods_without_masks(asked: list[Recipe], capsys: pytest.CaptureFixture[str]):
    assert main(["pretrain", "--data", "photos", "--out", "out", "--masks", "none"]) == 1
    assert "masks.source: this method needs masks, got 'none'" in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize("kind", ["coco:labels/instances.json", "folder:labels"])
def test_annotations(kind: str, asked: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    ask("--masks", kind)
    layout, _, path = kind.partition(":")
    assert asked[0].masks.source == "ground-truth"
    assert asked[0].masks.truth == f"{layout}:{tmp_path / path}"
    ask("--masks", f"{layout}:/elsewhere/x")
    assert asked[1].masks.truth == f"{layout}:/elsewhere/x"
    monkeypatch.setenv("HOME", "/home/somebody")
    ask("--masks", f"{layout}:~/x")
    assert asked[2].masks.truth == f"{layout}:/home/somebody/x"


def test_other_settings_of_the_masks_stay(asked: list[Recipe]):
    ask("--masks", "felzenszwalb", "--masks.felzenszwalb.scale", "50", "--masks.grid", "3")
    assert asked[0].masks.felzenszwalb.scale == 50
    assert asked[0].masks.grid == 3
    assert asked[0].masks.source == "felzenszwalb"


def test_crf(asked: list[Recipe]):
    ask("--crf")
    ask("--masks.crf.enabled")
    ask()
    assert [recipe.masks.crf.enabled for recipe in asked] == [True, True, False]
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--masks", "grid", "--masks.source", "grid"], "--masks and --masks.source say the same thing twice"),
        (["--masks.source=grid", "--masks=grid"], "--masks and --masks.source say the same thing twice"),
        (["--masks", "coco:x.json", "--masks.truth", "coco:y.json"], "--masks and --masks.truth say the same"),
        (["--crf", "--masks.crf.no-enabled"], "--crf and --masks.crf.no-enabled say the same thing twice"),
        (["--masks", "magic"], "--masks magic: no such source. There are: bootstrap, grid, whole, felzenszwalb"),
        (["--masks", ""], "--masks : no such source"),
        (["--masks", "coco:"], "--masks coco:: no such source"),
        (["--masks", "ground-truth"], "annotations as KIND:PATH, for example coco:instances_train2017.json"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_mistakes_are_named(argv: list[str], message: str, asked: list[Recipe], capsys: pytest.CaptureFixture[str]):
    assert main(["pretrain", "--data", "photos", "--out", "out", *argv]) == 1
    assert message in capsys.readouterr().err
    assert asked == []


def test_help_shows_them(capsys: pytest.CaptureFixture[str]):
    assert main(["pretrain", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "--masks STR",
        "--crf Refine",
        "the same as --masks.source",
        "coco:instances.json",
        "--masks.source {bootstrap",
    ):
        assert words in said


def test_resume_takes_up_the_source(asked: list[Recipe], tmp_path: Path):
    from cyborgs.runs import recipe_file
    from tests.conftest import tiny_recipe

    (tmp_path / "recipe.yaml").write_text(recipe_file.to_text(tiny_recipe()))
    command = ["--data", "photos", "--out", str(tmp_path), "--resume", "--masks", "felzenszwalb"]
    pretrain.run(command)
    assert asked[0].masks.source == "felzenszwalb"
    assert asked[0].name == "tiny"
