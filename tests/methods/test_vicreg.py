"""The worked example of docs/add_a_method.md, installed from outside of the package: the contract, and its loss."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightly.loss import VICRegLoss

from cyborgs.cli.pretrain import run as command
from cyborgs.methods import registry
from cyborgs.recipes.of_method import of_method
from tests.conftest import tiny_byol
from tests.methods.contract import MethodContract
from tests.methods.distributions import install

EXAMPLE = Path(__file__).parents[2] / "examples" / "vicreg"


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As pip would install it: the entry points are those of its pyproject.toml."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    with pytest.MonkeyPatch.context() as patch:
        site = tmp_path_factory.mktemp("site")
        install(site, project["name"], project["entry-points"][registry.GROUP], patch, packages=EXAMPLE)
        settings: Any = registry.settings_of("vicreg")
        TestVicreg.recipe = replace(tiny_byol(epochs=3), name="tiny-vicreg", method=settings(hidden=16))
        yield


class TestVicreg(MethodContract):
    pass


def test_it_is_short() -> None:
    lines = [line.strip() for file in EXAMPLE.rglob("*.py") for line in file.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith(('"""', "#"))]) < 80


def oracle(a: np.ndarray, b: np.ndarray, weights: tuple[float, float, float]) -> float:
    """Eq. 1 to 6 of the paper in loops."""
    count, width = a.shape
    invariance = sum(float(((x - y) ** 2).sum()) for x, y in zip(a, b, strict=True)) / (count * width)
    spread = shared = 0.0
    for z in (a, b):
        mean = [sum(z[i, d] for i in range(count)) / count for d in range(width)]
        for d in range(width):
            for e in range(width):
                c = sum((z[i, d] - mean[d]) * (z[i, e] - mean[e]) for i in range(count)) / (count - 1)
                if d == e:
                    spread += max(0.0, 1 - (c + 1e-4) ** 0.5) / width / 2
                else:
                    shared += c**2 / width
    return weights[0] * invariance + weights[1] * spread + weights[2] * shared


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_the_loss_is_the_papers(weights: tuple[float, float, float]) -> None:
    from cyborgs.runs.build import build_method

    names = ("invariance", "variance", "covariance")
    recipe = TestVicreg.recipe
    config = replace(recipe.method, **dict(zip(names, weights, strict=True)))
    method: Any = build_method(replace(recipe, method=config))
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.7, (6, 5)), rng.normal(0.3, 1.2, (6, 5))
    views = [torch.from_numpy(a), torch.from_numpy(b)]
    loss = float(method.joint_losses(views, [], config.plan(0)).losses["vicreg"])
    assert loss == pytest.approx(oracle(a, b, weights), rel=1e-10)
    assert loss == pytest.approx(float(VICRegLoss(*weights)(*views)), rel=1e-10)


def test_its_name_is_a_recipe(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``cyborgs pretrain vicreg``, without a recipe of its own."""
    recipe = of_method("vicreg")
    assert (recipe.name, recipe.masks.source, recipe.backbone.name) == ("vicreg", "none", "resnet18")
    assert recipe.optimizer == recipe.method.default_optimizer()
    assert recipe.views == recipe.method.default_views()
    more = ["--backbone.name", "timm:test_resnet", "--views.size", "32", "--views.grid", "2", "--method.hidden", "16"]
    more += ["--epochs", "1", "--batch-size", "8", "--workers", "0"]
    assert command(["vicreg", "--data", str(photos), "--out", str(tmp_path / "run"), *more]) == 0
    assert "kind: vicreg" in (tmp_path / "run" / "recipe.yaml").read_text()
