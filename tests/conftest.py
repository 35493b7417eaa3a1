"""Tiny photos and a tiny recipe that runs in seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cyborgs.engine.optimizer_config import OptimizerConfig
from cyborgs.masks.config import MaskConfig
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.methods.cyborgs.settings import CyborgsConfig
from cyborgs.models.config import BackboneConfig
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import ViewSpec
from tests.no_network import sitecustomize as guard  # from here on this process is guarded


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans are cached in the user's folder: tests have one of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


class Attempts:
    """What the guard refused, here and in processes that a test started."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def take(self) -> list[str]:
        """All since the last call, which are forgotten."""
        lines = self._record.read_text(encoding="utf-8").splitlines() if self._record.exists() else []
        self._record.unlink(missing_ok=True)
        return lines


@pytest.fixture(autouse=True)
def network_attempts(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    """No test leaves this machine, nor do the Pythons that it starts; one that tries fails, even if it catches that."""
    record = tmp_path_factory.mktemp("network") / "attempts"
    monkeypatch.setenv(guard.RECORD, str(record))
    folder, others = str(Path(guard.__file__).parent), os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{others}" if others else folder)
    attempts = Attempts(record)
    yield attempts
    refused = attempts.take()
    assert not refused, f"tried to leave this machine: {'; '.join(refused[:5])}"


def make_photos(folder: Path, count: int = 22, seed: int = 0) -> Path:
    """Smooth random pictures of two sizes, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        height, width = ((48, 64), (56, 40))[i % 2]
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"photo{i:02d}.png"), cv2.resize(coarse, (width, height)))
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def tiny_recipe(**changes: object) -> Recipe:
    """6 epochs of 2 steps; warm-up 1, masks at epochs 1, 2 and 4, loss 2 in every second epoch."""
    base = Recipe(
        name="tiny",
        method=CyborgsConfig(
            warmup_epochs=1,
            refresh_every=2,
            cluster_every=2,
            clusters=(2, 6),
            slice_size=4,
            hidden=16,
            embedding=8,
            kmeans_iterations=5,
            momentum=0.9,
        ),
        backbone=BackboneConfig(name="timm:test_resnet"),
        views=ViewSpec(size=32, grid=2),
        masks=MaskConfig(group_size=4),
        optimizer=OptimizerConfig(lr=0.5, lr_batch=8, warmup_fraction=0.2, schedule="cosine"),
        epochs=6,
        batch_size=8,
        workers=0,
        log_every=1,
        checkpoint_every=100,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def tiny_byol(**changes: object) -> Recipe:
    base = tiny_recipe()
    return replace(
        base, name="tiny-byol", method=ByolConfig(hidden=16, embedding=8), masks=MaskConfig(source="none"), **changes
    )
