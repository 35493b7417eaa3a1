"""Two processes judge alike: a sickness is said once, and a stop stops both."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cyborgs.health.config import HealthConfig
from cyborgs.runs import recipe_file
from tests.health.test_guard import events, healthy_recipe, lines
from tests.runs.test_pretrain import run as run_alone


@pytest.mark.slow
@pytest.mark.parametrize("action", ["warn", "stop"])
def test_two_processes_say_and_stop_as_one(action: str, photos: Path, tmp_path: Path) -> None:
    recipe = replace(healthy_recipe(4, regions=1), health=HealthConfig(few_regions=action))  # type: ignore[arg-type]
    (tmp_path / "recipe.yaml").write_text(recipe_file.to_text(recipe))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, "-m", "cyborgs", "pretrain", str(tmp_path / "recipe.yaml"), "--data", str(photos), "--out",
         str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert events(tmp_path / "two") == ["few_regions"]
    assert result.stderr.count("Views hold too few regions") == 1
    if action == "stop":
        assert result.returncode != 0
        assert "Stopped at step 5, a checkpoint is written" in result.stderr
        assert (tmp_path / "two" / "checkpoints" / "last").read_text() == "step-000005"
        return
    assert result.returncode == 0, result.stderr
    run_alone(recipe, photos, tmp_path / "one")
    both = [[line for line in lines(tmp_path / name) if "health" in line] for name in ("one", "two")]
    assert both[0] == both[1]  # the figure is the number of regions, which does not depend on rounding
    names = [[line.keys() for line in lines(tmp_path / name)] for name in ("one", "two")]
    assert names[0] == names[1]
