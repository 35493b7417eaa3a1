"""Advice is given where it should be, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cyborgs.forecast.suitability import advise, advise_cost
from cyborgs.machine.cores import Machine
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.recipes import RECIPES
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import ViewSpec

MACHINE = Machine(cores=8)


def photos(count: int, height: int = 480, width: int = 640) -> np.ndarray:
    return np.array([[height, width]] * count)


def coco(**changes: object) -> Recipe:
    return replace(RECIPES["cyborgs-coco"](), **changes)


def method(**changes: object) -> CyborgsConfig:
    return replace(CyborgsConfig(), **changes)  # type: ignore[arg-type]


def test_the_papers_run_on_its_photos_needs_no_advice() -> None:
    assert advise(coco(), photos(118_287), MACHINE) == []


FEW = photos(270)  # 4 steps an epoch
CASES = [
    (coco(), FEW, "Masks are refreshed after 400 steps; in the paper after 184,800"),
    (coco(epochs=60), FEW, "Masks are made once, at epoch 5, and never again in 60 epochs"),
    (coco(epochs=60, masks=MaskConfig(source="grid")), FEW, None),
    (coco(method=method(refresh_steps=400)), FEW, None),
    (coco(epochs=5), FEW, "All 5 epochs are warm-up"),
    (coco(), photos(2700), "warm-up of 210 steps lies inside the learning rate's own warm-up of 420 steps"),
    (coco(views=ViewSpec(64, 2)), photos(118_287), "At most 4 of the 16 slots"),
    (coco(masks=MaskConfig(source="grid", grid=3)), photos(118_287), "At most 9 of the 16 slots"),
    (coco(method=method(clusters=(2, 8))), photos(118_287), "the masks have 8 regions"),
    (coco(), photos(118_287, 120, 160), "short side below 120 pixels"),
    (coco(), photos(118_287, 3000, 4000), "12 megapixels"),
    (coco(), photos(118_287, 3000, 4000), "Give --masks.short-side"),
    (coco(masks=MaskConfig(short_side=480)), photos(118_287, 3000, 4000), "short side of 480"),
    (coco(), FEW, "A batch of 64 is more than a tenth of the 270 photos"),
    (coco(), photos(127), "Each epoch leaves out 63 of the 127 photos"),
    (coco(workers=9), photos(118_287), "9 loader processes share 8 cores"),
    (coco(workers=8), photos(118_287), None),
]


@pytest.mark.parametrize(("recipe", "sizes", "text"), CASES)
def test_each_sentence(recipe: Recipe, sizes: np.ndarray, text: str | None) -> None:
    found = advise(recipe, sizes, MACHINE)
    if text is None:
        assert not any(s.startswith(("Masks", "8 loader")) for s in found)
    else:
        assert any(text in sentence for sentence in found), found


def test_bf16() -> None:
    recipe = coco(precision="bf16-mixed")
    assert advise(recipe, photos(118_287), Machine(8)) == []
    (cpu,) = advise(recipe, photos(118_287), Machine(8, bf16=False))
    assert "This CPU has no bf16" in cpu
    (gpu,) = advise(recipe, photos(118_287), Machine(8, gpu=True, bf16=False))
    assert "This GPU has no bf16" in gpu


def test_a_warm_up_beyond_the_rates_own_is_fine() -> None:
    base = coco()
    recipe = replace(base, optimizer=replace(base.optimizer, warmup_epochs=1))
    assert not any("warm-up of" in s for s in advise(recipe, photos(2700), MACHINE))


def test_other_methods_hear_nothing_of_masks() -> None:
    found = advise(RECIPES["small-byol"](), photos(2000), MACHINE)
    assert found == []


def test_cost() -> None:
    assert advise_cost(86_400, 10, 20) == []
    (slow,) = advise_cost(20 * 86_400, 10, 20)
    assert "20 days" in slow
    (large,) = advise_cost(1, 19_000_000_000, 20_000_000_000)
    assert "19.0 GB of memory" in large
    assert "20.0 GB" in large


def test_it_loads_no_torch() -> None:
    code = "import sys, cyborgs.forecast.suitability; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
