"""torchrun with two processes: it runs through, and the same weights give the same masks as one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.runs import recipe_file
from cyborgs.runs.recipe import Recipe
from tests.conftest import tiny_recipe


def run(processes: int, recipe: Recipe, photos: Path, out: Path, *more: str) -> str:
    path = out.with_suffix(".yaml")
    path.write_text(recipe_file.to_text(recipe))
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    launch += ["--standalone"] if processes > 1 else []
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "cyborgs", "pretrain", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [*command, "--data", str(photos), "--out", str(out), *more],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stderr


def first_masks(out: Path) -> dict[str, bytes]:
    folder = out / "masks" / "generation-0000"
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.slow
def test_two_processes_make_the_masks_and_samples_of_one(photos: Path, tmp_path: Path) -> None:
    base = tiny_recipe(epochs=2)
    assert isinstance(base.method, CyborgsConfig)
    # W = 0: the first masks come from the same random weights in both.
    recipe = replace(base, method=replace(base.method, warmup_epochs=0, refresh_every=0))
    run(1, recipe, photos, tmp_path / "one")
    said = run(2, recipe, photos, tmp_path / "two")
    assert first_masks(tmp_path / "one")
    assert first_masks(tmp_path / "one") == first_masks(tmp_path / "two")
    assert said.count("backbone.safetensors is written") == 1  # one process speaks
    logs = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    steps = [[line for line in log if "loss" in line] for log in logs]
    assert [line["step"] for line in steps[0]] == [line["step"] for line in steps[1]] == [1, 2, 3, 4]
    # The first step has the same samples, weights and statistics; later ones drift apart by rounding.
    assert abs(steps[0][0]["loss"] - steps[1][0]["loss"]) < 1e-4
    said = run(2, recipe, photos, tmp_path / "two", "--resume")
    assert "this run is finished" in said
