"""The names that other people's code calls."""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

import cyborgs
from tests.conftest import tiny_recipe


def parameters(function: object) -> dict[str, object]:
    return {
        name: p.default if p.default is not inspect.Parameter.empty else ...
        for name, p in inspect.signature(function).parameters.items()  # type: ignore[arg-type]
    }


def test_signatures() -> None:
    kmeans = parameters(cyborgs.ops.spherical_kmeans)
    assert list(kmeans)[:4] == ["x", "k", "iterations", "seed"]
    assert (kmeans["iterations"], kmeans["seed"]) == (20, 0)
    assert list(parameters(cyborgs.ops.region_pool))[:3] == ["features", "labels", "ids"]
    contrast = parameters(cyborgs.losses.mask_contrastive_loss)
    names = ["pred1", "pred2", "target1", "target2", "ids1", "ids2", "valid1", "valid2", "temperature"]
    assert list(contrast)[:9] == names
    assert (contrast["valid1"], contrast["temperature"]) == (None, 0.1)
    assert list(parameters(cyborgs.losses.vmf_distance))[:4] == ["y", "assignment", "prototypes", "kappa"]
    cluster = parameters(cyborgs.losses.vmf_cluster_loss)
    names = ["y1", "y2", "assign1", "assign2", "prototypes1", "prototypes2", "geometry1", "geometry2", "kappa"]
    assert list(cluster)[:9] == names
    assert (cluster["kappa"], cluster["alignment"]) == (10.0, "overlap")
    lars = parameters(cyborgs.engine.LARS)
    assert list(lars)[:5] == ["params", "lr", "momentum", "weight_decay", "trust_coefficient"]
    assert (lars["momentum"], lars["weight_decay"], lars["trust_coefficient"]) == (0.9, 0.0, 0.001)
    assert list(parameters(cyborgs.pretrain))[:4] == ["recipe", "data", "out", "resume"]
    fields = list(parameters(cyborgs.ViewGeometry))
    assert fields == ["y0", "x0", "h", "w", "flip", "image_h", "image_w"]


def test_from_python(photos: Path, tmp_path: Path) -> None:
    run = cyborgs.pretrain(tiny_recipe(epochs=2), data=photos, out=tmp_path / "run")
    assert run.folder == tmp_path / "run"
    assert run.metrics[0]["phase"] == "warm-up"
    maps = run.backbone(torch.zeros(2, 3, 64, 96))
    assert {name: tuple(m.shape[2:]) for name, m in maps.items()} == {
        "layer2": (8, 12),
        "layer3": (4, 6),
        "layer4": (2, 3),
    }
    again = cyborgs.load_backbone(run.folder / "backbone.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(run.backbone.weights().values(), again.weights().values(), strict=True)
    )
    store = cyborgs.MaskStore(run.folder)
    assert len(store) == 22
    assert store[0].dtype == "uint8"


def test_recipes_by_name() -> None:
    assert sorted(cyborgs.RECIPES) == ["cyborgs-coco", "demo", "small", "small-byol"]
    assert cyborgs.RECIPES["small"]() == cyborgs.RECIPES["small"]()
