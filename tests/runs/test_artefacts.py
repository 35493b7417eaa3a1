"""A run whose crops need boxes, saliency and neighbours: made once, found again, the same however it came about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cyborgs.engine.contract import Stopped
from cyborgs.errors import UserError
from cyborgs.masks.config import SelectiveSearchConfig
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.prepare.artefact import Prepared
from cyborgs.prepare.config import PrepareConfig
from cyborgs.runs.artefacts import made_up, needed
from cyborgs.runs.pretrain import Run, pretrain
from cyborgs.runs.recipe import Recipe
from cyborgs.views.config import Crop, ViewSpec
from cyborgs.views.samplers import AroundBox, Salient
from tests.conftest import tiny_byol
from tests.runs.test_pretrain import StopAt


def recipe(**changes: object) -> Recipe:
    crops = (Crop(sampler=Salient()), Crop(photo="neighbours", sampler=AroundBox()))
    prepared = PrepareConfig(boxes=SelectiveSearchConfig(min_side=8, boxes=6), neighbours=3)
    return tiny_byol(views=ViewSpec(size=32, grid=2, crops=crops), prepare=prepared, epochs=2, **changes)


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.backbone.state_dict().values())


def same(a: Run, b: Run) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import make_photos

    return make_photos(tmp_path_factory.mktemp("photos") / "photos")


def test_what_is_needed() -> None:
    assert needed(recipe()) == ("neighbours", "saliency", "boxes")
    assert needed(tiny_byol()) == ()
    stray = replace(recipe(), views=ViewSpec(size=32, grid=2, crops=(Crop(photo="twins"), Crop())))
    with pytest.raises(UserError, match="'twins' cannot be prepared"):
        needed(stray)
    shapes = made_up(recipe(), 9)
    assert shapes["boxes"][0].shape == (6, 4)
    assert max(shapes["neighbours"][8]) < 9


def test_a_run_with_artefacts(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pretrain(recipe(), data=photos, out=tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a" / "prepared").iterdir()) == [
        "boxes.bin", "neighbours.bin", "saliency.bin"
    ]  # fmt: skip
    near = Prepared(tmp_path / "a" / "prepared" / "neighbours.bin")
    assert all(len(near[i]) == 3 and i not in near[i] for i in range(22))
    with monkeypatch.context() as patch:  # found by every later run, and by loader processes
        for name in ("boxes", "_spectral_residual"):
            patch.setattr(f"cyborgs.prepare.makers.{name}", None)
        second = pretrain(recipe(workers=2), data=photos, out=tmp_path / "b")
    assert same(first, second)
    # Stopped after the first epoch, gone on with.
    from cyborgs.engine.trainer import Trainer

    with monkeypatch.context() as patch:
        step = Trainer._step

        def stopping(self: Trainer, *args: object) -> object:
            if self.progress.step == 2:
                self.stop()
            return step(self, *args)  # type: ignore[arg-type]

        patch.setattr(Trainer, "_step", stopping)
        with pytest.raises(Stopped):
            pretrain(recipe(), data=photos, out=tmp_path / "c")
    third = pretrain(recipe(), data=photos, out=tmp_path / "c", resume=True)
    assert same(first, third)


def stopped_run(recipe: Recipe, photos: Path, out: Path) -> None:
    """A run that was stopped after its second step."""
    with pytest.raises(Stopped):
        pretrain(recipe, data=photos, out=out, callbacks=(StopAt(step=2),))


def test_lost_neighbours_of_given_weights_are_not_made_of_others(photos: Path, tmp_path: Path) -> None:
    pretrain(tiny_byol(epochs=1), data=photos, out=tmp_path / "first")
    init = str(tmp_path / "first" / "backbone.safetensors")
    started = recipe(backbone=replace(tiny_byol().backbone, init=init))
    stopped_run(started, photos, tmp_path / "run")
    (tmp_path / "run" / "prepared" / "neighbours.bin").unlink()
    with pytest.raises(UserError, match=r"neighbours\.bin: is gone or damaged, and was made with weights of --init"):
        pretrain(started, data=photos, out=tmp_path / "run", resume=True)


def test_a_run_goes_on_without_the_saliency_that_it_has(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by a relative path, and gone since; a run that has not begun says that it is missing."""
    (tmp_path / "maps").mkdir()
    for photo in photos.glob("*.png"):
        cv2.imwrite(str(tmp_path / "maps" / photo.name), np.full((8, 8), 200, np.uint8))
    monkeypatch.chdir(tmp_path)
    given = recipe()
    given = replace(given, prepare=replace(given.prepare, saliency="maps"))
    stopped_run(given, photos, tmp_path / "run")
    (tmp_path / "maps").rename(tmp_path / "elsewhere")
    pretrain(given, data=photos, out=tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"prepare\.saliency: .*maps: need a folder"):
        pretrain(given, data=photos, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"refresh": ("neighbours",)}, "method: epoch 1 makes 'neighbours' anew; only masks can be"),
        ({"rides": ("bananas",)}, "method: in epoch 1 'bananas' rides along; need labels or one of its artefacts"),
    ],
)
def test_a_plan_that_asks_for_what_there_is_not(
    plan: dict[str, tuple[str, ...]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ByolConfig.plan
    monkeypatch.setattr(ByolConfig, "plan", lambda self, e: replace(real(self, e), **(plan if e else {})))
    with pytest.raises(UserError, match=message):
        needed(tiny_byol())


def test_auto_micro_batch(photos: Path, tmp_path: Path) -> None:
    run = pretrain(recipe(micro_batch="auto"), data=photos, out=tmp_path / "a")
    assert (tmp_path / "a" / "prepared").is_dir()
    assert run.metrics[0]["micro_batch"] in (2, 4, 8)
