"""One run for each sickness, sick in just this way, and what is said of it; a healthy one of which nothing is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from cyborgs.data.images import ScannedImages
from cyborgs.data.scenes import write_scenes
from cyborgs.engine import clock
from cyborgs.engine.callback import Callback
from cyborgs.engine.contract import LossError, Stopped
from cyborgs.engine.trainer import Trainer
from cyborgs.health import guard
from cyborgs.health.config import HealthConfig
from cyborgs.health.guard import Health, SickRunError
from cyborgs.masks.config import MaskConfig
from cyborgs.masks.source import SourceDefaults, chunks
from cyborgs.methods.byol.settings import ByolConfig
from cyborgs.recipes.demo import demo
from cyborgs.runs import assemble
from cyborgs.runs.recipe import Recipe
from cyborgs.structures import EpochPlan, LabelMap
from cyborgs.views.config import ViewSpec
from tests.conftest import make_photos, tiny_recipe
from tests.runs.test_pretrain import StopAt, results, run


def healthy_recipe(epochs: int = 30, **method: Any) -> Recipe:
    """Tiny as it is, it neither collapses nor runs away: more dimensions and a lower rate than ``tiny_recipe``."""
    base = tiny_recipe(epochs=epochs)
    own = {"hidden": 64, "embedding": 32, "refresh_every": 5} | method
    return replace(base, method=replace(base.method, **own), optimizer=replace(base.optimizer, lr=0.1))


def warm_recipe(epochs: int = 10, **method: Any) -> Recipe:
    """The warm-up alone: loss 2, no masks."""
    return healthy_recipe(epochs, warmup_epochs=epochs, **method)


def byol_recipe(epochs: int = 30) -> Recipe:
    return replace(healthy_recipe(epochs), method=ByolConfig(hidden=64, embedding=32), masks=MaskConfig(source="none"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("health") / "photos")


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def events(out: Path, state: str = "begins") -> list[str]:
    return [line["health"] for line in lines(out) if line.get("state") == state]


class Change(Callback):
    """Does something to the network before the first step, or after every step."""

    def __init__(self, change: Callable[[Any], None], *, always: bool = False, at: int = 0) -> None:
        self.change, self.always, self.at = change, always, at

    def on_epoch(self, trainer: Trainer, plan: EpochPlan) -> None:
        if plan.epoch == self.at:
            with torch.no_grad():
                self.change(trainer.trainable)

    def on_step(self, trainer: Trainer) -> None:
        if self.always:
            with torch.no_grad():
                self.change(trainer.trainable)


def nearly_constant(method: nn.Module) -> None:
    """Predictions differ by a thousandth; gradients pass."""
    method.predictor.register_forward_hook(lambda m, i, output: 1 + 1e-3 * output)  # type: ignore[union-attr,operator]


def silence_channels(method: nn.Module) -> None:
    for module in method.backbone.modules():  # type: ignore[union-attr]
        if isinstance(module, nn.BatchNorm2d):
            module.weight[::2] = 0


def scale_gradients(factor: float) -> Callable[[nn.Module], None]:
    """LARS's updates of weights do not depend on it, and others are spared large ones: nothing else becomes sick."""

    def change(method: nn.Module) -> None:
        for parameter in method.parameters():
            if parameter.requires_grad and (parameter.dim() > 1 or factor < 1):
                parameter.register_hook(lambda g: g * factor)

    return change


def clustered_maps(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module], None]:
    """Replace the clustered layer's maps (b, D, h, w) of both networks by ``make`` of them."""

    def change(method: Any) -> None:
        for backbone in (method.backbone, method.target_backbone):
            original = backbone.forward

            def forward(x: torch.Tensor, layers: Sequence[str], f: Any = original) -> dict[str, torch.Tensor]:
                return {name: make(y) for name, y in f(x, layers).items()}

            backbone.forward = forward

    return change


