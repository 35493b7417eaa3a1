"""What a recipe says is what is built."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cyborgs.masks.bootstrap import Bootstrap
from cyborgs.runs.build import build_method, build_source
from tests.conftest import tiny_byol, tiny_recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("masks", "short_side", 32),
        ("masks", "position", 0.9),
        ("masks", "group_size", 2),
        ("method", "clusters", (7, 9)),
        ("method", "kmeans_iterations", 1),
    ],
)
def test_each_setting_of_bootstrapping_changes_the_maps(part: str, field: str, value: object):
    recipe = tiny_recipe()
    method = build_method(recipe)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(4)]

    def labels(changed: object) -> list[bytes]:
        source = build_source(replace(recipe, **{part: changed}), method, CPU)
        assert isinstance(source, Bootstrap)
        maps = {}
        for group, members in enumerate(source.groups(4, seed=0, cycle=0)):
            found = source.label([images[i] for i in members], 0, 0, group)
            maps |= {int(i): one.labels.tobytes() for i, one in zip(members, found, strict=True)}
        return [maps[i] for i in range(4)]

    default = getattr(recipe, part)
    before = labels(default)
    assert before == labels(default)
    changed = replace(default, **{field: value})
    if part == "method":
        trained = method.state_dict()
        method = build_method(replace(recipe, method=changed))
        method.load_state_dict(trained)
    assert labels(changed) != before


@pytest.mark.parametrize(("source", "count"), [("grid", 9), ("whole", 1)])
def test_fixed_sources(source: str, count: int):
    recipe = tiny_recipe()
    recipe = replace(recipe, masks=replace(recipe.masks, source=source, grid=3))
    built = build_source(recipe, build_method(recipe), CPU)
    assert built is not None
    assert built.label([np.zeros((8, 8, 3), np.uint8)], 0, 0, 0)[0].labels.size == count


def test_no_source():
    recipe = tiny_byol()
    assert build_source(recipe, build_method(recipe), CPU) is None
