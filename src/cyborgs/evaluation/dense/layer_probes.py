"""``cyborgs evaluate --train --val``: several layers of a frozen backbone, each probed on lists of labelled photos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from cyborgs.engine.log import moving
from cyborgs.evaluation.dense.linear import ProbeResult, linear_segmentation
from cyborgs.evaluation.sets.labelled import read_list
from cyborgs.models.backbone import Backbone
from cyborgs.models.weights import load_backbone
from cyborgs.seeds import derive


def random_like(backbone: Backbone, seed: int = 0) -> Backbone:
    """The same architecture with random weights, in eval mode."""
    torch.manual_seed(derive(seed, "weights"))
    return Backbone(replace(backbone.config, init=""), backbone.layers).eval()


def evaluate(
    backbone: str | Path,
    *,
    train: str | Path,
    val: str | Path,
    classes: int,
    ignore: int | None = 255,
    layers: Sequence[str] = (),
    seeds: int = 1,
    random_baseline: bool = True,
    out: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Linear segmentation of frozen maps: a probe for each layer alone and one for all together.

    Args:
        backbone: a run's folder or a backbone.safetensors.
        train: list of 'image label' lines that the probes learn from.
        val: list of 'image label' lines that they are measured on.
        classes: labels 0 to ``classes - 1``.
        ignore: label that does not count.
        layers: what is probed; none: the first and last of the fused layers, and all of them together.
        seeds: probes with other orders of the photos.
        random_baseline: probe random weights of the same architecture too.
        out: JSON file for the figures.

    Raises:
        UserError: the input is at fault; says what to do.
    """
    pretrained = load_backbone(backbone)
    fused = pretrained.default_layers()
    probes = [[name] for name in layers] or [[fused[0]], [fused[-1]]]
    together = list(layers) if layers else list(fused)
    if len(together) > 1:
        probes.append(together)
    sets = [read_list(path, classes=classes, ignore=ignore) for path in (train, val)]
    networks = {"pretrained": pretrained} | ({"random": random_like(pretrained)} if random_baseline else {})
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        with moving(f"{name} weights") as progress:
            found = linear_segmentation(network, *sets, layers=probes, seeds=range(seeds), progress=progress)
        rows += [{"weights": name, **result.as_dict()} for result in found]
        _print_probes(name, found)
    if out is not None:
        Path(out).write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def _print_probes(name: str, results: Sequence[ProbeResult]) -> None:
    for layers in dict.fromkeys(r.layers for r in results):
        scores = [r.miou for r in results if r.layers == layers]
        spread = f" +- {stdev(scores):.4f} ({len(scores)} seeds)" if len(scores) > 1 else ""
        print(f"{name:<11} {'+'.join(layers):<24} mIoU {mean(scores):.4f}{spread}")
