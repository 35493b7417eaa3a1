"""Recipe files of strangers: nothing runs, nothing explodes, and what is wrong is named in one line."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.cli import main
from cyborgs.errors import UserError
from cyborgs.recipes import RECIPES
from cyborgs.runs import recipe_file

ROWS = ["a: &a [x, x, x, x, x, x, x, x, x]"]
ROWS += [
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
]
LAUGHS = "\n".join(ROWS)  # 9 ** 10 words

HOSTILE = {
    "code": ("name: !!python/object/apply:os.system ['touch {mark}']", "line 1"),
    "new object": ("!!python/object/new:os.system ['touch {mark}']", "line 1"),
    "module": ("name: !!python/name:os.system", "line 1"),
    "billion laughs": (f"{LAUGHS}\nname: *j", "no aliases"),
    "laughing method": (f"{LAUGHS}\nmethod: {{{{kind: *j}}}}", "no aliases"),
    "merged keys": ("a: &a {{b: 1}}\n<<: [*a, *a]", "alias"),
    "nested": ("name: " + "[" * 20_000, "nested too deeply"),
    "nested mappings": ("{{" * 4_000, "nested too deeply"),
    "nested lines": ("- " * 30_000, "nested too deeply"),
    "long": ("name: " + "x" * 70_000, "larger than 64 kB"),
    "digits": ("epochs: " + "9" * 5_000, "digits"),
    "bits": ("seed: 0x" + "f" * 20_000, "recipe.seed"),
    "huge number": (
        "epochs: " + "9" * 100,
        "need a number of at most 63 bits, got a number of 333 bits @ recipe.epochs",
    ),
    "processes": ("workers: 1000000000", "workers: need at most 1024"),
    "pixels": ("views: {{size: 320000000}}", "views.size: need at most 4096"),
    "width": ("method: {{kind: byol, hidden: 100000000000}}", "method.hidden"),
    "not a number": ("optimizer: {{lr: .nan}}", "need a finite number, got nan @ recipe.optimizer.lr"),
    "endless": ("optimizer: {{warmup_epochs: .inf}}", "recipe.optimizer.warmup_epochs"),
    "fraction": ("epochs: 1.5", "need a whole number, got 1.5 @ recipe.epochs"),
    "truth": ("epochs: true", "need a whole number, got True @ recipe.epochs"),
    "word for truth": ("deterministic: 'no'", "need true or false, got 'no'"),
    "bytes": ("name: !!binary aGVsbG8=", "need text"),
    "date": ("name: 2001-01-01", "need text"),
    "nothing": ("epochs: null", "recipe.epochs"),
    "list for a section": ("optimizer: [1]", "recipe.optimizer"),
    "list for the method": ("method: [1]", "method: need its kind"),
    "list for its kind": ("method: {{kind: [1]}}", "method.kind"),
    "number as a field": ("1: 2", "a field's name is a word"),
    "twice": ("epochs: 1\nepochs: 2", "'epochs' stands here twice"),
    "escapes": ('"\\e]0;owned\\a\\e[2J": 1', r"extra fields found (\x1b]0;owned\x07\x1b[2J)"),
    "right to left": ('"\\u202Egpj.exe": 1', r"\u202egpj.exe"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, message = HOSTILE[name]
    mark = tmp_path / "ran"
    path = tmp_path / "recipe.yaml"
    path.write_text(text.format(mark=mark) if "{" in text else text, encoding="utf-8")
    start = time.process_time()
    code = main(["pretrain", str(path), "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--dry-run"])
    assert time.process_time() - start < 9
    said = capsys.readouterr().err
    assert code == 1
    assert message in said
    assert "recipe.yaml" in said
    assert said.count("\n") == 1  # one line: no traceback, and nothing that a terminal would obey
    assert said.rstrip("\n").isprintable()
    assert len(said) < 1000
    assert not mark.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", [b"\xff\xfe\0", b"name: a\0b", b"name: \x1b[2J", b"name: 'caf\xe9'"])
def test_bytes_that_are_no_text(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a YAML file") as caught:
        recipe_file.load(path)
    assert str(caught.value).isprintable()


def test_a_recipe_inside_a_checkpoint_is_judged_alike() -> None:
    document = recipe_file.to_dict(RECIPES["small"]())
    assert recipe_file.from_dict(document) == RECIPES["small"]()
    for value in (float("nan"), 10**400, "1", None, [[]], {"a": 1}):
        with pytest.raises(UserError, match=r"recipe\.seed"):
            recipe_file.from_dict({**document, "seed": value})


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("epochs: 30.0\noptimizer: {lr: 1e-3, weight_decay: 1}\n")  # YAML 1.1 takes 1e-3 for a word
    recipe = recipe_file.load(path)
    assert (recipe.epochs, recipe.optimizer.lr, recipe.optimizer.weight_decay) == (30, 0.001, 1.0)
    assert replace(recipe, epochs=800).epochs == 800