def only_eight_points(y: torch.Tensor) -> torch.Tensor:
    """Each pixel becomes one of K directions, a hair of itself left so that gradients pass."""
    which = y[:, :8].argmax(dim=1)
    points = torch.eye(8).repeat(1, y.shape[1] // 8 + 1)[:, : y.shape[1]]
    return points[which].permute(0, 3, 1, 2) + 1e-4 * y


def one_background(y: torch.Tensor) -> torch.Tensor:
    """All pixels the same but two of an image."""
    same = torch.ones_like(y)
    same[:, :, 0, :2] = y[:, :, 0, :2] - y[:, :, 0, :2].mean(dim=1, keepdim=True)
    return same + 1e-6 * y.mean(dim=(2, 3), keepdim=True)


class Labels(SourceDefaults):
    """A source of masks that gives what it is told."""

    name, void, needs_images = "bootstrap", None, False

    def __init__(self, make: Callable[[int, int], np.ndarray]) -> None:
        self.make = make

    def groups(self, count: int, seed: int, cycle: int) -> list[np.ndarray]:
        return chunks(count)

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def label(self, images: Sequence[np.ndarray], seed: int, cycle: int, group: int) -> list[LabelMap]:
        return [LabelMap(self.make(cycle, number)) for number in range(len(images))]


def one_label(cycle: int, number: int) -> np.ndarray:
    return np.zeros((6, 8), np.uint8)


def noise(cycle: int, number: int) -> np.ndarray:
    return np.random.default_rng((cycle, number)).integers(0, 4, (6, 8), dtype=np.uint8)


def test_a_healthy_run_of_30_epochs_raises_nothing(pictures: Path, tmp_path: Path) -> None:
    said = run(healthy_recipe(), pictures, tmp_path / "run")
    assert events(tmp_path / "run") == []
    steps = [line for line in lines(tmp_path / "run") if "loss" in line]
    assert len(steps) == 60
    wanted = {"embed/std_online", "embed/rank_target", "batchnorm/dead", "gradient/norm", "update/ratio"}
    assert wanted | {"contrast/matched_share"} <= steps[-1].keys()
    assert {"cluster/rank", "cluster/largest_share", "cluster/own_cosine"} <= steps[0].keys()
    refreshes = [line for line in lines(tmp_path / "run") if "refresh" in line]
    assert {"masks/regions", "masks/entropy", "masks/one_label_share", "masks/used_clusters"} <= refreshes[0].keys()
    assert "masks/stability" not in refreshes[0]
    assert all(0 < line["masks/stability"] < 1 for line in refreshes[1:])
    assert "since step" not in said


def test_a_healthy_byol_of_30_epochs_raises_nothing(pictures: Path, tmp_path: Path) -> None:
    run(byol_recipe(), pictures, tmp_path / "run")
    assert events(tmp_path / "run") == []
    assert {"embed/std_online", "embed/rank_target", "update/ratio"} <= lines(tmp_path / "run")[-1].keys()


@pytest.mark.slow
def test_the_demo_of_30_epochs_raises_nothing(tmp_path: Path) -> None:
    made = write_scenes(tmp_path / "scenes", 64, 0)
    run(replace(demo(), epochs=30, workers=0, log_every=1), made.photos, tmp_path / "run")
    assert events(tmp_path / "run") == []


def out_of_line(lr: float) -> Recipe:
    base = healthy_recipe(6)
    return replace(base, optimizer=replace(base.optimizer, lr=lr))


def with_grid(n: int, area: tuple[float, float]) -> Recipe:
    base = healthy_recipe(6)
    crops = tuple(replace(crop, area=area) for crop in base.views.crops)
    return replace(base, masks=replace(base.masks, source="grid", grid=n), views=replace(base.views, crops=crops))


SICK: dict[str, tuple[Recipe, tuple[Callback, ...], set[str]]] = {
    "collapsed_embeddings": (healthy_recipe(6), (Change(nearly_constant),), set()),
    "collapsed embeddings of byol": (byol_recipe(6), (Change(nearly_constant),), {"collapsed_embeddings"}),
    "dead_batchnorm": (healthy_recipe(6), (Change(silence_channels, always=True),), set()),
    "vanishing_gradients": (healthy_recipe(14), (Change(scale_gradients(1e-5), at=11),), set()),
    "exploding_gradients": (healthy_recipe(14), (Change(scale_gradients(1e5), at=11),), set()),
    "learning_rate": (out_of_line(1e-6), (), set()),
    "few_regions": (healthy_recipe(6, regions=1), (), set()),
    "few_matches": (with_grid(15, (0.01, 0.012)), (), set()),
    "stalled_clustering": (warm_recipe(kappa=0.001), (), set()),
    "stalled by a low rate": (
        replace(warm_recipe(), optimizer=replace(warm_recipe().optimizer, lr=1e-4)),
        (),
        {"stalled_clustering"},
    ),
    "collapsed_features": (warm_recipe(), (Change(clustered_maps(only_eight_points)),), set()),
    "giant_cluster": (replace(warm_recipe(), views=ViewSpec(64, 2)), (Change(clustered_maps(one_background)),), set()),
}


@pytest.mark.parametrize("name", SICK)
def test_each_sickness_is_named_and_no_other(name: str, pictures: Path, tmp_path: Path) -> None:
    recipe, callbacks, expected = SICK[name]
    said = run(recipe, pictures, tmp_path / "run", callbacks=callbacks)
    expected = expected or {name}
    assert set(events(tmp_path / "run")) == expected
    begun = [line for line in lines(tmp_path / "run") if line.get("state") == "begins"]
    assert len(begun) == len(expected)  # said once
    for line in begun:
        assert said.count(line["sentence"]) == 1
        assert line["figure"] in line["sentence"]
        assert any(other.get(line["figure"]) == line["value"] for other in lines(tmp_path / "run") if "loss" in other)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(one_label, {"collapsed_masks", "few_regions"}), (noise, {"unstable_masks"})],  # one label is one region
    ids=["collapsed", "unstable"],
)
def test_sick_masks(
    make: Any, expected: set[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assemble, "build_source", lambda *_: Labels(make))
    run(healthy_recipe(12), pictures, tmp_path / "run")
    assert set(events(tmp_path / "run")) == expected


def test_flat_photos(tmp_path: Path) -> None:
    """Nothing to tell apart: regions are few, whatever else there is."""
    (tmp_path / "photos").mkdir()
    for i in range(16):
        cv2.imwrite(str(tmp_path / "photos" / f"{i}.png"), np.full((48, 64, 3), 128, np.uint8))
    run(healthy_recipe(12), tmp_path / "photos", tmp_path / "run")
    assert "few_regions" in events(tmp_path / "run")


def test_a_rate_far_too_high(pictures: Path, tmp_path: Path) -> None:
    """It spoils more than one thing; that it is the rate is among what is said."""
    run(out_of_line(30.0), pictures, tmp_path / "run")
    assert "learning_rate" in events(tmp_path / "run")


class Tick:
    """A clock that moves when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a_starved_loader_is_said_but_changes_no_result(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(byol_recipe(4), pictures, tmp_path / "quick")
    tick, read = Tick(), ScannedImages.read
    monkeypatch.setattr(clock, "time", tick)

    def slow(self: ScannedImages, i: int) -> Any:
        tick.now += 1.0
        return read(self, i)

    monkeypatch.setattr(ScannedImages, "read", slow)
    said = run(byol_recipe(4), pictures, tmp_path / "slow")
    assert said.count("waiting for photos (since step 1: seconds_waiting / seconds is 1)") == 1
    assert results(tmp_path / "slow") == results(tmp_path / "quick")
    recipe = replace(byol_recipe(4), health=HealthConfig(starved_loader="ignore"))
    assert "waiting for photos" not in run(recipe, pictures, tmp_path / "ignored")
    with pytest.raises(SickRunError, match="Stopped at step 3"):
        run(replace(byol_recipe(4), health=HealthConfig(starved_loader="stop")), pictures, tmp_path / "stopped")


def test_what_begins_ends(pictures: Path, tmp_path: Path) -> None:
    """The gradient comes back: said once each, three readings after it changed."""
    big = {"on": False}

    class Burst(Callback):
        def on_epoch(self, trainer: Trainer, plan: EpochPlan) -> None:
            if plan.epoch == 0:
                for p in trainer.trainable.parameters():
                    if p.requires_grad and p.dim() > 1:
                        p.register_hook(lambda g: g * (1e5 if big["on"] else 1.0))
            big["on"] = 5 <= plan.epoch < 8

    said = run(byol_recipe(12), pictures, tmp_path / "run", callbacks=(Burst(),))
    found = [(line["health"], line["state"], line["step"]) for line in lines(tmp_path / "run") if "health" in line]
    assert found == [("exploding_gradients", "begins", 13), ("exploding_gradients", "ends", 19)]
    assert "The gradient has exploded (since step 11" in said
    assert "Over at step 19: the gradient has exploded" in said


def test_what_is_said_is_the_same_when_resumed(pictures: Path, tmp_path: Path) -> None:
    recipe = healthy_recipe(6, regions=1)
    run(recipe, pictures, tmp_path / "whole")
    begins = next(line["step"] for line in lines(tmp_path / "whole") if line.get("health") == "few_regions")
    for step in (begins - 1, begins, begins + 1):  # before it was said, as it was, and after
        out = tmp_path / f"stopped{step}"
        with pytest.raises(Stopped):
            run(recipe, pictures, out, callbacks=(StopAt(step=step),))
        run(recipe, pictures, out, resume=True)
        assert results(out) == results(tmp_path / "whole")


def test_stop_writes_a_checkpoint_and_warn_goes_on(pictures: Path, tmp_path: Path) -> None:
    recipe = healthy_recipe(6, regions=1)
    stopping = replace(recipe, health=HealthConfig(few_regions="stop"))
    with pytest.raises(SickRunError, match=r"few_regions since step 3 .*--resume --health.few-regions warn") as error:
        run(stopping, pictures, tmp_path / "run")
    assert "Stopped at step 5, a checkpoint is written" in str(error.value)
    assert (tmp_path / "run" / "checkpoints" / "last").read_text() == "step-000005"
    with pytest.raises(SickRunError, match="Stopped at step 6"):
        run(stopping, pictures, tmp_path / "run", resume=True)
    run(recipe, pictures, tmp_path / "run", resume=True)
    run(recipe, pictures, tmp_path / "whole")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def test_a_refresh_can_stop_too(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "build_source", lambda *_: Labels(one_label))
    recipe = replace(healthy_recipe(6), health=HealthConfig(collapsed_masks="stop"))
    with pytest.raises(SickRunError, match="Stopped at step 3, a checkpoint is written: collapsed_masks since step 2"):
        run(recipe, pictures, tmp_path / "run")


def test_ignore_says_nothing_and_measures_all_the_same(pictures: Path, tmp_path: Path) -> None:
    recipe = replace(healthy_recipe(6, regions=1), health=HealthConfig(few_regions="ignore"))
    run(recipe, pictures, tmp_path / "run")
    assert events(tmp_path / "run") == []
    assert lines(tmp_path / "run")[-1]["contrast/regions"] == 1


class Spoil(Callback):
    """Makes the output, or the gradient, of one layer infinite from a step on."""

    def __init__(self, what: str, after: int) -> None:
        self.what, self.after, self.on = what, after, False

    def on_epoch(self, trainer: Trainer, plan: EpochPlan) -> None:
        layer: Any = trainer.trainable.projector.norm  # type: ignore[union-attr]
        if plan.epoch == 0 and self.what == "output":
            layer.register_forward_hook(lambda m, i, output: output * (float("inf") if self.on else 1.0))
        if plan.epoch == 0 and self.what == "gradient":
            layer.weight.register_hook(lambda g: g * (float("inf") if self.on else 1.0))

    def on_step(self, trainer: Trainer) -> None:
        self.on = trainer.progress.step >= self.after


@pytest.mark.parametrize("log_every", [1, 100])
def test_the_first_output_that_is_not_finite_is_named(log_every: int, pictures: Path, tmp_path: Path) -> None:
    recipe = replace(byol_recipe(6), log_every=log_every)
    with pytest.raises(LossError) as error:
        run(recipe, pictures, tmp_path / "run", callbacks=(Spoil("output", after=4),))
    assert "loss/byol is nan at step 5 (epoch 2)" in str(error.value)
    assert "first output that is not finite is that of projector.norm (BatchNorm)" in str(error.value)


def test_the_first_gradient_that_is_not_finite_is_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(LossError) as error:
        run(byol_recipe(6), pictures, tmp_path / "run", callbacks=(Spoil("gradient", after=4),))
    assert str(error.value).startswith("gradient/norm is")
    assert "at step 5" in str(error.value)
    assert "the first gradient that is not is that of projector.norm.weight" in str(error.value)


def test_where_looking_costs_the_first_step_is_named_at_the_next_logged_one(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "looking_is_free", lambda device: False)
    recipe = replace(byol_recipe(8), log_every=8)
    with pytest.raises(LossError) as error:
        run(recipe, pictures, tmp_path / "run", callbacks=(Spoil("output", after=4),))
    assert "loss/byol is nan at step 5" in str(error.value)
    assert "not finite before the step began, so an earlier update spoilt them" in str(error.value)


def byol_guard(out: Path) -> Health:
    recipe = byol_recipe()
    return Health(
        recipe.health, recipe.method, recipe.masks, peak_rate=recipe.peak_rate, seed=recipe.seed, out=out, count=22
    )


def test_not_finite_can_be_said_alone(pictures: Path, tmp_path: Path) -> None:
    recipe = replace(byol_recipe(6), health=HealthConfig(not_finite="warn"))
    with pytest.raises(LossError, match="weights are not finite after step 12"):  # which are never saved
        run(recipe, pictures, tmp_path / "run", callbacks=(Spoil("output", after=4),))
    assert events(tmp_path / "run") == ["not_finite"]
    assert [line["step"] for line in lines(tmp_path / "run") if "lr" in line] == list(range(1, 13))
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_unlogged_steps_ask_nothing_of_the_device(tmp_path: Path) -> None:
    """Tensors without values: reading one raises."""
    guard = byol_guard(tmp_path)
    values = {name: torch.zeros((), device="meta") for name in ("loss", "loss/byol", "embed/x")}

    class Place:
        class progress:  # noqa: N801
            step = 0

    plan = EpochPlan(0, (), {"byol": 1.0})
    for _ in range(3):
        guard.on_gradients(Place(), plan, (), values, False)  # type: ignore[arg-type]
    with pytest.raises((RuntimeError, NotImplementedError)):
        guard.on_gradients(Place(), plan, (), values, True)  # type: ignore[arg-type]


def test_all_that_is_remembered_is_in_the_state(tmp_path: Path) -> None:
    first, second = (byol_guard(tmp_path) for _ in range(2))
    said: list[dict[str, Any]] = []

    class Quiet:
        times: ClassVar = {"seconds": 1.0, "seconds_waiting": 0.0}
        fabric = type("F", (), {"device": torch.device("cpu")})
        progress = type("P", (), {"step": 5})
        log = type("L", (), {"write": staticmethod(said.append), "say": staticmethod(lambda text: None)})

    figures = {"lr": 0.1, "gradient/norm": 2.0, "embed/rank_online": 9.0, "cluster/intra_over_log_k": 0.7}
    for rank in (9.0, 0.5, 0.5, 0.5):
        first.on_log(Quiet(), EpochPlan(0, (), {"byol": 1.0}), figures | {"embed/rank_online": rank})  # type: ignore[arg-type]
    assert [line["health"] for line in said] == ["collapsed_embeddings"]
    state = first.state_dict()
    assert {"norms", "ranks", "phase", "first", "recent", "seen", "episodes"} == state.keys()
    assert all(state.values())
    second.load_state_dict(json.loads(json.dumps(state)))
    assert second.state_dict() == state
