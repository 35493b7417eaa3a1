"""Figures of a step against plain numpy; absent where they are not asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cyborgs.methods.figures import cluster_figures, embedding_figures
from cyborgs.runs.build import build_method
from cyborgs.structures import EpochPlan, StepSeed
from tests.conftest import tiny_byol, tiny_recipe
from tests.methods.contract import make_batch
from tests.ops.test_spectrum import deviation_oracle, rank_oracle

BOTH = EpochPlan(2, (), {"contrast": 1.0, "cluster": 0.1})


def test_only_valid_regions_of_both_views_count() -> None:
    torch.manual_seed(0)
    online, target = torch.randn(2, 4, 3, 6), torch.randn(2, 4, 3, 6)
    valid = torch.rand(2, 4, 3) < 0.6
    online[~valid] = 1e6
    found = embedding_figures(list(online), list(target), list(valid))
    for name, x in (("online", online[valid]), ("target", target[valid])):
        rows = x.double().numpy()
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        assert float(found[f"embed/std_{name}"]) == pytest.approx(deviation_oracle(rows), rel=1e-5)
        assert float(found[f"embed/rank_{name}"]) == pytest.approx(rank_oracle(unit), rel=1e-4)


def test_one_region_is_not_defined() -> None:
    valid = torch.zeros(2, 1, 3, dtype=torch.bool)
    valid[0, 0, 1] = True
    found = embedding_figures(list(torch.randn(2, 1, 3, 4)), list(torch.randn(2, 1, 3, 4)), list(valid))
    assert all(torch.isnan(value) for value in found.values())


def test_clusters_by_numpy() -> None:
    rng = np.random.default_rng(1)
    maps = rng.normal(size=(3, 5, 4, 2)) + 0.5
    labels = rng.integers(0, 3, (3, 4, 2))
    labels[0] = 1
    prototypes = rng.normal(size=(4, 5))
    found = cluster_figures(torch.tensor(maps).float(), torch.tensor(labels), torch.tensor(prototypes).float())
    rows = maps.transpose(0, 2, 3, 1).reshape(-1, 5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    own = prototypes[labels.ravel()]
    shares = np.bincount(labels.ravel(), minlength=4) / labels.size
    entropy = -(shares[shares > 0] * np.log(shares[shares > 0])).sum()
    expected = {
        "cluster/k": 4.0,
        "cluster/rank": rank_oracle(rows),
        "cluster/pixel_cosine": (rows @ rows.T).mean(),
        "cluster/own_cosine": ((rows * own).sum(axis=1) / np.linalg.norm(own, axis=1)).mean(),
        "cluster/largest_share": shares.max(),
        "cluster/perplexity_over_k": np.exp(entropy) / 4,
        "cluster/top_label_share": np.mean([np.bincount(image.ravel()).max() / 8 for image in labels]),
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("recipe", [tiny_recipe(), tiny_byol()], ids=["cyborgs", "byol"])
def test_figures_that_cost_are_of_logged_steps_alone(recipe, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from cyborgs.methods.byol import method as byol
    from cyborgs.methods.cyborgs import method as cyborgs

    calls: list[str] = []
    for module in (byol, cyborgs):
        for name in ("embedding_figures", "cluster_figures"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_, name=name: calls.append(name) or {})
    method = build_method(recipe).train()
    plan = BOTH if recipe.name == "tiny" else EpochPlan(0, (), {"byol": 1.0})
    method.training_step(make_batch(8), plan, StepSeed(0, 2, 0))
    assert calls == []
    method.training_step(make_batch(8), plan, StepSeed(0, 2, 0), measure=True)
    assert calls == (["embedding_figures", "cluster_figures"] if recipe.name == "tiny" else ["embedding_figures"])


def test_figures_change_neither_losses_nor_gradients() -> None:
    recipe = replace(tiny_recipe(), method=replace(tiny_recipe().method, slice_size=4))
    found = []
    for measure in (False, True):
        method = build_method(recipe).train()
        output = method.training_step(make_batch(8), BOTH, StepSeed(0, 2, 0), measure=measure)
        sum(output.losses.values()).backward()  # type: ignore[union-attr]
        for figure in output.metrics.values():
            assert figure.ndim == 0
            assert not figure.requires_grad
        found.append((output.losses, [p.grad for p in method.parameters() if p.grad is not None]))
    assert all(torch.equal(a, found[1][0][name]) for name, a in found[0][0].items())
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
